"""A release compared with what the raw files give, by the independent code of `reference`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from ..arrays import PixelArray
from ..files import read_file
from ..nsd.inputs import BETAS, EXTRACTED, IMAGES, list_inputs
from ..nsd.storage import RawFile
from ..nsd.tree import open_tree
from ..progress import follow
from ..release import ORIGIN_COLUMNS, FilledCounts, Manifest, ReleaseFolder
from .assemblies import NEUROIDS_AT_A_TIME, read_neuroids
from .comparison import Side, open_release
from .differences import Difference, compare_images, compare_tables, group_values, measure_values
from .reference import Reference, read_reference
from .soundness import SPLIT_COLUMNS, read_table

N_SAMPLED = 5  # neuroids of each subject, region and hemisphere; with all their presentations
NOT_IN_RELEASE = -1
JPEG_QUALITY = 95
OTHER = "from the raw files"


class Recomputation(NamedTuple):
    """How a release differs from what the raw files give.

    Attributes
    ----------
    differences : table with a row per split, subject and region
        How many neuroids and values were recomputed, and the largest difference (unitless) with its place. The table is empty
        if the coordinates differ, because values cannot be compared then.
    problems : a line each; empty if the raw files give the release
    """

    differences: pd.DataFrame
    problems: list[str]


def recompute_release(
    release_path: Path, nsd_root: str | Path, *, every_vertex: bool = False, seed: int = 0
) -> Recomputation:
    """Recompute a release from an NSD tree: all coordinates, tables and images, and the values of some or all neuroids.

    Parameters
    ----------
    every_vertex : bool
        Recompute every value. Otherwise, recompute some random neuroids of each subject, region and hemisphere, and every
        neuroid with a zero: all values that were NaN are zero.
    seed : int
        Seed of the random choice.

    Raises
    ------
    PackagingError
        If the folder is not a readable release, or the tree lacks a file from which it was made.
    """
    folder = ReleaseFolder(release_path)
    manifest = Manifest.read(folder)
    expected = read_reference(
        open_tree(nsd_root), manifest.recipe, from_region_assemblies=manifest.from_region_assemblies
    )
    differences = pd.DataFrame()
    with ExitStack() as files:
        sides = open_release(release_path, files)
        problems = [str(d) for d in _compare_coordinates(expected, sides) if d.beyond]
        if not problems:  # otherwise rows and columns have another meaning in the release
            chosen = _choose_neuroids(expected, sides, None if every_vertex else seed)
            differences, problems = _compare_values(expected, manifest, chosen, sides)
    problems += _compare_manifest(expected, manifest)
    problems += map(str, _compare_stimulus_tables(expected, folder, sides))
    for split, side in sides.items():
        problems += map(str, compare_images(split, _pair_images(expected, split, side)))
    return Recomputation(differences, problems)


def _compare_manifest(expected: Reference, manifest: Manifest) -> Iterator[str]:
    tree = expected.tree
    pairs: list[tuple[str, object, object]] = [
        ("simulated", manifest.simulated, tree.is_simulated),
        ("n_vertices", manifest.n_vertices, expected.n_vertices),
        ("n_trials_per_session", manifest.n_trials_per_session, expected.n_trials_per_session),
        ("the number of sessions", manifest.sessions, expected.sessions),
        ("the list of regions", manifest.regions, expected.regions),
    ]
    inputs = {file.official_path: file.size() for file in _list_inputs(expected, manifest) if file.exists()}
    for path in sorted(inputs.keys() | manifest.inputs.keys()):
        pairs.append((f"the size of the input {path}", manifest.inputs.get(path), inputs.get(path)))
    for key, found, given in pairs:
        if found != given:
            yield f"The manifest says that {key} is {found}, but the raw files give {given}."


def _list_inputs(expected: Reference, manifest: Manifest) -> list[RawFile]:
    """List the raw files of a release. That the images were copied from extracted ones is a choice of the build."""
    tree, recipe = expected.tree, expected.recipe
    images = expected.splits["test"] if manifest.from_region_assemblies else expected.images
    sessions = {subject: expected.needed_sessions(subject, images) for subject in recipe.subjects}
    listed = list_inputs(tree, recipe, is_reduced=True, from_region_assemblies=manifest.from_region_assemblies)
    copied = [one.file for one in listed if one.kind == EXTRACTED and one.file.official_path in manifest.inputs]
    needed = [one for one in listed if one.kind != BETAS or one.session in sessions[one.subject]]
    return copied + [one.file for one in needed if one.kind != EXTRACTED and (one.kind != IMAGES or not copied)]


def _compare_coordinates(expected: Reference, sides: dict[str, Side]) -> Iterator[Difference]:
    for split, side in sides.items():
        neuroids, found = expected.neuroids, side.coordinates("neuroid")
        if expected.recipe.nan_policy == "drop" and "neuroid_id" in found:
            neuroids = neuroids[neuroids["neuroid_id"].isin(found["neuroid_id"])]
        presentations = side.coordinates("presentation"), expected.presentations(split)
        yield from compare_tables(split, "presentations", *presentations, OTHER)
        yield from compare_tables(split, "neuroids", found, neuroids, OTHER)


def _choose_neuroids(expected: Reference, sides: dict[str, Side], seed: int | None) -> pd.DataFrame:
    """Choose the neuroids to recompute: all, or a sample by a seed; and all that the release dropped.

    Returns
    -------
    table of neuroids; the column ``column`` says where a neuroid is in the release, or `NOT_IN_RELEASE`
    """
    neuroids = expected.neuroids
    is_present = neuroids["neuroid_id"].isin(sides["train"].assembly["neuroid_id"].values).to_numpy()
    neuroids = neuroids.assign(column=np.where(is_present, np.cumsum(is_present) - 1, NOT_IN_RELEASE))
    if seed is None:
        return neuroids
    random = np.random.default_rng(seed)
    is_chosen = ~is_present
    for rows in neuroids[is_present].groupby(["subject", "region", "hemisphere"]).groups.values():
        is_chosen[random.choice(rows, min(N_SAMPLED, len(rows)), replace=False)] = True
    has_zero = np.zeros(is_present.sum(), dtype=np.bool_)
    for side in sides.values():
        for start in range(0, len(has_zero), NEUROIDS_AT_A_TIME):
            columns = np.arange(start, min(start + NEUROIDS_AT_A_TIME, len(has_zero)))
            has_zero[columns] |= (read_neuroids(side.assembly, columns) == 0).any(axis=0)
    is_chosen[np.flatnonzero(is_present)[has_zero]] = True
    return neuroids[is_chosen]


def _compare_values(
    expected: Reference, manifest: Manifest, chosen: pd.DataFrame, sides: dict[str, Side]
) -> tuple[pd.DataFrame, list[str]]:
    """Recompute neuroids, block by block. Return the differences by split, subject and region, and the problems."""
    measured, problems = [], []
    presentations = {split: expected.presentations(split) for split in sides}
    blocks = expected.blocks(chosen)
    for block in follow(blocks, n_items=len(blocks), title="vertices recomputed", unit="block"):
        values, is_valid = expected.values(block)
        is_present = (block["column"] != NOT_IN_RELEASE).to_numpy()
        if manifest.recipe.nan_policy == "drop":
            for neuroid_id in block["neuroid_id"][is_present & ~is_valid]:
                problems.append(f"{neuroid_id} is in the release, but a trial that it needs is NaN.")
            for neuroid_id in block["neuroid_id"][~is_present & is_valid]:
                problems.append(f"{neuroid_id} is not in the release, but no trial that it needs is NaN.")
        for region in block["region"][is_present].unique():  # the neuroids of a region lie together in the release
            is_chosen = (block["region"] == region).to_numpy() & is_present
            neuroids = block[is_chosen]
            for split, side in sides.items():
                found = read_neuroids(side.assembly, neuroids["column"].to_numpy())
                recomputed = values[split][:, is_chosen]
                measured.append(measure_values(split, found, recomputed, presentations[split], neuroids))
    table = pd.concat(measured, ignore_index=True)
    groups = group_values(table, OTHER)
    problems += [str(difference) for difference in groups.values() if difference.beyond]
    filled = table.groupby(["split", "subject", "region"])["n_nan"].sum()
    n_filled_neuroids = table[table["n_nan"] > 0].groupby(["subject", "region"])["neuroid"].nunique()
    for subject, counts in manifest.nan_counts.items():
        for region, counted in counts.items():
            given = FilledCounts(
                train=int(filled.get(("train", subject, region), 0)),
                test=int(filled.get(("test", subject, region), 0)),
                neuroids=int(n_filled_neuroids.get((subject, region), 0)),
            )
            if counted != given:
                problems.append(f"The manifest counts {counted} of {subject} {region}, but the raw files give {given}.")
    n_vertices = table.groupby(["split", "subject", "region"]).size()
    columns = ["split", "subject", "region", "vertices", "values", "largest difference", "where"]
    rows = [(*key, n_vertices[key], d.of, d.largest, d.where) for key, d in groups.items()]
    return pd.DataFrame(rows, columns=columns), problems


def _compare_stimulus_tables(
    expected: Reference, folder: ReleaseFolder, sides: dict[str, Side]
) -> Iterator[Difference | str]:
    given = expected.tables()
    found = {folder.split_path.name: read_table(folder.split_path, SPLIT_COLUMNS)}
    for split, side in sides.items():
        found[folder.stimulus_table_path(split).name] = side.stimuli.drop(columns="image_file_name")
    if folder.origin_path.exists():
        found[folder.origin_path.name] = read_table(folder.origin_path, ORIGIN_COLUMNS)
    for name in sorted(found.keys() | given.keys()):
        if name in found and name in given:
            yield from compare_tables(name, "images", found[name], given[name], OTHER)
        else:
            yield f"{name} is {'only here' if name in found else f'only {OTHER}'}."


def _pair_images(expected: Reference, split: str, side: Side) -> Iterator[tuple[str, Path, Path | PixelArray]]:
    """Yield each image with the one that an earlier packaging extracted, if it is that one, or else with its pixels in imgBrick."""
    extracted = expected.tree.extracted_images()
    others = []
    for stimulus_id, nsd_id in zip(side.stimuli["stimulus_id"], side.stimuli["nsd_id"], strict=True):
        path = side.image_paths[stimulus_id]
        file = extracted.get(path.name) or extracted.get(f"stimulus_{path.name}")
        if file is not None and path.is_file() and file.read() == read_file(path):
            yield stimulus_id, path, path
        else:
            others.append((stimulus_id, path, nsd_id))
    if not others:
        return
    originals = expected.pixels(np.array([nsd_id for _, _, nsd_id in others]))
    for (stimulus_id, path, _), pixels in zip(others, originals, strict=True):
        if path.suffix == ".jpg":
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, format="JPEG", quality=JPEG_QUALITY)
            yield stimulus_id, path, np.asarray(Image.open(buffer))
        else:
            yield stimulus_id, path, pixels
