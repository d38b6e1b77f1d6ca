"""The size of a synthetic NSD tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..facts import BETAS_VERSIONS, SUBJECTS


@dataclass(frozen=True)
class TreeSize:
    """The size of a synthetic tree. The subjects who finished NSD have `n_sessions`; the others have NSD's share.

    `betas` are the versions of the single-trial responses that are written, `has_native_betas` says whether also those on the
    subjects' own surfaces.
    """

    subjects: Sequence[int] = SUBJECTS
    n_sessions: int = 4
    n_trials: int = 300
    n_vertices: int = 642
    image_size: int = 64
    layout: str = "official"
    seed: int = 0
    betas: Sequence[str] = BETAS_VERSIONS[:2]  # those that the recipes of this package use
    has_native_betas: bool = False
