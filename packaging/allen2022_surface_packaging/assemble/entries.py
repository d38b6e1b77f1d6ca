"""Entries of the session cache: files with the standardised responses of one session, read a few vertices at a time.

An entry is a line of JSON, the trials and the vertices (int64), the values, and the SHA-1 of each part. The values of both
hemispheres lie in blocks of `BLOCK_VERTICES` vertices, each float32 of shape (n_trials, BLOCK_VERTICES); the last block of a
hemisphere is filled up with zeros. So a few vertices of many sessions are read without the rest.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from ..arrays import FloatArray, IntArray
from ..facts import HEMISPHERES
from ..files import Bytes, naming, write_whole

BLOCK_VERTICES = 128
DIGEST_BYTES = hashlib.sha1().digest_size
SUFFIX = ".responses"

Vertices = dict[str, IntArray]  # by hemisphere, ascending


class DamagedEntryError(Exception):
    """An entry is not what was written."""


@dataclass(frozen=True, eq=False)
class Entry:
    """An open entry.

    Attributes
    ----------
    trials : array of shape (n_trials,)
        The trials that it holds, 0-based within the session, ascending.
    vertices : per hemisphere the vertices that it holds, ascending
    digests : the SHA-1 of each block
    """

    path: Path
    trials: IntArray
    vertices: Vertices
    digests: list[bytes]
    values_offset: int

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read everything but the values.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        DamagedEntryError
            If the file is not an entry, or was cut short.
        """
        if path.exists() and not path.is_file():  # a named pipe would be waited for
            raise DamagedEntryError(str(path))
        with naming(path), path.open("rb") as file:
            try:
                line = file.readline()
                counts = [int(count) for count in json.loads(line)]
                index = file.read(8 * sum(counts))
                trials, *vertices = np.split(np.frombuffer(index, "<i8").astype(np.int64), np.cumsum(counts)[:-1])
                n_blocks = sum(_n_blocks(count) for count in counts[1:])
                values_offset = file.tell()
                file.seek(values_offset + n_blocks * _block_bytes(len(trials)))
                digests = file.read()
            except (ValueError, TypeError, MemoryError, OverflowError) as error:
                raise DamagedEntryError(str(path)) from error
        pieces = [digests[start : start + DIGEST_BYTES] for start in range(0, len(digests), DIGEST_BYTES)]
        if len(pieces) != n_blocks + 1 or pieces[-1] != _digest_of_head(path, line + index):
            raise DamagedEntryError(str(path))
        return cls(path, trials, dict(zip(HEMISPHERES, vertices, strict=True)), pieces[:-1], values_offset)

    def covers(self, trials: IntArray, vertices: Vertices) -> bool:
        """Return whether the entry holds all of some trials and vertices."""
        return _contains(self.trials, trials) and all(
            _contains(self.vertices[hemisphere], vertices[hemisphere]) for hemisphere in HEMISPHERES
        )

    def read(self, trials: IntArray, hemisphere: str, vertices: IntArray) -> FloatArray:
        """Read some trials of some vertices, all of which the entry holds.

        Returns
        -------
        array of shape (n_trials, n_vertices)

        Raises
        ------
        DamagedEntryError
            If a block that is read is damaged.
        """
        positions = np.searchsorted(self.vertices[hemisphere], vertices)
        blocks = np.unique(positions // BLOCK_VERTICES)
        values = self._read_blocks(hemisphere, blocks)
        rows = np.searchsorted(self.trials, trials)
        selected = values[:, rows].transpose(1, 0, 2).reshape(len(rows), -1)
        columns = np.searchsorted(blocks, positions // BLOCK_VERTICES) * BLOCK_VERTICES + positions % BLOCK_VERTICES
        if columns[-1] == len(columns) - 1:  # a run from the first column on
            return selected[:, : len(columns)]
        return selected[:, columns]

    def _read_blocks(self, hemisphere: str, blocks: IntArray) -> FloatArray:
        """Read and check some blocks of a hemisphere: float32 of shape (n_blocks, n_trials, BLOCK_VERTICES)."""
        n_bytes = _block_bytes(len(self.trials))
        first = 0 if hemisphere == HEMISPHERES[0] else _n_blocks(len(self.vertices[HEMISPHERES[0]]))
        values = np.empty((len(blocks), len(self.trials), BLOCK_VERTICES), dtype="<f4")
        with naming(self.path), self.path.open("rb", buffering=0) as file:
            for start, stop in _runs(blocks):
                offset = self.values_offset + (first + int(blocks[start])) * n_bytes
                _read_exactly(file.fileno(), offset, values[start:stop].data.cast("B"), self.path)
        for block, content in zip(blocks, values, strict=True):
            if hashlib.sha1(content.data).digest() != self.digests[first + int(block)]:
                raise DamagedEntryError(str(self.path))
        return values


def write_entry(path: Path, trials: IntArray, vertices: Vertices, responses: dict[str, FloatArray]) -> None:
    """Write an entry, whole or not at all; `responses` are of shape (n_trials, n_vertices), by hemisphere."""
    write_whole(path, _entry_content(path, trials, vertices, responses))


def _entry_content(
    path: Path, trials: IntArray, vertices: Vertices, responses: dict[str, FloatArray]
) -> Iterator[Bytes]:
    index = [trials, *(vertices[hemisphere] for hemisphere in HEMISPHERES)]
    head = f"{json.dumps([len(numbers) for numbers in index])}\n".encode()
    head += b"".join(np.asarray(numbers, dtype="<i8").tobytes() for numbers in index)
    yield head
    digests = []
    for hemisphere in HEMISPHERES:
        for start in range(0, len(vertices[hemisphere]), BLOCK_VERTICES):
            block = np.zeros((len(trials), BLOCK_VERTICES), dtype="<f4")
            part = responses[hemisphere][:, start : start + BLOCK_VERTICES]
            block[:, : part.shape[1]] = part
            digests.append(hashlib.sha1(block.data).digest())
            yield block.data.cast("B")
    yield b"".join([*digests, _digest_of_head(path, head)])


def _digest_of_head(path: Path, head: bytes) -> bytes:
    """Return the last digest of an entry. It covers the name, so that a copy of the entry of another session is noticed."""
    return hashlib.sha1(head + path.name.encode()).digest()


def _n_blocks(n_vertices: int) -> int:
    return -(-n_vertices // BLOCK_VERTICES)


def _block_bytes(n_trials: int) -> int:
    return 4 * n_trials * BLOCK_VERTICES


def _runs(blocks: IntArray) -> Iterator[tuple[int, int]]:
    """Yield start and stop of every run of consecutive numbers."""
    starts = [0, *(np.flatnonzero(np.diff(blocks) != 1) + 1).tolist(), len(blocks)]
    yield from itertools.pairwise(starts)


def _read_exactly(descriptor: int, offset: int, buffer: memoryview, path: Path) -> None:
    while buffer:
        n_read = os.preadv(descriptor, [buffer], offset)
        if not n_read:
            raise DamagedEntryError(str(path))
        buffer, offset = buffer[n_read:], offset + n_read


def _contains(present: IntArray, needed: IntArray) -> bool:
    positions = np.searchsorted(present, needed)
    return bool(np.all(positions < len(present)) and np.all(present[positions] == needed))
