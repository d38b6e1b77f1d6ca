"""The plugin over a release on disk, by itself and through the real brainscore_vision."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray
from brainscore_core.supported_data_standards.brainio.assemblies import (
    NeuroidAssembly,
    StimulusMergeAssemblyLoader,
    walk_coords,
)
from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet
from PIL import Image

import brainscore_allen2022_surface as plugin
from brainscore_allen2022_surface.loaders import load_assembly, load_stimulus_set

NAME = "Allen2022_fmri_surface"
VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_DIR"


@pytest.fixture
def releases(release, four_subject_release, tmp_path, monkeypatch):
    """A folder of both releases, found through the environment."""
    (tmp_path / "releases").mkdir()
    for name, path in (("a", release), ("b", four_subject_release)):
        (tmp_path / "releases" / name).symlink_to(path)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "releases"))


@pytest.mark.parametrize("name", [NAME, f"{NAME}_4subj"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_assembly_is_what_brainscores_own_loader_makes_of_the_file(releases, request, name, split):
    folder = request.getfixturevalue("four_subject_release" if "4subj" in name else "release")
    stimulus_set = load_stimulus_set(name, split)
    ours = load_assembly(name, split)
    theirs = StimulusMergeAssemblyLoader(
        cls=NeuroidAssembly,
        file_path=folder / f"{name}_{split}.nc",
        stimulus_set=stimulus_set,
        stimulus_set_identifier=stimulus_set.identifier,
    ).load()

    assert type(ours) is NeuroidAssembly
    ours.validate()
    np.testing.assert_array_equal(ours.values, theirs.values)
    assert ours.dims == theirs.dims == ("presentation", "neuroid", "time_bin")
    coordinates = {key: (dims, values) for key, dims, values in walk_coords(ours)}
    expected = {key: (dims, values) for key, dims, values in walk_coords(theirs)}
    assert set(coordinates) == set(expected)
    for key, (dims, values) in expected.items():
        assert coordinates[key][0] == dims
        np.testing.assert_array_equal(coordinates[key][1], values)


def test_the_assembly_carries_its_stimulus_set_and_identifiers(releases):
    assembly = load_assembly(NAME, "test", region="V4")

    assert assembly.identifier == "Allen2022_fmri_surface.V4.test"
    assert assembly.stimulus_set_identifier == assembly.stimulus_set.identifier == "Allen2022_fmri_surface.test"
    assert set(assembly.stimulus_set.stimulus_id) == set(assembly["stimulus_id"].values)


def test_a_stimulus_set_gives_the_paths_of_its_images(releases, release):
    stimulus_set = load_stimulus_set(NAME, "test")

    assert isinstance(stimulus_set, StimulusSet)
    assert list(stimulus_set) == ["stimulus_id", "filename", "nsd_id", "image_file_name", "coco_id"]
    table = pd.read_csv(release / "stimulus_metadata_test.csv")
    assert stimulus_set.stimulus_id.tolist() == table.stimulus_id.tolist()
    for stimulus_id in stimulus_set.stimulus_id:
        path = stimulus_set.get_stimulus(stimulus_id)
        assert path == (release.parent / release.name / "stimuli_test" / f"{stimulus_id}.png") or path.samefile(
            release / "stimuli_test" / f"{stimulus_id}.png"
        )
        assert Image.open(path).size == (64, 64)


@pytest.mark.parametrize("region", ["V1", "V2", "V4", "IT"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_region_is_that_part_of_the_whole(releases, region, split):
    whole = load_assembly(NAME, split)
    part = load_assembly(NAME, split, region=region)

    own = whole["region"].values == region
    np.testing.assert_array_equal(part.values, whole.values[:, own])
    np.testing.assert_array_equal(part["neuroid_id"].values, whole["neuroid_id"].values[own])
    assert part.sel(region=region).sizes["neuroid"] == own.sum()


def test_data_is_lazy_only_where_chunks_are_asked_for(releases, monkeypatch):
    assert isinstance(load_assembly(NAME, "test").variable._data, np.ndarray)
    monkeypatch.setenv("BRAINIO_CHUNKS", "{'neuroid': 100}")
    lazy = load_assembly(NAME, "test")

    assert lazy.chunks[1][0] == 100
    monkeypatch.delenv("BRAINIO_CHUNKS")
    np.testing.assert_array_equal(lazy.values, load_assembly(NAME, "test").values)


def test_a_region_that_is_not_there_is_an_error(releases):
    with pytest.raises(ValueError, match="No neuroid of region MT is there, only of IT, V1, V2, V4"):
        load_assembly(NAME, "test", region="MT")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("nowhere", "nowhere, which is not a folder"),
        ("empty", "holds no release, expected Allen2022_fmri_surface"),
        ("four", "holds Allen2022_fmri_surface_4subj, expected Allen2022_fmri_surface. Build it"),
    ],
)
def test_a_setting_that_leads_nowhere_is_an_error_that_says_what_to_do(
    four_subject_release, tmp_path, monkeypatch, setting, message
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "four").symlink_to(four_subject_release)
    monkeypatch.setenv(VARIABLE, str(tmp_path / setting))

    with pytest.raises(FileNotFoundError, match=message):
        load_assembly(NAME, "train")


def test_two_releases_of_the_same_name_are_an_error_and_not_a_choice(release, tmp_path, monkeypatch):
    for name in ("old", "new"):
        (tmp_path / name).symlink_to(release)
    monkeypatch.setenv(VARIABLE, str(tmp_path))

    with pytest.raises(
        ValueError, match="holds Allen2022_fmri_surface more than once: .*new, .*old. Set it to the one"
    ):
        load_assembly(NAME, "train")


def test_a_damaged_release_is_an_error(own_release, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(own_release))
    os.truncate(own_release / f"{NAME}_test.nc", 100)
    with pytest.raises(ValueError, match="test.nc has 100 bytes, expected"):
        load_assembly(NAME, "test")
    next((own_release / "stimuli_train").iterdir()).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"nsd_\d{5}.png and 0 more images of Allen2022_fmri_surface.train are missing"
    ):
        load_stimulus_set(NAME, "train")


def test_every_identifier_of_the_design_is_registered():
    names = (NAME, f"{NAME}_4subj")
    whole = {f"{name}.{split}" for name in names for split in ("train", "test")}
    regions = {f"{n}.{r}.{s}" for n in names for r in ("V1", "V2", "V4", "IT") for s in ("train", "test")}

    assert whole | regions <= set(plugin.data_registry)
    assert whole <= set(plugin.stimulus_set_registry)


THROUGH_BRAINSCORE = """
import warnings; warnings.simplefilter("ignore")
import numpy as np
from brainscore_allen2022_surface.links import link, unlink, is_linked
from brainscore_core.plugin_management.import_plugin import ImportPlugin
import brainscore_vision
from pathlib import Path
data = Path(brainscore_vision.__file__).parent / "data"
before = set(data.iterdir())
was_linked = is_linked()
print(link())
try:
    for name in ("Allen2022_fmri_surface", "Allen2022_fmri_surface_4subj"):
        for split in ("train", "test"):
            stimulus_set = brainscore_vision.load_stimulus_set(f"{name}.{split}")
            assert stimulus_set.identifier == f"{name}.{split}"
            whole = brainscore_vision.load_dataset(f"{name}.{split}")
            parts = [brainscore_vision.load_dataset(f"{name}.{r}.{split}") for r in ("V1", "V2", "V4", "IT")]
            assert np.array_equal(np.concatenate([part.values for part in parts], axis=1), whole.values)
        # Brain-Score's own plugin for the same data is still found
        assert ImportPlugin("brainscore_vision", "data", f"{name}_train").plugin_dirname == "allen2022_fmri_surface"
    test = brainscore_vision.load_dataset("Allen2022_fmri_surface.V4.test").isel(time_bin=0)
    score = brainscore_vision.load_ceiling("internal_consistency")(test)
    assert np.isfinite(score.item()) and 0.3 < score.item() < 0.9, score
    assert np.isfinite(score.error.item())
