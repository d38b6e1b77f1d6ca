"""Markers: names of the content of images. Brain-Score caches what it computes by the identifier of a stimulus set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

SEPARATOR = "--"  # Brain-Score's own, between a registered identifier and what was added to it
N_DIGITS = 8


def image_marker(image_paths: Mapping[str, Path]) -> str:
    """Compute the marker of a set of images, from the bytes of every image.

    Parameters
    ----------
    image_paths : path of each image, by stimulus id
        Neither the order nor the paths change the marker, so that a copy of a release has the marker of the release.

    Returns
    -------
    eight hexadecimal digits
    """
    digest = hashlib.sha1()
    for stimulus_id, path in sorted(image_paths.items()):
        digest.update(f"{stimulus_id} {hashlib.sha1(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:N_DIGITS]


def marker_of(identifier: str) -> str:
    """Return the marker of an identifier. It is empty for images that the shipped artifacts file lists."""
    return identifier.partition(SEPARATOR)[2]
