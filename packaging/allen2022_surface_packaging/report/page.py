"""A report of a release: one HTML file that needs nothing else, made from the release alone."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly
from jinja2 import Environment, PackageLoader, StrictUndefined

from brainscore_allen2022_surface.ceiling import N_SPLITS, internal_consistency

from ..build.assembly import NEUROID_COORDINATES
from ..errors import PackagingError
from ..nsd.files import HEMISPHERES, N_VERTICES_OF_FSAVERAGE, subject_name
from ..nsd.regions import REGIONS
from ..nsd.trials import N_REPETITIONS
from ..progress import follow
from ..release import MANIFEST, NAMES, SPLITS, assembly_file, read_manifest, sha1_of
from .figures import (
    REGION_COLOURS,
    SHARED_COLOUR,
    VIEWS,
    Picture,
    colour_scale,
    cortical_map,
    noise_ceiling_distributions,
    region_map,
    split_half_against_noise_ceiling,
    split_overview,
    thumbnail,
)

logger = logging.getLogger(__name__)

REPORT = "report.html"
N_THUMBNAILS = 800  # per split: all of NSD's images, and still a page of a few megabytes if there were more
REPETITION_PAIRS = tuple(combinations(range(N_REPETITIONS), 2))
HEMISPHERE_NAMES = dict(zip(HEMISPHERES, ("left", "right"), strict=True))
SHARED_CODE = len(REGIONS)
EVERY_SUBJECT = "all"
MISSING = "–"

OPTION_MEANINGS = {
    ("standardize_on", "all"): "each vertex is standardised over the averages of all complete images",
    ("standardize_on", "train"): "each vertex is standardised over the averages of the train images alone",
    ("nan_policy", "zero"): "invalid values are 0",
    ("nan_policy", "drop"): "vertices with any invalid needed trial are left out",
    ("image_format", "png"): "images are PNG, lossless, unless they were copied from an earlier packaging",
    ("image_format", "jpg"): "images are JPEG of quality 95, lossy",
    ("from_region_assemblies", "True"): "averages come from prepared region assemblies, repetitions from the betas",
    ("from_region_assemblies", "False"): "averages and repetitions come from the single-trial betas",
}


@dataclass(frozen=True)
class Table:
    """A table of the page: `rows` are texts, the first `n_heads` of each name the row; `totals` are set apart."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    totals: Sequence[Sequence[str]] = ()
    n_heads: int = 1


def write_report(release_path: Path) -> Path:
    """Write `report.html` into a release, in place of the one that may be there; return its path.

    A region of one subject is read at a time. The same release gives the same bytes.

    Raises
    ------
    PackagingError
        If the folder is not a release, or a file of it is missing or damaged.
    """
    manifest = read_manifest(release_path)
    _require_files(release_path, manifest["files"])
    try:
        page = _page(release_path, manifest)
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise PackagingError(
            f"{release_path} cannot be reported on ({type(error).__name__}: {' '.join(str(error).split())}). "
            f"`allen2022-surface verify {release_path}` tells what is wrong with it."
        ) from error
    path = release_path / REPORT
    path.write_bytes(page.encode())
    logger.info("%s: %.1f MB", path, path.stat().st_size / 1e6)
    return path


def read_neuroids(release_path: Path, manifest: dict[str, Any]) -> tuple[pd.DataFrame, np.ndarray]:
    """Read the neuroids of a release and measure how far their test repetitions agree.

    Returns
    -------
    table with a row per neuroid and its coordinates, ``split_half`` (the median over splits of its split-half ceilings)
        and ``repetitions_0_1``, ``_0_2``, ``_1_2`` (the correlations of two repetitions over images), all unitless; NaN
        where responses are constant.
    array of shape (n_splits, n_neuroids)
        The split-half ceilings, one per split.
    """
    with _open_assembly(release_path, manifest, "test") as assembly:
        neuroids = pd.DataFrame({name: assembly[name].values for name in NEUROID_COORDINATES})
        of_splits = np.full((N_SPLITS, len(neuroids)), np.nan)
        of_pairs = np.full((len(REPETITION_PAIRS), len(neuroids)), np.nan)
        groups = list(neuroids.groupby(["region", "subject"], sort=False))
        for _, own in follow(groups, n_items=len(groups), what="ceilings", unit="region"):
            place = slice(own.index[0], own.index[-1] + 1)  # a region of a subject lies in one piece
            responses = NeuroidAssembly(assembly.isel(neuroid=place, time_bin=0).load())
            raw = internal_consistency(responses).attrs["raw"].transpose("split", "neuroid")
            column_of_id = pd.Series(np.arange(len(own)), index=raw["neuroid_id"].values)
            of_splits[:, place] = raw.values[:, column_of_id[own.neuroid_id]]
            of_pairs[:, place] = repetition_correlations(responses)
    neuroids["split_half"] = _median(of_splits, axis=0)
    for (one, other), values in zip(REPETITION_PAIRS, of_pairs, strict=True):
        neuroids[f"repetitions_{one}_{other}"] = values
    return neuroids, of_splits