finally:
    if not was_linked:
        print(unlink())
        assert set(data.iterdir()) <= before
print("done")
"""


def test_brainscore_finds_and_loads_every_identifier_and_computes_a_ceiling(releases):
    """In a process of its own, as a scientist would; nothing stays behind in brainscore_vision."""
    command = [sys.executable, "-c", THROUGH_BRAINSCORE]
    result = subprocess.run(command, capture_output=True, text=True)

    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "done"


def test_the_plugin_works_as_a_copy_anywhere(releases, tmp_path):
    """It must run unchanged inside brain-score/vision: nothing but relative imports, nothing of the packaging half."""
    shutil.copytree(plugin.__path__[0], tmp_path / "elsewhere" / "some_name")
    code = (
        "import some_name, sys; some_name.load_assembly('Allen2022_fmri_surface', 'test');"
        "assert not [m for m in sys.modules if m.startswith(('allen2022_surface_packaging', 'brainscore_allen2022'))]"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "elsewhere")}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr


def test_the_file_opens_as_one_variable(release):
    assembly = xarray.open_dataarray(release / f"{NAME}_train.nc")

    assert assembly.name == "data"
    assert set(assembly.coords["time_bin_start"].values) == {70}
    assert set(assembly.coords["time_bin_end"].values) == {170}
