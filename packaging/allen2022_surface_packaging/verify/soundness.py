"""Whether a release is sound: whether its files agree with its manifest, with its recipe and with each other."""

from __future__ import annotations

import itertools
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
    NATIVE_ATLASES,
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
from .comparison import compare_tables
from .contents import Side, list_blocks, open_release, read_neuroids, read_tables
from .findings import Answer, Difference, count_problems

FILES = "size and SHA-1 of every file"
CONTENTS = (
    "tables, images, shapes and coordinates, by the recipe and by each other; values, which are finite and standardised"
)
DAMAGED = "tables, images and assemblies, because a file is not the one that was written"
# Of Windows, macOS and Linux; other such names begin with one of .$@#~.
SYSTEM_NAMES = ("thumbs.db", "desktop.ini", "system volume information", "__macosx", "icon\r", "lost+found")
STANDARD_TOLERANCE = 1e-4  # of mean and deviation over images: single precision rounds each value


def check_release(release_path: Path) -> Answer:
    """Compare the files of a release with its manifest, with its recipe and with each other.

    What only the raw files tell is not compared: values, pixels, noise ceilings, COCO ids, which images and vertices were
    chosen, counts of filled values, the inputs.

    Raises
    ------
    PackagingError
        If the folder is not a release, or its manifest is damaged.
    """
    folder = ReleaseFolder(release_path)
    manifest = Manifest.read(folder)
    changed, strangers = list(_find_changed_files(folder, manifest)), _find_strangers(folder, manifest)
    problems = list(changed)
    for check in () if changed else (_check_tables, _check_images, _check_assemblies):
        try:
            problems += map(str, check(folder, manifest))
        except PackagingError as error:
            problems.append(str(error))
    problems = list(dict.fromkeys(problems))
    sound = f"is sound: its {len(manifest.files):,} files agree with the manifest and with each other"
    return Answer(
        f"is not sound: {count_problems(problems)}" if problems else sound,
        problems,
        notes=[f"{path} does not belong to the release, and nothing reads it." for path in strangers],
        checked=[FILES] if changed else [FILES, CONTENTS],
        not_checked=[DAMAGED] if changed else [],
        findings={"problems": problems},
    )


def _find_changed_files(folder: ReleaseFolder, manifest: Manifest) -> Iterator[str]:
    """Yield a line for each file that is not the one that was written."""
    for name, record in sorted(manifest.files.items()):
        path = folder.path / name
        if not path.is_file():
            yield f"{path} is missing, but {folder.manifest_path.name} lists it."
        elif path.stat().st_size != record.size:
            yield f"{path} has {path.stat().st_size:,} bytes, expected {record.size:,}."
        elif (sha1 := sha1_of(path)) != record.sha1:
            yield f"{path} has the SHA-1 {sha1}, expected {record.sha1}."


def _find_strangers(folder: ReleaseFolder, manifest: Manifest) -> list[Path]:
    """List the files and folders that the manifest does not list, without those that systems and programs leave everywhere."""
    listed = {folder.path / name for name in manifest.files}
    folders = {path.parent for path in listed if path.parent.is_dir()}
    known = listed | folders | {folder.manifest_path, folder.verification_path, folder.report_path}
    entries = sorted(entry for parent in folders for entry in parent.iterdir() if entry not in known)
    return [path for path in entries if path.name[0] not in ".$@#~" and path.name.lower() not in SYSTEM_NAMES]


