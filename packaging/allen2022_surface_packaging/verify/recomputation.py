"""A release compared with what the raw files give, by the independent code of `reference`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from ..arrays import PixelArray
from ..facts import subject_name
from ..nsd.inputs import BETAS, EXTRACTED, IMAGES, list_inputs
from ..nsd.storage import RawFile
from ..nsd.tree import open_tree
from ..progress import follow
from ..release import SPLITS, FilledCounts, Manifest, ReleaseFolder
from .comparison import ValueDifferences, add_values, compare_images, compare_tables
from .contents import Side, list_blocks, open_release, read_neuroids, read_tables
from .findings import STEPS_OF_SINGLE_PRECISION, TOLERANCE, Answer, Difference, count_problems
from .reference import Reference, read_reference

N_SAMPLED = 5  # neuroids of each subject, region and hemisphere; with all their presentations
OTHER = "from the raw files"
CHECKED = "coordinates, noise ceilings, tables, images, inputs and values, computed again from the raw files"
OUTSIDE_SAMPLE = "values of neuroids outside the sample (--all checks them)"
NOT_RECOMPUTED = "values, because a coordinate is wrong"
NO_PIXELS = "pixels, because nsd_stimuli.hdf5 is missing: images are those that were extracted before"


def recompute_release(release_path: Path, nsd_root: str | Path, *, every_vertex: bool = False, seed: int = 0) -> Answer:
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
    tree = open_tree(nsd_root)
    expected = read_reference(tree, manifest.recipe, from_region_assemblies=manifest.from_region_assemblies)
    values: ValueDifferences = {}
    with ExitStack() as files:
        sides = open_release(release_path, files)
        problems = [str(difference) for difference in _compare_coordinates(expected, sides) if difference.beyond]
        if not problems:  # otherwise rows and columns have another meaning in the release
            neuroids = _choose_neuroids(expected, sides, None if every_vertex else seed)
            values, problems = _compare_values(expected, manifest, neuroids, sides)
    problems += _compare_manifest(expected, manifest)
    tables, expected_tables = read_tables(folder), expected.tables()
    for name in sorted(tables.keys() | expected_tables.keys()):
        found, given = (side.get(name, pd.DataFrame()) for side in (tables, expected_tables))
        found = found.drop(columns="image_file_name", errors="ignore")
        problems += map(str, compare_tables(name, "images", found, given, OTHER))
    for split, side in sides.items():
        problems += map(str, compare_images(split, _pair_images(expected, split, side)))
    not_checked = [] if tree.images.exists() else [NO_PIXELS]
    if not values:
        not_checked.append(NOT_RECOMPUTED)
    elif not every_vertex:
        dropped = {"NaN": manifest.recipe.nan_policy, "copies": manifest.recipe.copies}
        not_checked.append(", ".join([*(name for name in dropped if dropped[name] == "drop"), OUTSIDE_SAMPLE]))
    fault = f"not what {nsd_root} gives: {count_problems(problems)};" if problems else f"what {nsd_root} gives:"
    details, table = _describe_values(values, "all" if every_vertex else "a sample of")
    findings = {"every_vertex": every_vertex, "seed": seed, "tolerance": TOLERANCE, "problems": problems}
    return Answer(
        f"is {fault} {details}",
        problems,
        checked=[CHECKED] if values else [],
        not_checked=not_checked,
        table=table,
        findings={**findings, "differences": [asdict(difference) for difference in values.values()]},
    )


def _describe_values(values: ValueDifferences, extent: str) -> tuple[str, str]:
    """Say how many values were recomputed and how much they differ, and list that by region (a row) and subject."""
    if not values:
        return "no value was recomputed", ""
    largest: dict[str, dict[str, float]] = {}
    for (_, subject, region), difference in values.items():
        column = largest.setdefault(subject, {})
        column[region] = max(column.get(region, 0), difference.largest or 0)
    table = pd.DataFrame(largest).rename_axis("region").reset_index()
    text = table.to_string(index=False, float_format="{:.1e}".format, na_rep="-")
    return (
        f"{sum(difference.of for difference in values.values()):,} values of {extent} neuroids were recomputed, the largest "
        f"difference is {max(max(column.values()) for column in largest.values()):.1e}, and {TOLERANCE:.0e} is allowed "
        f"({STEPS_OF_SINGLE_PRECISION} steps of single precision where that is more)",
        f"largest difference from the raw files (unitless; {TOLERANCE:.0e} is allowed):\n\n{text}",
    )


def _compare_manifest(expected: Reference, manifest: Manifest) -> Iterator[str]:
    n_trials = expected.n_trials_per_session
    sessions = {subject_name(subject): len(shown) // n_trials for subject, shown in expected.shown.items()}
    pairs: list[tuple[str, object, object]] = [
        ("simulated", manifest.simulated, expected.tree.is_simulated),
        ("n_vertices", manifest.n_vertices, expected.n_vertices),
        ("n_trials_per_session", manifest.n_trials_per_session, n_trials),
        ("the number of sessions", manifest.sessions, sessions),
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
        if not expected.recipe.keeps_all and "neuroid_id" in found:
            neuroids = neuroids[neuroids["neuroid_id"].isin(found["neuroid_id"])]
        presentations = expected.presentations(split)
        yield from compare_tables(split, "presentations", side.coordinates("presentation"), presentations, OTHER)
        yield from compare_tables(split, "neuroids", found, neuroids, OTHER)


def _choose_neuroids(expected: Reference, sides: dict[str, Side], seed: int | None) -> pd.DataFrame:
    """Choose the neuroids to recompute: all, or a sample by a seed; and all that the release dropped as NaN.

    Returns
    -------
    table of neuroids; the column ``column`` says where a neuroid is in the release, and is negative if it was dropped
    """
    released = sides["train"].coordinates("neuroid")
    neuroids = expected.neuroids.assign(
        column=pd.Index(released["neuroid_id"]).get_indexer(expected.neuroids["neuroid_id"])
    )
    if seed is None:
        return neuroids
    is_chosen = np.zeros(len(released), dtype=np.bool_)
    for side in sides.values():
        for columns in list_blocks(side.assembly.sizes["presentation"], len(released)):
            is_chosen[columns] |= (read_neuroids(side.assembly, columns) == 0).any(axis=0)
    random = np.random.default_rng(seed)
    for group in released.groupby(["subject", "region", "hemisphere"]).indices.values():
        is_chosen[random.choice(group, min(N_SAMPLED, len(group)), replace=False)] = True
    is_dropped = neuroids["column"] < 0
    if expected.recipe.copies == "drop":  # of which neuroids one is a copy is not known from a sample
        return neuroids[is_chosen[neuroids["column"]] & ~is_dropped]
    return neuroids[is_chosen[neuroids["column"]] | is_dropped]


def _compare_values(
    expected: Reference, manifest: Manifest, chosen: pd.DataFrame, sides: dict[str, Side]
) -> tuple[ValueDifferences, list[str]]:
    """Recompute neuroids, block by block. Return the differences, and the problems."""
    differences: ValueDifferences = {}
    problems, filled, checked = [], [], []
    presentations = {split: expected.presentations(split) for split in sides}
    blocks = expected.blocks(chosen)
    for block in follow(blocks, n_items=len(blocks), title="vertices recomputed", unit="block"):
        values, facts = expected.values(block)
        checked.append(block.join(facts))
        is_released = (block["column"] >= 0).to_numpy()
        neuroids = block[is_released]
        values = {split: given[:, is_released] for split, given in values.items()}
        for split, side in sides.items() if len(neuroids) else ():
            found = read_neuroids(side.assembly, neuroids["column"].to_numpy())
            add_values(differences, split, presentations[split], neuroids, found, values[split], other=OTHER)
        n_nan = {split: np.isnan(given).sum(axis=0) for split, given in values.items()}
        filled.append(neuroids[["subject", "region"]].assign(**n_nan, neuroids=sum(n_nan.values()) > 0))
    neuroids = pd.concat(checked).sort_index()
    reasons = expected.reasons_to_drop(neuroids)
    is_wrong = (neuroids["column"] >= 0) == (reasons != "")
    for neuroid_id, reason in zip(neuroids["neuroid_id"][is_wrong], reasons[is_wrong], strict=True):
        words = f"in the release, but {reason}" if reason else "not in the release, but the recipe does not drop it"
        problems.append(f"{neuroid_id} is {words}.")
    problems += [str(difference) for difference in differences.values() if difference.beyond]
    counts = pd.concat(filled).groupby(["subject", "region"]).sum()
    for subject, regions in manifest.nan_counts.items():
        for region, counted in regions.items():
            refilled = FilledCounts(*(int(counts[name].get((subject, region), 0)) for name in (*SPLITS, "neuroids")))
            if counted != refilled:
                problems.append(
                    f"The manifest counts {counted} of {subject} {region}, but the raw files give {refilled}."
                )
    return differences, problems


def _pair_images(expected: Reference, split: str, side: Side) -> Iterator[tuple[str, Path, bytes | PixelArray]]:
    """Yield each image with NSD's own pixels, or if the tree lacks those, with the file that an earlier packaging extracted."""
    stimuli = side.stimuli[side.stimuli["nsd_id"].isin(expected.splits[split])]
    files = expected.tree.extracted_images()
    extracted = [
        file for path in stimuli["path"] if (file := files.get(path.name) or files.get(f"stimulus_{path.name}"))
    ]
    originals: Iterable[bytes | PixelArray] = (file.read() for file in extracted)
    if expected.tree.images.exists() or len(extracted) < len(stimuli):
        originals = expected.pixels(stimuli["nsd_id"].to_numpy())
    yield from zip(stimuli["stimulus_id"], stimuli["path"], originals, strict=True)
