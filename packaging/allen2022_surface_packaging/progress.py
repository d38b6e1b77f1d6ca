"""Progress of long work: a bar on a terminal, a log line for every tenth elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)

T = TypeVar("T")


def follow(items: Iterable[T], *, n_items: int, title: str, unit: str) -> Iterator[T]:
    """Yield the items, and show how many are done."""
    bar = tqdm(items, total=n_items, desc=title, unit=unit, disable=None)
    for n_done, item in enumerate(bar, start=1):
        yield item
        if bar.disable and (10 * n_done) // n_items > (10 * (n_done - 1)) // n_items:
            logger.info("%s: %d of %d", title, n_done, n_items)
