"""Entries of the session cache: what is written is read again, or the entry counts as damaged."""

import hashlib
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allen2022_surface_packaging.assemble.entries import BLOCK_VERTICES, DamagedEntryError, Entry, write_entry

HEMISPHERES = ("lh", "rh")
N_BLOCK_BYTES = 4 * 3 * BLOCK_VERTICES  # of three trials
# Five blocks in lh, of which the last one is not full, and one full block in rh.
TRIALS = np.array([1, 4, 5])
VERTICES = {"lh": np.arange(0, 2 * 600, 2), "rh": np.arange(7, 7 + BLOCK_VERTICES)}


def make_responses(trials, vertices):
    """Return responses that all differ, also between the hemispheres."""
    return {
        h: (1000 * trials[:, None] + numbers + (0.5 if h == "rh" else 0)).astype(np.float32)
        for h, numbers in vertices.items()
    }


@pytest.fixture
def entry_path(tmp_path):
    path = tmp_path / "a.responses"
    write_entry(path, TRIALS, VERTICES, make_responses(TRIALS, VERTICES))
    return path


@pytest.fixture
def entry(entry_path):
    return Entry.open(entry_path)


def test_entry_holds_its_trials_and_vertices_as_written(entry, entry_path):
    assert entry.path == entry_path
    assert entry.trials.tolist() == TRIALS.tolist()
    assert {h: entry.vertices[h].tolist() for h in HEMISPHERES} == {h: VERTICES[h].tolist() for h in HEMISPHERES}


@pytest.mark.parametrize("hemisphere", HEMISPHERES)
def test_all_values_are_read_as_written(entry, hemisphere):
    values = entry.read(TRIALS, hemisphere, VERTICES[hemisphere])

    np.testing.assert_array_equal(values, make_responses(TRIALS, VERTICES)[hemisphere])


@pytest.mark.parametrize(
    "rows",
    [
        *([0], [1, 5], [127], [128], [255, 256], [0, 128, 256], [5, 599], [0, 260, 599], [130, 140, 520]),
        *([*range(128)], [*range(129)], [*range(1, 128)], [*range(100, 600)], [*range(0, 600, 7)]),
    ],
    ids=str,
)
def test_some_vertices_of_several_blocks_are_read(entry, rows):
    vertices = VERTICES["lh"][rows]

    np.testing.assert_array_equal(entry.read(TRIALS[1:], "lh", vertices), 1000 * TRIALS[1:, None] + vertices)


def test_only_the_blocks_of_the_vertices_are_read(entry, entry_path):
    """The second block is damaged, so reading it would fail."""
    content = bytearray(entry_path.read_bytes())
    content[entry.values_offset + N_BLOCK_BYTES] ^= 1
    entry_path.write_bytes(content)
    first_and_last = VERTICES["lh"][[0, 599]]

    assert entry.read(TRIALS, "lh", first_and_last).tolist() == [[1000, 2198], [4000, 5198], [5000, 6198]]
    with pytest.raises(DamagedEntryError, match="a.responses"):
        entry.read(TRIALS, "lh", VERTICES["lh"][[128]])


@given(st.data())
def test_any_entry_is_read_as_written(tmp_path_factory, data):
    trials = np.array(sorted(data.draw(st.sets(st.integers(0, 749), min_size=1, max_size=4))))
    starts = {h: data.draw(st.integers(0, 50)) for h in HEMISPHERES}
    sizes = {h: data.draw(st.sampled_from([0, 1, 127, 128, 129, 256, 300])) for h in HEMISPHERES}
    vertices = {h: starts[h] + np.arange(sizes[h]) * data.draw(st.integers(1, 3)) for h in HEMISPHERES}
    path = tmp_path_factory.mktemp("entries") / "a.responses"
    responses = make_responses(trials, vertices)
    write_entry(path, trials, vertices, responses)
    entry = Entry.open(path)

    for h in HEMISPHERES:
        if sizes[h]:
            columns = sorted(data.draw(st.sets(st.integers(0, sizes[h] - 1), min_size=1, max_size=5)))
            rows = sorted(data.draw(st.sets(st.integers(0, len(trials) - 1), min_size=1)))
            values = entry.read(trials[rows], h, vertices[h][columns])
            np.testing.assert_array_equal(values, responses[h][rows][:, columns])


