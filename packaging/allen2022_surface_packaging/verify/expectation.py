"""What the raw files of NSD say about a release: its images, its split and its neuroids.

This module repeats on purpose what the builder computes. A wrong builder must not confirm itself, so nothing here uses the
builder's code: trials, split, regions and noise ceilings are computed again, and the published values are written down again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray

from ..arrays import AnyArray, IntArray
from ..errors import PackagingError
from ..nsd.storage import RawFile
from ..nsd.tree import NSDTree
from ..recipe import Recipe
from ..release import Manifest
from .differences import first_difference
from .raw import Design, read_label_names, read_surface

# Subjects, regions and split of Brain-Score's published packaging of NSD (brainscore_vision, data/allen2022_fmri).
PUBLISHED_SUBJECTS = {
    "Allen2022_fmri_surface": (1, 2, 3, 4, 5, 6, 7, 8),
    "Allen2022_fmri_surface_4subj": (1, 2, 5, 7),
}
PUBLISHED_REGIONS = (
    ("V1", "Kastner2015", (1, 2)),
    ("V2", "Kastner2015", (3, 4)),
    ("V4", "Kastner2015", (7,)),
    ("IT", "streams", (5,)),
)
PUBLISHED_CHOICES = {
    "standardize_on": "all",
    "nan_policy": "zero",
    "betas": "betas_fithrf_GLMdenoise_RR",
    "pool": "shared",
    "train_fraction": 0.8,
    "split_seed": 42,
}
N_REPETITIONS = 3
HEMISPHERES = ("lh", "rh")
RAW_FILES_GIVE = "but the raw files give"


class Trial(NamedTuple):
    """One trial of a subject."""

    session: int  # 1-based
    number: int  # within the session, 0-based


@dataclass(frozen=True, eq=False)
class Expectation:
    """What the raw files say about a release, without its values and its pixels.

    Attributes
    ----------
    trials : for each subject's name and the `nsd_id` of each image, the trials that showed the image, in order
    splits : the `nsd_id` of the images of each split, ascending
    regions : the names of the regions with the atlas, the labels and the number of vertices
    neuroids : table of all possible neuroids, in the order of a release; its columns are the neuroid coordinates
    """

    tree: NSDTree
    manifest: Manifest
    trials: dict[str, dict[int, list[Trial]]]
    splits: dict[str, list[int]]
    regions: dict[str, tuple[str, tuple[int, ...], int]]
    neuroids: pd.DataFrame

    @property
    def images(self) -> list[int]:
        """The `nsd_id` of all images, ascending."""
        return sorted(self.splits["train"] + self.splits["test"])

    def presentations(self, split: str) -> pd.DataFrame:
        """Return the presentation coordinates of a split."""
        n_repetitions = N_REPETITIONS if split == "test" else 1
        nsd_ids = [nsd_id for nsd_id in self.splits[split] for _ in range(n_repetitions)]
        table = pd.DataFrame({"stimulus_id": [f"nsd_{nsd_id:05d}" for nsd_id in nsd_ids], "nsd_id": nsd_ids})
        if split == "test":
            table["repetition"] = list(range(N_REPETITIONS)) * len(self.splits[split])
        return table


def read_expectation(tree: NSDTree, manifest: Manifest, design: Design) -> Expectation:
    """Read the labels and the noise-ceiling SNR, and derive images, split and neuroids from them and the design.

    Raises
    ------
    PackagingError
        If a raw file is missing or damaged, or does not fit the others.
    """
    trials = {
        subject: _list_trials(design, subject, n_sessions, manifest.n_trials_per_session)
        for subject, n_sessions in manifest.sessions.items()
    }
    splits = _choose_images(manifest.recipe, design, trials)
    images = splits["train"] + splits["test"]
    vertices = find_region_vertices(tree, manifest.recipe, manifest.n_vertices)
    return Expectation(
        tree=tree,
        manifest=manifest,
        trials={subject: {nsd_id: trials[subject][nsd_id] for nsd_id in images} for subject in trials},
        splits=splits,
        regions={r.name: (r.atlas, r.labels, sum(map(len, r.vertices.values()))) for r in vertices},
        neuroids=_list_neuroids(tree, manifest, vertices),
    )


def find_published_problems(manifest: Manifest) -> list[str]:
    """Compare a release that carries a published name with what was published under this name."""
    if manifest.name not in PUBLISHED_SUBJECTS:
        return []
    recipe = manifest.recipe
    regions = tuple((region.name, region.atlas, region.labels) for region in recipe.regions)
    choices = [
        ("subjects", recipe.subjects, PUBLISHED_SUBJECTS[manifest.name]),
        ("regions", regions, PUBLISHED_REGIONS),
        *((name, getattr(recipe, name), expected) for name, expected in PUBLISHED_CHOICES.items()),
    ]
    return [
        f"The recipe has {name} {actual}, but {manifest.name} was published with {expected}. Give the release another name."
        for name, actual, expected in choices
        if actual != expected
    ]


def find_region_problems(expected: Expectation) -> list[str]:
    """Compare the regions that the manifest lists with what the recipe and the atlases give."""
    listed = {region.name: (region.atlas, region.labels, region.n_vertices) for region in expected.manifest.regions}
    if listed == expected.regions and list(listed) == list(expected.regions):
        return []
    names = [name for name in {**listed, **expected.regions} if listed.get(name) != expected.regions.get(name)]
    name = names[0] if names else "the order"
    return [
        f"The manifest lists {len(listed)} regions and has {listed.get(name)} for {name}, {RAW_FILES_GIVE} "
        f"{expected.regions.get(name)} and {len(expected.regions)} regions."
    ]


def find_coordinate_problems(expected: Expectation, split: str, assembly: xarray.DataArray) -> list[str]:
    """Compare the coordinates of an assembly with what the raw files give."""
    problems = _compare_coordinates(f"{split}: %s of presentation", assembly, expected.presentations(split))
    neuroids = expected.neuroids
    if expected.manifest.recipe.nan_policy == "drop":
        ids = pd.Series(assembly["neuroid_id"].values)
        unknown = ids[~ids.isin(neuroids["neuroid_id"])]
        if len(unknown):
            problem = f"{split}: the labels give no neuroid_id {unknown.iloc[0]} ({len(unknown):,} such ids in all)."
            return [*problems, problem]
        neuroids = neuroids[neuroids["neuroid_id"].isin(ids)]
    return problems + _compare_coordinates(f"{split}: %s of neuroid", assembly, neuroids)


def _compare_coordinates(title: str, assembly: xarray.DataArray, expected: pd.DataFrame) -> list[str]:
    """Compare each coordinate with a column; its name replaces ``%s`` in the title."""
    problems = []
    for name, column in expected.items():
        values = assembly[name].values
        problems += first_difference(title % name, values, column.to_numpy(), source=RAW_FILES_GIVE, may_round=True)
    return problems


def _list_trials(design: Design, subject: str, n_sessions: int, n_trials_per_session: int) -> dict[int, list[Trial]]:
    """List the trials of each image that a subject saw, in the order in which they were run."""
    images = design.subjectim[int(subject[-2:]) - 1].tolist()
    order = design.masterordering.tolist()
    trials: dict[int, list[Trial]] = {}
    for i in range(n_sessions * n_trials_per_session):
        trial = Trial(session=i // n_trials_per_session + 1, number=i % n_trials_per_session)
        trials.setdefault(images[order[i] - 1] - 1, []).append(trial)
    return trials


def _choose_images(recipe: Recipe, design: Design, trials: dict[str, dict[int, list[Trial]]]) -> dict[str, list[int]]:
    """Return the `nsd_id` of the images of each split, ascending."""
    complete = [
        nsd_id
        for nsd_id in (design.sharedix - 1).tolist()
        if all(len(subject_trials.get(nsd_id, [])) >= N_REPETITIONS for subject_trials in trials.values())
    ]
    if recipe.pool == "own":
        (subject,) = recipe.subjects
        others = set((np.delete(design.subjectim, subject - 1, axis=0) - 1).ravel().tolist())
        (shown,) = trials.values()
        return {"train": sorted(set(shown) - others - set((design.sharedix - 1).tolist())), "test": complete}
    shuffled = np.random.RandomState(recipe.split_seed).permutation(len(complete))  # noqa: NPY002, the published split
    n_train = int(recipe.train_fraction * len(complete))
    parts = {"train": shuffled[:n_train], "test": shuffled[n_train:]}
    return {split: sorted(complete[row] for row in rows) for split, rows in parts.items()}


@dataclass(frozen=True, eq=False)
class RegionVertices:
    """The vertices of a region, ascending, by hemisphere."""

    name: str
    atlas: str
    labels: tuple[int, ...]
    vertices: dict[str, IntArray]


def find_region_vertices(tree: NSDTree, recipe: Recipe, n_vertices: int) -> list[RegionVertices]:
    """Find the vertices of every region of a recipe in its atlas.

    Raises
    ------
    PackagingError
        If an atlas is missing, damaged or of another size, or lacks a label, or if two regions have one name.
    """
    found = []
    for region in recipe.regions:
        if region.atlas == "cortex":
            found.append(RegionVertices(region.name, "cortex", (), {h: np.arange(n_vertices) for h in HEMISPHERES}))
            continue
        values = {h: _read_map(tree.labels(region.atlas, h), n_vertices) for h in HEMISPHERES}
        names = read_label_names(tree.label_names(region.atlas))
        names.pop(0, None)  # what is outside the atlas has no name
        numbers = {name: number for number, name in names.items()}
        unknown = [label for label in region.labels if isinstance(label, str) and label not in numbers]
        if unknown:
            raise PackagingError(f"{tree.label_names(region.atlas)} names no label {unknown[0]}, as the recipe asks.")
        labels = [numbers[label] if isinstance(label, str) else label for label in region.labels]
        present = np.unique(np.concatenate(list(values.values()))).tolist()
        absent = [label for label in labels if label not in present and label not in names]
        if absent:
            raise PackagingError(
                f"No vertex of {region.atlas} in {tree} has the label {absent[0]}, as the recipe asks."
            )
        labels = labels or [_whole(label, region.atlas, tree) for label in present if label > 0]
        parts = [(region.name, set(labels))]
        if region.each:
            parts = [(_legal(names.get(label, f"{region.atlas}_{label}")), {label}) for label in sorted(labels)]
        for name, part in parts:
            vertices = {h: np.flatnonzero(np.isin(values[h], list(part))) for h in HEMISPHERES}
            found.append(RegionVertices(name, region.atlas, tuple(sorted(part)), vertices))
    repeated = [name for name, n in Counter(region.name for region in found).items() if n > 1]
    if repeated:
        raise PackagingError(f"{tree} gives the recipe more than one region {repeated[0]}, expected every region once.")
    return found


def _whole(label: float, atlas: str, tree: NSDTree) -> int:
    if not float(label).is_integer():
        raise PackagingError(f"{atlas} in {tree} has the label {label}, expected whole numbers.")
    return int(label)


def _read_map(file: RawFile, n_vertices: int) -> AnyArray:
    values = read_surface(file)
    if len(values) != n_vertices:
        raise PackagingError(f"{file} holds {len(values):,} vertices, expected {n_vertices:,} as in the manifest.")
    return values


def _legal(name: str) -> str:
    """Replace what may not stand in the identifier of a neuroid."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)


