"""The stimulus images of a release, and the tables that list them."""

from __future__ import annotations

import io
import logging
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from ..arrays import IntArray
from ..errors import PackagingError, one_line
from ..facts import stimulus_name
from ..files import naming
from ..images import load_image
from ..nsd.files import read_images
from ..nsd.plan import Plan
from ..nsd.storage import RawFile
from ..release import FORMAT_NAMES, ORIGIN_COLUMNS, ReleaseFolder

logger = logging.getLogger(__name__)

SAVE_OPTIONS: dict[str, dict[str, Any]] = {"png": {}, "jpg": {"quality": 95}}


def write_stimuli(plan: Plan, folder: ReleaseFolder) -> list[Path]:
    """Write the images and the stimulus table of each split, and the table of the split.

    Images are copied if an earlier packaging extracted all of them, else read from `imgBrick`.

    Returns
    -------
    the files that were written

    Raises
    ------
    PackagingError
        If an image is outside `imgBrick`, `imgBrick` is missing or damaged, or an extracted image is damaged.
    """
    tables, written = {}, []
    for split, nsd_ids in plan.splits.items():
        folder_path = folder.stimuli_path(split)
        folder_path.mkdir()
        names = (_copy_images if plan.extracted_images else _extract_images)(plan, nsd_ids, folder_path)
        written += [folder_path / name for name in names]
        table = pd.DataFrame(
            {"stimulus_id": [stimulus_name(i) for i in nsd_ids], "nsd_id": nsd_ids, "image_file_name": names}
        )
        if plan.origins:
            table["coco_id"] = [plan.origins[nsd_id].coco_id for nsd_id in nsd_ids.tolist()]
        tables[folder.stimulus_table_path(split)] = table
        logger.info("stimuli_%s: %d images %s", split, len(names), "copied" if plan.extracted_images else "extracted")
    rows = sorted((nsd_id, stimulus_name(nsd_id), split) for split in plan.splits for nsd_id in plan.splits[split])
    tables[folder.split_path] = pd.DataFrame(rows, columns=["nsd_id", "stimulus_id", "split"])
    # Beside the stimulus tables, whose columns become coordinates of the presentations when they are loaded.
    origins = [
        (stimulus_name(nsd_id), nsd_id, origin.coco_id, origin.coco_split, *origin.crop_box)
        for nsd_id, origin in plan.origins.items()
        if origin.crop_box and origin.coco_split
    ]
    if origins and len(origins) == len(plan.origins):
        tables[folder.origin_path] = pd.DataFrame(origins, columns=list(ORIGIN_COLUMNS))
    for path, table in tables.items():
        with naming(path):
            table.to_csv(path, index=False, lineterminator="\n")
    return [*written, *tables]


def _extract_images(plan: Plan, nsd_ids: IntArray, folder_path: Path) -> list[str]:
    names = [f"{stimulus_name(nsd_id)}.{plan.image_format}" for nsd_id in nsd_ids]
    for name, pixels in zip(names, read_images(plan.image_brick, nsd_ids.tolist()), strict=True):
        image = io.BytesIO()  # Pillow does not check whether a disk takes all bytes at once
        Image.fromarray(pixels).save(image, FORMAT_NAMES[plan.image_format], **SAVE_OPTIONS[plan.image_format])
        with naming(folder_path / name):
            (folder_path / name).write_bytes(image.getbuffer())
    return names


def _copy_images(plan: Plan, nsd_ids: IntArray, folder_path: Path) -> list[str]:
    names = []
    for nsd_id in nsd_ids.tolist():
        file = plan.extracted_images[nsd_id]
        names.append(f"{stimulus_name(nsd_id)}{Path(file.path).suffix}")
        path = folder_path / names[-1]
        with naming(path), file.open() as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)
        _require_image(file, path)
    return names


def _require_image(file: RawFile, copy: Path) -> None:
    """Raise a `PackagingError` unless the copy of an extracted image is what loaders and models expect."""
    try:
        image = load_image(copy)
        description = f"is a file of {image.format} with {image.mode} pixels"
        is_sound = (image.format, image.mode) == (FORMAT_NAMES[copy.suffix[1:]], "RGB")
    except ValueError as error:
        description, is_sound = f"cannot be read ({one_line(error.__cause__ or error)})", False
    if not is_sound:
        raise PackagingError(
            f"{file} {description}, expected an image of {FORMAT_NAMES[copy.suffix[1:]]} with RGB pixels. Extract it again, or remove all "
            "extracted images to build from NSD's own."
        )
