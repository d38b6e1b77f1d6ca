"""The stimulus images of a release, and the tables that list them."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
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
    tables: dict[Path, pd.DataFrame] = {}
    written = []
    for split, nsd_ids in plan.splits.items():
        folder_path = folder.stimuli_path(split)
        folder_path.mkdir(exist_ok=True)
        names = []
        for nsd_id, (suffix, content) in zip(nsd_ids, _read_images(plan, nsd_ids), strict=True):
            path = folder_path / f"{stimulus_name(nsd_id)}{suffix}"
            with naming(path):
                path.write_bytes(content)
            names.append(path.name)
            written.append(path)
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


def _read_images(plan: Plan, nsd_ids: IntArray) -> Iterator[tuple[str, bytes]]:
    """Yield suffix and content of the file of each image."""
    if plan.extracted_images:
        for nsd_id in nsd_ids.tolist():
            file = plan.extracted_images[nsd_id]
            suffix, content = Path(file.path).suffix, file.read()
            _require_image(file, suffix, content)
            yield suffix, content
    else:
        for pixels in read_images(plan.image_brick, nsd_ids.tolist()):
            image = io.BytesIO()  # Pillow does not check whether a disk takes all bytes at once
            Image.fromarray(pixels).save(image, FORMAT_NAMES[plan.image_format], **SAVE_OPTIONS[plan.image_format])
            yield f".{plan.image_format}", image.getvalue()


def _require_image(file: RawFile, suffix: str, content: bytes) -> None:
    """Raise a `PackagingError` unless an extracted image is what loaders and models expect."""
    expected = FORMAT_NAMES[suffix[1:]]
    try:
        image = load_image(io.BytesIO(content))
        description = f"is a file of {image.format} with {image.mode} pixels"
        is_sound = (image.format, image.mode) == (expected, "RGB")
    except ValueError as error:
        description, is_sound = f"cannot be read ({one_line(error.__cause__ or error)})", False
    if not is_sound:
        raise PackagingError(
            f"{file} {description}, expected an image of {expected} with RGB pixels. Extract it again, or remove all "
            "extracted images to build from NSD's own."
        )
