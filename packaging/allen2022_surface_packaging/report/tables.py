"""The tables of the report as texts, and how its numbers are written. The template shows each of them in the same way."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from ..files import sha1_of
from ..progress import format_bytes
from ..release import SPLITS, Manifest, ReleaseFolder
from .statistics import ALL_REGIONS, ALL_SUBJECTS, REPETITION_PAIRS, region_names

MISSING = "–"
VARYING_PART_OF_PATH = re.compile(r"(?<=/)[lr](?=h\.)|(?<=betas_session)\d+|(?<=nsd_)\d{5}")
BETAS_MEANINGS = {
    "betas_fithrf_GLMdenoise_RR": "fitted hemodynamic response, GLMdenoise and ridge regression (NSD's b3). They share "
    "information between the repetitions of an image, so ceilings from repetitions may be too high.",
    "betas_fithrf": "fitted hemodynamic response (NSD's b2).",
    "betas_assumehrf": "assumed hemodynamic response (NSD's b1).",
}
OPTION_MEANINGS: dict[str | tuple[str, str], str] = {
    ("pool", "shared"): "The images that every subject saw three times, split into train and test.",
    ("pool", "own"): "Train: the images that only this subject saw. Test: the shared images that it saw three times.",
    "train_fraction": "The share of the shared images that are train images.",
    "split_seed": "The seed of the random split into train and test.",
    ("standardize_on", "all"): "Each vertex is standardised over the averages of all complete images.",
    ("standardize_on", "train"): "Each vertex is standardised over the averages of the train images alone.",
    ("files", "fsaverage"): "Betas as NSD copied them to fsaverage.",
    ("files", "nativesurface"): "Betas on each subject's own surface, rounded to 1/300 percent signal change.",
    ("nan_policy", "zero"): "Values that are not a number are replaced by 0.",
    ("nan_policy", "drop"): "A vertex is left out if any trial that the release needs is not a number.",
    ("copies", "keep"): "Vertices that have the same responses are all kept.",
    ("copies", "drop"): "Of the vertices of a region that have the same responses, the first is kept.",
    ("image_format", "png"): "Images are PNG (lossless), unless they were copied from an earlier packaging.",
    ("image_format", "jpg"): "Images are JPEG of quality 95 (lossy).",
    ("from_region_assemblies", "True"): "Averages come from prepared region assemblies, repetitions from the betas.",
    ("from_region_assemblies", "False"): "Averages and repetitions come from the single-trial betas.",
    **{("betas", version): f"Single-trial responses with {meaning}" for version, meaning in BETAS_MEANINGS.items()},
}

Columns: TypeAlias = Mapping[str, tuple[str, Callable[[Any], str]]]


def region_table(groups: pd.DataFrame) -> pd.DataFrame:
    """Show the neuroids of each region and subject, from `summarise_groups`."""
    columns: Columns = {
        "Region": ("region", str),
        "Subject": ("subject", str),
        "Neuroids": ("n_neuroids", format_count),
        "Left": ("n_left", format_count),
        "Right": ("n_right", format_count),
        "Also in another region": ("shared_vertices", str),
        "Copies": ("n_copies", format_count),
        "Invalid vertices": ("n_invalid", format_count),
        "Median noise ceiling (%)": ("nc_testset", partial(format_number, n_digits=1)),
        "From test repetitions (%)": ("nc_repetitions", partial(format_number, n_digits=1)),
        "Median r of repetitions": ("repetition_r", partial(format_number, n_digits=3)),
        "Split-half ceiling (r)": ("split_half", partial(format_number, n_digits=3)),
    }
    return _write(groups.drop(ALL_REGIONS, level="region").reset_index(), columns)


def repetition_table(pairs: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """Show the sessions of each subject, and how well its repetitions agree, from `correlate_pairs`."""
    n_sessions = {**manifest.sessions, ALL_SUBJECTS: sum(manifest.sessions.values())}
    table = pairs.reset_index()
    table["n_sessions"] = table["subject"].map(n_sessions)
    table["n_trials"] = manifest.n_trials_per_session
    columns: Columns = {
        "Subject": ("subject", str),
        "Sessions": ("n_sessions", format_count),
        "Trials per session": ("n_trials", format_count),
        **{
            f"r of repetitions {pair[0]} and {pair[1]}": (str(pair), partial(format_number, n_digits=3))
            for pair in REPETITION_PAIRS
        },
    }
    return _write(table, columns)


def shared_noise_table(shared_noise: pd.DataFrame) -> pd.DataFrame:
    """Show for each subject whether its repetitions seem to share noise, from `measure_shared_noise`."""
    rows = []
    for subject in shared_noise.to_dict("records"):
        signs = {"ceiling above NSD's": subject["is_above_nc_testset"], "pairs differ": subject["is_unequal"]}
        rows.append(
            {
                "Subject": subject["subject"],
                "Noise ceiling from test repetitions (%)": format_estimate(
                    subject["ceiling"], subject["lower"], subject["upper"]
                ),
                "NSD's noise ceiling (%)": format_number(subject["nc_testset"], 1),
                "Largest difference of pairs (r)": format_number(subject["largest_difference"], 3),
                "p": format_number(subject["p_value"], 3),
                "Signs of shared noise": " and ".join(sign for sign, is_there in signs.items() if is_there) or "none",
            }
        )
    return pd.DataFrame(rows)


def split_table(folder: ReleaseFolder, manifest: Manifest, stimuli: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Show the images and presentations of each split."""
    rows = [
        {
            "Split": split,
            "Images": format_count(len(table)),
            "Presentations per image": str(manifest.shapes[split][0] // len(table)),
            "Presentations": format_count(manifest.shapes[split][0]),
            "Repetitions": "averaged" if split == "train" else "separate",
            "nsd_id": f"{table['nsd_id'].min()} to {table['nsd_id'].max()}",
            "Assembly file": format_bytes(folder.assembly_path(manifest.name, split).stat().st_size),
        }
        for split, table in stimuli.items()
    ]
    return pd.DataFrame(rows)


def invalid_table(groups: pd.DataFrame) -> pd.DataFrame:
    """Show what was filled, dropped or missing. Regions of subjects without any of these are left out."""
    parts = groups.drop(ALL_REGIONS, level="region").drop(ALL_SUBJECTS, level="subject")
    parts = parts[parts[["n_invalid", "n_filled_train", "n_filled_test", "n_dropped", "n_without_ceiling"]].any(axis=1)]
    total = groups.loc[[(ALL_REGIONS, ALL_SUBJECTS)]].rename({ALL_REGIONS: "all"})
    shown = pd.concat([parts, total]).reset_index()
    for split in SPLITS:
        filled = zip(shown[f"n_filled_{split}"], shown[f"n_values_{split}"], strict=True)
        shown[split] = [f"{n:,} ({format_number(100 * n / n_values, 2)} %)" if n else "0" for n, n_values in filled]
    columns: Columns = {
        "Region": ("region", str),
        "Subject": ("subject", str),
        "Neuroids with invalid values": ("n_invalid", format_count),
        "Train values filled": ("train", str),
        "Test values filled": ("test", str),
        "Neuroids dropped": ("n_dropped", format_count),
        "Without noise ceiling": ("n_without_ceiling", format_count),
    }
    return _write(shown, columns)


def option_table(manifest: Manifest) -> pd.DataFrame:
    """Show what was chosen when the release was built: the recipe, and the options beside it."""
    recipe = manifest.recipe
    names = ["betas", "files", "pool", "train_fraction", "split_seed", "standardize_on", "nan_policy", "copies"]
    options = {name: str(getattr(recipe, name)) for name in names}
    if recipe.pool == "own":
        del options["train_fraction"], options["split_seed"]
    options |= {name: str(getattr(manifest, name)) for name in ("image_format", "from_region_assemblies")}
    meanings = [OPTION_MEANINGS.get((name, value)) or OPTION_MEANINGS.get(name, "") for name, value in options.items()]
    return pd.DataFrame({"Option": list(options), "Value": list(options.values()), "Meaning": meanings})


def source_table(manifest: Manifest) -> pd.DataFrame:
    """Show from which labels of which atlas each region comes."""
    labels = [", ".join(map(str, region.labels)) or "every vertex" for region in manifest.regions]
    return pd.DataFrame(
        {
            "Region": region_names(manifest),
            "Atlas": [region.atlas for region in manifest.regions],
            "Labels": labels,
            "Vertices of a subject": [
                " to ".join(map(format_count, sorted({*sizes[:1], *sizes[-1:]})))
                for sizes in (sorted(region.n_vertices.values()) for region in manifest.regions)
            ],
        }
    )


def input_table(manifest: Manifest) -> pd.DataFrame:
    """Show which raw files were read, those that differ only in hemisphere, session or image in one row."""
    inputs = pd.Series(manifest.inputs, dtype="int64")
    sizes = inputs.groupby([VARYING_PART_OF_PATH.sub("*", path) for path in inputs.index]).agg(["count", "sum"])
    sizes.loc["all"] = [len(inputs), inputs.sum()]
    columns: Columns = {"Files": ("index", str), "Count": ("count", format_count), "Size": ("sum", format_bytes)}
    return _write(sizes.rename_axis("index").reset_index(), columns)


def file_table(folder: ReleaseFolder, manifest: Manifest) -> pd.DataFrame:
    """Show size and SHA-1 of each file of the release, the images excepted."""
    rows = [
        (name, format_bytes(record.size), record.sha1)
        for name, record in manifest.files.items()
        if not name.startswith(tuple(f"stimuli_{split}/" for split in SPLITS))
    ]
    path = folder.manifest_path
    rows.append((path.name, format_bytes(path.stat().st_size), sha1_of(path)))
    return pd.DataFrame(rows, columns=["File", "Size", "SHA-1"])


def _write(table: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """Return the columns as texts, under their titles."""
    return pd.DataFrame({title: [write(value) for value in table[name]] for title, (name, write) in columns.items()})


def format_count(count: int) -> str:
    """Write a count with commas between thousands."""
    return f"{count:,}"


def format_number(value: float | None, n_digits: int) -> str:
    """Write a number with a fixed number of digits after the point, or a dash if the number is not finite."""
    if value is None or not np.isfinite(value):
        return MISSING
    rounded = round(float(value), n_digits) + 0.0  # adding 0.0 removes the sign of zero
    return f"{rounded:.{n_digits}f}".replace("-", "−")


def format_estimate(value: float, lower: float, upper: float) -> str:
    """Write a percentage with its interval, or a dash if it is unknown."""
    if not np.isfinite(value + lower + upper):
        return MISSING
    return f"{format_number(value, 1)} ({format_number(lower, 1)} to {format_number(upper, 1)})"


def join_words(words: Sequence[str]) -> str:
    """Join words with commas, and with ``and`` before the last one."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
