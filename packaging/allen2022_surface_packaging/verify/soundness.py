"""What is there, and is it what it should be: an NSD tree before hours are spent, a release before it is trusted."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from PIL import Image

from ..build.assembly import DIMENSIONS, NEUROID_COORDINATES, TIME_BIN, presentations
from ..build.stimuli import find_extracted_images
from ..errors import PackagingError
from ..nsd.files import (
    HEMISPHERES,
    N_VERTICES_OF_FSAVERAGE,
    SESSIONS_OF_NSD,
    Design,
    NSDTree,
    count_images,
    expected_sessions,
    open_tree,
    read_betas_shape,
    read_design,
    read_vertices,
    subject_name,
)
from ..nsd.regions import ATLASES, REGIONS, RegionMap, read_hemisphere_ncsnr, read_regions
from ..nsd.trials import complete_images, fewest_repetitions, shared_trials, stimulus_name
from ..release import MANIFEST, NAMES, SPLITS, assembly_file, read_manifest, release_files, sha1_of

if TYPE_CHECKING:
    import xarray

N_TRIALS_PER_SESSION_OF_NSD = 750
# Sizes of the full-size data, measured on NSD's own atlases and design; reduced trees have none of them.
N_NEUROIDS_OF_REGION = {"V1": 4276, "V2": 3391, "V4": 914, "IT": 19065}
N_IMAGES_OF_SPLIT = {NAMES[1, 2, 3, 4, 5, 6, 7, 8]: (412, 103), NAMES[1, 2, 5, 7]: (800, 200)}

T = TypeVar("T")


@dataclass(frozen=True)
class TreeInspection:
    """What an NSD tree holds for some subjects, as far as headers and the design tell.

    Attributes
    ----------
    sessions : the sessions of each subject (1-based) that there must be
    trials : each subject's trials that showed a shared image
    fewest : for every shared image the fewest repetitions over the subjects
    subjects : a row per subject, for people to read
    """

    tree: NSDTree
    design: Design
    region_map: RegionMap
    n_trials_per_session: int
    sessions: dict[int, list[int]]
    trials: dict[int, pd.DataFrame]
    fewest: pd.Series
    subjects: pd.DataFrame


def inspect_tree(root: str | Path, subjects: Sequence[int]) -> tuple[TreeInspection | None, list[str]]:
    """Look at everything that a release of `subjects` needs: headers, sizes, labels and the design, no responses.

    Returns
    -------
    the inspection, or None where the tree is too broken for one, and every problem found, a line each
    """
    problems: list[str] = []

    def attempt(function: Callable[..., T], *arguments: Any) -> T | None:
        try:
            return function(*arguments)
        except PackagingError as error:
            if str(error) not in problems:
                problems.append(str(error))
            return None

    tree = attempt(open_tree, root)
    if tree is None:
        return None, problems
    design = attempt(read_design, tree)
    region_map = attempt(read_regions, tree)
    if region_map is None:  # it stops at the first label file that is at fault
        for atlas, hemisphere in itertools.product(ATLASES, HEMISPHERES):
            attempt(read_vertices, tree, tree.labels_path(atlas, hemisphere))
    if design is not None and max(subjects) > len(design.subjectim):
        problems.append(
            f"{tree}: the design has {len(design.subjectim)} subjects, but subject {max(subjects)} was asked for."
        )
        design = None

    shapes: dict[str, tuple[int, int] | None] = {}
    sessions: dict[int, list[int]] = {}
    for subject in subjects:
        sessions[subject] = expected_sessions(tree, design, subject) if design else tree.sessions_found(subject)
        if not sessions[subject]:
            problems.append(
                f"{tree.storage.locate(tree.betas_folder(subject))} holds no betas, expected "
                f"lh.betas_session01.mgh and on. Download them."
            )
        for session in sessions[subject]:
            for hemisphere in HEMISPHERES:
                path = tree.betas_path(subject, hemisphere, session)
                shapes[path] = attempt(read_betas_shape, tree, path)
        if region_map is not None:
            for hemisphere in HEMISPHERES:
                attempt(read_hemisphere_ncsnr, tree, region_map, subject, hemisphere)

    n_trials = _usual([shape[1] for shape in shapes.values() if shape])
    if design is not None and design.is_full_size:
        n_trials = N_TRIALS_PER_SESSION_OF_NSD
    n_vertices = region_map.n_vertices if region_map else _usual([shape[0] for shape in shapes.values() if shape])
    for path, shape in shapes.items():
        if shape is not None and shape != (n_vertices, n_trials):
            problems.append(
                f"{tree.storage.locate(path)} holds {shape[0]:,} vertices x {shape[1]} trials, expected {n_vertices:,} "
                f"(as the labels) x {n_trials} (as the other sessions). Was it downloaded from fsaverage/?"
            )
    if design is None or region_map is None or not n_trials:
        return None, problems
    longest = max(len(found) for found in sessions.values())
    if longest * n_trials > design.n_trials:
        problems.append(
            f"{tree.storage.locate(tree.design_path)} orders {design.n_trials:,} trials, but {longest} sessions of "
            f"{n_trials} trials were found. Do design and betas belong together?"
        )
        return None, problems

    trials = {
        subject: shared_trials(design, subject, n_sessions=len(sessions[subject]), n_trials_per_session=n_trials)
        for subject in subjects
    }
    fewest = fewest_repetitions(design, trials)
    complete = attempt(complete_images, fewest)
    if complete is not None and not find_extracted_images(tree, complete, None):
        attempt(count_images, tree, complete)
    table = _subject_table(tree, design, sessions, shapes, trials)
    return TreeInspection(tree, design, region_map, n_trials, sessions, trials, fewest, table), problems


def _usual(values: list[int]) -> int:
    return Counter(values).most_common(1)[0][0] if values else 0


def _subject_table(
    tree: NSDTree,
    design: Design,
    sessions: dict[int, list[int]],
    shapes: dict[str, tuple[int, int] | None],
    trials: dict[int, pd.DataFrame],
) -> pd.DataFrame:
    rows = []
    for subject, table in trials.items():
        repetitions = table.nsd_id.value_counts().reindex(design.sharedix - 1, fill_value=0).clip(upper=3)
        own = [shapes[tree.betas_path(subject, h, session)] for session in sessions[subject] for h in HEMISPHERES]
        rows.append(
            {
                "subject": subject_name(subject),
                "sessions expected": len(sessions[subject]),
                "sessions found": len(tree.sessions_found(subject)),
                "betas files": f"{sum(shape is not None for shape in own)}/{len(own)}",
                "vertices x trials": ", ".join(f"{n} x {m}" for n, m in sorted({shape for shape in own if shape}))
                or "-",
                "shared images seen 0/1/2/3 times": "/".join(str(int((repetitions == n).sum())) for n in range(4)),
            }
        )
    return pd.DataFrame(rows)


def verify_release(release_path: Path) -> list[str]:
    """Hold a release on disk against its design and its own `release.json`.

    Returns
    -------
    the problems found, a line each; empty if the release is sound

    Raises
    ------
    PackagingError
        If the folder is not a release.
    """
    manifest = read_manifest(release_path)
    problems = _verify_files(release_path, manifest["files"])
    if problems:
        return problems  # what else could be said of a file that is not the one that was written?
    for check in (_verify_stimuli, _verify_assemblies):
        try:
            problems += check(release_path, manifest)
        except (AttributeError, LookupError, ValueError, OSError, RuntimeError, TypeError) as error:
            problems.append(f"{release_path} cannot be checked: {type(error).__name__}: {error}.")
    return problems


def _verify_files(release_path: Path, files: dict[str, dict[str, Any]]) -> list[str]:
    problems = []
    present = {str(path.relative_to(release_path)) for path in release_files(release_path)}
    problems += [f"{release_path / name} is missing, but {MANIFEST} lists it." for name in sorted(set(files) - present)]
    problems += [
        f"{release_path / name} is there, but {MANIFEST} does not list it." for name in sorted(present - set(files))
    ]
    for name in sorted(present & set(files)):
        path, expected = release_path / name, files[name]
        if path.stat().st_size != expected["size"]:
            problems.append(f"{path} has {path.stat().st_size:,} bytes, expected {expected['size']:,}.")
        elif (found := sha1_of(path)) != expected["sha1"]:
            problems.append(f"{path} has the SHA-1 {found}, expected {expected['sha1']}.")
    return problems


def _verify_stimuli(release_path: Path, manifest: dict[str, Any]) -> list[str]:
    problems = []
    split_table = pd.read_csv(release_path / "train_test_split.csv")
    if not split_table.nsd_id.is_monotonic_increasing or not split_table.nsd_id.is_unique:
        problems.append("train_test_split.csv: nsd_id is not ascending without repeats, so train and test may overlap.")
    for split in SPLITS:
        name = f"stimulus_metadata_{split}.csv"
        table = pd.read_csv(release_path / name)
        expected_ids = split_table.nsd_id[split_table.split == split].tolist()
        if table.nsd_id.tolist() != expected_ids:
            problems.append(f"{name} and train_test_split.csv list different images.")
        if table.stimulus_id.tolist() != [stimulus_name(nsd_id) for nsd_id in table.nsd_id]:
            problems.append(f"{name}: a stimulus_id does not belong to its nsd_id.")
        if table.isna().any(axis=None):
            problems.append(f"{name} holds empty cells, which Brain-Score takes for different from themselves.")
        folder = release_path / f"stimuli_{split}"
        if sorted(table.image_file_name) != sorted(path.name for path in folder.iterdir()):
            problems.append(f"{name} and the files in {folder.name}/ differ.")
        problems += [problem for name in table.image_file_name if (problem := _image_problem(folder / name))]
    return problems


def _image_problem(path: Path) -> str | None:
    try:
        with Image.open(path) as image:
            image.load()
            return None if image.mode == "RGB" else f"{path} is {image.mode}, expected RGB."
    except OSError as error:
        return f"{path} is not an image ({error})."


def _verify_assemblies(release_path: Path, manifest: dict[str, Any]) -> list[str]:
    import xarray  # here, because its import takes a second that a build need not spend

    problems = []
    assemblies = {}
    for split in SPLITS:
        path = release_path / assembly_file(manifest["name"], split)
        with xarray.open_dataarray(path) as assembly:
            problems += [
                f"{path.name}: {problem}" for problem in _assembly_problems(release_path, manifest, split, assembly)
            ]
            assemblies[split] = assembly.drop_vars(["time_bin_start", "time_bin_end"]).isel(presentation=0, time_bin=0)
    for name in NEUROID_COORDINATES:
        train, test = (assemblies[split][name].values for split in SPLITS)
        if not _same(train, test):
            problems.append(f"The {name} of train and test differ{_first_place(train, test)}.")
    return problems


def _assembly_problems(
    release_path: Path, manifest: dict[str, Any], split: str, assembly: xarray.DataArray
) -> list[str]:
    problems = []
    nsd_ids = pd.read_csv(release_path / f"stimulus_metadata_{split}.csv").nsd_id.to_numpy()
    expected = presentations(split, nsd_ids)
    if assembly.dims != DIMENSIONS:
        return [f"dimensions are {assembly.dims}, expected {DIMENSIONS}."]
    if assembly.dtype != np.float32:
        problems.append(f"values are {assembly.dtype}, expected float32.")
    if list(assembly.shape) != manifest["shapes"][split]:
        problems.append(f"shape is {list(assembly.shape)}, but {MANIFEST} says {manifest['shapes'][split]}.")
    found_names = {name for name, values in assembly.coords.items() if values.dims == ("presentation",)}
    if found_names != set(expected):
        problems.append(f"presentation coordinates are {sorted(found_names)}, expected {sorted(expected)}.")
    for name in found_names & set(expected):
        problems += _first_difference(name, "presentation", assembly[name].values, expected[name].to_numpy())
    for name, values in TIME_BIN.items():
        problems += _first_difference(name, "time_bin", assembly[name].values, np.array(values))
    problems += _neuroid_problems(manifest, assembly)
    for start in range(0, assembly.sizes["neuroid"], 4096):
        values = assembly[:, start : start + 4096].values
        if not np.isfinite(values).all():
            row, column, _ = np.argwhere(~np.isfinite(values))[0]
            neuroid = assembly["neuroid_id"].values[start + column]
            problems.append(
                f"presentation {row}, neuroid {neuroid} is {values[row, column, 0]}, expected a finite value."
            )
            break
    return problems


def _neuroid_problems(manifest: dict[str, Any], assembly: xarray.DataArray) -> list[str]:
    names = {name for name, values in assembly.coords.items() if values.dims == ("neuroid",)}
    if names != set(NEUROID_COORDINATES):
        return [f"neuroid coordinates are {sorted(names)}, expected {sorted(NEUROID_COORDINATES)}."]
    problems = []
    neuroids = pd.DataFrame({name: assembly[name].values for name in NEUROID_COORDINATES})
    order = neuroids.assign(
        region=neuroids.region.map({region.name: i for i, region in enumerate(REGIONS)}),
        subject=neuroids.subject.map({subject_name(s): i for i, s in enumerate(manifest["subjects"])}),
        hemisphere=neuroids.hemisphere.map({hemisphere: i for i, hemisphere in enumerate(HEMISPHERES)}),
    )[["region", "subject", "hemisphere", "vertex_index"]]
    if order.isna().any(axis=None):
        row = int(np.flatnonzero(order.isna().any(axis=1))[0])
        return [f"neuroid {row} has an unknown region, subject or hemisphere: {neuroids.loc[row].to_dict()}."]
    keys = pd.MultiIndex.from_frame(order)
    if not keys.is_monotonic_increasing or not keys.is_unique:
        row = int(np.flatnonzero([a >= b for a, b in zip(keys[:-1], keys[1:], strict=True)])[0]) + 1
        problems.append(
            f"neuroid {row} ({neuroids.neuroid_id[row]}) is out of order: region, subject, hemisphere, vertex."
        )
    numbers = neuroids.groupby(["subject", "region"]).cumcount()
    if manifest["options"]["nan_policy"] == "drop":  # numbered before some were dropped
        numbers = pd.to_numeric(neuroids.neuroid_id.str.extract(r"_v(\d+)$")[0]).fillna(-1).astype(int)
        falling = np.flatnonzero(numbers.groupby([neuroids.subject, neuroids.region]).diff() <= 0)
        if len(falling):
            problems.append(
                f"neuroid {falling[0]} ({neuroids.neuroid_id[falling[0]]}) does not count on from the last."
            )
    rows = zip(neuroids.subject, neuroids.hemisphere, neuroids.region, numbers, strict=True)
    ids = np.array([f"{subject}_{hemisphere}_{region}_v{number:05d}" for subject, hemisphere, region, number in rows])
    problems += _first_difference("neuroid_id", "neuroid", neuroids.neuroid_id.to_numpy(), ids)
    ceilings = neuroids.nc_testset[neuroids.nc_testset.notna()]
    if ((ceilings < 0) | (ceilings > 100)).any():
        problems.append("nc_testset lies outside 0 to 100 percent.")
    return problems + _full_size_problems(manifest, assembly, neuroids)


def _full_size_problems(manifest: dict[str, Any], assembly: xarray.DataArray, neuroids: pd.DataFrame) -> list[str]:
    """Hold a release of the whole of NSD against the sizes that are known of it."""
    if manifest["n_vertices"] != N_VERTICES_OF_FSAVERAGE or manifest["options"]["nan_policy"] != "zero":
        return []
    problems = []
    counts = neuroids.groupby(["subject", "region"]).size()
    for (subject, region), found in counts.items():
        if found != N_NEUROIDS_OF_REGION[region]:
            problems.append(f"{subject} {region} has {found} neuroids, expected {N_NEUROIDS_OF_REGION[region]}.")
    n_images = N_IMAGES_OF_SPLIT.get(manifest["name"])
    is_of_all_sessions = manifest["sessions"] == {subject_name(s): SESSIONS_OF_NSD[s] for s in manifest["subjects"]}
    if n_images and is_of_all_sessions:
        n_found = len(np.unique(assembly["nsd_id"].values))
        if n_found not in n_images:
            problems.append(f"{n_found} images, expected {n_images[0]} in train and {n_images[1]} in test.")
    return problems


def _first_difference(name: str, dimension: str, found: np.ndarray, expected: np.ndarray) -> list[str]:
    if len(found) != len(expected):
        return [f"{name} has {len(found)} values, expected {len(expected)}."]
    differ = np.flatnonzero(np.asarray(found != expected))
    if not len(differ):
        return []
    first = differ[0]
    return [f"{name} of {dimension} {first} is {found[first]}, expected {expected[first]} ({len(differ)} differ)."]


def _first_place(train: np.ndarray, test: np.ndarray) -> str:
    if len(train) != len(test):
        return f" in number: {len(train):,} and {len(test):,}"
    first = int(np.flatnonzero(np.asarray(train != test) & ~(pd.isna(train) & pd.isna(test)))[0])
    return f", first at neuroid {first}: {train[first]} and {test[first]}"


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f" and other.dtype.kind == "f")
