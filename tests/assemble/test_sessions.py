"""The session cache and the workers: they never change a byte, and nothing is read twice."""

import logging
import os
import shutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import dask
import distributed
import numpy as np
import pytest

from allen2022_surface_packaging import cli
from allen2022_surface_packaging.assemble import cluster, sessions
from allen2022_surface_packaging.assemble.cluster import Workers
from allen2022_surface_packaging.assemble.entries import Entry
from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.assemble.sessions import SessionCache
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.files import MGH_DATA_OFFSET
from allen2022_surface_packaging.nsd.inspection import inspect_tree
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.recipe import make_recipe
from support import hashes

EIGHT = make_recipe()
FOUR = make_recipe((1, 2, 5, 7))


def betas_paths(tree):
    return sorted(tree.glob("nsddata_betas/ppdata/subj*/fsaverage/betas_fithrf_GLMdenoise_RR/?h.betas_session*.mgh"))


def set_to_zero(path: Path) -> None:
    """Set every response to 0, but keep the size and the modification time of the file."""
    status = path.stat()
    with path.open("r+b") as file:
        file.truncate(MGH_DATA_OFFSET)
        file.truncate(status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def list_entries(cache):
    return sorted(cache.glob("subj*.responses"))


@pytest.fixture(scope="session")
def filled_cache(nsd_tree, tmp_path_factory):
    """The cache of a build of all eight subjects. Tests only read it."""
    cache = tmp_path_factory.mktemp("sessions") / "cache"
    build_release(nsd_tree, cache.parent / "release", EIGHT, cache_path=cache)
    return cache


@pytest.fixture
def cache(filled_cache, tmp_path):
    """A copy of the filled cache that a test may change."""
    return Path(shutil.copytree(filled_cache, tmp_path / "cache"))


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [2, 4])
def test_bytes_are_the_same_for_any_number_of_workers(nsd_tree, release, tmp_path, n_workers):
    build_release(nsd_tree, tmp_path / "release", EIGHT, n_workers=n_workers, cache_path=tmp_path / "cache")

    assert hashes(tmp_path / "release") == hashes(release)
    assert dask.config.get("scheduler", None) is None  # otherwise dask sends all later work to the closed cluster


@pytest.mark.slow
def test_other_workers_take_over_when_one_is_killed(nsd_tree, release, tmp_path):
    cache = tmp_path / "cache"
    outcome = []
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local_cluster,
        distributed.Client(local_cluster) as client,
    ):
        pids = client.run(os.getpid)
        build = threading.Thread(
            target=lambda: outcome.append(
                build_release(
                    nsd_tree,
                    tmp_path / "release",
                    EIGHT,
                    cache_path=cache,
                    scheduler=local_cluster.scheduler_address,
                )
            )
        )
        build.start()
        while len(list_entries(cache)) < 2 and build.is_alive():
            time.sleep(0.0005)
        os.kill(next(iter(pids.values())), signal.SIGKILL)
        n_done = len(list_entries(cache))
        build.join()

    assert outcome == [None]
    assert 2 <= n_done < len(list_entries(cache))
    assert hashes(tmp_path / "release") == hashes(release)


def test_scheduler_is_named_when_it_does_not_answer(nsd_tree, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "SCHEDULER_TIMEOUT", "1s")

    with pytest.raises(PackagingError, match=r"No dask scheduler answers at tcp://127\.0\.0\.1:9 .*Is it running\?"):
        build_release(nsd_tree, tmp_path / "release", FOUR, scheduler="tcp://127.0.0.1:9")

    assert not (tmp_path / "release").exists()


def test_second_build_reads_only_the_sessions_that_are_missing(tree_copy, four_subject_release, tmp_path):
    cache = tmp_path / "cache"
    build_release(tree_copy, tmp_path / "eight", EIGHT, cache_path=cache)
    before = list_entries(cache)
    for path in betas_paths(tree_copy):
        if "session04" not in path.name:
            set_to_zero(path)

    build_release(tree_copy, tmp_path / "four", FOUR, cache_path=cache)

    assert hashes(tmp_path / "four") == hashes(four_subject_release)
    added = set(list_entries(cache)) - set(before)
    assert sorted(path.name[:16] for path in added) == [f"subj{subject:02d}_session04" for subject in FOUR.subjects]


