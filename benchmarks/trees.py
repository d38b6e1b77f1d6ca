"""What is measured: NSD trees whose betas files are hard links to a few real ones, and assemblies of NSD's own size."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.io
from PIL import Image

from allen2022_surface_packaging.build.assembly import create_assembly, order_neuroids, presentations
from allen2022_surface_packaging.build.pipeline import COLUMNS_AT_A_TIME
from allen2022_surface_packaging.nsd.files import HEMISPHERES, NSDTree, open_tree
from allen2022_surface_packaging.nsd.regions import read_regions, subject_neuroids
from allen2022_surface_packaging.nsd.simulation import Recipe, simulate_tree
from allen2022_surface_packaging.nsd.trials import stimulus_name
from allen2022_surface_packaging.release import SPLITS, assembly_file, write_manifest

N_TRIALS = 750
N_SHARED = 1000  # the published notebooks have this number written into them
N_IMAGES = 73_000
N_IMAGES_OF_SPLIT = {"train": 412, "test": 103}
SEED = 0


def make_tree(
    root: Path, *, subjects: list[int], n_sessions: int, n_vertices: int, n_real: int = 1, expdesign: Path | None = None
) -> NSDTree:
    """Write a flat tree of which `n_real` sessions of the first subject are real files, and all others links to them.

    Its images are extracted already, as an earlier packaging leaves them, so that what is measured is betas to release.
    """
    recipe = Recipe(
        subjects=subjects[:1],
        n_sessions=-(-4 * n_real // 3),
        n_trials=N_TRIALS,
        n_vertices=n_vertices,
        image_size=8,
        layout="flat",
    )
    simulate_tree(root, recipe)
    tree = open_tree(root)
    # Of which subject 4, as in NSD, has three quarters.
    real = {(h, i): root / tree.betas_path(subjects[0], h, i + 1) for h in HEMISPHERES for i in range(n_real)}
    for subject in subjects:
        (root / tree.betas_folder(subject)).mkdir(parents=True, exist_ok=True)
        for hemisphere in HEMISPHERES:
            for i in range(n_sessions):
                _link(real[hemisphere, i % n_real], root / tree.betas_path(subject, hemisphere, i + 1))
            _link(root / tree.ncsnr_path(subjects[0], hemisphere), root / tree.ncsnr_path(subject, hemisphere))
    sharedix = _write_design(root / tree.design_path, n_sessions, expdesign)
    pd.DataFrame({"cocoId": np.arange(N_IMAGES) + 1, "nsdId": np.arange(N_IMAGES)}).to_csv(
        root / tree.stimulus_info_path
    )
    for split in SPLITS:
        (root / f"brainscore/stimuli_{split}").mkdir(parents=True)
    for nsd_id in sharedix - 1:
        _image(nsd_id, 425).save(root / f"brainscore/stimuli_train/stimulus_{stimulus_name(nsd_id)}.jpg", quality=95)
    return tree


def _link(source: Path, target: Path) -> None:
    if not target.exists():
        os.link(source, target)


def _write_design(path: Path, n_sessions: int, expdesign: Path | None) -> np.ndarray:
    """Write a design of a third more sessions than are there, as NSD's own has for most subjects."""
    if expdesign is not None:
        shutil.copyfile(expdesign, path)
        return scipy.io.loadmat(path)["sharedix"].ravel().astype(int)
    rng = np.random.default_rng(SEED)
    n_own = n_sessions * 4 // 3 * N_TRIALS // 3
    ids = rng.permutation(N_IMAGES) + 1
    sharedix = np.sort(ids[:N_SHARED])
    own = np.concatenate([sharedix, ids[N_SHARED:n_own]])
    design = {
        "masterordering": rng.permutation(np.repeat(np.arange(1, n_own + 1), 3)).astype(np.uint16).reshape(1, -1),
        "subjectim": np.tile(own, (8, 1)).astype(np.int32),
        "sharedix": sharedix.astype(np.int32).reshape(1, -1),
    }
    scipy.io.savemat(path, design)
    return sharedix


def _image(seed: int, size: int) -> Image.Image:
    small = np.random.default_rng(int(seed)).integers(0, 256, (size // 16, size // 16, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)


def neuroids_of(tree: NSDTree, subjects: list[int]) -> tuple[pd.DataFrame, list[slice]]:
    """List the neuroids of a release, and the blocks in which a build writes them."""
    region_map = read_regions(tree)
    n_read = sum(len(own) for own in region_map.vertices.values())
    ncsnr = np.random.default_rng(SEED).random(n_read)
    table, places = order_neuroids({subject: subject_neuroids(region_map, subject, ncsnr) for subject in subjects})
    blocks = [
        slice(start, min(start + COLUMNS_AT_A_TIME, place.stop))
        for place in sorted(places.values(), key=lambda place: (subjects.index(subject_of(table, place)), place.start))
        for start in range(place.start, place.stop, COLUMNS_AT_A_TIME)
    ]
    return table, blocks


def subject_of(table: pd.DataFrame, place: slice) -> int:
    return int(table.subject[place.start][-2:])


def nsd_ids(split: str) -> np.ndarray:
    start = 0 if split == "train" else N_IMAGES_OF_SPLIT["train"]
    return np.arange(start, start + N_IMAGES_OF_SPLIT[split])


def values_of(split: str, n_neuroids: int) -> np.ndarray:
    n = len(presentations(split, nsd_ids(split)))
    return np.random.default_rng(SEED).standard_normal((n, n_neuroids), dtype=np.float32)


def write_assembly(path: Path, split: str, values: np.ndarray, neuroids: pd.DataFrame, blocks: list[slice]) -> None:
    """Write an assembly as a build does: subject by subject, a block of a region at a time."""
    with create_assembly(
        path,
        presentation=presentations(split, nsd_ids(split)),
        neuroids=neuroids,
        identifier=f"Allen2022_fmri_surface.{split}",
    ) as variable:
        for block in blocks:
            variable[:, block, 0] = values[:, block]


def write_release(folder: Path, neuroids: pd.DataFrame, blocks: list[slice]) -> None:
    """Write a release of random values."""
    folder.mkdir()
    for split in SPLITS:
        (folder / f"stimuli_{split}").mkdir()
        ids = nsd_ids(split)
        names = [f"{stimulus_name(i)}.png" for i in ids]
        for i, name in zip(ids, names, strict=True):
            _image(i, 16).save(folder / f"stimuli_{split}" / name)
        table = pd.DataFrame({"stimulus_id": [stimulus_name(i) for i in ids], "nsd_id": ids, "image_file_name": names})
        table.to_csv(folder / f"stimulus_metadata_{split}.csv", index=False)
        path = folder / assembly_file("Allen2022_fmri_surface", split)
        write_assembly(path, split, values_of(split, len(neuroids)), neuroids, blocks)
    write_manifest(folder, {"name": "Allen2022_fmri_surface"})
