"""What the raw files of NSD say about a release, computed plainly from the description of the method.

A wrong build must not confirm itself, so this module shares no code with `assemble`, and reads raw files without the readers of
`nsd`: only the paths of the files come from there. `verify --nsd-root` and the tests compare releases with it.

References
----------
The published procedure of Brain-Score's surface benchmark (brainscore_vision, data/allen2022_fmri_surface); Allen et al. (2022),
Nature Neuroscience, doi:10.1038/s41593-021-00962-x; NSD Data Manual.
"""

from __future__ import annotations

import io
import shutil
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.io
import xarray
from nibabel.freesurfer.mghformat import MGHImage

from ..arrays import AnyArray, BoolArray, DoubleArray, IntArray, PixelArray
from ..errors import PackagingError, reading
from ..facts import HEMISPHERES, N_REPETITIONS, N_SESSIONS, N_TRIALS, stimulus_name, subject_name
from ..nsd.storage import Folder, RawFile
from ..nsd.tree import NSDTree
from ..recipe import CORTEX, Recipe, Region
from ..release import SPLITS, ReleasedRegion

# More than the published regions have vertices in a hemisphere, so that no betas file is read twice.
VERTICES_AT_A_TIME = 16_384
RESPONSES_AT_A_TIME = 2**25  # bounds the memory if there are many images
COPY_BYTES = 64 * 2**20  # of one request, if the tree is in a bucket


