"""A release compared with what the raw files give, by the independent code of `reference`."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray
from PIL import Image

from ..arrays import PixelArray
from ..errors import PackagingError
from ..files import read_file
from ..images import load_image
from ..nsd.tree import open_tree
from ..progress import follow
from ..release import SPLITS, Manifest, ReleaseFolder
from .assemblies import (
    NEUROIDS_AT_A_TIME,
    TOLERANCE,
    ValueDifferences,
    first_difference,
    name_rows,
    opened_assembly,
    read_neuroids,
)
from .reference import Reference, read_reference
from .soundness import read_stimulus_table, read_table

N_SAMPLED = 5  # neuroids of each subject, region and hemisphere; with all their presentations
NOT_IN_RELEASE = -1
JPEG_QUALITY = 95
SOURCE = "but the raw files give"


@dataclass(frozen=True, eq=False)
class Recomputation:
    """How a release differs from what the raw files give.

    Attributes
    ----------
    differences : table with a row per subject and region
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
        assemblies = {
            split: files.enter_context(opened_assembly(folder.assembly_path(manifest.name, split))) for split in SPLITS
        }
        problems = list(_compare_coordinates(expected, assemblies))
        if not problems:  # otherwise rows and columns have another meaning in the release
            chosen = _choose_neuroids(expected, assemblies, None if every_vertex else seed)
            differences, problems = _compare_values(expected, manifest, chosen, assemblies)
    problems += _compare_manifest(expected, manifest)
    problems += _compare_tables(expected, folder)
    problems += _compare_images(expected, folder)
    return Recomputation(differences, problems)


def _compare_manifest(expected: Reference, manifest: Manifest) -> Iterator[str]:
    tree = expected.tree
    pairs: list[tuple[str, object, object]] = [
        ("simulated", manifest.simulated, tree.simulation_mark.exists()),
        ("n_vertices", manifest.n_vertices, expected.n_vertices),
        ("n_trials_per_session", manifest.n_trials_per_session, expected.n_trials_per_session),
        ("the regions", [region.name for region in manifest.regions], [region.name for region in expected.regions]),
    ]
    pairs += [(f"sessions of {name}", manifest.sessions[name], n) for name, n in expected.sessions.items()]
    pairs += [(f"region {a.name}", a, b) for a, b in zip(manifest.regions, expected.regions, strict=False)]
    inputs = {file.official_path: file.size() for file in expected.inputs(manifest.inputs) if file.exists()}
    for path in sorted(inputs.keys() | manifest.inputs.keys()):
        pairs.append((f"the size of the input {path}", manifest.inputs.get(path), inputs.get(path)))
    for key, found, given in pairs:
        if found != given:
            yield f"The manifest says that {key} is {found}, {SOURCE} {given}."


def _compare_coordinates(expected: Reference, assemblies: dict[str, xarray.DataArray]) -> Iterator[str]:
    for split, assembly in assemblies.items():
        neuroids = expected.neuroids
        if expected.recipe.nan_policy == "drop":
            neuroids = neuroids[neuroids["neuroid_id"].isin(np.asarray(assembly.coords.get("neuroid_id", [])))]
        for dimension, table in (("presentation", expected.presentations(split)), ("neuroid", neuroids)):
            for name, column in table.items():
                title = f"{split}: {name} of {dimension}"
                found = assembly.coords.get(str(name), np.empty(0))
                yield from first_difference(title, np.asarray(found), column.to_numpy(), SOURCE)


def _choose_neuroids(expected: Reference, assemblies: dict[str, xarray.DataArray], seed: int | None) -> pd.DataFrame:
    """Choose the neuroids to recompute: all, or a sample by a seed; and all that the release dropped.

    Returns
    -------
    table of neuroids; the column ``column`` says where a neuroid is in the release, or `NOT_IN_RELEASE`
    """
    neuroids = expected.neuroids
    is_present = neuroids["neuroid_id"].isin(assemblies["train"]["neuroid_id"].values).to_numpy()
    neuroids = neuroids.assign(column=np.where(is_present, np.cumsum(is_present) - 1, NOT_IN_RELEASE))
    if seed is None:
        return neuroids
    random = np.random.default_rng(seed)
    is_chosen = ~is_present
    for rows in neuroids[is_present].groupby(["subject", "region", "hemisphere"]).groups.values():
        is_chosen[random.choice(rows, min(N_SAMPLED, len(rows)), replace=False)] = True
    has_zero = np.zeros(is_present.sum(), dtype=np.bool_)
    for assembly in assemblies.values():
        for start in range(0, len(has_zero), NEUROIDS_AT_A_TIME):
            columns = np.arange(start, min(start + NEUROIDS_AT_A_TIME, len(has_zero)))
            has_zero[columns] |= (read_neuroids(assembly, columns) == 0).any(axis=0)
    is_chosen[np.flatnonzero(is_present)[has_zero]] = True
    return neuroids[is_chosen]


