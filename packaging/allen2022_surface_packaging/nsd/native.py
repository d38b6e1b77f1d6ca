"""Betas on a subject's own surface: of each file, only the bytes of the vertices that are needed.

NSD writes `/betas` as int16 of shape (n_trials, n_vertices), uncompressed and in one chunk for each vertex, so that all
responses of a vertex lie side by side. Where a chunk lies, only the index of the file says: a B-tree, whose nodes lie
between the chunks, about 57 chunks apart. The files of a subject are written alike, so chunks are expected where those of
the first file were. The nodes that say so are compared, where they lie between the responses; one always is. If a file has
others, its own index is read.

References
----------
HDF5 File Format Specification, version 3.0, III.A.1, "Disk Format: Level 1A1 - Version 1 B-trees".
`analysis_transformfsaverage.m` of the code of the NSD paper.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..arrays import AnyArray, FloatArray, IntArray, PixelArray
from ..errors import reading
from .bucket import BucketFile
from .files import BetasShape
from .storage import FolderFile, RawFile

UNITS_PER_PERCENT = 300  # of the integers, in percent signal change
SIGNATURE = b"TREE"  # of a node of a B-tree
CHUNKED = (
    b"\x03\x02\x03"  # how a description of chunks of two dimensions starts; then the root of the B-tree and their shape
)
HEAD_BYTES = 2**16  # in which the description lies, because HDF5 writes it before the first chunk
NODE = np.dtype([("signature", "S4"), ("type", "u1"), ("level", "u1"), ("n", "<u2"), ("left", "<u8"), ("right", "<u8")])
ENTRY = np.dtype(
    [("n_bytes", "<u4"), ("filters", "<u4"), ("trial", "<u8"), ("vertex", "<u8"), ("byte", "<u8"), ("address", "<u8")]
)
MOST_ENTRIES = 64  # of a node, unless its file was written with another `H5Pset_istore_k`
NODE_BYTES = NODE.itemsize + MOST_ENTRIES * ENTRY.itemsize
MOST_REQUESTS = 290  # of one file; ranges of more than `block_bytes` are cut, which may add some
REQUESTS_PER_LEVEL = 110  # of the index, which has 1, 2, 70 and 4,000 nodes on its levels in a file of NSD's size
BYTES_IN_VAIN = 10_000  # between two pieces, at least, before another request is worth it
BLOCK_TRIALS = 32  # at a time: of each vertex as many bytes as a core fetches at once


class _Layout(NamedTuple):
    """Where the chunks of some vertices start, and the nodes of the index that say so: where, and a checksum of each."""

    chunks: IntArray
    nodes: IntArray
    digests: IntArray


_layouts: dict[tuple[int, bytes], _Layout] = {}  # by the size of the file and the vertices


def read_native_shape(file: RawFile) -> BetasShape:
    """Read the shape of a file of native betas, and check how it is laid out.

    Raises
    ------
    PackagingError
        If the file is missing or not laid out as NSD does it.
    """
    with _open_betas(file) as betas:
        return BetasShape(n_vertices=betas.shape[1], n_trials=betas.shape[0])


@contextmanager
def _open_betas(file: RawFile) -> Iterator[Any]:
    source = file.hdf5_source()
    with reading(file, "a betas file of nativesurface"), h5py.File(source, "r", locking=False) as opened:
        betas = opened["betas"]
        if not isinstance(betas, h5py.Dataset):
            raise ValueError("its betas are no array")
        n_filters = betas.id.get_create_plist().get_nfilters()
        if betas.dtype != "<i2" or betas.ndim != 2 or betas.chunks != (betas.shape[0], 1) or n_filters:
            raise ValueError(
                f"it holds {betas.dtype} of shape {betas.shape} in chunks of {betas.chunks} with {n_filters} filters, expected "
                "int16 of shape (n_trials, n_vertices) in chunks of one vertex without compression"
            )
        yield betas


def read_native_betas(file: RawFile, n_trials: int, vertices: IntArray) -> Iterator[FloatArray]:
    """Read the single-trial responses of some vertices of a subject's own surface, a block of trials at a time.

    Parameters
    ----------
    vertices : array of shape (n_vertices,)
        0-based, in any order; one that occurs twice is fetched once.

    Yields
    ------
    array of shape (n_trials_in_block, n_vertices)
        Percent signal change. A vertex whose integers are 0 in all trials has no data, and is NaN.

    Raises
    ------
    PackagingError
        If the file is missing or ends early, or its index lacks a vertex or cannot be read.
    """
    if not len(vertices):
        yield np.empty((n_trials, 0), dtype=np.float32)
        return
    needed, numbers = np.unique(vertices, return_inverse=True)
    with reading(file, "a betas file of nativesurface"), file.open() as opened:
        content, starts = _read_chunks(file, _Reader(opened), needed, 2 * n_trials)
    integers = sliding_window_view(content, 2 * n_trials)[starts[numbers]].view("<i2")
    del content  # it may be as large as the file
    is_empty = ~integers.any(axis=1)
    for first in range(0, n_trials, BLOCK_TRIALS):
        units = np.ascontiguousarray(integers[:, first : first + BLOCK_TRIALS].T)
        responses: FloatArray = units / np.float32(UNITS_PER_PERCENT)
        responses[:, is_empty] = np.nan
        yield responses


@dataclass(frozen=True)
class _Ranges:
    """Ranges of a file that were read, ascending: where each starts in the file, and in the content, which holds all of them."""

    firsts: IntArray
    starts: IntArray
    content: PixelArray

    def locate(self, addresses: IntArray, n_bytes: int) -> IntArray:
        """Return where in the content pieces of the file start, -1 for one that it does not hold."""
        numbers = np.searchsorted(self.firsts, addresses, side="right") - 1
        starts = addresses + (self.starts - self.firsts)[numbers]
        ends = np.append(self.starts, len(self.content))[numbers + 1]
        return np.where((numbers >= 0) & (starts + n_bytes <= ends), starts, -1)

    def nodes(self, addresses: IntArray) -> PixelArray:
        """Return those nodes of the index that the content holds, an array of shape (n_nodes, NODE_BYTES)."""
        starts = self.locate(addresses, NODE_BYTES)
        return self.content[starts[starts >= 0, None] + np.arange(NODE_BYTES)]


class _Reader:
    """Reads pieces of a file, neighbours in one request, and counts the requests."""

    def __init__(self, opened: FolderFile | BucketFile) -> None:
        self.opened, self.n_requests = opened, 0

    def read(self, addresses: IntArray, sizes: IntArray | int, n_most: int) -> _Ranges:
        """Read pieces in `n_most` ranges at most, with the smallest gaps between them."""
        order = np.argsort(addresses)
        firsts, ends = addresses[order], np.maximum.accumulate((addresses + sizes)[order])
        gaps = firsts[1:] - ends[:-1]
        in_vain = BYTES_IN_VAIN if len(gaps) < n_most else max(BYTES_IN_VAIN, np.partition(gaps, -n_most)[-n_most])
        is_first = np.append(True, gaps > in_vain)
        firsts, ends = firsts[is_first], ends[np.append(is_first[1:], True)]
        starts = np.cumsum(ends - firsts) - (ends - firsts)
        content = np.empty(int((ends - firsts).sum()), dtype=np.uint8)
        requests = [
            (first + done, content[start + done : start + min(end - first, done + self.opened.block_bytes)])
            for first, end, start in zip(firsts.tolist(), ends.tolist(), starts.tolist(), strict=True)
            for done in range(0, end - first, self.opened.block_bytes)
        ]
        self.n_requests += len(requests)
        with ThreadPoolExecutor(max(1, self.opened.n_readers)) as threads:
            for _ in (threads.map if self.opened.n_readers else map)(self._fill, requests):
                pass
        return _Ranges(firsts, starts, content)

    def _fill(self, request: tuple[int, PixelArray]) -> None:
        first, target = request
        if self.opened.read_at(first, target.data) < len(target):
            raise ValueError("it ends early")


def _read_chunks(file: RawFile, reader: _Reader, vertices: IntArray, n_bytes: int) -> tuple[PixelArray, IntArray]:
    """Return bytes that hold the chunks of some vertices, each of `n_bytes`, and where in these each chunk starts."""
    key = file.size(), vertices.tobytes()
    layout = _layouts.pop(key, None) or _find_chunks(file, reader, vertices, n_bytes)
    if layout.chunks.min() < 0:
        raise ValueError(f"it lacks the responses of vertex {vertices[layout.chunks.argmin()]} (0-based)")
    last = layout.nodes[-1:]  # where it lies depends on all that was written before
    sizes = np.repeat([n_bytes, NODE_BYTES], [len(vertices), len(last)])
    n_most = max(REQUESTS_PER_LEVEL, MOST_REQUESTS - reader.n_requests)
    ranges = reader.read(np.append(layout.chunks, last), sizes, n_most)
    is_read = ranges.locate(layout.nodes, NODE_BYTES) >= 0
    if not np.array_equal(_digest(ranges.nodes(layout.nodes)), layout.digests[is_read]):
        return _read_chunks(file, reader, vertices, n_bytes)
    if len(last):
        _layouts[key] = layout
    return ranges.content, ranges.locate(layout.chunks, n_bytes)


def _find_chunks(file: RawFile, reader: _Reader, vertices: IntArray, n_bytes: int) -> _Layout:
    """Find the chunks of some vertices in the index of the file, from its root down."""
    head = reader.read(np.array([0]), min(file.size(), HEAD_BYTES), 1).content.tobytes()
    with _open_betas(file) as betas:
        header = h5py.h5g.get_objinfo(betas.id).objno[0]
    shape = struct.pack("<3I", n_bytes // 2, 1, 2)
    described = re.compile(CHUNKED + b"(.{8})" + re.escape(shape), re.DOTALL).search(head, header)
    if described is None:  # the index is of another kind, because the file was written with another version of HDF5
        none = np.empty(0, dtype=np.int64)
        return _Layout(_list_chunks(file)[vertices], none, none)
    addresses, level = np.frombuffer(described[1], "<i8"), np.inf
    while True:
        nodes = reader.read(addresses, NODE_BYTES, REQUESTS_PER_LEVEL).nodes(addresses)
        level, entries = _parse_nodes(nodes, level)
        rows = np.searchsorted(entries["vertex"], vertices, side="right") - 1
        if level == 0:
            found = entries[rows]
            is_there = (found["vertex"] == vertices) & (found["n_bytes"] == n_bytes) & (found["filters"] == 0)
            chunks = np.where(is_there, found["address"].astype(np.int64), -1)
            return _Layout(chunks, addresses, _digest(nodes))
        addresses = entries["address"][np.unique(rows)].astype(np.int64)


def _parse_nodes(nodes: PixelArray, level_above: float) -> tuple[int, AnyArray]:
    """Return the level of some nodes, an array of shape (n_nodes, NODE_BYTES), and all their entries."""
    heads = np.ascontiguousarray(nodes[:, : NODE.itemsize]).view(NODE)
    level, n_entries = int(heads["level"].max()), heads["n"]
    if (heads["signature"] != SIGNATURE).any() or level >= level_above or n_entries.max() > MOST_ENTRIES:
        raise ValueError("its index is damaged, or was written with other settings than those of HDF5")
    entries = np.ascontiguousarray(nodes[:, NODE.itemsize :]).view(ENTRY)
    return level, entries[np.arange(MOST_ENTRIES) < n_entries]


def _list_chunks(file: RawFile) -> IntArray:
    """Return where the chunk of each vertex starts, -1 without one. HDF5 reads any index, but piece by piece."""
    with _open_betas(file) as betas:
        chunks = np.full(betas.shape[1], -1)

        def note(chunk: Any) -> None:
            chunks[chunk.chunk_offset[1]] = chunk.byte_offset

        betas.id.chunk_iter(note)
    return chunks


def _digest(nodes: PixelArray) -> IntArray:
    """Return a checksum of each node."""
    return np.array([zlib.crc32(node) for node in nodes], dtype=np.int64)
