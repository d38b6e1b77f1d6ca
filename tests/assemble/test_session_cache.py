"""The session cache: it never changes a byte, nothing is read twice, and a stopped build continues."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from allen2022_surface_packaging.assemble import sessions
from allen2022_surface_packaging.assemble.pipeline import build_release, build_releases
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.files import MGH_DATA_OFFSET
from allen2022_surface_packaging.recipe import make_recipe, read_recipe
from support import hashes

EIGHT, FOUR = make_recipe(), make_recipe((1, 2, 5, 7))


def list_betas(tree: Path) -> list[Path]:
    return sorted(tree.glob("nsddata_betas/ppdata/subj*/fsaverage/betas_fithrf_GLMdenoise_RR/?h.betas_session*.mgh"))


def list_entries(cache: Path) -> list[Path]:
    return sorted(cache.glob("subj*.npy"))


def set_to_constant(path: Path) -> None:
    """Set every response to one value, but keep the size and the modification time of the file."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(MGH_DATA_OFFSET)
        file.write(b"?" * (status.st_size - MGH_DATA_OFFSET))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture(scope="module")
def filled_cache(nsd_tree, tmp_path_factory) -> Path:
    """The cache of a build of all eight subjects. Tests only read it."""
    cache = tmp_path_factory.mktemp("sessions") / "cache"
    build_release(nsd_tree, cache.parent / "release", EIGHT, cache_path=cache)
    return cache


@pytest.fixture
def cache(filled_cache, tmp_path) -> Path:
    """A copy of the filled cache that a test may change."""
    return Path(shutil.copytree(filled_cache, tmp_path / "cache"))


def test_second_build_reads_only_the_sessions_that_are_missing(tree_copy, release, four_subject_release, tmp_path):
    cache = tmp_path / "cache"
    build_release(tree_copy, tmp_path / "eight", EIGHT, cache_path=cache)
    before = list_entries(cache)
    for path in list_betas(tree_copy):
        if "session04" not in path.name:
            set_to_constant(path)

    build_release(tree_copy, tmp_path / "again", EIGHT, cache_path=cache)
    build_release(tree_copy, tmp_path / "four", FOUR, cache_path=cache)

    assert hashes(tmp_path / "again") == hashes(release)
    assert hashes(tmp_path / "four") == hashes(four_subject_release)
    added = set(list_entries(cache)) - set(before)
    assert sorted(path.name[:16] for path in added) == [f"subj{subject:02d}_session04" for subject in FOUR.subjects]


def test_entries_of_larger_recipes_serve_a_smaller_one(tree_copy, release, tmp_path):
    """One reading for several recipes; then a recipe of fewer vertices and images reads nothing."""
    recipes = {tmp_path / name: read_recipe(name) for name in ("cortex", "subj01_own")}
    build_releases(tree_copy, recipes, cache_path=tmp_path / "cache")
    before = hashes(tmp_path / "cache")
    for path in list_betas(tree_copy):
        set_to_constant(path)

    build_release(tree_copy, tmp_path / "eight", EIGHT, cache_path=tmp_path / "cache")

    assert hashes(tmp_path / "eight") == hashes(release)
    assert hashes(tmp_path / "cache") == before


def test_betas_are_read_again_when_nothing_is_cached(tree_copy, release, tmp_path):
    build_release(tree_copy, tmp_path / "one", EIGHT)
    for path in list_betas(tree_copy):
        set_to_constant(path)
    build_release(tree_copy, tmp_path / "two", EIGHT)

    assert hashes(tmp_path / "one") == hashes(release) != hashes(tmp_path / "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nsd", "one", "two"]


def test_betas_are_read_again_when_they_have_changed(tree_copy, tmp_path):
    build_release(tree_copy, tmp_path / "before", EIGHT, cache_path=tmp_path / "cache")
    changed = list_betas(tree_copy)[0]
    content = bytearray(changed.read_bytes())
    values = np.frombuffer(content, dtype=">f4", offset=MGH_DATA_OFFSET, count=300 * 642)
    values[:] = np.random.default_rng(0).permutation(values)
    changed.write_bytes(content)

    build_release(tree_copy, tmp_path / "cached", EIGHT, cache_path=tmp_path / "cache")
    build_release(tree_copy, tmp_path / "fresh", EIGHT)

    assert hashes(tmp_path / "cached") == hashes(tmp_path / "fresh") != hashes(tmp_path / "before")


SECOND = 10**9
CLOCKS = {
    "the same": (lambda time: time, True),
    "summer time": (lambda time: time + 3600 * SECOND, True),
    "whole seconds": (lambda time: time // SECOND * SECOND, True),
    "every second second, and winter time": (lambda time: time // (2 * SECOND) * 2 * SECOND - 3600 * SECOND, True),
    "a later time": (lambda time: time + SECOND + 1, False),
    "two hours later": (lambda time: time + 7200 * SECOND, False),
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_nothing_is_read_again_on_another_disk_with_its_own_clock(tree_copy, release, cache, tmp_path, clock):
    """The tree is a copy with the times of the other one. All its responses are 0, so that reading them would show."""
    change, is_same = CLOCKS[clock]
    for path in list_betas(tree_copy):
        set_to_constant(path)
        os.utime(path, ns=(0, change(path.stat().st_mtime_ns)))

    build_release(tree_copy, tmp_path / "release", EIGHT, cache_path=cache)

    assert (hashes(tmp_path / "release") == hashes(release)) == is_same


def test_no_old_entry_is_used_when_the_method_has_changed(nsd_tree, cache, tmp_path, monkeypatch):
    old = set(list_entries(cache))
    monkeypatch.setattr(sessions, "METHOD_VERSION", sessions.METHOD_VERSION + 1)

    build_release(nsd_tree, tmp_path / "release", EIGHT, cache_path=cache)

    assert len(set(list_entries(cache)) - old) == len(old)


DAMAGES = {
    "cut": lambda content: content[:-100],
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "another file": lambda content: b"not an array\n" * 1000,
    "another array": lambda content: content.replace(b"<f4", b"<i4", 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_entry_is_computed_again_when_it_is_damaged(nsd_tree, release, cache, tmp_path, damage):
    intact = hashes(cache)
    for path in list_entries(cache)[::3]:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))

    build_release(nsd_tree, tmp_path / "release", EIGHT, cache_path=cache)

    assert hashes(tmp_path / "release") == hashes(release)
    assert hashes(cache) == intact


@pytest.mark.parametrize("name", ["lh.betas_session02.mgh", "lh.ncsnr.mgh"])
def test_raw_file_that_changes_while_the_build_runs_is_named(tree_copy, tmp_path, monkeypatch, name):
    """The change comes after the first session was read."""
    (changed,) = tree_copy.glob(f"**/subj02/fsaverage/betas_fithrf_GLMdenoise_RR/{name}")
    follow = sessions.follow

    def change_and_follow(items, **options):
        for item in follow(items, **options):
            yield item
            os.utime(changed, (0, 0))

    monkeypatch.setattr(sessions, "follow", change_and_follow)
    with pytest.raises(PackagingError, match=rf"{name}.* was changed .*while the build ran"):
        build_release(tree_copy, tmp_path / "release", EIGHT)

    assert not (tmp_path / "release").exists()