def _compare_values(
    expected: Reference, manifest: Manifest, chosen: pd.DataFrame, assemblies: dict[str, xarray.DataArray]
) -> tuple[pd.DataFrame, list[str]]:
    """Recompute neuroids, block by block. Return the differences by subject and region, and the problems."""
    differences: defaultdict[tuple[str, str], ValueDifferences] = defaultdict(ValueDifferences)
    filled: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    problems: list[str] = []
    names = {split: [f"{split} {n}" for n in name_rows(expected.presentations(split))] for split in SPLITS}
    blocks = expected.blocks(chosen)
    for block in follow(blocks, n_items=len(blocks), title="vertices recomputed", unit="block"):
        values, is_valid = expected.values(block)
        is_present = (block["column"] != NOT_IN_RELEASE).to_numpy()
        if manifest.recipe.nan_policy == "drop":
            for neuroid_id in block["neuroid_id"][is_present & ~is_valid]:
                problems.append(f"{neuroid_id} is in the release, but a trial that it needs is NaN.")
            for neuroid_id in block["neuroid_id"][~is_present & is_valid]:
                problems.append(f"{neuroid_id} is not in the release, but no trial that it needs is NaN.")
        for region in block["region"].unique():
            is_chosen = (block["region"] == region).to_numpy() & is_present
            neuroids, key = block[is_chosen], (block["subject"].iloc[0], region)
            has_nan = np.zeros(len(neuroids), dtype=np.bool_)
            for split, assembly in assemblies.items():
                recomputed = values[split][:, is_chosen]
                found = read_neuroids(assembly, neuroids["column"].to_numpy())
                differences[key].add(found, np.nan_to_num(recomputed), names[split], neuroids["neuroid_id"].tolist())
                filled[key][split] += int(np.isnan(recomputed).sum())
                has_nan |= np.isnan(recomputed).any(axis=0)
            filled[key]["neuroids"] += int(has_nan.sum())
            filled[key]["all neuroids"] += len(neuroids)
    rows = []
    for (subject, region), d in differences.items():
        rows.append((subject, region, filled[subject, region]["all neuroids"], d.n_values, d.largest, d.where))
        if d.n_beyond:
            problems.append(
                f"{d.where} is {d.found:.6g}, {SOURCE} {d.expected:.6g}: {d.n_beyond:,} of {d.n_values:,} values of {subject} "
                f"{region} differ by more than {TOLERANCE:g}."
            )
        for part, n in asdict(manifest.nan_counts[subject][region]).items():
            if n != filled[subject, region][part]:
                kind = part if part == "neuroids" else f"{part} values"
                problems.append(
                    f"The manifest counts {n:,} filled {kind} of {subject} {region}, {SOURCE} {filled[subject, region][part]:,}."
                )
    columns = ["subject", "region", "vertices", "values", "largest difference", "where"]
    return pd.DataFrame(rows, columns=columns), problems


def _compare_tables(expected: Reference, folder: ReleaseFolder) -> Iterator[str]:
    tables = expected.tables()
    if folder.origin_path.exists() and folder.origin_path.name not in tables:
        yield f"{folder.origin_path.name} is there, {SOURCE} none."
    for name, given in tables.items():
        columns = [str(column) for column in given]
        if name.startswith("stimulus_metadata"):
            columns.insert(2, "image_file_name")
        try:
            found = read_table(folder.path / name, tuple(columns))
        except PackagingError as error:
            yield str(error)
            continue
        for column in given:
            title = f"{name}: {column} of row"
            yield from first_difference(title, found[column].to_numpy(), given[column].to_numpy(), SOURCE)


def _compare_images(expected: Reference, folder: ReleaseFolder) -> Iterator[str]:
    """Compare images with those that an earlier packaging extracted, or else with the pixels of imgBrick."""
    extracted = expected.tree.extracted_images()
    for split in SPLITS:
        table = read_stimulus_table(folder, split)
        paths = {}
        for nsd_id, name in zip(table["nsd_id"], table["image_file_name"], strict=True):
            path = folder.stimuli_path(split) / name
            file = extracted.get(name) or extracted.get(f"stimulus_{name}")
            if file is None or file.read() != read_file(path):
                paths[nsd_id] = path
        if paths:
            for (nsd_id, path), pixels in zip(paths.items(), expected.pixels(np.array([*paths])), strict=True):
                yield from _compare_pixels(path, nsd_id, pixels)


def _compare_pixels(path: Path, nsd_id: int, expected: PixelArray) -> Iterator[str]:
    try:
        found = np.asarray(load_image(path))
    except ValueError as error:
        yield str(error)
        return
    if path.suffix == ".jpg":
        buffer = io.BytesIO()
        Image.fromarray(expected).save(buffer, format="JPEG", quality=JPEG_QUALITY)
        expected = np.asarray(Image.open(buffer))
    if found.shape != expected.shape:
        yield f"{path} has the shape {found.shape}, but image {nsd_id} of imgBrick has {expected.shape}."
    elif (found != expected).any():
        n_pixels = int((found != expected).any(axis=-1).sum())
        row, column = np.argwhere((found != expected).any(axis=-1))[0]
        yield (
            f"{path}: pixel (row {row}, column {column}) is {found[row, column].tolist()}, but image {nsd_id} of imgBrick has "
            f"{expected[row, column].tolist()} ({n_pixels:,} pixels differ)."
        )
