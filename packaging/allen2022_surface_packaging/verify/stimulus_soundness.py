"""Whether the tables and images of a release agree with each other, with the recipe and with the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image

from ..facts import stimulus_name
from ..images import load_image
from ..release import FORMAT_NAMES, ORIGIN_COLUMNS, SPLITS, Manifest, ReleaseFolder
from .differences import first_difference
from .manifest_soundness import list_extracted_images
from .tables import FILE_NAME_COLUMN, STIMULUS_COLUMNS, read_split_table, read_stimulus_table, read_table

COCO_SPLITS = ("train2017", "val2017")


def find_stimulus_problems(folder: ReleaseFolder, manifest: Manifest) -> Iterator[str]:
    """Compare the tables of stimuli, split and origins with each other, and every image with its name.

    Raises
    ------
    PackagingError
        If a table cannot be read.
    """
    images = read_split_table(folder.split_path)
    tables = {split: read_stimulus_table(folder.stimulus_table_path(split)) for split in SPLITS}
    yield from _find_split_problems(folder, manifest, images, tables)
    yield from _find_column_problems(folder, tables)
    yield from _find_origin_problems(folder, images, tables)
    for split, table in tables.items():
        yield from _find_name_problems(folder, manifest, split, table)
    yield from _find_image_problems(folder, manifest, tables)


def _find_split_problems(
    folder: ReleaseFolder, manifest: Manifest, images: pd.DataFrame, tables: dict[str, pd.DataFrame]
) -> Iterator[str]:
    """Compare the table of the split with the recipe, which gives the split of shared images, and with the other tables."""
    name = folder.split_path.name
    nsd_ids = images["nsd_id"].to_numpy()
    if not (np.diff(nsd_ids) > 0).all():
        yield f"{name}: nsd_id is not ascending without repeats, so train and test may overlap."
    yield from _find_id_problems(name, images)
    if not images["split"].isin(SPLITS).all():
        yield f"{name} has the splits {sorted(set(images['split']))}, expected {sorted(SPLITS)}."
    elif manifest.recipe.pool == "shared":
        n_train = int(manifest.recipe.train_fraction * len(images))
        order = np.random.RandomState(manifest.recipe.split_seed).permutation(len(images))  # noqa: NPY002, the published split
        expected = np.full(len(images), "test", dtype=object)
        expected[order[:n_train]] = "train"
        source = "but the recipe gives"
        yield from first_difference(f"{name}: split of row", images["split"].to_numpy(), expected, source=source)
    for split, table in tables.items():
        if table["nsd_id"].tolist() != images["nsd_id"][images["split"] == split].tolist():
            yield f"{folder.stimulus_table_path(split).name} and {name} list different images."


def _find_column_problems(folder: ReleaseFolder, tables: dict[str, pd.DataFrame]) -> Iterator[str]:
    """Check the columns: each of them becomes a coordinate of the presentations when an assembly is loaded."""
    allowed = [list(STIMULUS_COLUMNS), [*STIMULUS_COLUMNS, "coco_id"]]
    for split, table in tables.items():
        if list(table) not in allowed:
            name = folder.stimulus_table_path(split).name
            yield f"{name} has the columns {list(table)}, expected {allowed[0]}, or with coco_id if all are known."
    if len({"coco_id" in table for table in tables.values()}) > 1:
        yield "Only one of the two stimulus tables has the column coco_id."


def _find_origin_problems(
    folder: ReleaseFolder, images: pd.DataFrame, tables: dict[str, pd.DataFrame]
) -> Iterator[str]:
    """Compare the table of origins, if there is one, with the other tables."""
    path = folder.origin_path
    if not path.exists():
        return
    table = read_table(path)
    if tuple(table) != ORIGIN_COLUMNS:
        yield f"{path.name} has the columns {list(table)}, expected {list(ORIGIN_COLUMNS)}."
        return
    if table["nsd_id"].tolist() != images["nsd_id"].tolist():
        yield f"{path.name} and {folder.split_path.name} list different images."
        return
    yield from _find_id_problems(path.name, table)
    if not table["coco_split"].isin(COCO_SPLITS).all():
        yield f"{path.name} has the COCO splits {sorted(set(table['coco_split']))}, expected {sorted(COCO_SPLITS)}."
    crops = table[["crop_top", "crop_bottom", "crop_left", "crop_right"]].to_numpy()
    if not ((crops >= 0) & (crops < 1)).all():
        yield f"{path.name}: a part of an image that was cropped is {crops.min()} to {crops.max()}, expected 0 to below 1."
    coco_ids = table.set_index("nsd_id")["coco_id"]
    for split, stimuli in tables.items():
        name = folder.stimulus_table_path(split).name
        if "coco_id" not in stimuli:
            yield f"{name} lacks the column coco_id, but {path.name} has it."
            continue
        expected = coco_ids.reindex(stimuli["nsd_id"]).to_numpy()
        source = f"but {path.name} has"
        yield from first_difference(f"{name}: coco_id of row", stimuli["coco_id"].to_numpy(), expected, source=source)


def _find_id_problems(table_name: str, table: pd.DataFrame) -> Iterator[str]:
    """Compare the `stimulus_id` of every row with its `nsd_id`."""
    ids = np.array([stimulus_name(nsd_id) for nsd_id in table["nsd_id"]])
    yield from first_difference(f"{table_name}: stimulus_id of row", table["stimulus_id"].to_numpy(), ids)


def _find_name_problems(folder: ReleaseFolder, manifest: Manifest, split: str, table: pd.DataFrame) -> Iterator[str]:
    """Compare ids and file names with `nsd_id`, and with the files that are there."""
    name, images_path = folder.stimulus_table_path(split).name, folder.stimuli_path(split)
    yield from _find_id_problems(name, table)
    copied = list_extracted_images(manifest.inputs)
    suffixes = [_suffix(copied[nsd_id]) if nsd_id in copied else manifest.image_format for nsd_id in table["nsd_id"]]
    file_names = np.array(
        [f"{stimulus_name(nsd_id)}.{suffix}" for nsd_id, suffix in zip(table["nsd_id"], suffixes, strict=True)]
    )
    yield from first_difference(f"{name}: {FILE_NAME_COLUMN} of row", table[FILE_NAME_COLUMN].to_numpy(), file_names)
    if split == "test" and suffixes and suffixes[0] != manifest.image_format:
        yield f"{folder.manifest_path.name} says that images are {manifest.image_format}, but inputs hold {suffixes[0]}."
    if sorted(table[FILE_NAME_COLUMN]) != sorted(path.name for path in images_path.iterdir()):
        yield f"{name} and the files in {images_path.name}/ differ."


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix[1:]


def _find_image_problems(folder: ReleaseFolder, manifest: Manifest, tables: dict[str, pd.DataFrame]) -> Iterator[str]:
    """Open every image. Those from one array have one size; those that were copied may differ."""
    paths = [folder.stimuli_path(split) / name for split, table in tables.items() for name in table[FILE_NAME_COLUMN]]
    sizes = {}
    for path in paths:
        if not path.is_file():  # a named pipe would wait for ever; the comparison with the folder has reported it
            continue
        try:
            image = load_image(path)
        except ValueError as error:
            yield str(error)
            continue
        sizes[path] = image.size
        yield from _compare_image(path, image)
    if len(set(sizes.values())) > 1 and not list_extracted_images(manifest.inputs):
        first = next(iter(sizes))
        other = next(path for path, size in sizes.items() if size != sizes[first])
        yield f"{other} is {_describe_size(sizes[other])}, but {first.name} is {_describe_size(sizes[first])}."


def _compare_image(path: Path, image: Image.Image) -> Iterator[str]:
    if image.mode != "RGB":
        yield f"{path} is {image.mode}, expected RGB."
    expected = FORMAT_NAMES.get(path.suffix[1:])
    if image.format != expected:
        yield f"{path} is a file of {image.format}, expected {expected}."


def _describe_size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} pixels"
