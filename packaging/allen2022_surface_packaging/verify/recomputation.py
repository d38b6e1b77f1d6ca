"""A release computed again from the raw files, by a path of its own.

Nothing of the builder's arithmetic is used here: the regions, the split and the method are said once more, files are read by
nibabel, and everything is plain numpy in double precision, a block of vertices at a time. Only the places of the files are
those of `nsd`.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pandas as pd
import scipy.io
import xarray
from nibabel.filebasedimages import ImageFileError
from PIL import Image

from ..errors import PackagingError
from ..nsd.files import NSDTree, open_tree
from ..nsd.storage import Folder
from ..progress import follow
from ..release import assembly_file, read_manifest

TOLERANCE = 1e-5  # the agreement asked for: the release is single precision, this is double
VERTICES_OF_SAMPLE = 5  # of each subject, region and hemisphere; all presentations of each
VERTICES_AT_A_TIME = 16_384  # more than the regions of a hemisphere have, so that no betas file is read twice
COPY_BYTES = 64 * 2**20  # a request each, where the tree is not on a disk

# How numpy, pandas, nibabel, netCDF and HDF5 say that a file is not what it should be
DAMAGES = (AttributeError, EOFError, LookupError, ValueError, OSError, RuntimeError, ImageFileError, zlib.error)

# Said again on purpose: a builder that is wrong about these must not find itself right.
LABELS = {
    "V1": ("Kastner2015", (1, 2)),
    "V2": ("Kastner2015", (3, 4)),
    "V4": ("Kastner2015", (7,)),
    "IT": ("streams", (5,)),
}
NEUROIDS = ("neuroid_id", "subject", "hemisphere", "vertex_index", "region", "nc_testset")


@dataclass
class Recomputation:
    """How a release compares with what the raw files give.

    Attributes
    ----------
    differences : table with a row per subject and region
        How many vertices and values were recomputed, the largest difference (unitless) and where it is.
    problems : a line each; empty if the release is what the raw files give
    """

    differences: pd.DataFrame = field(default_factory=pd.DataFrame)
    problems: list[str] = field(default_factory=list)


def recompute_release(
    release_path: Path, nsd_root: str | Path, *, every_vertex: bool = False, seed: int = 0
) -> Recomputation:
    """Recompute a release from an NSD tree: all coordinates and images, and the values of a sample of vertices or of all.

    Parameters
    ----------
    every_vertex : bool
        Recompute every value. Otherwise those of a few random vertices of each subject, region and hemisphere, and of
        every vertex that holds a zero, as all that were NaN do.
    seed : int
        Of the sample.

    Raises
    ------
    PackagingError
        If the folder is not a release that can be read, or the tree lacks a file that it was made from.
    """
    manifest = read_manifest(release_path)
    tree = open_tree(nsd_root)
    try:
        design = _read_design(tree, manifest)
        splits = _split(design, manifest)
        expected = _expected_neuroids(tree, manifest)
        with (
            xarray.open_dataarray(release_path / assembly_file(manifest["name"], "train")) as train,
            xarray.open_dataarray(release_path / assembly_file(manifest["name"], "test")) as test,
        ):
            assemblies = {"train": train, "test": test}
            result = Recomputation()
            for split, assembly in assemblies.items():
                result.problems += _presentation_problems(assembly, split, splits[split])
                result.problems += _neuroid_problems(assembly, split, expected, manifest)
            if not result.problems:  # else rows and columns mean something else here and there
                _compare_values(tree, manifest, design, splits, expected, assemblies, every_vertex, seed, result)
            result.problems += _image_problems(release_path, tree, splits)
    except DAMAGES as error:
        raise PackagingError(
            f"{release_path} cannot be recomputed from {nsd_root} ({type(error).__name__}: {' '.join(str(error).split())}). "
            "Do they belong together, and are both whole?"
        ) from error
    return result


@dataclass(frozen=True)
class _Design:
    """When each subject saw each image: (session, trial) of every repetition, 1-based and 0-based."""

    shared: list[int]
    shown: dict[str, dict[int, list[tuple[int, int]]]]


def _read_design(tree: NSDTree, manifest: dict[str, Any]) -> _Design:
    with tree.storage.open(tree.design_path) as file:
        design = scipy.io.loadmat(io.BytesIO(file.read()))
    order = design["masterordering"].astype(int).ravel()
    images = design["subjectim"].astype(int)
    n_trials = manifest["n_trials_per_session"]
    shown: dict[str, dict[int, list[tuple[int, int]]]] = {}
    for subject, n_sessions in manifest["sessions"].items():
        own = shown.setdefault(subject, {})
        for trial in range(n_sessions * n_trials):
            nsd_id = int(images[int(subject[-2:]) - 1, order[trial] - 1]) - 1
            own.setdefault(nsd_id, []).append((trial // n_trials + 1, trial % n_trials))
    return _Design([int(nsd_id) - 1 for nsd_id in design["sharedix"].ravel()], shown)


def _split(design: _Design, manifest: dict[str, Any]) -> dict[str, list[int]]:
    complete = [i for i in design.shared if all(len(own.get(i, [])) >= 3 for own in design.shown.values())]
    shuffled = np.random.RandomState(42).permutation(len(complete))  # noqa: NPY002, the published split
    n_train = int(0.8 * len(complete))
    parts = {"train": shuffled[:n_train], "test": shuffled[n_train:]}
    return {split: sorted(complete[i] for i in part) for split, part in parts.items()}


def _expected_neuroids(tree: NSDTree, manifest: dict[str, Any]) -> pd.DataFrame:
    """List every neuroid that there can be, in the order in which a release has them."""
    labels = {
        (atlas, hemisphere): _read_vertices(tree, tree.labels_path(atlas, hemisphere))
        for atlas in ("Kastner2015", "streams")
        for hemisphere in ("lh", "rh")
    }
    tables = []
    for region, (atlas, own_labels) in LABELS.items():
        for subject in manifest["subjects"]:
            number = 0
            for hemisphere in ("lh", "rh"):
                vertices = np.flatnonzero(np.isin(labels[atlas, hemisphere], own_labels))
                squared = _read_vertices(tree, tree.ncsnr_path(subject, hemisphere))[vertices].astype(float) ** 2
                ids = [f"subj{subject:02d}_{hemisphere}_{region}_v{number + i:05d}" for i in range(len(vertices))]
                number += len(vertices)
                tables.append(
                    pd.DataFrame(
                        {
                            "neuroid_id": ids,
                            "subject": f"subj{subject:02d}",
                            "hemisphere": hemisphere,
                            "vertex_index": vertices,
                            "region": region,
                            "nc_testset": 100 * squared / (squared + 1 / 3),
                        }
                    )
                )
    return pd.concat(tables, ignore_index=True)


def _presentation_problems(assembly: xarray.DataArray, split: str, nsd_ids: list[int]) -> list[str]:
    n_repetitions = 3 if split == "test" else 1
    expected = {
        "stimulus_id": [f"nsd_{nsd_id:05d}" for nsd_id in nsd_ids for _ in range(n_repetitions)],
        "nsd_id": [nsd_id for nsd_id in nsd_ids for _ in range(n_repetitions)],
    }
    if split == "test":
        expected["repetition"] = [0, 1, 2] * len(nsd_ids)
    return [
        problem
        for name, values in expected.items()
        if (problem := _first_difference(f"{split}: {name} of presentation", assembly[name].values, np.array(values)))
    ]


def _neuroid_problems(
    assembly: xarray.DataArray, split: str, expected: pd.DataFrame, manifest: dict[str, Any]
) -> list[str]:
    found = pd.DataFrame({name: assembly[name].values for name in NEUROIDS})
    if manifest["options"]["nan_policy"] == "drop":
        unknown = found.neuroid_id[~found.neuroid_id.isin(expected.neuroid_id)]
        if len(unknown):
            return [f"{split}: neuroid_id {unknown.iloc[0]} ({len(unknown)} in all) is none that the labels give."]
        expected = expected[expected.neuroid_id.isin(found.neuroid_id)]
    return [
        problem
        for name in NEUROIDS
        if (problem := _first_difference(f"{split}: {name} of neuroid", found[name].values, expected[name].values))
    ]


def _first_difference(what: str, found: np.ndarray, expected: np.ndarray) -> str | None:
    if len(found) != len(expected):
        return f"{what}: {len(found):,} values, but the raw files give {len(expected):,}."
    if expected.dtype.kind == "f":
        differ = np.flatnonzero(~np.isclose(found.astype(float), expected, rtol=1e-6, atol=1e-9, equal_nan=True))
    else:
        differ = np.flatnonzero(found != expected)
    if not len(differ):
        return None
    first = differ[0]
    return (
        f"{what} {first} is {found[first]}, but the raw files give {expected[first]} ({len(differ):,} of "
        f"{len(found):,} differ)."
    )


def _compare_values(
    tree: NSDTree,
    manifest: dict[str, Any],
    design: _Design,
    splits: dict[str, list[int]],
    expected: pd.DataFrame,
    assemblies: dict[str, xarray.DataArray],
    every_vertex: bool,
    seed: int,
    result: Recomputation,
) -> None:
    """Recompute the values a block of vertices at a time, and add what is found to `result`."""
    neuroids = pd.DataFrame({name: assemblies["train"][name].values for name in NEUROIDS})
    neuroids["place"] = np.arange(len(neuroids))
    neuroids["of_sample"] = True if every_vertex else _sample(neuroids, assemblies, seed)
    chosen = neuroids[neuroids.of_sample]
    dropped = expected[~expected.neuroid_id.isin(neuroids.neuroid_id)].assign(place=-1)  # there, but not in the release
    chosen = pd.concat([chosen, dropped])
    blocks = [
        (subject, hemisphere, own[own.vertex_index.isin(vertices)])
        for (subject, hemisphere), own in chosen.groupby(["subject", "hemisphere"])
        for vertices in _parts(np.unique(own.vertex_index))
    ]
    found: dict[tuple[str, str], _Worst] = {}
    for subject, hemisphere, rows in follow(blocks, n_items=len(blocks), what="vertices recomputed", unit="block"):
        vertices = np.unique(rows.vertex_index)
        responses = _responses(tree, manifest, design.shown[subject], splits, subject, hemisphere, vertices)
        for region, own in rows.groupby("region", sort=False):
            columns = np.searchsorted(vertices, own.vertex_index)
            averages = (
                _prepared_averages(tree, region, subject, hemisphere, own.vertex_index.to_numpy(), splits)
                if manifest["from_region_assemblies"]
                else None
            )
            values, is_invalid = _standardised(responses[:, :, columns], averages, splits, manifest["options"])
            worst = found.setdefault((subject, region), _Worst())
            result.problems += _policy_problems(own, is_invalid, manifest["options"]["nan_policy"])
            kept = own.place.to_numpy() >= 0
            for split, assembly in assemblies.items():
                worst.add(split, assembly, own[kept], values[split][:, kept])
    _report(found, neuroids, manifest, every_vertex, result)


def _sample(neuroids: pd.DataFrame, assemblies: dict[str, xarray.DataArray], seed: int) -> np.ndarray:
    """Choose some neuroids of every subject, region and hemisphere, and all that hold a zero."""
    random = np.random.default_rng(seed)
    chosen = np.zeros(len(neuroids), dtype=bool)
    for own in neuroids.groupby(["subject", "region", "hemisphere"]).indices.values():
        chosen[random.choice(own, min(VERTICES_OF_SAMPLE, len(own)), replace=False)] = True
    for assembly in assemblies.values():
        for places in _parts(np.arange(len(neuroids))):
            block = slice(int(places[0]), int(places[-1]) + 1)
            chosen[block] |= (assembly[:, block, 0].values == 0).any(axis=0)
    return chosen


def _parts(values: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(values), VERTICES_AT_A_TIME):
        yield values[start : start + VERTICES_AT_A_TIME]


def _responses(
    tree: NSDTree,
    manifest: dict[str, Any],
    shown: dict[int, list[tuple[int, int]]],
    splits: dict[str, list[int]],
    subject: str,
    hemisphere: str,
    vertices: np.ndarray,
) -> np.ndarray:
    """Return session-standardised responses to the complete images, (n_images, n_repetitions, n_vertices), NaN if not seen.

    Those of train images stay NaN where prepared averages stand for them.
    """
    images = sorted(splits["train"] + splits["test"])
    needed = set(splits["test"] if manifest["from_region_assemblies"] else images)
    wanted: dict[int, list[tuple[int, int, int]]] = {}
    for row, image in enumerate(images):
        for repetition, (session, trial) in enumerate(shown[image]):
            if image in needed:
                wanted.setdefault(session, []).append((row, repetition, trial))
    n_repetitions = max(len(shown[image]) for image in images)
    responses = np.full((len(images), n_repetitions, len(vertices)), np.nan)
    for session, places in wanted.items():
        with _on_disk(tree, tree.betas_path(int(subject[-2:]), hemisphere, session)) as path:
            # mapped, so that only the pages of these vertices are read
            betas = np.asanyarray(nibabel.load(path).dataobj).T[:, 0, 0, :][:, vertices].astype(float)
        if len(betas) != manifest["n_trials_per_session"]:
            raise ValueError(f"{path} holds {len(betas)} trials, expected {manifest['n_trials_per_session']}")
        with np.errstate(invalid="ignore"):
            mean, deviation = betas.mean(axis=0), betas.std(axis=0)
            # The mean of a constant need not be that constant, and the deviation then not quite zero.
            deviation[(betas == betas[0]).all(axis=0) | (deviation == 0)] = 1
            mean = np.where((betas == betas[0]).all(axis=0), betas[0], mean)
        for row, repetition, trial in places:
            responses[row, repetition] = (betas[trial] - mean) / deviation
    return responses


def _prepared_averages(
    tree: NSDTree,
    region: str,
    subject: str,
    hemisphere: str,
    vertices: np.ndarray,
    splits: dict[str, list[int]],
) -> np.ndarray:
    """Read the averages of the complete images from a prepared assembly, of shape (n_images, n_vertices)."""
    with (
        _on_disk(tree, f"assemblies/Allen2022_surface.{region}.nc") as path,
        xarray.open_dataarray(path) as assembly,
    ):
        own = (assembly["subject"].values == subject) & (assembly["hemisphere"].values == hemisphere)
        column = {int(assembly["vertex_index"].values[i]): i for i in np.flatnonzero(own)}
        row = {int(nsd_id): i for i, nsd_id in enumerate(assembly["nsd_id"].values)}
        rows = [row[image] for image in sorted(splits["train"] + splits["test"])]
        columns = [column[int(vertex)] for vertex in vertices]
        span = slice(min(columns), max(columns) + 1)
        return assembly[:, span].values[np.ix_(rows, np.array(columns) - span.start)].astype(float)


def _standardised(
    responses: np.ndarray, averages: np.ndarray | None, splits: dict[str, list[int]], options: dict[str, Any]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the values of both splits, (n_presentations, n_vertices) with NaN, and which vertices a needed NaN spoils."""
    images = sorted(splits["train"] + splits["test"])
    rows = {split: [images.index(image) for image in own] for split, own in splits.items()}
    needed = responses[:, :3] if averages is None else responses[rows["test"], :3]
    is_invalid = np.isnan(needed).any(axis=(0, 1))
    if averages is None:
        averages = _nanmean(responses, axis=1)
    else:
        is_invalid |= np.isnan(averages).any(axis=0)
    over = averages[rows["train"]] if options["standardize_on"] == "train" else averages
    mean = _nanmean(over, axis=0)
    deviation = np.sqrt(_nanmean((over - mean) ** 2, axis=0))
    deviation[deviation == 0] = 1
    test = responses[rows["test"], :3].reshape(-1, responses.shape[2])
    return {"train": (averages[rows["train"]] - mean) / deviation, "test": (test - mean) / deviation}, is_invalid


