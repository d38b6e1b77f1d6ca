"""Whether a release is sound: whether its files agree with its manifest, with its recipe and with each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import PackagingError
from ..facts import (
    N_REPETITIONS,
    N_SESSIONS,
    N_TRIALS_PER_SESSION,
    N_VERTICES_OF_FSAVERAGE,
    stimulus_name,
    subject_name,
)
from ..files import sha1_of
from ..images import load_image
from ..recipe import N_NEUROIDS_OF_PUBLISHED_REGIONS, PUBLISHED_REGIONS, published_dataset
from ..release import (
    DIMENSIONS,
    FORMAT_NAMES,
    NEUROID_COORDINATES,
    SPLITS,
    TIME_BIN,
    Manifest,
    ReleaseFolder,
    list_presentations,
)
from .contents import Side, list_blocks, open_release, read_neuroids, read_tables
from .differences import Difference, compare_tables

# Of Windows, macOS and Linux; other such names begin with one of .$@#~.
SYSTEM_NAMES = {
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "system volume information",
    "__macosx",
    "icon\r",
    "lost+found",
}
STANDARD_TOLERANCE = 1e-4  # of mean and deviation over images: single precision rounds each value


def verify_release(release_path: Path) -> list[str]:
    """Compare the files of a release with its manifest, with its recipe and with each other.

    Returns
    -------
    the problems, a line each; empty if the release is sound

    Raises
    ------
    PackagingError
        If the folder is not a release, or its manifest is damaged.
    """
    folder = ReleaseFolder(release_path)
    manifest = Manifest.read(folder)
    return list(find_changed_files(folder, manifest)) or find_contradictions(folder, manifest)


def find_changed_files(folder: ReleaseFolder, manifest: Manifest) -> Iterator[str]:
    """Yield a line for each file that is not the one that was written."""
    for name, record in sorted(manifest.files.items()):
        path = folder.path / name
        if not path.is_file():
            yield f"{path} is missing, but {folder.manifest_path.name} lists it."
        elif path.stat().st_size != record.size:
            yield f"{path} has {path.stat().st_size:,} bytes, expected {record.size:,}."
        elif (sha1 := sha1_of(path)) != record.sha1:
            yield f"{path} has the SHA-1 {sha1}, expected {record.sha1}."


def list_strangers(folder: ReleaseFolder, manifest: Manifest) -> list[Path]:
    """List the files and folders that the manifest does not list, without those that systems and programs leave everywhere."""
    listed = {folder.path / name for name in manifest.files}
    folders = {path.parent for path in listed if path.parent.is_dir()}
    known = listed | folders | {folder.manifest_path, folder.verification_path, folder.report_path}
    entries = sorted(entry for parent in folders for entry in parent.iterdir() if entry not in known)
    return [path for path in entries if path.name[0] not in ".$@#~" and path.name.lower() not in SYSTEM_NAMES]


def find_contradictions(folder: ReleaseFolder, manifest: Manifest) -> list[str]:
    """Compare the contents of files that are those that were written.

    What only the raw files tell is not compared: values, pixels, noise ceilings, COCO ids, which images and vertices were
    chosen, counts of filled values, the inputs.
    """
    problems: list[str] = []
    for check in (_check_tables, _check_images, _check_assemblies):
        try:
            problems += map(str, check(folder, manifest))
        except PackagingError as error:
            problems.append(str(error))
    return list(dict.fromkeys(problems))


def _check_tables(folder: ReleaseFolder, manifest: Manifest) -> Iterator[Difference | str]:
    """Compare the tables of split, stimuli and origins with each other, with the recipe and with the image files."""
    tables, recipe, name = read_tables(folder), manifest.recipe, folder.split_path.name
    images, ids = tables[name], ["stimulus_id", "nsd_id"]
    if not (np.diff(images["nsd_id"]) > 0).all():
        yield f"{name}: nsd_id is not ascending without repeats, so train and test may overlap."
    expected = images.assign(stimulus_id=images["nsd_id"].map(stimulus_name))
    if recipe.pool == "shared":
        order = np.random.RandomState(recipe.split_seed).permutation(len(images))  # noqa: NPY002, the published split
        n_train = int(recipe.train_fraction * len(images))
        expected["split"] = np.where(np.isin(np.arange(len(images)), order[:n_train]), "train", "test")
    yield from compare_tables(name, "images", images, expected, "expected")
    stimuli = {split: tables[folder.stimulus_table_path(split).name] for split in SPLITS}
    for split, table in stimuli.items():
        table_name = folder.stimulus_table_path(split).name
        found = table[ids].assign(file=table["image_file_name"].astype(str).str.rsplit(".", n=1).str[0])
        given = expected.loc[images["split"] == split, ids].assign(file=lambda rows: rows["stimulus_id"])
        yield from compare_tables(table_name, "images", found, given, f"in {name}")
        for file_name in table["image_file_name"]:
            if f"{folder.stimuli_path(split).name}/{file_name}" not in manifest.files:
                yield f"{table_name} lists {file_name}, but {folder.manifest_path.name} does not."
    if len({tuple(table) for table in stimuli.values()}) > 1:
        yield "Only one of the two stimulus tables has the column coco_id."
    if folder.origin_path.name in tables:
        origins = tables[folder.origin_path.name][[*ids, "coco_id"]]
        listed = pd.concat(stimuli.values()).sort_values("nsd_id").drop(columns="image_file_name")
        yield from compare_tables(folder.origin_path.name, "images", origins, listed, "in the stimulus tables")


def _check_images(folder: ReleaseFolder, manifest: Manifest) -> Iterator[str]:
    """Open every image."""
    formats = set()
    for name in sorted(name for name in manifest.files if "/" in name):
        path = folder.path / name
        try:
            image = load_image(path)
        except ValueError as error:
            yield str(error)
            continue
        formats.add(image.format)
        if image.mode != "RGB" or image.format != FORMAT_NAMES.get(path.suffix[1:]):
            yield f"{path} is a file of {image.format} with {image.mode} pixels, expected {path.suffix[1:]} and RGB."
    if FORMAT_NAMES[manifest.image_format] not in formats:
        yield f"{folder.manifest_path.name} says that images are {manifest.image_format}, but none is."


def _check_assemblies(folder: ReleaseFolder, manifest: Manifest) -> Iterator[Difference | str]:
    """Compare both assemblies with the manifest, with their stimulus tables and with each other."""
    with ExitStack() as files:
        sides = open_release(folder.path, files)
        for split, side in sides.items():
            yield from _check_layout(folder.assembly_path(manifest.name, split), manifest, split, side)
        train, test = (side.coordinates("neuroid") for side in sides.values())
        yield from compare_tables("test", "neuroids", test, train, "in train")
        yield from _check_regions(manifest)
        yield from _check_neuroids(train, manifest)
        yield from _check_values(sides, train["neuroid_id"], manifest)


def _check_layout(path: Path, manifest: Manifest, split: str, side: Side) -> Iterator[Difference | str]:
    """Compare shape, coordinates and attributes. Any other coordinate would change Brain-Score's averages of repetitions.

    Raises
    ------
    PackagingError
        If the coordinates cannot be compared.
    """
    assembly, presentations = side.assembly, list_presentations(split, side.stimuli["nsd_id"].to_numpy())
    names = {*presentations, *NEUROID_COORDINATES, *TIME_BIN}
    if assembly.dims != DIMENSIONS or set(assembly.coords) != names:
        raise PackagingError(
            f"{path} has the dimensions {assembly.dims} and the coordinates {sorted(map(str, assembly.coords))}, expected "
            f"{DIMENSIONS} and {sorted(names)}."
        )
    if assembly.shape != manifest.shapes[split]:
        raise PackagingError(f"{path} has the shape {assembly.shape}, but the manifest says {manifest.shapes[split]}.")
    if assembly.dtype != np.float32:
        yield f"{path.name} holds {assembly.dtype}, expected float32."
    for attribute in ("identifier", "stimulus_set_identifier"):
        found = assembly.attrs.get(attribute)
        if found != f"{manifest.name}.{split}":
            yield f"{path.name}: the attribute {attribute} is {found!r}, expected '{manifest.name}.{split}'."
    for dimension, expected in (("presentation", presentations), ("time_bin", pd.DataFrame(TIME_BIN))):
        yield from compare_tables(path.name, f"{dimension}s", side.coordinates(dimension), expected, "expected")
    dataset = published_dataset(manifest.name)
    n_sessions = {subject_name(subject): N_SESSIONS[subject] for subject in manifest.recipe.subjects}
    is_whole = _is_full_size(manifest) and manifest.sessions == n_sessions
    if dataset is not None and is_whole and len(side.stimuli) != dataset.n_images[split]:
        yield f"{path.name} holds {len(side.stimuli)} images, but {dataset.n_images[split]} were published."


def _is_full_size(manifest: Manifest) -> bool:
    return manifest.n_vertices == N_VERTICES_OF_FSAVERAGE and manifest.n_trials_per_session == N_TRIALS_PER_SESSION


def _check_neuroids(neuroids: pd.DataFrame, manifest: Manifest) -> Iterator[Difference | str]:
    """Check the order, the names and the numbers of neuroids, and their noise ceilings.

    All subjects share the atlas, so that a number of a region is the same vertex in each of them.
    """
    is_complete = manifest.recipe.nan_policy == "zero"  # else numbers are missing, in each subject others
    numbers = pd.to_numeric(neuroids["neuroid_id"].str.extract(r"_v([0-9]+)$")[0]).fillna(-1).astype(int)
    vertices = neuroids.assign(number=numbers).drop_duplicates(["region", "number"]).sort_values("number")
    parts = []
    for region in manifest.regions:
        rows = vertices[vertices["region"] == region.name]
        n, keys = len(rows), list(zip(rows["hemisphere"], rows["vertex_index"], strict=True))
        if keys != sorted(set(keys)) or not rows["vertex_index"].between(0, manifest.n_vertices - 1).all():
            yield f"The vertices of {region.name} are not ascending, lh before rh, from 0 to {manifest.n_vertices - 1:,}."
        if n > region.n_vertices or (is_complete and n < region.n_vertices):
            yield f"{region.name} has {n:,} neuroids of each subject, but the manifest says {region.n_vertices:,}."
        parts += [rows.assign(subject=subject_name(subject)) for subject in manifest.recipe.subjects]
    expected = pd.concat(parts, ignore_index=True)
    words = zip(*(expected[name] for name in ("subject", "hemisphere", "region", "number")), strict=True)
    expected["neuroid_id"] = ["{}_{}_{}_v{:05d}".format(*row) for row in words]
    if not is_complete:
        expected = expected[expected["neuroid_id"].isin(neuroids["neuroid_id"])]
    named = [name for name in NEUROID_COORDINATES if name != "nc_testset"]
    yield from compare_tables("train", "neuroids", neuroids[named], expected[named], "expected")
    ceilings = neuroids["nc_testset"].dropna()
    if not ceilings.between(0, 100).all():
        yield f"nc_testset ranges from {ceilings.min()} to {ceilings.max()}, outside 0 to 100 percent."


def _check_regions(manifest: Manifest) -> Iterator[str]:
    """Compare the regions of the manifest with its recipe, and their sizes with those of NSD's atlases."""
    asked = {region.name: region.labels for region in manifest.recipe.regions if not region.each}
    for region in manifest.regions:
        labels = asked.get(region.name, ())
        if labels and all(isinstance(label, int) for label in labels) and {*labels} != {*region.labels}:
            yield f"The manifest gives {region.name} the labels {region.labels}, but its recipe {labels}."
        is_published = any((r.name, r.labels) == (region.name, region.labels) for r in PUBLISHED_REGIONS)
        n_published = N_NEUROIDS_OF_PUBLISHED_REGIONS.get(region.name)
        if is_published and _is_full_size(manifest) and region.n_vertices != n_published:
            yield f"The manifest gives {region.name} {region.n_vertices:,} vertices, but NSD's atlas has {n_published:,}."


