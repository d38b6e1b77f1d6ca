"""Loading a release from disk, with the plugin alone and through the real brainscore_vision."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from brainscore_core.plugin_management.import_plugin import ImportPlugin
from brainscore_core.supported_data_standards.brainio.assemblies import (
    NeuroidAssembly,
    StimulusMergeAssemblyLoader,
    walk_coords,
)
from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet
from PIL import Image

import brainscore_allen2022_surface as plugin
from brainscore_allen2022_surface.loaders import load_assembly, load_stimulus_set
from libraries import use_own_library

NAME = "Allen2022_fmri_surface"


@pytest.fixture
def releases(releases_path, monkeypatch) -> None:
    """Both releases, in a folder that the environment names."""
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_DIR", str(releases_path))


@pytest.mark.parametrize("name", [NAME, f"{NAME}_4subj"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_assembly_equals_that_of_brainscore_core_loader(releases, request, name, split):
    folder = request.getfixturevalue("four_subject_release" if "4subj" in name else "release")
    stimulus_set = load_stimulus_set(name, split)
    actual = load_assembly(name, split)
    expected = StimulusMergeAssemblyLoader(
        cls=NeuroidAssembly,
        file_path=folder / f"{name}_{split}.nc",
        stimulus_set=stimulus_set,
        stimulus_set_identifier=stimulus_set.identifier,
    ).load()

    assert type(actual) is NeuroidAssembly
    actual.validate()
    np.testing.assert_array_equal(actual.values, expected.values)
    assert actual.dims == expected.dims == ("presentation", "neuroid", "time_bin")
    coordinates = {key: (dims, values) for key, dims, values in walk_coords(actual)}
    expected_coordinates = {key: (dims, values) for key, dims, values in walk_coords(expected)}
    assert set(coordinates) == set(expected_coordinates)
    for key, (dims, values) in expected_coordinates.items():
        assert coordinates[key][0] == dims
        np.testing.assert_array_equal(coordinates[key][1], values)


def test_stimulus_set_returns_paths_of_its_images(releases, release):
    stimulus_set = load_stimulus_set(NAME, "test")

    assert isinstance(stimulus_set, StimulusSet)
    assert list(stimulus_set) == ["stimulus_id", "filename", "nsd_id", "image_file_name", "coco_id"]
    table = pd.read_csv(release / "stimulus_metadata_test.csv")
    assert stimulus_set.stimulus_id.tolist() == table.stimulus_id.tolist()
    for stimulus_id in stimulus_set.stimulus_id:
        path = stimulus_set.get_stimulus(stimulus_id)
        assert path.samefile(release / "stimuli_test" / f"{stimulus_id}.png")
        assert Image.open(path).size == (64, 64)


@pytest.mark.parametrize("name", [NAME, f"{NAME}_4subj"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_regions_that_brainscore_loads_are_its_whole_dataset_in_order(brainscore, releases, name, split):
    whole = brainscore.load_dataset(f"{name}.{split}")
    parts = [brainscore.load_dataset(f"{name}.{region}.{split}") for region in ("V1", "V2", "V4", "IT")]

    np.testing.assert_array_equal(np.concatenate([part.values for part in parts], axis=1), whole.values)
    ids = [part["neuroid_id"].values for part in parts]
    np.testing.assert_array_equal(np.concatenate(ids), whole["neuroid_id"].values)
    # Brain-Score's own plugin for the same data is still found
    assert ImportPlugin("brainscore_vision", "data", f"{name}_{split}").plugin_dirname == "allen2022_fmri_surface"


def test_release_loads_from_a_disk_that_refuses_locks(release):
    """As HDF5 asks for them: here, another process could hold one."""
    with (release / f"{NAME}_test.nc").open() as file:
        expected = load_assembly(NAME, "test", source=release)
        fcntl.flock(file, fcntl.LOCK_EX)

        actual = load_assembly(NAME, "test", source=release)
        region = load_assembly(NAME, "test", region="V4", source=release)

    xr.testing.assert_equal(actual, expected)
    assert set(region["region"].values) == {"V4"}


def test_release_loads_below_any_path_and_beside_files_of_a_mac(release, releases_path):
    """As an external disk has them: a name that is not UTF-8, and `.DS_Store` and `._x` beside every `x`."""
    folder = Path(os.fsdecode(bytes(releases_path) + b"_caf\xe9"))
    shutil.copytree(release, folder / "release")
    for path in list(folder.rglob("*")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7")
        path.with_name(".DS_Store").write_bytes(b"\0")

    for source in (folder, folder / "release"):
        actual = load_assembly(NAME, "test", source=source)
        expected = load_assembly(NAME, "test", source=release)
        xr.testing.assert_equal(actual, expected)
        assert actual.stimulus_set.identifier == expected.stimulus_set.identifier


def test_brainscore_computes_a_ceiling(brainscore, releases):
    assembly = brainscore.load_dataset(f"{NAME}.V4.test").isel(time_bin=0)

    score = brainscore.load_ceiling("internal_consistency")(assembly)

    assert 0.3 < score.item() < 0.9
    assert np.isfinite(score.error.item())


def test_assembly_is_lazy_only_with_brainio_chunks(releases, monkeypatch):
    assert isinstance(load_assembly(NAME, "test").variable._data, np.ndarray)
    monkeypatch.setenv("BRAINIO_CHUNKS", "{'neuroid': 100}")
    lazy = load_assembly(NAME, "test")

    assert lazy.chunks[1][0] == 100
    monkeypatch.delenv("BRAINIO_CHUNKS")
    np.testing.assert_array_equal(lazy.values, load_assembly(NAME, "test").values)


def test_tests_of_other_processes_do_not_see_what_is_linked_here(brainscore):
    library = Path(brainscore.__file__).parent
    code = "from allen2022_surface_packaging.link import data_path; print(data_path())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert library.parent == Path(use_own_library().name)
    assert child.stdout.strip() == str(library / "data")
    assert (library / "data" / "allen2022_surface").is_symlink()


def test_copy_of_plugin_works_in_any_package(releases, tmp_path):
    """It must run unchanged inside brain-score/vision: with relative imports only, and without the packaging half."""
    shutil.copytree(plugin.__path__[0], tmp_path / "elsewhere" / "some_name")
    code = (
        "import some_name, sys; some_name.load_assembly('Allen2022_fmri_surface', 'test');"
        "assert not [m for m in sys.modules if m.startswith(('allen2022_surface_packaging', 'brainscore_allen2022'))]"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "elsewhere")}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