def _nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    """Return the mean of what is not NaN, NaN where all is (and no warning, unlike numpy's)."""
    with np.errstate(invalid="ignore"):
        return np.nansum(values, axis=axis) / (~np.isnan(values)).sum(axis=axis)


def _policy_problems(rows: pd.DataFrame, is_invalid: np.ndarray, nan_policy: str) -> list[str]:
    """Find neuroids that are there though a needed trial is NaN, or not there though none is."""
    if nan_policy != "drop":
        return []
    is_there = rows.place.to_numpy() >= 0
    ids = rows.neuroid_id.to_numpy()
    return [
        f"{name} is in the release, but has a NaN among its needed trials." for name in ids[is_there & is_invalid]
    ] + [f"{name} was dropped, but all its needed trials are valid." for name in ids[~is_there & ~is_invalid]]


@dataclass
class _Worst:
    """What was found of one subject's region so far."""

    n_vertices: int = 0
    n_values: int = 0
    n_nan: dict[str, int] = field(default_factory=lambda: {"train": 0, "test": 0})
    difference: float = 0.0
    where: str = ""
    found: float = 0.0
    recomputed: float = 0.0
    n_apart: int = 0
    neuroids_apart: set[str] = field(default_factory=set)
    presentations_apart: set[str] = field(default_factory=set)

    def add(self, split: str, assembly: xarray.DataArray, rows: pd.DataFrame, values: np.ndarray) -> None:
        """Hold recomputed values, (n_presentations, n_rows) with NaN, against those of the release."""
        if not len(rows):
            return
        places = rows.place.to_numpy()
        # A slice and a choice from it: single columns out of a file would be read one by one.
        span = slice(int(places.min()), int(places.max()) + 1)
        found = assembly[:, span, 0].values[:, places - span.start].astype(float)
        self.n_nan[split] += int(np.isnan(values).sum())
        expected = np.where(np.isnan(values), 0, values)
        differences = np.abs(found - expected)
        differences[np.isnan(differences)] = np.inf  # nothing may be NaN in a release
        self.n_vertices += len(rows) if split == "train" else 0
        self.n_values += values.size
        apart = differences > TOLERANCE
        self.n_apart += int(apart.sum())
        names = [_presentation_name(assembly, split, row) for row in np.flatnonzero(apart.any(axis=1))]
        self.presentations_apart |= set(names)
        self.neuroids_apart |= set(rows.neuroid_id[apart.any(axis=0)])
        if differences.max() > self.difference or not self.where:
            row, column = np.unravel_index(differences.argmax(), differences.shape)
            self.difference = float(differences[row, column])
            self.where = f"{_presentation_name(assembly, split, int(row))}, {rows.neuroid_id.iloc[column]}"
            self.found, self.recomputed = float(found[row, column]), float(expected[row, column])