def test_no_betas_are_read_when_every_session_is_cached(tree_copy, release, tmp_path):
    build_release(tree_copy, tmp_path / "one", EIGHT, cache_path=tmp_path / "cache")
    for path in betas_paths(tree_copy):
        set_to_zero(path)

    build_release(tree_copy, tmp_path / "two", EIGHT, cache_path=tmp_path / "cache")

    assert hashes(tmp_path / "two") == hashes(release)


def test_betas_are_read_again_when_nothing_is_cached(tree_copy, release, tmp_path):
    command = ["build", str(tree_copy), "--cache", "none"]
    for name in ("one", "two"):
        with pytest.raises(SystemExit) as ended:
            cli.main([*command[:2], str(tmp_path / name), *command[2:]])
        assert ended.value.code == 0
        if name == "one":
            for path in betas_paths(tree_copy):
                set_to_zero(path)

    assert hashes(tmp_path / "one") == hashes(release)
    assert hashes(tmp_path / "two") != hashes(release)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nsd", "one", "two"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip_a_bit, empty])
def test_entry_is_computed_again_when_it_is_damaged(nsd_tree, release, cache, tmp_path, caplog, damage):
    intact = {path: path.read_bytes() for path in list_entries(cache)}
    for path in list_entries(cache)[::3]:
        damage(path)

    with caplog.at_level(logging.WARNING):
        build_release(nsd_tree, tmp_path / "release", EIGHT, cache_path=cache)

    assert "is damaged or missing; it is computed again" in caplog.text
    assert hashes(tmp_path / "release") == hashes(release)
    assert {path: path.read_bytes() for path in list_entries(cache)} == intact


def test_betas_are_read_again_when_they_have_changed(tree_copy, tmp_path):
    build_release(tree_copy, tmp_path / "before", EIGHT, cache_path=tmp_path / "cache")
    changed = betas_paths(tree_copy)[0]
    content = bytearray(changed.read_bytes())
    values = np.frombuffer(content, dtype=">f4", offset=MGH_DATA_OFFSET, count=300 * 642)
    values[:] = np.random.default_rng(0).permutation(values)
    changed.write_bytes(content)

    build_release(tree_copy, tmp_path / "cached", EIGHT, cache_path=tmp_path / "cache")
    build_release(tree_copy, tmp_path / "fresh", EIGHT)

    assert hashes(tmp_path / "cached") == hashes(tmp_path / "fresh") != hashes(tmp_path / "before")


def test_no_old_entry_is_used_when_the_method_has_changed(nsd_tree, cache, tmp_path, monkeypatch):
    old = set(list_entries(cache))
    monkeypatch.setattr(sessions, "METHOD_VERSION", sessions.METHOD_VERSION + 1)

    build_release(nsd_tree, tmp_path / "release", EIGHT, cache_path=cache)

    assert len(set(list_entries(cache)) - old) == len(old)


def test_betas_file_is_named_when_a_worker_finds_it_damaged(tree_copy, tmp_path):
    path = betas_paths(tree_copy)[4]
    plan = inspect_tree(open_tree(tree_copy), EIGHT).require_sound()
    os.truncate(path, path.stat().st_size - 1000)  # after the inspection, which would find it

    with pytest.raises(PackagingError, match=rf"{path.name} is cut short"), Workers(2) as workers:
        SessionCache([plan], tmp_path / "cache").prepare(workers)


def test_betas_file_is_named_when_the_inspection_finds_it_damaged(tree_copy, tmp_path):
    path = betas_paths(tree_copy)[4]
    os.truncate(path, path.stat().st_size - 1000)

    with pytest.raises(PackagingError, match=rf"{path.name} is cut short"):
        build_release(tree_copy, tmp_path / "release", EIGHT, n_workers=2, cache_path=tmp_path / "cache")


def test_each_value_of_an_entry_is_read_once_when_the_cache_is_filled(nsd_tree, release, cache, tmp_path, monkeypatch):
    n_read = Counter()
    read_blocks = Entry._read_blocks

    def count_and_read(entry, hemisphere, blocks):
        n_read.update((entry.path, hemisphere, int(block)) for block in blocks)
        return read_blocks(entry, hemisphere, blocks)

    monkeypatch.setattr(Entry, "_read_blocks", count_and_read)
    build_release(nsd_tree, tmp_path / "release", EIGHT, cache_path=cache)

    assert {path for path, _, _ in n_read} == set(list_entries(cache))
    assert set(n_read.values()) == {1}
    assert hashes(tmp_path / "release") == hashes(release)