@pytest.mark.parametrize(
    ("trials", "lh", "rh", "is_covered"),
    [
        ([1, 4, 5], [0, 1198], [7, 134], True),
        ([4], [2], [7], True),
        ([], [], [], True),
        ([0], [2], [7], False),
        ([2], [2], [7], False),
        ([6], [2], [7], False),
        ([4], [1], [7], False),
        ([4], [1200], [7], False),
        ([4], [2], [6], False),
        ([4], [2], [135], False),
    ],
)
def test_entry_covers_what_it_holds_and_nothing_else(entry, trials, lh, rh, is_covered):
    vertices = {"lh": np.array(lh, int), "rh": np.array(rh, int)}

    assert entry.covers(np.array(trials, int), vertices) is is_covered


def test_entry_appears_only_when_it_is_whole(tmp_path):
    """Other builds may look into the folder at any moment."""
    path, states = tmp_path / "a.responses", []

    class Responses(dict):
        def __getitem__(self, hemisphere):
            states.append(path.exists())
            return super().__getitem__(hemisphere)

    write_entry(path, TRIALS, VERTICES, Responses(make_responses(TRIALS, VERTICES)))

    assert states == [False] * 6  # blocks
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.responses"]


def test_reader_keeps_an_entry_that_is_written_again(entry_path):
    """The new one has another inode, so that nothing is ever half-written at the path of an entry."""
    content = entry_path.read_bytes()
    with entry_path.open("rb") as reader:
        write_entry(entry_path, TRIALS[1:], VERTICES, make_responses(TRIALS[1:], VERTICES))

        assert reader.read() == content
    assert entry_path.read_bytes() != content


def test_writing_an_entry_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", None)  # a call would raise

    write_entry(tmp_path / "a.responses", TRIALS, VERTICES, make_responses(TRIALS, VERTICES))

    assert Entry.open(tmp_path / "a.responses").trials.tolist() == TRIALS.tolist()


def test_no_part_of_an_entry_is_left_when_writing_fails(tmp_path):
    responses = make_responses(TRIALS, VERTICES)
    responses["rh"] = responses["rh"][:2]  # of three trials

    with pytest.raises(ValueError, match="broadcast"):
        write_entry(tmp_path / "a.responses", TRIALS, VERTICES, responses)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n_kept", [0, 1, 10, 500, -1, -20, -21, -N_BLOCK_BYTES])
def test_entry_that_was_cut_short_is_damaged(entry_path, n_kept):
    entry_path.write_bytes(entry_path.read_bytes()[:n_kept])

    with pytest.raises(DamagedEntryError, match="a.responses"):
        Entry.open(entry_path)


@pytest.mark.parametrize("extra", [b"x", bytes(20)])
def test_entry_with_more_than_was_written_is_damaged(entry_path, extra):
    entry_path.write_bytes(entry_path.read_bytes() + extra)

    with pytest.raises(DamagedEntryError, match="a.responses"):
        Entry.open(entry_path)


@pytest.mark.parametrize(
    "head", [b"", b"\n", b"3\n", b"{}\n", b"[]\n", b"[3]\n", b"[null]\n", b"[-1, 2, 3]\n", b"[1e30, 1, 1]\n", b"\xff\n"]
)
def test_file_that_is_no_entry_is_damaged(entry_path, head):
    body = entry_path.read_bytes().split(b"\n", 1)[1]
    entry_path.write_bytes(head + body)

    with pytest.raises(DamagedEntryError, match="a.responses"):
        Entry.open(entry_path)