def _presentation_name(assembly: xarray.DataArray, split: str, row: int) -> str:
    name = f"{split} {assembly['stimulus_id'].values[row]}"
    return f"{name} repetition {assembly['repetition'].values[row]}" if split == "test" else name


def _report(
    found: dict[tuple[str, str], _Worst],
    neuroids: pd.DataFrame,
    manifest: dict[str, Any],
    every_vertex: bool,
    result: Recomputation,
) -> None:
    order = {name: i for i, name in enumerate(LABELS)}
    rows = []
    for (subject, region), worst in sorted(found.items(), key=lambda item: (item[0][0], order[item[0][1]])):
        rows.append(
            {
                "subject": subject,
                "region": region,
                "vertices": worst.n_vertices,
                "values": worst.n_values,
                "largest difference": worst.difference,
                "where": worst.where,
            }
        )
        if worst.n_apart:
            result.problems.append(
                f"{worst.where} is {worst.found:.6g}, but the raw files give {worst.recomputed:.6g}: {worst.n_apart:,} of "
                f"{worst.n_values:,} values of {subject} {region} differ by more than {TOLERANCE:g}, "
                f"in {_some(worst.neuroids_apart, 'neuroid')} and {_some(worst.presentations_apart, 'presentation')}."
            )
        counted = {split: manifest["nan_counts"][subject][region][split] for split in worst.n_nan}
        # Sampled or not, every NaN is among what was recomputed: its cell is a zero.
        if counted != worst.n_nan and not worst.n_apart:
            result.problems.append(
                f"release.json counts {counted} filled values of {subject} {region}, but the raw files give {worst.n_nan}."
            )
    result.differences = pd.DataFrame(rows)