def _check_values(sides: dict[str, Side], neuroid_ids: pd.Series[str], manifest: Manifest) -> Iterator[str]:
    """Check that values are finite, and that each neuroid has mean 0 and deviation 1 over the images of the recipe.

    A neuroid with a zero is left out: it may have been filled, or be constant. If all images are standardised together, the
    averages are those of the three repetitions only in NSD's own design, because another one may show an image more often.
    """
    is_of_train = manifest.recipe.standardize_on == "train"
    is_exact = manifest.n_trials_per_session == N_TRIALS_PER_SESSION and not manifest.from_region_assemblies
    wrong: list[tuple[str, float, float]] = []
    for columns in list_blocks(len(neuroid_ids)):
        ids = neuroid_ids[columns].to_numpy()
        train, test = (read_neuroids(side.assembly, columns) for side in sides.values())
        values = np.concatenate([train, test])
        is_finite = np.isfinite(values).all(axis=0)
        if not is_finite.all():
            yield f"A value of {ids[~is_finite][0]} is NaN or infinite."
            return
        averages = test.reshape(-1, N_REPETITIONS, len(ids)).mean(axis=1)
        images = train if is_of_train else np.concatenate([train, averages])
        mean, deviation = images.mean(axis=0), images.std(axis=0)
        is_wrong = (np.abs(mean) > STANDARD_TOLERANCE) | (np.abs(deviation - 1) > STANDARD_TOLERANCE)
        is_wrong &= (values != 0).all(axis=0)
        wrong += zip(ids[is_wrong], mean[is_wrong], deviation[is_wrong], strict=True)
    if wrong and (is_of_train or is_exact):
        neuroid_id, first_mean, first_deviation = wrong[0]
        yield (
            f"{neuroid_id} has mean {first_mean:.4g} and deviation {first_deviation:.4g} over the "
            f"{'train' if is_of_train else 'train and test'} images, expected 0 and 1 ({len(wrong):,} such neuroids)."
        )
