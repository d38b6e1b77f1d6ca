"""The table that `bench.py` prints, and the line about the machine above it.

This module imports the standard library only: see `commands.py`.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("numpy", "xarray", "netCDF4", "nibabel", "dask", "brainscore_core", "brainscore_vision")
HEADER = "| work | this package | peer | measured | target | |\n|---|---|---|---|---|---|"


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes
    ----------
    work : what was measured
    result, peer_result : of this package and of the peer, as text
    value : the number that is compared with the target
    unit : of `value` and `target`, with the space before it
    target : None if there is none
    higher_is_better : whether the target is the least or the most that `value` may be
    """

    work: str
    result: str
    peer_result: str
    value: float
    unit: str
    target: float | None
    higher_is_better: bool = False

    def __str__(self) -> str:
        cells = [self.work, self.result, self.peer_result, f"{self.value:.2f}{self.unit}", *self._judge()]
        return f"| {' | '.join(cells)} |"

    def _judge(self) -> tuple[str, str]:
        """Return the target as text, and whether it is met."""
        if self.target is None:
            return "–", "–"
        is_met = self.value >= self.target if self.higher_is_better else self.value <= self.target
        sign = "≥" if self.higher_is_better else "≤"
        return f"{sign} {self.target:g}{self.unit}", "met" if is_met else "**not met**"


def speedup(work: str, seconds: float, peer: str, peer_seconds: float, target: float | None) -> Row:
    """Return a row that says how many times faster this package is than a peer."""
    peer_result = f"{peer} {format_seconds(peer_seconds)}"
    ratio = peer_seconds / seconds
    return Row(work, format_seconds(seconds), peer_result, ratio, " x faster", target, higher_is_better=True)


def format_seconds(seconds: float) -> str:
    """Write a time with about three digits."""
    if seconds < 0.1:
        return f"{1000 * seconds:.1f} ms"
    return f"{seconds:.{1 if seconds >= 10 else 2 if seconds >= 1 else 3}f} s"


def describe_machine() -> str:
    """Return one line about the machine, its Python and the packages that matter."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{len(os.sched_getaffinity(0))} cores ({model}), {memory:.0f} GiB, Linux, "
        f"Python {platform.python_version()}; {packages}; load average {os.getloadavg()[0]:.1f} at the start"
    )