def _some(names: set[str], what: str) -> str:
    listed = ", ".join(sorted(names)[:3]) + (" ..." if len(names) > 3 else "")
    return f"{len(names):,} {what}{'s' * (len(names) > 1)} ({listed})"


def _image_problems(release_path: Path, tree: NSDTree, splits: dict[str, list[int]]) -> list[str]:
    """Hold every image and its table against the tree's."""
    problems: list[str] = []
    coco_ids = _read_coco_ids(tree)
    for split, nsd_ids in splits.items():
        table_name = f"stimulus_metadata_{split}.csv"
        table = pd.read_csv(release_path / table_name)
        difference = _first_difference(f"{table_name}: nsd_id of row", table.nsd_id.to_numpy(), np.array(nsd_ids))
        if difference:
            problems.append(difference)
            continue
        if "coco_id" in table and coco_ids is not None:
            expected = coco_ids.reindex(nsd_ids).to_numpy()
            difference = _first_difference(f"{table_name}: coco_id of row", table.coco_id.to_numpy(), expected)
            problems += [difference] if difference else []
        paths = [release_path / f"stimuli_{split}" / name for name in table.image_file_name]
        problems += _pixel_problems(tree, dict(zip(nsd_ids, paths, strict=True)))
    return problems


def _read_coco_ids(tree: NSDTree) -> pd.Series | None:
    if not tree.storage.exists(tree.stimulus_info_path):
        return None
    with tree.storage.open(tree.stimulus_info_path) as file:
        return pd.read_csv(io.BytesIO(file.read())).set_index("nsdId")["cocoId"]


