"""What the raw files of NSD say about a release, computed plainly from the description of the method.

A wrong build must not confirm itself, so this module shares no code with `assemble`, and reads raw files without the readers of
`nsd`: only the paths of the files come from there. `verify --nsd-root` and the tests compare releases with it.

References
----------
The published procedure of Brain-Score's surface benchmark (brainscore_vision, data/allen2022_fmri_surface); Allen et al. (2022),
Nature Neuroscience, doi:10.1038/s41593-021-00962-x; NSD Data Manual.
"""

from __future__ import annotations

import gzip
import hashlib
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

from ..arrays import AnyArray, DoubleArray, IntArray, PixelArray, map_array
from ..errors import PackagingError, reading
from ..facts import (
    HEMISPHERES,
    N_REPETITIONS,
    N_SESSIONS,
    N_TRIALS,
    NATIVE,
    NATIVE_ATLASES,
    stimulus_name,
    subject_name,
)
from ..nsd.storage import Folder, RawFile
from ..nsd.tree import NSDTree
from ..recipe import CORTEX, Recipe, Region
from ..release import ORIGIN_COLUMNS, SPLITS, ReleasedRegion

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

    def presentations(self, split: str) -> pd.DataFrame:
        """Return the presentation coordinates of a split."""
        if split == "train":
            return _name_images(self.splits[split])
        repetitions = np.tile(np.arange(N_REPETITIONS), len(self.splits[split]))
        return _name_images(np.repeat(self.splits[split], N_REPETITIONS)).assign(repetition=repetitions)

    def blocks(self, neuroids: pd.DataFrame) -> list[pd.DataFrame]:
        """Cut a table of neuroids into parts of one subject and hemisphere whose values fit into memory together."""
        n_vertices = max(1, min(VERTICES_AT_A_TIME, RESPONSES_AT_A_TIME // (N_REPETITIONS * len(self.images))))
        parts = []
        for _, part in neuroids.groupby(["subject", "hemisphere"], sort=False):
            vertices = np.unique(part["vertex_index"])
            # NumPy adds the values of a single vertex in another order, so vertices are divided evenly.
            for some in np.array_split(vertices, -(-len(vertices) // n_vertices)):
                parts.append(part[part["vertex_index"].isin(some)])
        return parts

    def values(self, block: pd.DataFrame) -> tuple[dict[str, DoubleArray], pd.DataFrame]:
        """Compute the values of the neuroids of a block.

        Returns
        -------
        by split an array of shape (n_presentations, n_neuroids)
            Unitless; NaN where the raw files have no valid value, or one that single precision cannot hold.
        table with the index of the block
            `is_valid`, whether no trial (and no prepared average) that the release needs is NaN; and `digest` of all of these,
            equal for copies. It is empty for neuroids that do not vary, and where the recipe keeps copies.

        Raises
        ------
        PackagingError
            If a raw file is missing or damaged.
        """
        subject, hemisphere = int(block["subject"].iloc[0][-2:]), str(block["hemisphere"].iloc[0])
        # Two regions may share a vertex.
        vertices, columns = np.unique(block["vertex_index"], return_inverse=True)
        is_test = np.isin(self.images, self.splits["test"])
        if self.from_region_assemblies:
            averages = self._read_prepared_averages(block, vertices)
            test = self.responses(subject, hemisphere, vertices, self.splits["test"])[:, :N_REPETITIONS]
            used = np.concatenate([averages, test.reshape(-1, len(vertices))])
        else:
            responses = self.responses(subject, hemisphere, vertices, self.images)
            averages = _round(_mean_of_valid(responses, axis=1))
            test = responses[is_test, :N_REPETITIONS]
            n_shown = np.array([np.count_nonzero(self.shown[subject] == image) for image in self.images])
            used = responses[np.arange(responses.shape[1]) < n_shown[:, None]]
        base = averages[~is_test] if self.recipe.standardize_on == "train" else averages
        mean = _mean_of_valid(base, axis=0)
        deviation = np.sqrt(_mean_of_valid((base - mean) ** 2, axis=0))
        deviation[deviation == 0] = 1
        by_split = {}
        for split, measured in (("train", averages[~is_test]), ("test", test.reshape(-1, len(vertices)))):
            values = (measured - mean) / deviation
            by_split[split] = np.where(np.isfinite(_round(values)), values, np.nan)[:, columns]
        digests = [""] * len(vertices)
        if self.recipe.copies == "drop":
            varies = np.fmax.reduce(used, axis=0) > np.fmin.reduce(used, axis=0)
            digests = [
                hashlib.sha1(used[:, i].tobytes()).hexdigest() if varies[i] else "" for i in range(len(vertices))
            ]
        is_valid = ~np.isnan(used).any(axis=0)
        facts = {"is_valid": is_valid[columns], "digest": np.array(digests)[columns]}
        return by_split, pd.DataFrame(facts, index=block.index)

    def reasons_to_drop(self, neuroids: pd.DataFrame) -> pd.Series[str]:
        """Say why the recipe drops neuroids, which are in the order of a release with what `values` says of them, or nothing."""
        is_copy = neuroids.duplicated(["subject", "region", "digest"]) & (neuroids["digest"] != "")
        reasons = is_copy.map({True: "it is a copy of another neuroid", False: ""})
        if self.recipe.nan_policy == "drop":
            reasons[~neuroids["is_valid"]] = "a trial that it needs is NaN"
        return reasons

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
        for session in self.needed_sessions(subject, images):
            file = self.tree.betas(subject, hemisphere, session, self.recipe.betas, self.recipe.files)
            if self.recipe.files == NATIVE:
                index = _read_map(self.tree.native_index(subject, hemisphere), self.n_vertices)
                betas = _read_native_betas(file, index[vertices] - 1)
            else:
                with _local_copy(file, "MGH") as path:
                    shape = _count_trials(file), self.n_vertices
                    betas = map_array(path, ">f4", 284, shape)[:, vertices].astype(np.float64)
            if len(betas) != self.n_trials_per_session:
                raise PackagingError(
                    f"{file} holds {len(betas)} trials, expected {self.n_trials_per_session}. Download it again."
                )
            first = (session - 1) * self.n_trials_per_session
            standardised = _standardise_session(betas)
            for row, image_trials in enumerate(trials):
                for repetition, trial in enumerate(image_trials - first):
                    if 0 <= trial < len(betas):
                        responses[row, repetition] = standardised[trial]
        return responses

    def needed_sessions(self, subject: int, images: IntArray) -> list[int]:
        """Return the sessions (1-based) in which some images were shown."""
        trials = np.flatnonzero(np.isin(self.shown[subject], images))
        sessions: list[int] = np.unique(trials // self.n_trials_per_session + 1).tolist()
        return sessions

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the tables of a release by their names, without the names of image files."""
        images, is_train = _name_images(self.images), np.isin(self.images, self.splits["train"])
        known = images.join(_read_origins(self.tree.stimulus_info, self.images))
        stimuli = known.filter(["stimulus_id", "nsd_id", "coco_id"])
        tables = {"train_test_split.csv": images.assign(split=np.where(is_train, "train", "test"))}
        tables |= {f"stimulus_metadata_{name}.csv": stimuli[is_train == (name == "train")] for name in SPLITS}
        return tables | ({"stimulus_origin.csv": known} if set(ORIGIN_COLUMNS) <= set(known) else {})

    def pixels(self, nsd_ids: IntArray) -> Iterator[PixelArray]:
        """Yield the pixels of some images, of shape (height, width, 3).

        Raises
        ------
        PackagingError
            If NSD's file of images is missing or damaged.
        """
        source = self.tree.images.hdf5_source()
        with reading(self.tree.images, "NSD's images"), h5py.File(source, "r", locking=False) as opened:
            brick = opened["imgBrick"]
            if brick.is_virtual and not isinstance(source, str):  # HDF5 would crash
                raise ValueError("imgBrick refers to other files, which is not read from a bucket")
            for nsd_id in nsd_ids:
                yield brick[nsd_id]

    def _read_prepared_averages(self, block: pd.DataFrame, vertices: IntArray) -> DoubleArray:
        """Read the averages of all images at the vertices of a block, (n_images, n_vertices). Infinite ones count as NaN."""
        averages = np.full((len(self.images), len(vertices)), np.nan)
        for region, part in block.groupby("region", sort=False):
            file = self.tree.prepared_assembly(str(region))
            with _local_copy(file, "a prepared assembly") as path, xarray.open_dataarray(path) as assembly:
                is_of_block = [(assembly[name] == part[name].iloc[0]).values for name in ("subject", "hemisphere")]
                prepared = assembly[:, np.flatnonzero(np.all(is_of_block, axis=0))]
                columns = pd.Index(prepared["vertex_index"].values).get_indexer(part["vertex_index"])
                rows = pd.Index(prepared["nsd_id"].values).get_indexer(self.images)
                if min(columns.min(), rows.min()) < 0:
                    raise ValueError(f"it lacks a vertex or an image of {part['subject'].iloc[0]}")
                averages[:, np.searchsorted(vertices, part["vertex_index"])] = prepared.values[np.ix_(rows, columns)]
        return np.where(np.isfinite(averages), averages, np.nan)


def read_reference(tree: NSDTree, recipe: Recipe, *, from_region_assemblies: bool = False) -> Reference:
    """Read design, labels and noise-ceiling SNR, and derive images, split and neuroids.

    Raises
    ------
    PackagingError
        If a raw file is missing or damaged, or does not fit the others or the recipe.
    """
    ncsnr = tree.ncsnr(recipe.subjects[0], "lh", recipe.betas)
    with reading(ncsnr, "MGH"):
        _, n_vertices = struct.unpack(">2i", ncsnr.read(8))
    n_trials = _count_trials(tree.betas(recipe.subjects[0], "lh", 1, recipe.betas, recipe.files))
    with _local_copy(tree.design, "a design of these subjects and trials") as path:
        variables = scipy.io.loadmat(path)
        # The numbers are 1-based, and small unsigned integers, in which arithmetic overflows.
        names = ("masterordering", "subjectim", "sharedix")
        order, images, shared = (variables[name].astype(np.int64) - 1 for name in names)
        shown = {}
        for subject in recipe.subjects:
            n_sessions = max(tree.sessions_present(subject, recipe.betas, recipe.files), default=0)
            if order.size == N_TRIALS:
                n_sessions = N_SESSIONS[subject]
            shown[subject] = images[subject - 1, order.ravel()[: n_sessions * n_trials]]
    regions, vertices = _find_regions(tree, recipe, n_vertices)
    return Reference(
        tree=tree,
        recipe=recipe,
        from_region_assemblies=from_region_assemblies,
        n_vertices=n_vertices,
        n_trials_per_session=n_trials,
        shown=shown,
        splits=_choose_images(recipe, images, shared.ravel(), shown),
        regions=regions,
        neuroids=_list_neuroids(tree, recipe, n_vertices, vertices),
    )


def _choose_images(
    recipe: Recipe, images: IntArray, shared: IntArray, shown: dict[int, IntArray]
) -> dict[str, IntArray]:
    """Choose the images of each split; `images` has a row for each of NSD's subjects."""
    counts = [Counter(trials.tolist()) for trials in shown.values()]
    complete = np.array([i for i in shared.tolist() if min(n[i] for n in counts) >= N_REPETITIONS], dtype=np.int64)
    if recipe.pool == "own":
        (subject,) = recipe.subjects
        of_others = np.delete(images, subject - 1, axis=0)
        own = np.setdiff1d(shown[subject], np.append(of_others, shared))
        return {"train": own, "test": np.sort(complete)}
    shuffled = complete[np.random.RandomState(recipe.split_seed).permutation(len(complete))]  # noqa: NPY002, published
    n_train = int(recipe.train_fraction * len(complete))
    return {"train": np.sort(shuffled[:n_train]), "test": np.sort(shuffled[n_train:])}


def _find_regions(
    tree: NSDTree, recipe: Recipe, n_vertices: int
) -> tuple[tuple[ReleasedRegion, ...], dict[tuple[str, int], dict[str, IntArray]]]:
    """Return the regions of a recipe, and the vertices of each region and subject in each hemisphere, ascending."""
    regions, vertices = [], {}
    for asked in recipe.regions:
        owners = recipe.subjects if asked.atlas in NATIVE_ATLASES else (0,)  # 0 has the labels of all subjects
        values = {(s, h): _read_labels(tree, asked.atlas, s, h, n_vertices) for s in owners for h in HEMISPHERES}
        found = {asked.name: ()} if asked.atlas == CORTEX else _find_labels(tree, owners, asked, values)
        for name, labels in found.items():
            members = {place: np.flatnonzero(np.isin(v, labels or 1)) for place, v in values.items()}
            sizes = {}
            for subject in recipe.subjects:
                parts = {h: members[subject if subject in owners else 0, h] for h in HEMISPHERES}
                vertices[name, subject] = parts
                sizes[subject_name(subject)] = sum(map(len, parts.values()))
            regions.append(ReleasedRegion(name, asked.atlas, labels, sizes))
    return tuple(regions), vertices


def _read_labels(tree: NSDTree, atlas: str, subject: int, hemisphere: str, n_vertices: int) -> AnyArray:
    """Read the labels of an atlas at the vertices of fsaverage, of which each copies one of a subject, if it has labels of its own."""
    if not subject:
        return np.ones(n_vertices) if atlas == CORTEX else _read_map(tree.labels(atlas, hemisphere), n_vertices)
    copied = _read_map(tree.native_index(subject, hemisphere), n_vertices).astype(np.int64)
    file = tree.labels(atlas, hemisphere, subject)
    with reading(file, f"an atlas on the surface of {subject_name(subject)}"):
        labels: AnyArray = _read_map(file)[copied - 1]
    return labels


def _find_labels(
    tree: NSDTree, owners: tuple[int, ...], asked: Region, values: dict[tuple[int, str], AnyArray]
) -> dict[str, tuple[int, ...]]:
    """Return the numbers of the labels of each region for which an entry of a recipe stands, by the region's name."""
    present = np.unique(np.concatenate(list(values.values())))
    tables = [_read_label_names(tree.label_names(asked.atlas, s)) for s in owners] if asked.needs_names else []
    names = {row for table in tables for row in table}
    labels = {label for label in asked.labels if isinstance(label, int)}
    labels |= {label for label, name in names if name in asked.labels}
    labels |= {int(label) for label in present if label > 0 and not asked.labels}
    known = {word for row in names for word in row}
    if not {*asked.labels} <= known | {*present} or (asked.each and not labels <= known):
        raise PackagingError(
            f"The vertices or the colour table of {asked.atlas} lack a label of {asked.labels or 'vertices'}."
        )
    if not asked.each:
        return {asked.name: tuple(sorted(labels))}
    parts: dict[str, tuple[int, ...]] = {}
    for label, name in sorted(names):
        if label in labels:
            legal = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)
            parts[legal] = (*parts.get(legal, ()), label)
    return parts


def _list_neuroids(
    tree: NSDTree, recipe: Recipe, n_vertices: int, vertices: dict[tuple[str, int], dict[str, IntArray]]
) -> pd.DataFrame:
    """List all possible neuroids: by region, then by subject, then lh and rh, then by vertex."""
    ceilings = {}
    for subject in recipe.subjects:
        for hemisphere in HEMISPHERES:
            snr = _read_map(tree.ncsnr(subject, hemisphere, recipe.betas), n_vertices).astype(np.float64)
            ceilings[subject, hemisphere] = 100 * snr**2 / (snr**2 + 1 / N_REPETITIONS)
    parts = []
    for (region, subject), of_hemispheres in vertices.items():
        name = subject_name(subject)
        hemispheres = np.repeat(HEMISPHERES, [len(of_hemispheres[h]) for h in HEMISPHERES])
        columns = {
            "neuroid_id": [f"{name}_{hemisphere}_{region}_v{i:05d}" for i, hemisphere in enumerate(hemispheres)],
            "subject": name,
            "hemisphere": hemispheres,
            "vertex_index": np.concatenate([of_hemispheres[h] for h in HEMISPHERES]),
            "region": region,
            "nc_testset": np.concatenate([ceilings[subject, h][of_hemispheres[h]] for h in HEMISPHERES]),
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _count_trials(file: RawFile) -> int:
    """Return the number of trials of a betas file of either kind."""
    with reading(file, "a betas file"):
        if file.path.endswith(".hdf5"):
            with h5py.File(file.hdf5_source(), "r", locking=False) as opened:
                return len(opened["betas"])
        _, n_vertices, _, _, n_trials = struct.unpack(">5i", file.read(20))
        if not 0 < 4 * n_vertices * n_trials < file.size():
            raise ValueError(f"it has {file.size():,} bytes for {n_vertices:,} vertices and {n_trials:,} trials")
        return int(n_trials)


def _read_native_betas(file: RawFile, vertices: IntArray) -> DoubleArray:
    """Read the responses of some vertices of a subject's own surface. A vertex that is 0 in every trial is NaN."""
    with _local_copy(file, "HDF5") as path, h5py.File(path, "r", locking=False) as opened:
        first = vertices.min()
        integers = opened["betas"][:, first : vertices.max() + 1][:, vertices - first]
    return np.where(integers.any(axis=0), integers / 300, np.nan)


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
def _local_copy(file: RawFile, content: str) -> Iterator[Path]:
    """Yield the path of a raw file on this machine. A file in a bucket is copied.

    Raises
    ------
    PackagingError
        If the file is missing, or what is raised inside says that it is not what it should be.
    """
    if not file.exists():
        raise PackagingError(f"{file} is missing, but the release was made from it. Download it again.")
    with reading(file, content):
        if isinstance(file.storage, Folder):
            yield Path(str(file))
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, Path(file.path).name)
            with file.open() as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, COPY_BYTES)
            yield path


def _read_map(file: RawFile, n_vertices: int = 0) -> AnyArray:
    """Read one value per vertex; `n_vertices` is 0 if there may be any number."""
    with _local_copy(file, "MGH") as path:
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        n_found, kind = struct.unpack_from(">4xi12xi", content)
        values: AnyArray = np.frombuffer(content, {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2"}[kind], n_found, offset=284)
    if n_vertices and n_found != n_vertices:
        raise PackagingError(f"{file} holds {n_found:,} vertices, expected {n_vertices:,}. Download it again.")
    return values


def _read_label_names(file: RawFile) -> list[tuple[int, str]]:
    """Read the labels above 0 and their names from a colour table, whose lines may end with a colour of 3 or 4 numbers."""
    with _local_copy(file, "a colour table") as path:
        content = path.read_bytes()
    text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace")
    if "\ufffd" in text:
        text = content.decode("latin-1")
    rows = []
    for words in map(str.split, text.splitlines()):
        n_colours = next((n for n in (4, 3) if len(words) > n + 1 and "".join(words[-n:]).isdecimal()), 0)
        if len(words) > 1 and words[0].isdecimal() and int(words[0]) > 0:
            rows.append((int(words[0]), " ".join(words[1 : len(words) - n_colours])))
    return rows


def _read_origins(file: RawFile, nsd_ids: IntArray) -> pd.DataFrame:
    """Read COCO ids, and COCO's splits and NSD's crops, of some images. What is not known of all of them is left out."""
    if not file.exists():
        return pd.DataFrame()
    with _local_copy(file, "NSD's table of images") as path:
        table = pd.read_csv(path, dtype={"nsdId": float, "cocoId": float}).set_index("nsdId")
        rows = table.reindex(nsd_ids).reindex(columns=["cocoId", "cocoSplit", "cropBox"]).fillna("")
        is_known = (rows != "").all()
        if not is_known["cocoId"]:
            return pd.DataFrame()
        origins = pd.DataFrame({"coco_id": rows["cocoId"].astype(np.int64).to_numpy()})
        if is_known.all():
            origins["coco_split"] = rows["cocoSplit"].to_numpy()
            boxes = [box.strip(" ()[]").split(",") for box in rows["cropBox"]]
            origins[["crop_top", "crop_bottom", "crop_left", "crop_right"]] = np.array(boxes, dtype=np.float64)
    return origins
