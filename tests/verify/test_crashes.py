"""HDF5 crashes or hangs on a file: `verify` names the file, and its own process lives on."""

import signal
import time
from types import SimpleNamespace

import netCDF4
import pytest
import xarray

import reference
from allen2022_surface_packaging import apart
from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.recipe import make_recipe
from allen2022_surface_packaging.verify import assembly_soundness
from support import die
from verify.planted import TEST, TRAIN


def crash() -> None:
    die(signal.SIGSEGV)


def hang() -> None:
    time.sleep(60)


FAILURES = [
    pytest.param(crash, "HDF5 crashed", id="crash"),
    pytest.param(hang, "no answer within 2 seconds", id="hang"),
]


@pytest.fixture
def break_file(monkeypatch):
    """A function that lets the library fail in any process which opens a file of this name."""

    def break_it(name, failure):
        def breaking(read):
            def open_or_fail(path, *arguments, **options):
                if str(path).endswith(name):
                    failure()
                return read(path, *arguments, **options)

            return open_or_fail

        monkeypatch.setattr(apart, "READ_SECONDS", 2)
        monkeypatch.setattr(xarray, "open_dataarray", breaking(xarray.open_dataarray))
        monkeypatch.setattr(assembly_soundness, "netCDF4", SimpleNamespace(Dataset=breaking(netCDF4.Dataset)))

    return break_it


@pytest.mark.parametrize(("failure", "sign"), FAILURES)
@pytest.mark.parametrize("name", [TRAIN, TEST])
def test_assembly_that_breaks_every_reader_is_named(tiny_tree, tiny_copy, break_file, run_verify, name, failure, sign):
    break_file(name, failure)

    result = run_verify(tiny_copy, "--nsd-root", tiny_tree, "--against", tiny_copy)

    assert result.status == 1
    advice = f"({sign}). Build the release again."
    assert result.problems == [
        f"problem: {tiny_copy / name} cannot be read as NetCDF {advice}",
        # the answer to each of the other two questions, listed once
        f"problem: {tiny_copy / name} cannot be read as a NetCDF file with one assembly {advice}",
    ]


@pytest.mark.parametrize(("failure", "sign"), FAILURES)
def test_prepared_assembly_that_breaks_its_reader_is_named(tree_copy, tmp_path, break_file, run_verify, failure, sign):
    reference.prepare_regions(tree_copy, (1,))
    build_release(tree_copy, tmp_path / "release", make_recipe((1,), name="one"), from_region_assemblies=True)
    break_file("Allen2022_surface.V4.nc", failure)

    result = run_verify(tmp_path / "release", "--nsd-root", tree_copy)

    assert result.status == 1
    assert len(result.problems) == 1
    assert f"Allen2022_surface.V4.nc cannot be read as a prepared assembly ({sign})" in result.problems[0]