def _pixel_problems(tree: NSDTree, paths: dict[int, Path]) -> list[str]:
    problems = []
    extracted = {
        name: f"{folder}/{name}"
        for folder in ("brainscore/stimuli_train", "brainscore/stimuli_test")
        for name in tree.storage.names(folder)
    }
    images: h5py.Dataset | None = None
    if tree.storage.exists(tree.images_path):
        # buffered, since HDF5 takes a short read for a whole one
        images = h5py.File(io.BufferedReader(tree.storage.open(tree.images_path)), "r")["imgBrick"]
    for nsd_id, path in paths.items():
        source = next((extracted[n] for n in (path.name, f"stimulus_{path.name}") if n in extracted), None)
        if source is not None:
            with tree.storage.open(source) as file:
                if file.read() == path.read_bytes():
                    continue
        if images is None:
            problems.append(f"{path} is not the image that {tree} holds, if it holds any.")
            continue
        found, expected = np.asarray(Image.open(path)), images[nsd_id]
        if path.suffix == ".jpg":
            expected = _after_jpeg(expected)
        if found.shape != expected.shape:
            problems.append(f"{path} has the shape {found.shape}, but image {nsd_id} of imgBrick {expected.shape}.")
        elif (differ := np.argwhere((found != expected).any(axis=2))).size:
            row, column = differ[0]
            problems.append(
                f"{path}: pixel (row {row}, column {column}) is {found[row, column].tolist()}, but image {nsd_id} of imgBrick "
                f"has {expected[row, column].tolist()} ({len(differ):,} pixels differ)."
            )
    return problems


def _after_jpeg(pixels: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=95)
    return np.asarray(Image.open(buffer))


def _read_vertices(tree: NSDTree, path: str) -> np.ndarray:
    with _on_disk(tree, path) as place:
        return np.asarray(nibabel.load(place).dataobj).ravel()


@contextmanager
def _on_disk(tree: NSDTree, path: str) -> Iterator[Path]:
    """Yield a local path of a raw file: nibabel reads no other."""
    if not tree.storage.exists(path):
        raise PackagingError(f"{tree.storage.locate(path)} is missing, but the release was made from it.")
    if isinstance(tree.storage, Folder):
        yield tree.storage.root / path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / Path(path).name
        with tree.storage.open(path) as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target, COPY_BYTES)
        yield copy
