"""Loading a release from disk, with the plugin alone and through the real brainscore_vision."""

import fcntl

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from brainscore_core.plugin_management.import_plugin import ImportPlugin
from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet
from PIL import Image

from brainscore_allen2022_surface.loaders import load_assembly, load_stimulus_set

NAME = "Allen2022_fmri_surface"


@pytest.fixture
def releases(releases_path, monkeypatch) -> None:
    """Both releases, in a folder that the environment names."""
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_DIR", str(releases_path))


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
