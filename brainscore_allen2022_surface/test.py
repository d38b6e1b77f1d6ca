"""Tests of this plugin. Those marked `private_access` load the published data, the others need no data."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from brainscore_vision import load_ceiling, load_dataset, load_stimulus_set
from brainscore_vision.benchmark_helpers.cache_contract import assert_stimulus_identifier_is_cacheable

FOLDER = Path(__file__).parent
SPLITS = ("train", "test")
REGIONS = ("V1", "V2", "V4", "IT")
HEMISPHERES = ("lh", "rh")
N_REPETITIONS = 3

SUBJECTS = {
    "Allen2022_fmri_surface": [f"subj{number:02d}" for number in range(1, 9)],
    "Allen2022_fmri_surface_4subj": ["subj01", "subj02", "subj05", "subj07"],
}
N_IMAGES = {
    "Allen2022_fmri_surface": {"train": 412, "test": 103},
    "Allen2022_fmri_surface_4subj": {"train": 800, "test": 200},
}
N_NEUROIDS_PER_SUBJECT = {"V1": 4276, "V2": 3391, "V4": 914, "IT": 19065}

# If the environment names other data than the shipped artifacts file, the identifiers of the stimulus sets end in a marker.
OTHER_DATA = ("BRAINSCORE_ALLEN2022_SURFACE_DIR", "BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS")
MARKER = "(--[0-9a-f]{8})?" if any(os.environ.get(variable) for variable in OTHER_DATA) else ""

DATASETS = [(name, split) for name in SUBJECTS for split in SPLITS]
IDENTIFIERS = [f"{name}.{split}" for name, split in DATASETS]
REGION_IDENTIFIERS = [f"{name}.{region}.{split}" for name, split in DATASETS for region in REGIONS]


def region_of_each_neuroid(name):
    """Return the expected coordinate `region`."""
    n_subjects = len(SUBJECTS[name])
    return np.repeat(REGIONS, [n_subjects * N_NEUROIDS_PER_SUBJECT[region] for region in REGIONS])


class TestRegistration:
    """The registration lines in `__init__.py` and the S3 objects in `artifacts.json`."""

    @pytest.mark.parametrize("identifier", IDENTIFIERS + REGION_IDENTIFIERS)
    def test_dataset_has_one_registration_line(self, identifier):
        lines = (FOLDER / "__init__.py").read_text(encoding="utf-8").splitlines()
        assert sum(line.startswith(f"data_registry['{identifier}'] = ") for line in lines) == 1

    @pytest.mark.parametrize("identifier", IDENTIFIERS)
    def test_stimulus_set_has_one_registration_line(self, identifier):
        lines = (FOLDER / "__init__.py").read_text(encoding="utf-8").splitlines()
        assert sum(line.startswith(f"stimulus_set_registry['{identifier}'] = ") for line in lines) == 1

    @pytest.mark.parametrize("identifier", IDENTIFIERS)
    def test_stimulus_set_identifier_is_cacheable(self, identifier):
        assert_stimulus_identifier_is_cacheable(identifier)
        assert_stimulus_identifier_is_cacheable(f"{identifier}--0a1b2c3d")

    @pytest.mark.parametrize("identifier", IDENTIFIERS)
    def test_s3_objects_have_version_and_sha1(self, identifier):
        objects = json.loads((FOLDER / "artifacts.json").read_text(encoding="utf-8"))[identifier]
        assert set(objects) == {"assembly", "stimulus_csv", "stimulus_zip"}
        for stored in objects.values():
            assert stored["bucket"]
            assert stored["key"]
            assert stored["version_id"] not in ("", "null")
            assert len(bytes.fromhex(stored["sha1"])) == 20


@pytest.mark.private_access
class TestAssemblies:
    """Shape, coordinates and values of the assemblies."""

    @pytest.mark.parametrize(("name", "split"), DATASETS)
    def test_shape_and_type_are_correct(self, name, split):
        assembly = load_dataset(f"{name}.{split}")
        n_presentations = N_IMAGES[name][split] * (N_REPETITIONS if split == "test" else 1)
        n_neuroids = len(SUBJECTS[name]) * sum(N_NEUROIDS_PER_SUBJECT.values())
        assert assembly.dims == ("presentation", "neuroid", "time_bin")
        assert assembly.shape == (n_presentations, n_neuroids, 1)
        assert assembly.dtype == np.float32

    @pytest.mark.parametrize(("name", "split"), DATASETS)
    def test_presentations_are_sorted_and_complete(self, name, split):
        assembly = load_dataset(f"{name}.{split}")
        nsd_ids = assembly["nsd_id"].values
        images = np.unique(nsd_ids)
        n_repetitions = N_REPETITIONS if split == "test" else 1
        np.testing.assert_array_equal(nsd_ids, np.repeat(images, n_repetitions))
        np.testing.assert_array_equal(assembly["stimulus_id"].values, [f"nsd_{nsd_id:05d}" for nsd_id in nsd_ids])
        if split == "test":
            np.testing.assert_array_equal(assembly["repetition"].values, np.tile(range(n_repetitions), len(images)))
        else:
            assert "repetition" not in assembly.indexes["presentation"].names

    @pytest.mark.parametrize("name", SUBJECTS)
    def test_neuroids_are_complete_and_equal_in_both_splits(self, name):
        train, test = (load_dataset(f"{name}.{split}") for split in SPLITS)
        for level in ("neuroid_id", "subject", "hemisphere", "vertex_index", "region", "nc_testset"):
            np.testing.assert_array_equal(train[level].values, test[level].values)
        np.testing.assert_array_equal(train["region"].values, region_of_each_neuroid(name))
        subjects = [
            subject for region in REGIONS for subject in SUBJECTS[name] for _ in range(N_NEUROIDS_PER_SUBJECT[region])
        ]
        np.testing.assert_array_equal(train["subject"].values, subjects)
        assert set(train["hemisphere"].values) == set(HEMISPHERES)
        assert len(set(train["neuroid_id"].values)) == train.sizes["neuroid"]
        ceilings = train["nc_testset"].values
        assert ((ceilings >= 0) & (ceilings <= 100) | np.isnan(ceilings)).all()

    @pytest.mark.parametrize("identifier", IDENTIFIERS)
    def test_time_bin_is_70_to_170_ms(self, identifier):
        assembly = load_dataset(identifier)
        assert assembly["time_bin_start"].values.tolist() == [70]
        assert assembly["time_bin_end"].values.tolist() == [170]

    @pytest.mark.parametrize("identifier", IDENTIFIERS)
    def test_values_are_finite_and_standardised(self, identifier):
        values = load_dataset(identifier).values[:, :, 0]
        assert np.isfinite(values).all()
        deviations = values.std(axis=0)
        assert 0.5 < np.median(deviations[deviations > 0]) < 3

    @pytest.mark.parametrize("name", SUBJECTS)
    def test_train_and_test_share_no_image(self, name):
        train, test = (set(load_stimulus_set(f"{name}.{split}")["stimulus_id"]) for split in SPLITS)
        assert not train & test

    @pytest.mark.parametrize("identifier", REGION_IDENTIFIERS)
    def test_region_equals_part_of_whole_assembly(self, identifier):
        name, region, split = identifier.split(".")
        whole = load_dataset(f"{name}.{split}")
        part = load_dataset(identifier)
        in_region = whole["region"].values == region
        np.testing.assert_array_equal(part.values, whole.values[:, in_region])
        np.testing.assert_array_equal(part["neuroid_id"].values, whole["neuroid_id"].values[in_region])

    def test_internal_consistency_is_between_0_and_1(self):
        assembly = load_dataset("Allen2022_fmri_surface_4subj.V4.test").isel(time_bin=0)
        ceiling = load_ceiling("internal_consistency")(assembly)
        assert 0 < float(ceiling) < 1


@pytest.mark.private_access
class TestStimulusSets:
    """The stimulus sets, by themselves and attached to the assemblies."""

    @pytest.mark.parametrize(("name", "split"), DATASETS)
    def test_images_exist_for_every_row(self, name, split):
        stimulus_set = load_stimulus_set(f"{name}.{split}")
        assert re.fullmatch(f"{name}.{split}{MARKER}", stimulus_set.identifier)
        assert len(stimulus_set) == len(set(stimulus_set["stimulus_id"])) == N_IMAGES[name][split]
        assert not stimulus_set.isna().any(axis=None)
        assert all(stimulus_set.get_stimulus(stimulus_id).is_file() for stimulus_id in stimulus_set["stimulus_id"])

    @pytest.mark.parametrize("identifier", IDENTIFIERS)
    def test_stimulus_set_is_attached_to_its_assembly(self, identifier):
        assembly = load_dataset(identifier)
        assert assembly.attrs["stimulus_set_identifier"] == assembly.attrs["stimulus_set"].identifier
        assert re.fullmatch(f"{identifier}{MARKER}", assembly.attrs["stimulus_set"].identifier)
        assert set(assembly.attrs["stimulus_set"]["stimulus_id"]) == set(assembly["stimulus_id"].values)
