"""Published data, loaded from S3 through the real brainscore_vision. It must equal the releases on disk."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from brainscore_core.supported_data_standards.brainio import packaging as core_packaging
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly, walk_coords
from brainscore_core.supported_data_standards.brainio.s3 import load_assembly_from_s3, load_stimulus_set_from_s3
from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet

from brainscore_allen2022_surface.loaders import load_assembly, read_artifacts
from plugin.comparing import assert_same_assembly, assert_same_stimuli

NAME = "Allen2022_fmri_surface"
WHOLE = [f"{name}.{split}" for name in (NAME, f"{NAME}_4subj") for split in ("train", "test")]
REGIONS = [f"{NAME}.V1.train", f"{NAME}_4subj.IT.test"]


@pytest.mark.parametrize("identifier", WHOLE + REGIONS)
def test_assembly_from_s3_equals_local_release(brainscore, s3, load_locally, identifier):
    expected = load_locally(brainscore.load_dataset, identifier)

    assert_same_assembly(brainscore.load_dataset(identifier), expected)


def test_pinned_version_loads_after_later_upload(s3, objects, load_locally):
    key = objects["assembly"].key
    later_version = s3.put_object(Bucket="brain", Key=key, Body=b"a later version")["VersionId"]
    try:
        actual = load_assembly(NAME, "test")
    finally:
        s3.delete_object(Bucket="brain", Key=key, VersionId=later_version)

    assert_same_assembly(actual, load_locally(load_assembly, NAME, "test"))


# --- other packages read what this package uploads, and the other way round ----------------------------------------------


@pytest.mark.parametrize("identifier", WHOLE)
def test_uploaded_objects_load_with_brainscore_core(s3, published, load_locally, identifier):
    name, split = identifier.split(".")
    objects = read_artifacts(published)[identifier]
    expected = load_locally(load_assembly, name, split)
    bucket = f"brain/{Path(objects['assembly'].key).parent}"

    def load_stimuli():
        return load_stimulus_set_from_s3(
            identifier=identifier,
            bucket=bucket,
            csv_sha1=objects["stimulus_csv"].sha1,
            zip_sha1=objects["stimulus_zip"].sha1,
            csv_version_id=objects["stimulus_csv"].version_id,
            zip_version_id=objects["stimulus_zip"].version_id,
        )

    assembly = load_assembly_from_s3(
        identifier=identifier,
        version_id=objects["assembly"].version_id,
        sha1=objects["assembly"].sha1,
        bucket=bucket,
        cls=NeuroidAssembly,
        stimulus_set_loader=load_stimuli,
    )

    stimulus_set = load_stimuli()
    assert stimulus_set.identifier == identifier  # brainscore_core takes the identifier that it is given
    stimulus_set.identifier = expected.attrs["stimulus_set_identifier"]
    assert_same_stimuli(stimulus_set, expected.attrs["stimulus_set"])
    assert type(expected) is NeuroidAssembly
    expected.validate()
    assert assembly.dims == expected.dims == ("presentation", "neuroid", "time_bin")
    np.testing.assert_array_equal(assembly.values, expected.values)
    coordinates = {name: (dims, values) for name, dims, values in walk_coords(assembly)}
    assert set(coordinates) == {name for name, _, _ in walk_coords(expected)}
    for name, dims, values in walk_coords(expected):
        assert coordinates[name][0] == dims
        np.testing.assert_array_equal(coordinates[name][1], values)


@pytest.fixture
def core_artifacts(s3, load_locally, tmp_path) -> Path:
    """An artifacts file of objects that brainscore_core wrote, as were those that Brain-Score published.

    Their assembly is compressed and holds strings of variable length, and the columns of their CSV have any order.
    """
    assembly = load_locally(load_assembly, NAME, "test")
    stimuli = assembly.attrs["stimulus_set"]
    table = StimulusSet(stimuli[["stimulus_id", "nsd_id"]].copy())
    table.stimulus_paths = stimuli.stimulus_paths
    file_names = {"stimulus_csv": "stimulus_X.csv", "stimulus_zip": "stimulus_X.zip", "assembly": "assy_X.nc"}
    _, table["filename"] = core_packaging.create_stimulus_zip(table, str(tmp_path / file_names["stimulus_zip"]))
    core_packaging.create_stimulus_csv(table, tmp_path / file_names["stimulus_csv"])
    plain_assembly = xr.DataArray(assembly.values, coords=assembly.coords, dims=assembly.dims)
    plain_assembly = plain_assembly.reset_index(["presentation", "neuroid", "time_bin"])
    plain_assembly = NeuroidAssembly(plain_assembly.drop_vars(["filename", "image_file_name", "coco_id"]))
    core_packaging.write_netcdf(plain_assembly, str(tmp_path / file_names["assembly"]))
    entries = {}
    for kind, file_name in file_names.items():
        content = (tmp_path / file_name).read_bytes()
        key = f"written_by_core/{file_name}"
        version_id = s3.put_object(Bucket="brain", Key=key, Body=content)["VersionId"]
        sha1 = hashlib.sha1(content).hexdigest()
        entries[kind] = {"bucket": "brain", "key": key, "version_id": version_id, "sha1": sha1}
    artifacts_path = tmp_path / "artifacts.json"
    artifacts_path.write_text(json.dumps({f"{NAME}.test": entries}))
    return artifacts_path


def test_objects_written_by_brainscore_core_load(core_artifacts, load_locally, monkeypatch):
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS", str(core_artifacts))
    expected = load_locally(load_assembly, NAME, "test")

    actual = load_assembly(NAME, "test")
    region = load_assembly(NAME, "test", "V2")

    np.testing.assert_array_equal(actual.values, expected.values)
    for level in ("stimulus_id", "nsd_id", "repetition", "filename", *expected.indexes["neuroid"].names):
        np.testing.assert_array_equal(actual[level].values, expected[level].values)
    np.testing.assert_array_equal(region.values, expected.values[:, expected["region"].values == "V2"])


# --- regions with S3 objects of their own --------------------------------------------------------------------------------


def test_region_moves_only_its_object_and_the_stimuli(proxy, published, objects):
    load_assembly(NAME, "test", "V4", source=published)

    region = read_artifacts(published)[f"{NAME}.V4.test"]["assembly"]
    expected = {Path(stored.key).name for stored in (region, objects["stimulus_csv"], objects["stimulus_zip"])}
    assert {request.name for request in proxy.requests} == expected


def test_region_object_that_lacks_the_region_is_refused(s3, published, tmp_path):
    entries = json.loads(published.read_text())
    entries[f"{NAME}.V4.test"] = entries[f"{NAME}.IT.test"]
    (tmp_path / "wrong.json").write_text(json.dumps(entries))

    with pytest.raises(ValueError, match="no neuroid of region V4, only of IT"):
        load_assembly(NAME, "test", "V4", source=tmp_path / "wrong.json")
