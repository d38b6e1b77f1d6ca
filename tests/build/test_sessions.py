"""The cache of sessions and the workers: every way to the same bytes, and nothing read twice."""

import logging
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from allen2022_surface_packaging import cli
from allen2022_surface_packaging.build import sessions
from allen2022_surface_packaging.build.pipeline import build_release
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.files import MGH_DATA_OFFSET, SUBJECTS
from allen2022_surface_packaging.release import sha1_of

FOUR = (1, 2, 5, 7)


def hashes(release):
    return {str(path.relative_to(release)): sha1_of(path) for path in sorted(release.rglob("*")) if path.is_file()}


def betas_paths(tree):
    return sorted(tree.glob("nsddata_betas/ppdata/subj*/fsaverage/betas_fithrf_GLMdenoise_RR/?h.betas_session*.mgh"))


def blank(path: Path) -> None:
    """Set every response to 0 behind the back of whoever looks at size and modification time only."""
    status = path.stat()
    with path.open("r+b") as file:
        file.truncate(MGH_DATA_OFFSET)
        file.truncate(status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def entries(cache):
    return sorted(cache.glob("subj*.npy.sha1"))


@pytest.fixture(scope="session")
def filled_cache(nsd_tree, tmp_path_factory):
    """The cache that a build of all eight subjects leaves, to be read only."""
    cache = tmp_path_factory.mktemp("sessions") / "cache"
    build_release(nsd_tree, cache.parent / "release", subjects=SUBJECTS, cache_path=cache)
    return cache


@pytest.fixture
def cache(filled_cache, tmp_path):
    """A copy of that cache that a test may break."""
    return Path(shutil.copytree(filled_cache, tmp_path / "cache"))


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [2, 4])
def test_any_number_of_workers_makes_the_same_bytes(nsd_tree, release, tmp_path, n_workers):
    build_release(nsd_tree, tmp_path / "release", subjects=SUBJECTS, n_workers=n_workers, cache_path=tmp_path / "cache")

    assert hashes(tmp_path / "release") == hashes(release)


@pytest.mark.slow
def test_a_worker_that_is_killed_half_way_has_its_sessions_done_elsewhere(nsd_tree, release, tmp_path):
    import distributed

    cache = tmp_path / "cache"
    outcome = []
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        pids = client.run(os.getpid)
        build = threading.Thread(
            target=lambda: outcome.append(
                build_release(
                    nsd_tree,
                    tmp_path / "release",
                    subjects=SUBJECTS,
                    cache_path=cache,
                    scheduler=cluster.scheduler_address,
                )
            )
        )
        build.start()
        while len(entries(cache)) < 2 and build.is_alive():
            time.sleep(0.0005)
        os.kill(next(iter(pids.values())), signal.SIGKILL)
        n_done = len(entries(cache))
        build.join()

    assert outcome == [None]
    assert 2 <= n_done < len(entries(cache))
    assert hashes(tmp_path / "release") == hashes(release)


def test_a_scheduler_that_does_not_answer_is_named(nsd_tree, tmp_path, monkeypatch):
    monkeypatch.setattr(sessions, "SCHEDULER_TIMEOUT", "1s")

    with pytest.raises(PackagingError, match=r"No dask scheduler answers at tcp://127\.0\.0\.1:9 .*Is it running\?"):
        build_release(nsd_tree, tmp_path / "release", subjects=FOUR, scheduler="tcp://127.0.0.1:9")

    assert not (tmp_path / "release").exists()


def test_four_subjects_after_eight_read_only_the_sessions_that_are_missing(own_tree, four_subject_release, tmp_path):
    cache = tmp_path / "cache"
    build_release(own_tree, tmp_path / "eight", subjects=SUBJECTS, cache_path=cache)
    before = entries(cache)
    for path in betas_paths(own_tree):
        if "session04" not in path.name:
            blank(path)

    build_release(own_tree, tmp_path / "four", subjects=FOUR, cache_path=cache)

    assert hashes(tmp_path / "four") == hashes(four_subject_release)
    added = set(entries(cache)) - set(before)
    assert sorted(path.name[:16] for path in added) == [f"subj{subject:02d}_session04" for subject in FOUR]


def test_a_build_with_every_session_cached_reads_no_betas(own_tree, release, tmp_path):
    build_release(own_tree, tmp_path / "one", subjects=SUBJECTS, cache_path=tmp_path / "cache")
    for path in betas_paths(own_tree):
        blank(path)

    build_release(own_tree, tmp_path / "two", subjects=SUBJECTS, cache_path=tmp_path / "cache")

    assert hashes(tmp_path / "two") == hashes(release)


def test_without_a_cache_the_betas_are_read_again(own_tree, release, tmp_path):
    command = ["build", str(own_tree), "--cache", "none"]
    for name in ("one", "two"):
        with pytest.raises(SystemExit) as ended:
            cli.main([*command[:2], str(tmp_path / name), *command[2:]])
        assert ended.value.code == 0
        if name == "one":
            for path in betas_paths(own_tree):
                blank(path)

    assert hashes(tmp_path / "one") == hashes(release)
    assert hashes(tmp_path / "two") != hashes(release)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nsd", "one", "two"]


def _cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut, _flip, _empty])
def test_a_damaged_entry_is_made_anew(nsd_tree, release, cache, tmp_path, caplog, damage):
    good = {path: path.read_bytes() for path in entries(cache)}
    for path in entries(cache)[::3]:
        damage(path)

    with caplog.at_level(logging.WARNING):
        build_release(nsd_tree, tmp_path / "release", subjects=SUBJECTS, cache_path=cache)

    assert "is damaged and made anew" in caplog.text
    assert hashes(tmp_path / "release") == hashes(release)
    assert {path: path.read_bytes() for path in entries(cache)} == good


def test_betas_that_changed_are_read_again(own_tree, tmp_path):
    build_release(own_tree, tmp_path / "before", subjects=SUBJECTS, cache_path=tmp_path / "cache")
    changed = betas_paths(own_tree)[0]
    content = bytearray(changed.read_bytes())
    values = np.frombuffer(content, dtype=">f4", offset=MGH_DATA_OFFSET, count=300 * 642)
    values[:] = np.random.default_rng(0).permutation(values)
    changed.write_bytes(content)

    build_release(own_tree, tmp_path / "cached", subjects=SUBJECTS, cache_path=tmp_path / "cache")
    build_release(own_tree, tmp_path / "fresh", subjects=SUBJECTS)

    assert hashes(tmp_path / "cached") == hashes(tmp_path / "fresh") != hashes(tmp_path / "before")


def test_another_version_of_the_method_uses_none_of_the_old_entries(nsd_tree, cache, tmp_path, monkeypatch):
    old = set(entries(cache))
    monkeypatch.setattr(sessions, "METHOD_VERSION", sessions.METHOD_VERSION + 1)

    build_release(nsd_tree, tmp_path / "release", subjects=SUBJECTS, cache_path=cache)

    assert len(set(entries(cache)) - old) == len(old)


def test_a_betas_file_at_fault_is_named_by_its_worker_too(own_tree, tmp_path):
    path = betas_paths(own_tree)[4]
    status = path.stat()
    with path.open("r+b") as file:
        file.truncate(status.st_size - 1000)

    with pytest.raises(PackagingError, match=rf"{path.name} is cut short"):
        build_release(own_tree, tmp_path / "release", subjects=SUBJECTS, n_workers=2, cache_path=tmp_path / "cache")