def _list_neuroids(tree: NSDTree, manifest: Manifest, regions: list[RegionVertices]) -> pd.DataFrame:
    """List all possible neuroids, also those that the recipe drops."""
    tables = []
    recipe = manifest.recipe
    snr = {
        (subject, h): _read_map(tree.ncsnr(subject, h, recipe.betas), manifest.n_vertices)
        for subject in recipe.subjects
        for h in HEMISPHERES
    }
    for region in regions:
        for subject in recipe.subjects:
            table = pd.concat(_list_hemisphere(snr[subject, h], subject, h, region.vertices[h]) for h in HEMISPHERES)
            ids = zip(table["subject"], table["hemisphere"], range(len(table)), strict=True)
            table["neuroid_id"] = [f"{name}_{h}_{region.name}_v{number:05d}" for name, h, number in ids]
            table["region"] = region.name
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _list_hemisphere(snr: AnyArray, subject: int, hemisphere: str, vertices: IntArray) -> pd.DataFrame:
    squared_snr = snr[vertices].astype(np.float64) ** 2
    return pd.DataFrame(
        {
            "subject": f"subj{subject:02d}",
            "hemisphere": hemisphere,
            "vertex_index": vertices,
            "nc_testset": 100 * squared_snr / (squared_snr + 1 / N_REPETITIONS),
        }
    )
