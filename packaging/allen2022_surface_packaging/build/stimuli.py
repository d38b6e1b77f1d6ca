"""The stimulus images of a release, and the tables that list them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..nsd.files import NSDTree, read_coco_ids, read_images
from ..nsd.trials import stimulus_name

logger = logging.getLogger(__name__)

IMAGE_FORMATS: dict[str, dict[str, object]] = {"png": {}, "jpg": {"quality": 95}}
EXTRACTED_FOLDERS = ("brainscore/stimuli_train", "brainscore/stimuli_test")


def find_extracted_images(tree: NSDTree, nsd_ids: np.ndarray, image_format: str | None) -> dict[int, str]:
    """Find images that an earlier packaging extracted, by their 0-based ids; nothing unless all are there.

    Parameters
    ----------
    image_format : "png" or "jpg", optional
        Only images of this format; without it any will do.
    """
    formats = (image_format,) if image_format else tuple(IMAGE_FORMATS)
    present = {f"{folder}/{name}" for folder in EXTRACTED_FOLDERS for name in tree.storage.names(folder)}
    found = {}
    for nsd_id in nsd_ids:
        # The published packaging names its files stimulus_nsd_03049.jpg
        names = [f"{prefix}{stimulus_name(nsd_id)}.{suffix}" for suffix in formats for prefix in ("", "stimulus_")]
        places = [f"{folder}/{name}" for name in names for folder in EXTRACTED_FOLDERS if f"{folder}/{name}" in present]
        if not places:
            return {}
        found[int(nsd_id)] = places[0]
    return found


def write_stimuli(tree: NSDTree, folder: Path, splits: Mapping[str, np.ndarray], image_format: str | None) -> list[str]:
    """Write ``stimuli_<split>/`` and ``stimulus_metadata_<split>.csv`` for every split, and ``train_test_split.csv``.

    Images are copied where an earlier packaging extracted all of them, else read from `imgBrick`: PNG, lossless,
    unless `image_format` is "jpg".

    Returns
    -------
    the raw files that were read

    Raises
    ------
    PackagingError
        If an image lies outside `imgBrick`, or `imgBrick` is missing or damaged.
    """
    every_id = np.sort(np.concatenate(list(splits.values())))
    extracted = find_extracted_images(tree, every_id, image_format)
    coco_ids = read_coco_ids(tree, [int(nsd_id) for nsd_id in every_id])
    coco_id_of = dict(zip(every_id, coco_ids, strict=True)) if coco_ids else None
    for split, nsd_ids in splits.items():
        stimuli_path = folder / f"stimuli_{split}"
        stimuli_path.mkdir()
        names = (
            _copy_images(tree, stimuli_path, {int(i): extracted[int(i)] for i in nsd_ids})
            if extracted
            else _extract_images(tree, stimuli_path, nsd_ids, image_format or "png")
        )
        table = pd.DataFrame(
            {"stimulus_id": [stimulus_name(i) for i in nsd_ids], "nsd_id": nsd_ids, "image_file_name": names}
        )
        if coco_id_of:
            table["coco_id"] = [coco_id_of[i] for i in nsd_ids]
        table.to_csv(folder / f"stimulus_metadata_{split}.csv", index=False, lineterminator="\n")
        logger.info("stimuli_%s: %d images %s", split, len(names), "copied" if extracted else "extracted")
    _write_split(folder / "train_test_split.csv", splits)
    raw = sorted(extracted.values()) if extracted else [tree.images_path]
    return raw + ([tree.stimulus_info_path] if tree.storage.exists(tree.stimulus_info_path) else [])


def _extract_images(tree: NSDTree, folder: Path, nsd_ids: np.ndarray, image_format: str) -> list[str]:
    names = [f"{stimulus_name(nsd_id)}.{image_format}" for nsd_id in nsd_ids]
    for name, pixels in zip(names, read_images(tree, [int(nsd_id) for nsd_id in nsd_ids]), strict=True):
        Image.fromarray(pixels).save(folder / name, **IMAGE_FORMATS[image_format])  # type: ignore[arg-type]
    return names


def _copy_images(tree: NSDTree, folder: Path, places: Mapping[int, str]) -> list[str]:
    names = [f"{stimulus_name(nsd_id)}{Path(place).suffix}" for nsd_id, place in places.items()]
    for name, place in zip(names, places.values(), strict=True):
        with tree.storage.open(place) as source, (folder / name).open("wb") as target:
            shutil.copyfileobj(source, target)
    return names


def _write_split(path: Path, splits: Mapping[str, np.ndarray]) -> None:
    rows = [(nsd_id, stimulus_name(nsd_id), split) for split, nsd_ids in splits.items() for nsd_id in nsd_ids]
    table = pd.DataFrame(sorted(rows), columns=["nsd_id", "stimulus_id", "split"])
    table.to_csv(path, index=False, lineterminator="\n")