@dataclass(frozen=True, eq=False)
class Reference:
    """What the raw files give for a recipe.

    Attributes
    ----------
    from_region_assemblies : whether the averages come from prepared region assemblies
    n_vertices : of one hemisphere
    shown : for each subject the `nsd_id` of each trial of the sessions acquired, an array of shape (n_trials,)
    splits : the `nsd_id` of the images of each split, ascending
    regions : as a manifest lists them
    neuroids : table of all possible neuroids in the order of a release, also of those that the recipe drops
        Its columns are the neuroid coordinates.
    """

    tree: NSDTree
    recipe: Recipe
    from_region_assemblies: bool
    n_vertices: int
    n_trials_per_session: int
    shown: dict[int, IntArray]
    splits: dict[str, IntArray]
    regions: tuple[ReleasedRegion, ...]
    neuroids: pd.DataFrame

    @property
    def images(self) -> IntArray:
        """The `nsd_id` of all images, ascending."""
        return np.sort(np.concatenate([self.splits[split] for split in SPLITS]))

    @property
    def sessions(self) -> dict[str, int]:
        """The number of sessions by the name of the subject."""
        return {subject_name(s): len(shown) // self.n_trials_per_session for s, shown in self.shown.items()}

    def presentations(self, split: str) -> pd.DataFrame:
        """Return the presentation coordinates of a split."""
        repetitions = range(N_REPETITIONS) if split == "test" else range(1)
        rows = [(stimulus_name(i), i, repetition) for i in self.splits[split].tolist() for repetition in repetitions]
        table = pd.DataFrame(rows, columns=["stimulus_id", "nsd_id", "repetition"])
        return table if split == "test" else table.drop(columns="repetition")

    def blocks(self, neuroids: pd.DataFrame) -> list[pd.DataFrame]:
        """Cut a table of neuroids into parts of one subject and hemisphere whose values fit into memory together."""
        n_vertices = max(1, min(VERTICES_AT_A_TIME, RESPONSES_AT_A_TIME // (N_REPETITIONS * len(self.images))))
        parts = []
        for _, part in neuroids.groupby(["subject", "hemisphere"], sort=False):
            vertices = np.unique(part["vertex_index"])
            for start in range(0, len(vertices), n_vertices):
                parts.append(part[part["vertex_index"].isin(vertices[start : start + n_vertices])])
        return parts

    def values(self, block: pd.DataFrame) -> tuple[dict[str, DoubleArray], BoolArray]:
        """Compute the values of the neuroids of a block.

        Returns
        -------
        by split an array of shape (n_presentations, n_neuroids)
            Unitless; NaN where the raw files have no valid value, or one that single precision cannot hold.
        array of shape (n_neuroids,)
            Whether no trial (and no prepared average) that the release needs is NaN.

        Raises
        ------
        PackagingError
            If a raw file is missing or damaged.
        """
        subject, hemisphere = int(block["subject"].iloc[0][-2:]), str(block["hemisphere"].iloc[0])
        # Two regions may share a vertex.
        vertices, columns = np.unique(block["vertex_index"], return_inverse=True)
        images = self.images
        is_test = np.isin(images, self.splits["test"])
        needed = images[is_test] if self.from_region_assemblies else images
        responses = self.responses(subject, hemisphere, vertices, needed)
        test = responses[is_test[np.isin(images, needed)]]
        if self.from_region_assemblies:
            averages = self._read_prepared_averages(block)
            is_valid = ~(np.isnan(averages).any(axis=0) | np.isnan(test[:, :N_REPETITIONS]).any(axis=(0, 1)))
        else:
            averages = _round(_mean_of_valid(responses, axis=1))
            n_shown = np.array([np.count_nonzero(self.shown[subject] == image) for image in images])
            was_shown = np.arange(responses.shape[1]) < n_shown[:, None]
            is_valid = ~np.isnan(responses[was_shown]).any(axis=0)
        base = averages[~is_test] if self.recipe.standardize_on == "train" else averages
        mean = _mean_of_valid(base, axis=0)
        deviation = np.sqrt(_mean_of_valid((base - mean) ** 2, axis=0))
        deviation[deviation == 0] = 1
        train = (averages[~is_test] - mean) / deviation
        test = ((test[:, :N_REPETITIONS] - mean) / deviation).reshape(-1, len(vertices))
        by_split = {"train": train, "test": test}
        for split, values in by_split.items():
            is_holdable = np.isfinite(_round(values))
            by_split[split] = np.where(is_holdable, values, np.nan)[:, columns]
        return by_split, is_valid[columns]

    def responses(self, subject: int, hemisphere: str, vertices: IntArray, images: IntArray) -> DoubleArray:
        """Read session-standardised responses to some images.

        They are rounded to single precision, in which the published procedure keeps them.

        Returns
        -------
        array of shape (n_images, most repetitions, n_vertices)
            Unitless; NaN for a repetition that the subject did not see.

        Raises
        ------
        PackagingError
            If a betas file is missing or damaged, or holds another number of trials than the first one.
        """
        trials = [np.flatnonzero(self.shown[subject] == image) for image in images]
        responses = np.full((len(images), max(map(len, trials)), len(vertices)), np.nan)
        cells = [(t, row, n) for row, image_trials in enumerate(trials) for n, t in enumerate(image_trials.tolist())]
        for session in self.needed_sessions(subject, images):
            file = self.tree.betas(subject, hemisphere, session, self.recipe.betas)
            betas = _read_trials(file, vertices)
            if len(betas) != self.n_trials_per_session:
                raise PackagingError(
                    f"{file} holds {len(betas)} trials, expected {self.n_trials_per_session}. Download it again."
                )
            standardised = _standardise_session(betas)
            for t, row, repetition in cells:
                if t // self.n_trials_per_session == session - 1:
                    responses[row, repetition] = standardised[t % self.n_trials_per_session]
        return responses

    def needed_sessions(self, subject: int, images: IntArray) -> list[int]:
        """Return the sessions (1-based) in which some images were shown."""
        trials = np.flatnonzero(np.isin(self.shown[subject], images))
        return [int(session) for session in np.unique(trials // self.n_trials_per_session + 1)]

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the tables of a release by their names, without the names of image files."""
        images = _name_images(self.images)
        split = np.where(np.isin(images["nsd_id"], self.splits["train"]), "train", "test")
        tables = {"train_test_split.csv": images.assign(split=split)[["nsd_id", "stimulus_id", "split"]]}
        tables |= {f"stimulus_metadata_{split}.csv": _name_images(self.splits[split]) for split in SPLITS}
        if not self.tree.stimulus_info.exists():
            return tables
        with reading(self.tree.stimulus_info, "NSD's table of images"):
            content = io.BytesIO(self.tree.stimulus_info.read())
            known = pd.read_csv(content, dtype=str, keep_default_na=False).set_index("nsdId")
            rows = known.reindex(self.images.astype(str), fill_value="")
            if (rows["cocoId"] == "").any():
                return tables
            coco_ids = pd.Series(rows["cocoId"].astype(np.int64).to_numpy(), self.images)
            for name in SPLITS:
                table = tables[f"stimulus_metadata_{name}.csv"]
                table["coco_id"] = coco_ids.loc[self.splits[name]].to_numpy()
            if {"cocoSplit", "cropBox"} <= set(rows) and not (rows[["cocoSplit", "cropBox"]] == "").any(axis=None):
                origins = images.assign(coco_id=coco_ids.to_numpy(), coco_split=rows["cocoSplit"].to_numpy())
                boxes = np.array([box.strip(" ()").split(",") for box in rows["cropBox"]], dtype=np.float64)
                sides = ("crop_top", "crop_bottom", "crop_left", "crop_right")
                tables["stimulus_origin.csv"] = origins.assign(**dict(zip(sides, boxes.T, strict=True)))
        return tables

    def pixels(self, nsd_ids: IntArray) -> Iterator[PixelArray]:
        """Yield the pixels of some images, of shape (height, width, 3).

        Raises
        ------
        PackagingError
            If NSD's file of images is missing or damaged.
        """
        source = self.tree.images.hdf5_source()
        with reading(self.tree.images, "NSD's images"), h5py.File(source, "r", locking=False) as opened:
            for nsd_id in nsd_ids:
                yield opened["imgBrick"][nsd_id]

    def _read_prepared_averages(self, block: pd.DataFrame) -> DoubleArray:
        """Read the averages of all images at the vertices of a block, (n_images, n_vertices). Infinite ones count as NaN."""
        vertices = np.unique(block["vertex_index"])
        averages = np.full((len(self.images), len(vertices)), np.nan)
        subject, hemisphere = block["subject"].iloc[0], block["hemisphere"].iloc[0]
        for region, part in block.groupby("region", sort=False):
            file = self.tree.prepared_assembly(str(region))
            with (
                reading(file, "a prepared assembly"),
                _local_copy(file) as path,
                xarray.open_dataarray(path) as assembly,
            ):
                is_of_block = (assembly["subject"] == subject) & (assembly["hemisphere"] == hemisphere)
                own = assembly[:, np.flatnonzero(is_of_block)]
                columns = pd.Index(own["vertex_index"].values).get_indexer(part["vertex_index"])
                rows = pd.Index(own["nsd_id"].values).get_indexer(self.images)
                if min(columns.min(), rows.min()) < 0:
                    raise ValueError(f"it lacks a vertex or an image of {subject}")
                averages[:, np.searchsorted(vertices, part["vertex_index"])] = own.values[np.ix_(rows, columns)]
        return np.where(np.isfinite(averages), averages, np.nan)


def read_reference(tree: NSDTree, recipe: Recipe, *, from_region_assemblies: bool = False) -> Reference:
    """Read design, labels and noise-ceiling SNR, and derive images, split and neuroids.

    Raises
    ------
    PackagingError
        If a raw file is missing or damaged, or does not fit the others or the recipe.
    """
    first = recipe.subjects[0]
    n_vertices, n_trials = _read_extent(tree.betas(first, "lh", 1, recipe.betas))
    masterordering, subjectim, sharedix = _read_design(tree.design)
    shown = {}
    for subject in recipe.subjects:
        n_sessions = max(tree.sessions_present(subject, recipe.betas), default=0)
        if masterordering.size == N_TRIALS:
            n_sessions = N_SESSIONS[subject]
        with reading(tree.design, "a design of these subjects and trials"):
            shown[subject] = subjectim[subject - 1, masterordering[: n_sessions * n_trials] - 1] - 1
    regions, vertices = _find_regions(tree, recipe, n_vertices)
    return Reference(
        tree=tree,
        recipe=recipe,
        from_region_assemblies=from_region_assemblies,
        n_vertices=n_vertices,
        n_trials_per_session=n_trials,
        shown=shown,
        splits=_choose_images(recipe, subjectim - 1, sharedix - 1, shown),
        regions=regions,
        neuroids=_list_neuroids(tree, recipe, n_vertices, vertices),
    )


def _choose_images(
    recipe: Recipe, subjectim: IntArray, shared: IntArray, shown: dict[int, IntArray]
) -> dict[str, IntArray]:
    """Choose the images of each split from 0-based numbers of images."""
    counts = [Counter(trials.tolist()) for trials in shown.values()]
    complete = np.array([i for i in shared.tolist() if min(n[i] for n in counts) >= N_REPETITIONS], dtype=np.int64)
    if recipe.pool == "own":
        (subject,) = recipe.subjects
        of_others = np.delete(subjectim, subject - 1, axis=0)
        own = set(shown[subject].tolist()) - set(of_others.ravel().tolist()) - set(shared.tolist())
        return {"train": np.array(sorted(own), dtype=np.int64), "test": np.sort(complete)}
    shuffled = complete[np.random.RandomState(recipe.split_seed).permutation(len(complete))]  # noqa: NPY002, published
    n_train = int(recipe.train_fraction * len(complete))
    return {"train": np.sort(shuffled[:n_train]), "test": np.sort(shuffled[n_train:])}


def _find_regions(
    tree: NSDTree, recipe: Recipe, n_vertices: int
) -> tuple[tuple[ReleasedRegion, ...], dict[str, dict[str, IntArray]]]:
    """Return the regions of a recipe, and the vertices of each region in each hemisphere, ascending."""
    regions, vertices = [], {}
    for asked in recipe.regions:
        if asked.atlas == CORTEX:
            found: dict[str, tuple[int, ...]] = {asked.name: ()}
            values: dict[str, AnyArray] = {}
        else:
            values = {h: _read_map(tree.labels(asked.atlas, h), n_vertices) for h in HEMISPHERES}
            found = _find_labels(tree, asked, values)
        for name, labels in found.items():
            vertices[name] = {
                h: np.flatnonzero(np.isin(values[h], labels)) if values else np.arange(n_vertices) for h in HEMISPHERES
            }
            regions.append(ReleasedRegion(name, asked.atlas, labels, sum(map(len, vertices[name].values()))))
    return tuple(regions), vertices


def _find_labels(tree: NSDTree, asked: Region, values: dict[str, AnyArray]) -> dict[str, tuple[int, ...]]:
    """Return the numbers of the labels of each region for which an entry of a recipe stands, by the region's name."""
    present = np.unique(np.concatenate(list(values.values())))
    needs_names = asked.each or not set(asked.labels) <= set(present.tolist())
    names = _read_label_names(tree.label_names(asked.atlas)) if needs_names else {}
    numbers = {name: number for number, name in names.items()}
    labels = [numbers.get(label, -1) if isinstance(label, str) else label for label in asked.labels]
    labels = sorted(labels or [int(label) for label in present if label > 0])
    for label in labels:
        if label not in present and label not in names:
            raise PackagingError(
                f"{tree.label_names(asked.atlas)} and the vertices of {asked.atlas} lack a label of {asked.labels}."
            )
    if not asked.each:
        return {asked.name: tuple(labels)}
    allowed = {label: names.get(label, f"{asked.atlas}_{label}") for label in labels}
    legal = ["".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in n) for n in allowed.values()]
    return {name: (label,) for name, label in zip(legal, labels, strict=True)}


def _list_neuroids(
    tree: NSDTree, recipe: Recipe, n_vertices: int, vertices: dict[str, dict[str, IntArray]]
) -> pd.DataFrame:
    """List all possible neuroids: by region, then by subject, then lh and rh, then by vertex."""
    ceilings = {}
    for subject in recipe.subjects:
        for hemisphere in HEMISPHERES:
            snr = _read_map(tree.ncsnr(subject, hemisphere, recipe.betas), n_vertices).astype(np.float64)
            ceilings[subject, hemisphere] = 100 * snr**2 / (snr**2 + 1 / N_REPETITIONS)
    parts = []
    for region, by_hemisphere in vertices.items():
        for subject in recipe.subjects:
            columns = {
                "subject": subject_name(subject),
                "hemisphere": np.repeat(HEMISPHERES, [len(by_hemisphere[h]) for h in HEMISPHERES]),
                "vertex_index": np.concatenate([by_hemisphere[h] for h in HEMISPHERES]),
                "region": region,
                "nc_testset": np.concatenate([ceilings[subject, h][by_hemisphere[h]] for h in HEMISPHERES]),
            }
            part = pd.DataFrame(columns)
            rows = enumerate(part["hemisphere"])
            part.insert(0, "neuroid_id", [f"{subject_name(subject)}_{h}_{region}_v{i:05d}" for i, h in rows])
            parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _standardise_session(betas: DoubleArray) -> DoubleArray:
    """Standardise each vertex over the trials of a session, (n_trials, n_vertices). A constant vertex becomes 0."""
    is_constant = (betas == betas[0]).all(axis=0)
    with np.errstate(invalid="ignore"):  # an infinite trial makes the vertex NaN
        # The mean of a constant can differ from the constant in the last bit, and the deviation is then not zero.
        mean = np.where(is_constant, betas[0], betas.mean(axis=0))
        deviation = np.where(is_constant, 1, betas.std(axis=0))
        return _round((betas - mean) / np.where(deviation == 0, 1, deviation))


def _mean_of_valid(values: DoubleArray, axis: int) -> DoubleArray:
    """Return the mean of the values that are not NaN; NaN if there are none. NumPy's function would warn about that."""
    with np.errstate(invalid="ignore"):
        mean: DoubleArray = np.nansum(values, axis=axis) / (~np.isnan(values)).sum(axis=axis)
    return mean


def _round(values: DoubleArray) -> DoubleArray:
    """Round to single precision; what it cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32).astype(np.float64)


def _name_images(nsd_ids: IntArray) -> pd.DataFrame:
    return pd.DataFrame({"stimulus_id": [stimulus_name(i) for i in nsd_ids.tolist()], "nsd_id": nsd_ids})


@contextmanager
def _local_copy(file: RawFile) -> Iterator[Path]:
    """Yield the path of a raw file on this machine, because nibabel reads nothing else. A file in a bucket is copied."""
    if not file.exists():
        raise PackagingError(f"{file} is missing, but the release was made from it. Download it again.")
    if isinstance(file.storage, Folder):
        yield Path(str(file))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(file.path).name
        with file.open() as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, COPY_BYTES)
        yield path


def _read_design(file: RawFile) -> tuple[IntArray, IntArray, IntArray]:
    """Return masterordering, subjectim and sharedix in NSD's 1-based numbers."""
    with reading(file, "NSD's experiment design"):
        variables = scipy.io.loadmat(io.BytesIO(file.read()))
        # The arrays are small unsigned integers, in which arithmetic overflows.
        names = ("masterordering", "subjectim", "sharedix")
        masterordering, subjectim, sharedix = (variables[name].astype(np.int64) for name in names)
        return masterordering.ravel(), subjectim, sharedix.ravel()


def _read_extent(file: RawFile) -> tuple[int, int]:
    """Return the numbers of vertices and of trials from the header of an MGH file."""
    with reading(file, "MGH"), file.open() as opened:
        _, n_vertices, _, _, n_trials = struct.unpack(">5i", opened.read(20))
    return n_vertices, n_trials


def _read_map(file: RawFile, n_vertices: int) -> AnyArray:
    """Read one value per vertex."""
    with reading(file, "MGH"), _local_copy(file) as path:
        values: AnyArray = np.array(MGHImage.from_filename(path).dataobj).ravel()
    if len(values) != n_vertices:
        raise PackagingError(f"{file} holds {len(values):,} vertices, expected {n_vertices:,}. Download it again.")
    return values


def _read_trials(file: RawFile, vertices: IntArray) -> DoubleArray:
    """Read the responses of some vertices in one session, of shape (n_trials, n_vertices), in percent signal change."""
    with reading(file, "MGH"), _local_copy(file) as path:
        values = np.asanyarray(
            MGHImage.from_filename(path).dataobj
        )  # a map of the file: only pages that are needed are read
        betas: DoubleArray = values[:, 0, 0, :].T[:, vertices].astype(np.float64)
    return betas


def _read_label_names(file: RawFile) -> dict[int, str]:
    """Read the names of the labels above 0 from a colour table; empty if the file is missing."""
    if not file.exists():
        return {}
    with reading(file, "a colour table"):
        lines = [line.split() for line in file.read().decode("utf-8", errors="replace").splitlines()]
        names = {int(words[0]): words[1] for words in lines if words and not words[0].startswith("#")}
    return {label: name for label, name in names.items() if label}
