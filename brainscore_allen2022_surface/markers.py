"""Markers: names of the content of images. Brain-Score caches what it computes by the identifier of a stimulus set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from .files import sha1_of

SEPARATOR = "--"  # Brain-Score's own, between a registered identifier and what was added to it
N_DIGITS = 8


def hash_images(image_paths: Mapping[str, Path]) -> dict[str, str]:
    """Compute the SHA-1 of each image file, in hexadecimal.

    Parameters
    ----------
    image_paths : path of each image, by stimulus id
    """
    return {stimulus_id: sha1_of(path) for stimulus_id, path in image_paths.items()}


def image_marker(image_sha1s: Mapping[str, str]) -> str:
    """Compute the marker of a set of images.

    Parameters
    ----------
    image_sha1s : SHA-1 of each image file, by stimulus id
        The order does not change the marker, nor do the paths, so that a copy of a release has the marker of the release.

    Returns
    -------
    eight hexadecimal digits
    """
    digest = hashlib.sha1()
    for stimulus_id, image_sha1 in sorted(image_sha1s.items()):
        digest.update(f"{stimulus_id} {image_sha1}\n".encode())
    return digest.hexdigest()[:N_DIGITS]


def marker_of(identifier: str) -> str:
    """Return the marker of an identifier. It is empty for images that the shipped artifacts file lists."""
    return identifier.partition(SEPARATOR)[2]