def _check_tables(folder: ReleaseFolder, manifest: Manifest) -> Iterator[Difference | str]:
    """Compare the tables of split, stimuli and origins with each other, with the recipe and with the image files."""
    tables, recipe, name = read_tables(folder), manifest.recipe, folder.split_path.name
    images = tables[name]
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
        paths = [Path(file) for file in manifest.files if Path(file).parent.name == folder.stimuli_path(split).name]
        given = expected.loc[images["split"] == split, ["stimulus_id", "nsd_id"]]
        given["image_file_name"] = given["stimulus_id"].map({path.stem: path.name for path in paths})
        table_name, other = folder.stimulus_table_path(split).name, f"in {name} and {folder.manifest_path.name}"
        yield from compare_tables(table_name, "images", table[[*given]], given, other)
    if len({tuple(table) for table in stimuli.values()}) > 1:
        yield "Only one of the two stimulus tables has the column coco_id."
    if folder.origin_path.name in tables:
        origins = tables[folder.origin_path.name][["stimulus_id", "nsd_id", "coco_id"]]
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
    """Compare shape, coordinates and attributes. Any other coordinate would change Brain-Score's averages of repetitions."""
    assembly, presentations = side.assembly, list_presentations(split, side.stimuli["nsd_id"].to_numpy())
    identifier, coordinates = f"{manifest.name}.{split}", {*presentations, *NEUROID_COORDINATES, *TIME_BIN}
    for what, found, given in (
        ("dimensions", assembly.dims, DIMENSIONS),
        ("coordinates", sorted(map(str, assembly.coords)), sorted(coordinates)),
        ("shape", assembly.shape, manifest.shapes[split]),
        ("type of values", str(assembly.dtype), "float32"),
        ("identifier", assembly.attrs.get("identifier"), identifier),
        ("stimulus_set_identifier", assembly.attrs.get("stimulus_set_identifier"), identifier),
    ):
        if found != given:
            raise PackagingError(f"{path} has the {what} {found}, expected {given}.")
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

    Where all subjects share the atlas, a number of a region is the same vertex in each of them.
    """
    is_complete = manifest.recipe.keeps_all  # else numbers are missing, in each subject others
    ranks = {region.name: rank for rank, region in enumerate(manifest.regions)}
    keys = ["rank", "subject", "hemisphere", "vertex_index"]
    expected = neuroids.assign(rank=neuroids["region"].map(ranks)).sort_values(keys)
    numbers = pd.to_numeric(expected["neuroid_id"].str.extract(r"_v([0-9]+)$")[0]).fillna(-1).astype(int)
    groups = expected.groupby(["region", "subject"])
    expected["number"] = groups.cumcount() if is_complete else numbers
    words = zip(*(expected[name] for name in ("subject", "hemisphere", "region", "number")), strict=True)
    expected["neuroid_id"] = ["{}_{}_{}_v{:05d}".format(*row) for row in words]
    named = [name for name in NEUROID_COORDINATES if name != "nc_testset"]
    yield from compare_tables("train", "neuroids", neuroids[named], expected[named], "expected")
    is_shared = expected["region"].isin(
        [region.name for region in manifest.regions if region.atlas not in NATIVE_ATLASES]
    )
    places = expected[is_shared].groupby(["region", "number"])[["hemisphere", "vertex_index"]]
    if (places.nunique() > 1).any(axis=None):
        yield "A number of a region is not the same vertex in every subject."
    if not expected["vertex_index"].between(0, manifest.n_vertices - 1).all():
        yield f"A vertex is outside the surface, which has the vertices 0 to {manifest.n_vertices - 1:,}."
    for region, subject in itertools.product(manifest.regions, map(subject_name, manifest.recipe.subjects)):
        n, said = groups.size().get((region.name, subject), 0), region.n_vertices[subject]
        if n > said or (is_complete and n < said):
            yield f"{region.name} has {n:,} neuroids of {subject}, but the manifest says {said:,}."
    if not neuroids["nc_testset"].dropna().between(0, 100).all():
        yield "A noise ceiling, nc_testset, is outside 0 to 100 percent."


def _check_regions(manifest: Manifest) -> Iterator[str]:
    """Compare the regions of the manifest with its recipe, and their sizes with those of NSD's atlases."""
    asked = {region.name: region.labels for region in manifest.recipe.regions if not region.each}
    for region in manifest.regions:
        labels = asked.get(region.name, ())
        if labels and all(isinstance(label, int) for label in labels) and {*labels} != {*region.labels}:
            yield f"The manifest gives {region.name} the labels {region.labels}, but its recipe {labels}."
        is_published = any((r.name, r.labels) == (region.name, region.labels) for r in PUBLISHED_REGIONS)
        n_published = N_NEUROIDS_OF_PUBLISHED_REGIONS.get(region.name)
        if is_published and _is_full_size(manifest) and {*region.n_vertices.values()} != {n_published}:
            yield f"The manifest gives {region.name} {region.n_vertices} vertices, but NSD's atlas has {n_published:,}."


def _check_values(sides: dict[str, Side], neuroid_ids: pd.Series[str], manifest: Manifest) -> Iterator[str]:
    """Check that values are finite, and that each neuroid has mean 0 and deviation 1 over the images of the recipe.

    A neuroid with a zero is left out: it may have been filled, or be constant. If all images are standardised together, the
    averages are those of the three repetitions only in NSD's own design, because another one may show an image more often.
    """
    is_of_train = manifest.recipe.standardize_on == "train"
    is_exact = manifest.n_trials_per_session == N_TRIALS_PER_SESSION and not manifest.from_region_assemblies
    wrong: list[tuple[str, float, float]] = []
    for columns in list_blocks(sum(side.assembly.sizes["presentation"] for side in sides.values()), len(neuroid_ids)):
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