@pytest.mark.parametrize("position", ["counts", "trials", "vertices", "digest of the index"])
def test_index_with_a_changed_bit_is_damaged(entry_path, position):
    content = bytearray(entry_path.read_bytes())
    n_line = content.index(b"\n") + 1
    content[{"counts": 1, "trials": n_line, "vertices": n_line + 8 * 10, "digest of the index": -1}[position]] ^= 1
    entry_path.write_bytes(content)

    with pytest.raises(DamagedEntryError, match="a.responses"):
        Entry.open(entry_path)


@pytest.mark.parametrize("block", range(6))
def test_each_block_with_a_changed_bit_is_damaged(entry, entry_path, block):
    content = bytearray(entry_path.read_bytes())
    content[entry.values_offset + block * N_BLOCK_BYTES + N_BLOCK_BYTES - 1] ^= 1
    entry_path.write_bytes(content)

    hemisphere = "lh" if block < 5 else "rh"
    with pytest.raises(DamagedEntryError, match="a.responses"):
        Entry.open(entry_path).read(TRIALS, hemisphere, VERTICES[hemisphere])
    other = "rh" if block < 5 else "lh"
    np.testing.assert_array_equal(entry.read(TRIALS, other, VERTICES[other]), make_responses(TRIALS, VERTICES)[other])


def test_entry_that_shrinks_after_it_was_opened_is_damaged(entry, entry_path):
    os.truncate(entry_path, entry.values_offset + N_BLOCK_BYTES + 100)

    entry.read(TRIALS, "lh", VERTICES["lh"][:128])
    with pytest.raises(DamagedEntryError, match="a.responses"):
        entry.read(TRIALS, "lh", VERTICES["lh"])


def test_values_are_right_when_the_disk_reads_short(entry, monkeypatch):
    preadv, sizes = os.preadv, []

    def read_1000_bytes(descriptor, buffers, offset):
        sizes.append(len(buffers[0]))
        return preadv(descriptor, [buffers[0][:1000]], offset)

    monkeypatch.setattr(os, "preadv", read_1000_bytes)
    values = entry.read(TRIALS, "lh", VERTICES["lh"])

    np.testing.assert_array_equal(values, make_responses(TRIALS, VERTICES)["lh"])
    assert sizes == list(range(5 * N_BLOCK_BYTES, 0, -1000))  # all blocks at once


def test_missing_entry_is_not_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        Entry.open(tmp_path / "a.responses")


def test_file_of_an_entry_has_the_documented_parts(entry_path):
    """A line of JSON, trials and vertices, values in blocks, and the SHA-1 of each part, with the name in the last one."""
    line, rest = entry_path.read_bytes().split(b"\n", 1)
    assert json.loads(line) == [3, 600, 128]
    n_index = 8 * (3 + 600 + 128)
    index = np.frombuffer(rest[:n_index], "<i8")
    assert index.tolist() == [*TRIALS, *VERTICES["lh"], *VERTICES["rh"]]
    blocks = [
        rest[start : start + N_BLOCK_BYTES] for start in range(n_index, n_index + 6 * N_BLOCK_BYTES, N_BLOCK_BYTES)
    ]
    last_of_lh = np.frombuffer(blocks[4], "<f4").reshape(3, BLOCK_VERTICES)
    np.testing.assert_array_equal(last_of_lh[:, :88], make_responses(TRIALS, VERTICES)["lh"][:, 512:])
    assert not last_of_lh[:, 88:].any()
    parts = [*blocks, line + b"\n" + rest[:n_index] + entry_path.name.encode()]
    assert rest[n_index + 6 * N_BLOCK_BYTES :] == b"".join(hashlib.sha1(part).digest() for part in parts)


def test_copy_of_another_entry_is_damaged(entry_path):
    """Another session may have the same trials and vertices."""
    copy = entry_path.with_name("another.responses")
    copy.write_bytes(entry_path.read_bytes())

    with pytest.raises(DamagedEntryError):
        Entry.open(copy)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_pipe_or_folder_in_place_of_an_entry_is_damaged(tmp_path, make):
    make(tmp_path / "a.responses")

    with pytest.raises(DamagedEntryError):
        Entry.open(tmp_path / "a.responses")