def repetition_correlations(responses: NeuroidAssembly) -> np.ndarray:
    """Correlate every two repetitions over images.

    Parameters
    ----------
    responses : NeuroidAssembly of shape (n_images x n_repetitions, n_neuroids)

    Returns
    -------
    array of shape (n_pairs, n_neuroids)
        Pearson's r, unitless; NaN for neuroids that are constant.
    """
    scores = []
    for repetition in range(N_REPETITIONS):
        values = responses.values[responses["repetition"].values == repetition].astype(np.float64)
        values -= values.mean(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            scores.append(values / np.linalg.norm(values, axis=0))
    return np.stack([np.einsum("ij,ij->j", scores[one], scores[other]) for one, other in REPETITION_PAIRS])


def summarise_regions(
    neuroids: pd.DataFrame, split_half: np.ndarray, nan_counts: dict[str, dict[str, dict[str, int]]]
) -> pd.DataFrame:
    """Count and summarise the neuroids of every region and subject, and of every region over ``all`` subjects.

    Returns
    -------
    table with the columns
        ``region``, ``subject``, ``n_neuroids``, ``n_lh``, ``n_rh``, ``shared`` (the number of vertices that are in another
        region as well, by its name), ``n_invalid``, ``noise_ceiling`` (median, percent) and ``split_half`` (what
        Brain-Score's `internal_consistency` gives: the median over neuroids, averaged over splits; unitless).
    """
    vertices = neuroids.subject + neuroids.hemisphere + neuroids.vertex_index.astype(str)
    rows = []
    for region in REGIONS:
        in_region = neuroids.region == region.name
        for subject in [*neuroids.subject.unique(), EVERY_SUBJECT]:
            of_subject = (neuroids.subject == subject) | (subject == EVERY_SUBJECT)
            own = in_region & of_subject
            counted = nan_counts if subject == EVERY_SUBJECT else [subject]
            rows.append(
                {
                    "region": region.name,
                    "subject": subject,
                    "n_neuroids": int(own.sum()),
                    "n_lh": int((own & (neuroids.hemisphere == "lh")).sum()),
                    "n_rh": int((own & (neuroids.hemisphere == "rh")).sum()),
                    "shared": {
                        other.name: int(
                            vertices[own].isin(vertices[of_subject & (neuroids.region == other.name)]).sum()
                        )
                        for other in REGIONS
                        if other != region
                    },
                    "n_invalid": sum(nan_counts[name][region.name]["neuroids"] for name in counted),
                    "noise_ceiling": _median(neuroids.nc_testset[own].to_numpy()),
                    "split_half": _split_half_ceiling(split_half[:, own]),
                }
            )
    return pd.DataFrame(rows)


def summarise_invalid(neuroids: pd.DataFrame, manifest: dict[str, Any]) -> pd.DataFrame:
    """Count what was filled with zero, dropped or missing, for every region and subject.

    Returns
    -------
    table with the columns
        ``region``, ``subject``, ``n_neuroids``, ``n_train`` and ``n_test`` (values filled), ``train`` and ``test`` (percent
        of the values), ``n_dropped`` (numbers that are missing from the neuroids' ids) and ``n_without_ceiling``.
    """
    numbers = neuroids.neuroid_id.str.rsplit("_v", n=1).str[1].astype(int)
    n_numbered = numbers.groupby(neuroids.region).max() + 1
    rows = []
    for (region, subject), own in neuroids.groupby(["region", "subject"], sort=False):
        counts = manifest["nan_counts"][subject][region]
        n_values = {split: manifest["shapes"][split][0] * len(own) for split in SPLITS}
        rows.append(
            {
                "region": region,
                "subject": subject,
                "n_neuroids": counts["neuroids"],
                "n_train": counts["train"],
                "train": 100 * counts["train"] / n_values["train"],
                "n_test": counts["test"],
                "test": 100 * counts["test"] / n_values["test"],
                "n_dropped": int(n_numbered[region]) - len(own),
                "n_without_ceiling": int(own.nc_testset.isna().sum()),
            }
        )
    return pd.DataFrame(rows)


def summarise_inputs(inputs: dict[str, int]) -> pd.DataFrame:
    """Count and sum up the raw files, hemispheres, sessions and images together: ``what``, ``n_files``, ``n_bytes``."""
    table = pd.DataFrame({"path": list(inputs), "n_bytes": list(inputs.values())})
    many = r"(?<=/)[lr](?=h\.)|(?<=betas_session)\d+|(?<=nsd_)\d{5}"
    table["what"] = [re.sub(many, "*", path) for path in table.path]
    return table.groupby("what").n_bytes.agg(n_files="count", n_bytes="sum").reset_index()


def _require_files(release_path: Path, files: dict[str, dict[str, Any]]) -> None:
    for name, file in files.items():
        path = release_path / name
        found = f"has {path.stat().st_size:,} bytes" if path.is_file() else "is missing"
        expected = f"has {file['size']:,} bytes"
        if found != expected:
            raise PackagingError(
                f"{path} {found}, but {MANIFEST} says that it {expected}. Build the release again "
                f"(`allen2022-surface verify {release_path}` lists everything that is wrong with it)."
            )


def _open_assembly(release_path: Path, manifest: dict[str, Any], split: str) -> xarray.DataArray:
    return xarray.open_dataarray(release_path / assembly_file(manifest["name"], split), engine="netcdf4")


def _page(release_path: Path, manifest: dict[str, Any]) -> str:
    neuroids, split_half = read_neuroids(release_path, manifest)
    stimuli = {split: pd.read_csv(release_path / f"stimulus_metadata_{split}.csv") for split in SPLITS}
    regions = summarise_regions(neuroids, split_half, manifest["nan_counts"])
    highest = _round_up(neuroids.nc_testset)
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(REPORT).render(
        name=manifest["name"],
        subjects=[subject_name(subject) for subject in manifest["subjects"]],
        tiles=_tiles(neuroids, split_half, stimuli),
        facts=_facts(release_path, manifest, stimuli, neuroids),
        region_table=_region_table(regions),
        distributions=list(_distributions(neuroids, highest)),
        comparisons=list(_comparisons(neuroids, highest)),
        maps=list(_maps(neuroids, highest)) if _has_maps(manifest) else [],
        region_maps=list(_region_maps(neuroids)) if _has_maps(manifest) else [],
        region_colours=list(zip([region.name for region in REGIONS], REGION_COLOURS, strict=True)),
        shared_colour=SHARED_COLOUR,
        colours=colour_scale(),
        views=VIEWS,
        highest=highest,
        is_clipped=bool((neuroids.nc_testset > highest).any()),
        n_vertices=_count(manifest["n_vertices"]),
        n_vertices_of_fsaverage=_count(N_VERTICES_OF_FSAVERAGE),
        split_table=_split_table(release_path, manifest, stimuli),
        split_picture=_split_picture(stimuli),
        repetition_table=_repetition_table(manifest, neuroids),
        sheets=list(_sheets(release_path, stimuli)),
        **_invalid_section(neuroids, manifest),
        option_table=_option_table(manifest),
        version_table=Table("Versions", ("Package", "Version"), list(manifest["versions"].items())),
        input_table=_input_table(manifest),
        file_table=_file_table(release_path, manifest),
    )


def _tiles(neuroids: pd.DataFrame, split_half: np.ndarray, stimuli: dict[str, pd.DataFrame]) -> list[tuple[str, str]]:
    return [
        (_count(neuroids.subject.nunique()), "subjects"),
        (_count(sum(len(table) for table in stimuli.values())), "images"),
        (_count(len(neuroids)), "neuroids"),
        (f"{_number(_median(neuroids.nc_testset.to_numpy()), 1)} %", "median noise ceiling"),
        (_number(_split_half_ceiling(split_half), 3), "split-half ceiling (r)"),
    ]


def _facts(
    release_path: Path, manifest: dict[str, Any], stimuli: dict[str, pd.DataFrame], neuroids: pd.DataFrame
) -> list[tuple[str, str]]:
    name = manifest["name"]
    counts = neuroids.region.value_counts()
    size = sum(file["size"] for file in manifest["files"].values())
    facts = [
        ("Name", name),
        ("Subjects", ", ".join(subject_name(subject) for subject in manifest["subjects"])),
        ("Images", ", ".join(f"{_count(len(table))} {split}" for split, table in stimuli.items())),
        ("Neuroids", ", ".join(f"{region.name} {_count(counts.get(region.name, 0))}" for region in REGIONS)),
        ("Surface", f"fsaverage, {_count(manifest['n_vertices'])} vertices per hemisphere"),
    ]
    facts += [
        (f"{split.capitalize()} assembly", f"{' × '.join(_count(n) for n in manifest['shapes'][split])} float32")
        for split in SPLITS
    ]
    facts += [
        ("Values", "unitless: z-scored per session over trials, then per vertex over images"),
        ("Time bin", "70 to 170 ms, a placeholder that Brain-Score asks for"),
        ("Size", f"{_bytes(size)} in {_count(len(manifest['files']))} files"),
    ]
    if name in NAMES.values():
        facts.insert(1, ("In Brain-Score", ", ".join(f"{name}.{split}" for split in SPLITS)))
    return facts


def _region_table(regions: pd.DataFrame) -> Table:
    def row(summary: Any) -> list[str]:
        return [
            summary.region,
            summary.subject,
            _count(summary.n_neuroids),
            _count(summary.n_lh),
            _count(summary.n_rh),
            ", ".join(f"{_count(n)} in {name}" for name, n in summary.shared.items() if n) or "0",
            _count(summary.n_invalid),
            _number(summary.noise_ceiling, 1),
            _number(summary.split_half, 3),
        ]

    is_total = regions.subject == EVERY_SUBJECT
    return Table(
        "Neuroids of every region and subject",
        (
            "Region",
            "Subject",
            "Neuroids",
            "Left",
            "Right",
            "Also in another region",
            "Invalid vertices",
            "Median noise ceiling (%)",
            "Split-half ceiling (r)",
        ),
        [row(summary) for summary in regions[~is_total].itertuples()],
        [row(summary) for summary in regions[is_total].itertuples()],
        n_heads=2,
    )


def _distributions(neuroids: pd.DataFrame, highest: float) -> Iterator[tuple[str, Picture]]:
    for region in REGIONS:
        own = neuroids[neuroids.region == region.name]
        ceilings = {subject: table.nc_testset.to_numpy() for subject, table in own.groupby("subject")}
        medians = ", ".join(f"{subject} {_number(_median(values), 1)} %" for subject, values in ceilings.items())
        alt = f"Distributions of the noise ceilings in {region.name}, a row per subject. Medians: {medians}."
        yield region.name, noise_ceiling_distributions(ceilings, highest=highest, alt=alt)


def _comparisons(neuroids: pd.DataFrame, highest: float) -> Iterator[tuple[str, Picture]]:
    for region in REGIONS:
        own = neuroids[neuroids.region == region.name]
        valid = own[np.isfinite(own.nc_testset) & np.isfinite(own.split_half)]
        correlation = valid.nc_testset.corr(valid.split_half, method="spearman")
        alt = (
            f"Split-half ceiling against noise ceiling of {_count(len(valid))} neuroids in {region.name}, coloured by their "
            f"number, with the expected curve. Spearman's rank correlation {_number(correlation, 2)}."
        )
        caption = f"{region.name}: {_count(len(valid))} neuroids, rank correlation {_number(correlation, 2)}"
        yield (
            caption,
            split_half_against_noise_ceiling(
                valid.nc_testset.to_numpy(), valid.split_half.to_numpy(), highest=highest, alt=alt
            ),
        )


def _has_maps(manifest: dict[str, Any]) -> bool:
    return manifest["n_vertices"] == N_VERTICES_OF_FSAVERAGE


def _maps(neuroids: pd.DataFrame, highest: float) -> Iterator[tuple[str, dict[str, dict[str, Picture]]]]:
    """Yield for every subject the maps of noise ceiling and split-half ceiling, a picture per hemisphere."""
    quantities = {
        "noise ceiling": ("nc_testset", (0.0, highest), 1, " %"),
        "split-half ceiling": ("split_half", (0.0, 1.0), 3, ""),
    }
    subjects = list(neuroids.groupby("subject"))
    for subject, own in follow(subjects, n_items=len(subjects), what="maps", unit="subject"):
        maps: dict[str, dict[str, Picture]] = {}
        for title, (column, limits, n_digits, unit) in quantities.items():
            maps[title] = {}
            for hemisphere, table in own.groupby("hemisphere"):
                median = f"{_number(_median(table[column].to_numpy()), n_digits)}{unit}"
                alt = (
                    f"Map of the {title} of {subject} on the inflated {HEMISPHERE_NAMES[hemisphere]} hemisphere, "
                    f"in {_listed(VIEWS)} view; median over neuroids {median}."
                )
                values, vertices = table[column].to_numpy(), table.vertex_index.to_numpy()
                maps[title][hemisphere] = cortical_map(values, vertices, hemisphere, limits=limits, alt=alt)
        yield subject, maps


def _region_maps(neuroids: pd.DataFrame) -> Iterator[tuple[str, dict[str, Picture]]]:
    """Yield the maps of the regions, once for all subjects whose regions are the same vertices."""
    number = {region.name: code for code, region in enumerate(REGIONS)}
    subjects_of: dict[bytes, list[str]] = {}
    tables = {}
    for subject, own in neuroids.groupby("subject"):
        codes = own.assign(code=own.region.map(number)).groupby(["hemisphere", "vertex_index"]).code
        table = codes.agg(code="max", n_regions="nunique").reset_index()
        table.loc[table.n_regions > 1, "code"] = SHARED_CODE
        key = table.to_csv().encode()
        subjects_of.setdefault(key, []).append(subject)
        tables[key] = table
    for key, subjects in subjects_of.items():
        pictures = {}
        for hemisphere, table in tables[key].groupby("hemisphere"):
            counts = ", ".join(
                f"{name} {_count((table.code == code).sum())}"
                for code, name in enumerate([*number, "more than one region"])
            )
            alt = (
                f"Map of the regions on the inflated {HEMISPHERE_NAMES[hemisphere]} hemisphere, in {_listed(VIEWS)} view. "
                f"Vertices: {counts}."
            )
            codes_of = table.code.to_numpy(dtype=float)
            pictures[hemisphere] = region_map(codes_of, table.vertex_index.to_numpy(), hemisphere, alt=alt)
        yield _listed(subjects), pictures


def _split_table(release_path: Path, manifest: dict[str, Any], stimuli: dict[str, pd.DataFrame]) -> Table:
    rows = []
    for split in SPLITS:
        with _open_assembly(release_path, manifest, split) as assembly:
            n_presentations = assembly.sizes["presentation"]
            per_image = pd.Series(assembly["nsd_id"].values).value_counts()
        rows.append(
            [
                split,
                _count(len(stimuli[split])),
                " to ".join(str(n) for n in sorted({per_image.min(), per_image.max()})),
                _count(n_presentations),
                "averaged" if split == "train" else "apart",
                f"{stimuli[split].nsd_id.min()} to {stimuli[split].nsd_id.max()}",
                _bytes(manifest["files"][assembly_file(manifest["name"], split)]["size"]),
            ]
        )
    columns = ("Split", "Images", "Presentations per image", "Presentations", "Repetitions", "nsd_id", "Assembly file")
    return Table("The two splits", columns, rows)


def _split_picture(stimuli: dict[str, pd.DataFrame]) -> Picture:
    counts = _listed([f"{_count(len(table))} {split}" for split, table in stimuli.items()])
    nsd_ids = {split: table.nsd_id.to_numpy() for split, table in stimuli.items()}
    return split_overview(nsd_ids, alt=f"Where the {counts} images lie among the images of NSD, a line per image.")


def _repetition_table(manifest: dict[str, Any], neuroids: pd.DataFrame) -> Table:
    def correlations(own: pd.DataFrame) -> list[str]:
        pairs = (own[f"repetitions_{one}_{other}"].to_numpy() for one, other in REPETITION_PAIRS)
        return [_number(_median(values), 3) for values in pairs]

    rows = [
        [subject, _count(manifest["sessions"][subject]), _count(manifest["n_trials_per_session"]), *correlations(own)]
        for subject, own in neuroids.groupby("subject")
    ]
    n_sessions = sum(manifest["sessions"].values())
    total = [EVERY_SUBJECT, _count(n_sessions), _count(manifest["n_trials_per_session"]), *correlations(neuroids)]
    pairs = [f"r of repetitions {one} and {other}" for one, other in REPETITION_PAIRS]
    return Table("Sessions and repetitions", ("Subject", "Sessions", "Trials per session", *pairs), rows, [total])


def _sheets(release_path: Path, stimuli: dict[str, pd.DataFrame]) -> Iterator[tuple[str, str, list[Picture]]]:
    for split, table in stimuli.items():
        rows = np.unique(np.linspace(0, len(table) - 1, min(len(table), N_THUMBNAILS)).round().astype(int))
        shown = table.iloc[rows]
        n_shown = "all" if len(shown) == len(table) else f"{_count(len(shown))} evenly chosen"
        folder = release_path / f"stimuli_{split}"
        pictures = [thumbnail(folder / row.image_file_name, alt=row.stimulus_id) for row in shown.itertuples()]
        yield split, f"{n_shown} of {_count(len(table))} images", pictures


def _invalid_section(neuroids: pd.DataFrame, manifest: dict[str, Any]) -> dict[str, Any]:
    summary = summarise_invalid(neuroids, manifest)
    counts = ["n_neuroids", "n_train", "n_test", "n_dropped", "n_without_ceiling"]
    shown = summary[summary[counts].any(axis=1)]
    rows = [
        [
            row.region,
            row.subject,
            _count(row.n_neuroids),
            _share(row.n_train, row.train),
            _share(row.n_test, row.test),
            _count(row.n_dropped),
            _count(row.n_without_ceiling),
        ]
        for row in shown.itertuples()
    ]
    total = {column: int(summary[column].sum()) for column in counts}
    percent = {
        split: 100 * total[f"n_{split}"] / np.prod(manifest["shapes"][split], dtype=np.int64) for split in SPLITS
    }
    totals = [
        "all",
        "all",
        _count(total["n_neuroids"]),
        _share(total["n_train"], percent["train"]),
        _share(total["n_test"], percent["test"]),
        _count(total["n_dropped"]),
        _count(total["n_without_ceiling"]),
    ]
    columns = (
        "Region",
        "Subject",
        "Neuroids with invalid values",
        "Train values filled",
        "Test values filled",
        "Neuroids dropped",
        "Without noise ceiling",
    )
    return {
        "invalid_table": Table("Filled, dropped and missing", columns, rows, [totals], n_heads=2),
        "nan_policy": manifest["options"]["nan_policy"],
    }


def _option_table(manifest: dict[str, Any]) -> Table:
    options = {**manifest["options"], "from_region_assemblies": manifest["from_region_assemblies"]}
    rows = [(name, str(value), OPTION_MEANINGS.get((name, str(value)), "")) for name, value in options.items()]
    return Table("Options", ("Option", "Value", "Meaning"), rows)


def _input_table(manifest: dict[str, Any]) -> Table:
    summary = summarise_inputs(manifest["inputs"])
    rows = [[row.what, _count(row.n_files), _bytes(row.n_bytes)] for row in summary.itertuples()]
    totals = ["all", _count(summary.n_files.sum()), _bytes(summary.n_bytes.sum())]
    return Table("Raw files read, by their place in NSD's bucket", ("Files", "Count", "Size"), rows, [totals])


def _file_table(release_path: Path, manifest: dict[str, Any]) -> Table:
    files = {name: file for name, file in manifest["files"].items() if not name.startswith("stimuli_")}
    rows = [[name, _bytes(file["size"]), file["sha1"]] for name, file in files.items()]
    path = release_path / MANIFEST
    rows.append([MANIFEST, _bytes(path.stat().st_size), sha1_of(path)])
    return Table("Files and their SHA-1", ("File", "Size", "SHA-1"), rows)


def _split_half_ceiling(of_splits: np.ndarray) -> float:
    """Return the median over neuroids, averaged over splits, as `internal_consistency` does; shape (n_splits, n_neuroids)."""
    medians = _median(of_splits, axis=1)
    return float(np.nanmean(medians)) if np.isfinite(medians).any() else np.nan


def _median(values: np.ndarray, axis: int | None = None) -> Any:
    """Return the median over what is not NaN; NaN where nothing is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns where nothing is left
        return np.nanmedian(values, axis=axis)


def _round_up(noise_ceilings: pd.Series) -> float:
    """Return the end of every scale of noise ceilings: the first ten that leaves out one neuroid in a hundred at most."""
    valid = noise_ceilings.dropna()
    return float(max(10, 10 * np.ceil(valid.quantile(0.99) / 10))) if len(valid) else 100.0


def _count(number: int) -> str:
    return f"{int(number):,}"


def _number(value: float | np.floating, n_digits: int) -> str:
    if not np.isfinite(value):
        return MISSING
    return f"{round(float(value), n_digits) + 0.0:.{n_digits}f}".replace("-", "−")  # no minus before zero


def _share(count: int, percent: float | np.floating) -> str:
    return f"{_count(count)} ({_number(percent, 2)} %)" if count else "0"


def _bytes(size: int) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000  # type: ignore[assignment]
    return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
