"""What is measured: NSD trees whose betas files are links to a few files, and assemblies of the size that NSD gives."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.io
from PIL import Image

from allen2022_surface_packaging.arrays import FloatArray, IntArray
from allen2022_surface_packaging.assemble.assembly import create_assembly
from allen2022_surface_packaging.assemble.subjects import list_neuroids
from allen2022_surface_packaging.facts import (
    DEFAULT_BETAS,
    FSAVERAGE,
    HEMISPHERES,
    N_IMAGES,
    N_REPETITIONS,
    N_TRIALS_PER_SESSION,
    N_VERTICES_OF_FSAVERAGE,
    NATIVE,
    SUBJECTS,
    stimulus_name,
)
from allen2022_surface_packaging.nsd.files import read_labels
from allen2022_surface_packaging.nsd.regions import RegionMap, find_regions
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.nsd.storage import RawFile
from allen2022_surface_packaging.nsd.tree import NSDTree, open_tree
from allen2022_surface_packaging.recipe import PUBLISHED_DATASETS, Recipe
from allen2022_surface_packaging.release import (
    DIMENSIONS,
    NEUROID_COORDINATES,
    SPLITS,
    TIME_BIN,
    Manifest,
    ReleaseFolder,
    installed_versions,
    list_presentations,
    record_files,
)

if TYPE_CHECKING:
    from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly

DATASET = PUBLISHED_DATASETS[0]  # all eight subjects
N_SHARED_IMAGES = 1000  # the published notebooks contain this number
IMAGE_PIXELS = 425
SEED = 0


def make_tree(
    root: Path,
    *,
    subjects: Sequence[int],
    n_sessions: int,
    n_vertices: int,
    n_distinct: int,
    expdesign_path: Path | None = None,
    has_native_betas: bool = False,
) -> None:
    """Make a tree in the flat layout.

    The images are extracted already, as an earlier packaging leaves them, so that a build is measured from betas to release.

    Parameters
    ----------
    subjects : the first must be subject 4 or 8
    n_distinct : int
        How many sessions of the first subject are files. All other betas files are hard links to these.
    expdesign_path : path, optional
        NSD's design. Without it, a design is made.
    """
    # The sessions of the longest subject: subjects 4 and 8 have three quarters of them, as in NSD.
    n_simulated = -(-4 * n_distinct // 3)
    size = TreeSize(
        subjects[:1],
        n_simulated,
        N_TRIALS_PER_SESSION,
        n_vertices,
        image_size=8,
        layout="flat",
        betas=(DEFAULT_BETAS,),
        has_native_betas=has_native_betas,
    )
    simulate_tree(root, size)
    tree = open_tree(root)
    for subject in subjects:
        _link_responses(tree, subjects[0], subject, n_sessions, n_distinct)
    sharedix = _write_design(path_of(tree.design), n_sessions, expdesign_path)
    nsd_ids = np.arange(N_IMAGES)
    pd.DataFrame({"cocoId": nsd_ids + 1, "nsdId": nsd_ids}).to_csv(path_of(tree.stimulus_info))
    for split in SPLITS:
        (root / f"brainscore/stimuli_{split}").mkdir(parents=True)
    for nsd_id in sharedix - 1:
        image_path = root / f"brainscore/stimuli_train/stimulus_{stimulus_name(nsd_id)}.jpg"
        _make_image(nsd_id, IMAGE_PIXELS).save(image_path, quality=95)


def path_of(file: RawFile) -> Path:
    """Return the path of a raw file of a tree in a folder."""
    return Path(str(file))


def read_published_regions(tree: NSDTree) -> RegionMap:
    """Read the published regions."""
    recipe = Recipe(DATASET.name)
    labels = {(atlas, 0, h): read_labels(tree.labels(atlas, h)) for atlas in recipe.atlases for h in HEMISPHERES}
    return find_regions(recipe, labels, {}, len(labels["streams", 0, "lh"]))


def list_all_neuroids(tree: NSDTree) -> pd.DataFrame:
    """List the neuroids of eight subjects, with random noise ceilings."""
    region_map = read_published_regions(tree)
    ncsnr = np.random.default_rng(SEED).random(sum(map(len, region_map.vertices[1].values())))
    return list_neuroids(region_map, dict.fromkeys(SUBJECTS, ncsnr))


def random_values(split: str, n_neuroids: int) -> FloatArray:
    """Return standard normal values, of shape (n_presentations, n_neuroids)."""
    n_presentations = len(list_presentations(split, list_images(split)))
    return np.random.default_rng(SEED).standard_normal((n_presentations, n_neuroids), dtype=np.float32)


def list_images(split: str) -> IntArray:
    """Return the `nsd_id` of as many images as NSD gives for a split."""
    start = 0 if split == "train" else DATASET.n_images["train"]
    return np.arange(start, start + DATASET.n_images[split])


def write_assembly(path: Path, split: str, values: FloatArray, neuroids: pd.DataFrame) -> None:
    """Write an assembly region by region of each subject."""
    presentations = list_presentations(split, list_images(split))
    identifier = f"{DATASET.name}.{split}"
    coordinates = neuroids[list(NEUROID_COORDINATES)]
    with create_assembly(path, identifier=identifier, presentations=presentations, neuroids=coordinates) as write:
        for group in neuroids.groupby(["region", "subject"], sort=False).indices.values():
            write(0, group[0], values[:, group])


def make_core_assembly(split: str, neuroids: pd.DataFrame) -> NeuroidAssembly:
    """Make an assembly in memory with the values and coordinates that `write_assembly` writes."""
    from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly

    presentations = list_presentations(split, list_images(split))
    coordinates = {name: ("presentation", presentations[name].to_numpy()) for name in presentations}
    coordinates |= {name: ("neuroid", neuroids[name].to_numpy()) for name in NEUROID_COORDINATES}
    coordinates |= {name: ("time_bin", np.array(values)) for name, values in TIME_BIN.items()}
    values = random_values(split, len(neuroids))[:, :, None]
    return NeuroidAssembly(values, coords=coordinates, dims=DIMENSIONS)


def write_release(path: Path, neuroids: pd.DataFrame) -> None:
    """Write a release of random values."""
    folder = ReleaseFolder(path)
    path.mkdir()
    for split in SPLITS:
        _write_stimuli(folder, split)
        values = random_values(split, len(neuroids))
        write_assembly(folder.assembly_path(DATASET.name, split), split, values, neuroids)
    manifest = Manifest(
        name=DATASET.name,
        recipe=Recipe(DATASET.name),
        regions=(),
        image_format="png",
        from_region_assemblies=False,
        n_vertices=N_VERTICES_OF_FSAVERAGE,
        n_trials_per_session=N_TRIALS_PER_SESSION,
        sessions={},
        shapes={},
        nan_counts={},
        inputs={},
        versions=installed_versions(),
        files=record_files(folder, [file for file in path.rglob("*") if file.is_file()]),
    )
    manifest.write(folder)


def _link_responses(tree: NSDTree, source_subject: int, subject: int, n_sessions: int, n_distinct: int) -> None:
    """Link the betas and ncsnr files of a subject to those of the source subject."""
    for hemisphere in HEMISPHERES:
        _link(tree.ncsnr(source_subject, hemisphere), tree.ncsnr(subject, hemisphere))
        for i, files in itertools.product(range(n_sessions), (FSAVERAGE, NATIVE)):
            source = tree.betas(source_subject, hemisphere, i % n_distinct + 1, files=files)
            if source.exists():
                _link(source, tree.betas(subject, hemisphere, i + 1, files=files))


def _link(source: RawFile, target: RawFile) -> None:
    if not target.exists():
        path_of(target).parent.mkdir(parents=True, exist_ok=True)
        os.link(path_of(source), path_of(target))


def _write_design(path: Path, n_sessions: int, expdesign_path: Path | None) -> IntArray:
    """Write a design with a third more sessions than the tree has, as NSD's design has for most subjects.

    Returns
    -------
    array of shape (n_shared_images,)
        The 1-based ids of the shared images.
    """
    if expdesign_path is not None:
        shutil.copyfile(expdesign_path, path)
        sharedix: IntArray = scipy.io.loadmat(path)["sharedix"].ravel().astype(int)
        return sharedix
    rng = np.random.default_rng(SEED)
    n_images = n_sessions * 4 // 3 * N_TRIALS_PER_SESSION // N_REPETITIONS  # of each subject
    ids = rng.permutation(N_IMAGES) + 1
    sharedix = np.sort(ids[:N_SHARED_IMAGES])
    subject_images = np.concatenate([sharedix, ids[N_SHARED_IMAGES:n_images]])
    masterordering = rng.permutation(np.repeat(np.arange(1, n_images + 1), N_REPETITIONS))
    design = {
        "masterordering": masterordering.astype(np.uint16).reshape(1, -1),
        "subjectim": np.tile(subject_images, (len(SUBJECTS), 1)).astype(np.int32),
        "sharedix": sharedix.astype(np.int32).reshape(1, -1),
    }
    scipy.io.savemat(path, design)
    return sharedix


def _write_stimuli(folder: ReleaseFolder, split: str) -> None:
    """Write the images of a split, which are small, and their table."""
    nsd_ids = list_images(split)
    stimulus_ids = [stimulus_name(nsd_id) for nsd_id in nsd_ids]
    names = [f"{stimulus_id}.png" for stimulus_id in stimulus_ids]
    folder.stimuli_path(split).mkdir()
    for nsd_id, name in zip(nsd_ids, names, strict=True):
        _make_image(nsd_id, 16).save(folder.stimuli_path(split) / name)
    table = pd.DataFrame({"stimulus_id": stimulus_ids, "nsd_id": nsd_ids, "image_file_name": names})
    table.to_csv(folder.stimulus_table_path(split), index=False)


def _make_image(seed: int, n_pixels: int) -> Image.Image:
    """Make a smooth random image."""
    n_small = n_pixels // 16
    small = np.random.default_rng(int(seed)).integers(0, 256, (n_small, n_small, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((n_pixels, n_pixels), Image.Resampling.BICUBIC)
