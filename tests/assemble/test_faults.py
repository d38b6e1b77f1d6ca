"""System calls that fail or do less than asked for, in commands and in the parts of a build that read and write."""

import errno
import os
import random
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray

from allen2022_surface_packaging.assemble import prepared
from allen2022_surface_packaging.assemble.assembly import create_assembly
from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd.inspection import inspect_tree
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.recipe import make_recipe
from faults import Runner, compile_shim, iterate_cases
from reference import prepare_regions
from support import hashes, run_cli

# How many faults are tried, and the seed of their choice. `python tests/faults.py` tries one at every call.
N_FAULTS = int(os.environ.get("ALLEN2022_SURFACE_FAULTS", "30"))
SEED = int(os.environ.get("ALLEN2022_SURFACE_FAULTS_SEED", "0"))
RECIPE = make_recipe((1,), name="one")
PREPARED = "assemblies/Allen2022_surface.V1.nc"


@pytest.mark.needs("a C compiler")
@pytest.mark.timeout(120 + 15 * N_FAULTS)
def test_fault_of_any_call_loses_nothing_and_is_one_line(tmp_path):
    with Runner(compile_shim(tmp_path)) as runner:
        broken = [broken for _, broken in iterate_cases(runner, tmp_path / "scene", N_FAULTS, SEED) if broken]
    assert broken == []


@pytest.fixture(scope="module")
def small_tree(tmp_path_factory) -> Path:
    """A tree of one subject, with prepared assemblies."""
    root = tmp_path_factory.mktemp("faults") / "nsd"
    simulate_tree(root, TreeSize((1,), n_sessions=2, n_trials=60, n_vertices=162, image_size=8, betas=(DEFAULT_BETAS,)))
    prepare_regions(root, (1,))
    return root


@pytest.fixture(scope="module")
def small_release(small_tree, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("small") / "release"
    build_release(small_tree, path, RECIPE)
    return path


@pytest.mark.parametrize("seed", range(3))
def test_reads_and_writes_that_are_short_give_the_same_release(small_tree, small_release, tmp_path, monkeypatch, seed):
    rng = random.Random(seed)
    preadv, pwrite, write = os.preadv, os.pwrite, os.write

    def part(buffer):
        return buffer[: rng.randint(1, max(1, len(buffer)))]

    monkeypatch.setattr(
        os, "preadv", lambda descriptor, buffers, offset: preadv(descriptor, [part(buffers[0])], offset)
    )
    monkeypatch.setattr(os, "pwrite", lambda descriptor, buffer, offset: pwrite(descriptor, part(buffer), offset))
    monkeypatch.setattr(os, "write", lambda descriptor, buffer: write(descriptor, part(buffer)))

    build_release(small_tree, tmp_path / "release", RECIPE)

    assert hashes(tmp_path / "release") == hashes(small_release)


@pytest.mark.parametrize("function", ["write", "pwrite", "posix_fallocate", "preadv"])
def test_disk_that_fails_is_named_and_the_older_release_stays(small_tree, tmp_path, monkeypatch, function):
    old = tmp_path / "release"
    old.mkdir()
    (old / "release.json").touch()

    def fail(*_):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, function, fail)
    result = run_cli("build", small_tree, old, "--subjects", 1, "--name", "one", "--overwrite", "--cache", "none")

    assert result.returncode == 1
    assert str(tmp_path if function != "preadv" else small_tree) in result.stderr
    assert "Disk quota exceeded. Free some space, or ask for a larger quota" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["release"]
    assert [path.name for path in old.iterdir()] == ["release.json"]


def test_assembly_is_refused_in_one_line_when_hdf5_cannot_write(tmp_path):
    table = pd.DataFrame({"stimulus_id": ["nsd_00001"], "nsd_id": [1]})
    neuroids = [("neuroid_id", np.array([b"one"]))]

    with (
        pytest.raises(PackagingError, match=r"missing/one\.nc could not be written \(.*\)\. Is the disk sound"),
        create_assembly(tmp_path / "missing" / "one.nc", identifier="one", presentations=table, neuroids=neuroids),
    ):
        pass


def read_prepared(root: Path) -> bytes:
    plan = inspect_tree(open_tree(root), RECIPE, from_region_assemblies=True).require_sound()
    return prepared.read_prepared_averages(plan).read(1, plan.region_map, plan.averaged_images).tobytes()


@pytest.mark.parametrize("seed", range(8))
def test_damaged_prepared_assembly_is_named_in_one_line(small_tree, tmp_path, seed):
    """Some bytes change unnoticed, since the file has no checksum of its values. Nothing else happens."""
    root = Path(shutil.copytree(small_tree, tmp_path / "nsd"))
    rng, content = random.Random(seed), bytearray((root / PREPARED).read_bytes())
    for _ in range(3):
        start = rng.randrange(len(content) if seed % 2 else 4096)
        content[start : start + 64] = bytes(64) if seed % 3 else rng.randbytes(64)
    if seed == 0:
        del content[len(content) // 2 :]
    (root / PREPARED).write_bytes(content)

    try:
        read_prepared(root)
    except PackagingError as error:
        assert "\n" not in str(error)
        assert PREPARED in str(error) or "V1" in str(error)
    else:
        assert seed


@pytest.mark.parametrize("error", [RuntimeError("NetCDF:\nHDF error"), AttributeError("x"), OverflowError("y")])
def test_any_exception_about_a_prepared_assembly_is_one_line(small_tree, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(xarray, "open_dataarray", fail)
    with pytest.raises(PackagingError, match=r"V1\.nc cannot be read as an assembly \([^\n]*\)\. Prepare it again"):
        read_prepared(small_tree)


def test_coordinate_of_another_shape_is_refused(small_tree, tmp_path):
    root = Path(shutil.copytree(small_tree, tmp_path / "nsd"))
    with xarray.open_dataarray(root / PREPARED) as opened:
        assembly = opened.load()
    assembly = assembly.assign_coords(vertex_index=7)
    with tempfile.TemporaryDirectory() as folder:
        assembly.to_netcdf(Path(folder) / "changed.nc")
        shutil.copyfile(Path(folder) / "changed.nc", root / PREPARED)

    with pytest.raises(PackagingError, match="vertex_index has 0 dimensions, expected 1"):
        read_prepared(root)
