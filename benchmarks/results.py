"""What the measurements return. They print it as JSON, and `bench.py` reads it.

This module imports the standard library only: see `commands.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """Files were read, and perhaps standardised: seconds on the clock, and seconds of all cores."""

    seconds: float
    core_seconds: float


@dataclass(frozen=True)
class Computing:
    """One process computed: when it started and ended (seconds of the system clock), and its core seconds."""

    started: float
    ended: float
    core_seconds: float


@dataclass(frozen=True)
class Writing:
    """An assembly was written and hashed: the seconds, the size of the file in bytes, and its SHA-1."""

    seconds: float
    size: int
    sha1: str


@dataclass(frozen=True)
class Loading:
    """An assembly was loaded.

    Attributes
    ----------
    seconds : on the clock
    memory : by how many bytes the peak memory of the process grew
    shape : of the assembly
    total : the sum of all values, to see that two loaders give the same
    """

    seconds: float
    memory: float
    shape: list[int]
    total: float


@dataclass(frozen=True)
class Ceilings:
    """Split-half ceilings were computed by this package and by Brain-Score.

    Attributes
    ----------
    n_neuroids : how many neuroids both computed
    seconds, peer_seconds : of this package and of Brain-Score, for these neuroids
    largest_difference : between the two, over neuroids and splits
    all_neuroids_seconds : of this package, for all neuroids of NSD
    all_neuroids_memory : the peak memory of that, assembly included, in sizes of the assembly
    """

    n_neuroids: int
    seconds: float
    peer_seconds: float
    largest_difference: float
    all_neuroids_seconds: float
    all_neuroids_memory: float
