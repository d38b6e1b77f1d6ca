"""Progress of long work, and the log: a bar on a terminal with log lines above it, and only log lines elsewhere."""

from __future__ import annotations

import logging
import shlex
import shutil
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

logger = logging.getLogger(__name__)

LINE_SECONDS = 10.0  # between two lines, where there is no bar
BAR_FORMAT = "{desc}: {percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt}, {remaining} left ({rate_fmt})"

T = TypeVar("T")


def follow(items: Iterable[T], *, n_items: int, title: str, unit: str) -> Iterator[T]:
    """Yield the items, and show how many are done and how much time is left.

    Only a log that shows INFO shows progress. Where there is no terminal, it is a line for every tenth, but not more often
    than every ten seconds, and none for a single item.
    """
    from tqdm import tqdm  # not by `doctor`, as in `shown_log`

    hidden = None if logger.isEnabledFor(logging.INFO) else True  # None shows bars on a terminal only
    bar = tqdm(items, desc=title, total=n_items, unit=unit, bar_format=BAR_FORMAT, dynamic_ncols=True, disable=hidden)
    level = logging.INFO if bar.disable else logging.DEBUG
    start = last_line = time.monotonic()
    for n_done, item in enumerate(bar, start=1):
        yield item
        now = time.monotonic()
        if n_done == n_items > 1:
            logger.log(level, "%s: %d in %s", title, n_items, format_seconds(now - start))
        elif (10 * n_done) // n_items > (10 * (n_done - 1)) // n_items and now - last_line >= LINE_SECONDS:
            left = (now - start) / n_done * (n_items - n_done)
            logger.log(level, "%s: %d of %d, about %s left", title, n_done, n_items, format_seconds(left))
            last_line = now


@contextmanager
def shown_log(level: int) -> Iterator[None]:
    """Write the log of this package to stderr, from `level` on, above a bar if there is one.

    Other packages are not concerned: they write warnings, as the root logger is left alone. Python's warnings, such as those
    of NumPy about a division by zero, are shown with `-v` or `python -W` only.
    """
    package_logger, handler = logging.getLogger(__package__), logging.StreamHandler()
    if level <= logging.DEBUG:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    with ExitStack() as endings:
        endings.callback(package_logger.setLevel, package_logger.level)
        endings.callback(package_logger.removeHandler, handler)
        package_logger.addHandler(handler)
        package_logger.setLevel(level)
        with suppress(Exception):  # `doctor` says which packages are missing or broken, so it does without
            from tqdm.contrib.logging import logging_redirect_tqdm

            endings.enter_context(logging_redirect_tqdm([package_logger]))
        endings.enter_context(warnings.catch_warnings())
        if level > logging.DEBUG and not sys.warnoptions:
            warnings.simplefilter("ignore")
        yield


def format_program(name: str = "allen2022-surface") -> str:
    """Write a program of this environment as one can type it here: its name if a shell finds it so, else its path."""
    path, found = Path(sys.executable).with_name(name), shutil.which(name)
    if not path.exists() or (found and Path(found).samefile(path)):
        return name
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def format_seconds(seconds: float) -> str:
    """Write a duration for people, such as ``8 s``, ``2 min 5 s`` or ``1 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if whole else "less than a second"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def format_bytes(n_bytes: float) -> str:
    """Write a number of bytes for people, such as ``12 kB`` or ``1.1 GB``."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.{0 if n_bytes >= 100 * size else 1}f} {unit}"
    return f"{n_bytes:.0f} bytes"
