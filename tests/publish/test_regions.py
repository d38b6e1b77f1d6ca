"""Regions as objects of their own: the same values, coordinates and layout as in the whole."""

import json
import tracemalloc

import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from allen2022_surface_packaging.assemble.assembly import create_assembly, encode_columns
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.files import sha1_of
from allen2022_surface_packaging.publish.objects import make_objects, read_manifest
from allen2022_surface_packaging.publish.regions import list_regions, write_region
from allen2022_surface_packaging.publish.website import pack_release
from allen2022_surface_packaging.release import ReleaseFolder, list_presentations
from brainscore_allen2022_surface.loaders import load_assembly
from publish.uploads import NAME, OBJECTS, PREFIX, REGIONS, publish


def write_one(release, split, name, path):
    """Write a region of the release as a file."""
    region = next(region for region in list_regions(release / f"{NAME}_{split}.nc") if region.name == name)
    identifier = f"{NAME}.{name}.{split}"
    write_region(region, path, identifier=identifier, stimulus_set_identifier=f"{NAME}.{split}")
    return path


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", REGIONS)
def test_region_equals_the_part_of_the_whole(release, tmp_path, split, name):
    path = write_one(release, split, name, tmp_path / "region.nc")

    with xr.open_dataarray(release / f"{NAME}_{split}.nc") as whole, xr.open_dataarray(path) as part:
        expected = whole.isel(neuroid=whole["region"].values == name).assign_attrs(
            identifier=f"{NAME}.{name}.{split}", stimulus_set_identifier=f"{NAME}.{split}"
        )
        assert part.identical(expected)
        assert part.dtype == np.float32
        assert all(part[coordinate].dtype == expected[coordinate].dtype for coordinate in expected.coords)


def test_layout_of_a_region_is_that_of_the_whole(release, tmp_path):
    path = write_one(release, "test", "V4", tmp_path / "region.nc")

    with netCDF4.Dataset(release / f"{NAME}_test.nc") as whole, netCDF4.Dataset(path) as part:
        assert list(part.variables) == list(whole.variables)
        assert part["data"].chunking() == "contiguous"
        assert not any(part["data"].filters()[name] for name in ("zlib", "shuffle", "fletcher32"))
        for name, variable in part.variables.items():
            assert variable.dtype == whole[name].dtype, name
        assert part["neuroid_id"].dimensions[1].startswith("string")


def test_same_release_gives_the_same_bytes_of_regions(release, tmp_path):
    one, two = (write_one(release, "train", "V4", tmp_path / f"{number}.nc") for number in (1, 2))

    assert one.read_bytes() == two.read_bytes()


def test_each_region_of_each_split_is_a_file(release, tmp_path):
    folder = ReleaseFolder(release)

    objects = make_objects(folder, read_manifest(folder), tmp_path)

    regions = [item for item in objects if item.path.parent == tmp_path and item.kind == "assembly"]
    assert [item.identifier for item in regions] == [
        f"{NAME}.{region}.{split}" for split in ("train", "test") for region in REGIONS
    ]
    assert [item.path for item in regions] == [tmp_path / item.name for item in regions]
    for item in regions:
        assert (sha1_of(item.path), item.path.stat().st_size) == (item.sha1, item.size)


def test_memory_does_not_grow_with_the_region(tmp_path):
    """The region holds 128 MB."""
    n_neuroids = 2**17
    neuroids = plant_neuroids(["V1"] * 10 + ["IT"] * n_neuroids)
    presentations = list_presentations("train", np.arange(256))
    whole_path = tmp_path / "whole.nc"
    with create_assembly(
        whole_path, identifier="x.train", presentations=presentations, neuroids=encode_columns(neuroids)
    ) as assembly:
        for row in range(0, 256, 32):
            assembly.write(row, 0, np.full((32, len(neuroids)), row, np.float32))
    region = list_regions(whole_path)[1]

    tracemalloc.start()
    write_region(region, tmp_path / "region.nc", identifier="x.IT.train", stimulus_set_identifier="x.train")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (tmp_path / "region.nc").stat().st_size > 2**27
    # Coordinates are decoded as a whole: about 300 bytes per neuroid for the strings.
    assert peak < 2**26 + 400 * n_neuroids


def test_release_with_one_region_has_no_region_objects(release_copy, tmp_path):
    """The only region is the whole."""
    folder = ReleaseFolder(release_copy)
    for split in ("train", "test"):
        path = write_one(release_copy, split, "V4", tmp_path / f"{split}.nc")
        path.replace(release_copy / f"{NAME}_{split}.nc")

    objects = make_objects(folder, read_manifest(folder), tmp_path)

    assert [item.path for item in objects if item.kind == "assembly"] == [
        folder.assembly_path(NAME, split) for split in ("train", "test")
    ]
    assert len(objects) == 6


def test_regions_that_are_not_contiguous_are_refused(tmp_path):
    path = tmp_path / "mixed.nc"
    neuroids = plant_neuroids(["V1", "V2", "V1"])
    with create_assembly(
        path,
        identifier="x.train",
        presentations=list_presentations("train", np.arange(2)),
        neuroids=encode_columns(neuroids),
    ) as assembly:
        assembly.write(0, 0, np.zeros((2, 3), np.float32))

    with pytest.raises(PackagingError, match="mixed.nc: the neuroids of a region are not contiguous"):
        list_regions(path)


def test_damaged_assembly_is_reported_in_one_line(tmp_path):
    (tmp_path / "broken.nc").write_bytes(b"not a NetCDF file")

    with pytest.raises(PackagingError, match="broken.nc cannot be read .*Build the release again"):
        list_regions(tmp_path / "broken.nc")


@pytest.mark.parametrize(
    "create",
    [
        lambda file: None,
        lambda file: file.createVariable("region", "i4"),
        lambda file: file.createGroup("region"),
        lambda file: file.createDimension("region", 3),
    ],
    ids=["nothing", "a number", "a group", "a dimension"],
)
def test_assembly_of_another_structure_is_reported_in_one_line(tmp_path, create):
    with netCDF4.Dataset(tmp_path / "other.nc", "w") as file:
        create(file)

    with pytest.raises(PackagingError, match="other.nc cannot be read .*Build the release again"):
        list_regions(tmp_path / "other.nc")


@pytest.mark.parametrize("command", ["upload", "pack"])
def test_each_region_is_written_once(release, s3, artifacts_path, tmp_path, monkeypatch, command):
    written = []

    def write(region, path, **identifiers):
        written.append(path.name)
        write_region(region, path, **identifiers)

    monkeypatch.setattr("allen2022_surface_packaging.publish.objects.write_region", write)
    if command == "upload":
        publish(release, artifacts_path)
    else:
        pack_release(release, tmp_path / "packed")

    assert written == [name for name in OBJECTS if any(f"_{region}_" in name for region in REGIONS)]


def test_second_upload_after_a_lost_region_sends_only_that_region(release, s3, proxy, artifacts_path):
    publish(release, artifacts_path)
    s3.delete_object(Bucket="brain", Key=f"{PREFIX}/assy_{NAME}_V4_test.nc")
    proxy.clear()

    publish(release, artifacts_path)

    assert proxy.contents_sent() == [f"assy_{NAME}_V4_test.nc"]


def test_region_object_loads_as_the_region_of_the_release(release, s3, artifacts_path, tmp_path):
    """The published object stands in for the whole, so that the loader reads it and nothing else."""
    publish(release, artifacts_path)
    artifacts = json.loads(artifacts_path.read_text())
    artifacts[f"{NAME}.test"]["assembly"] = artifacts[f"{NAME}.V4.test"]["assembly"]
    (tmp_path / "region_only.json").write_text(json.dumps(artifacts))

    from_object = load_assembly(NAME, "test", "V4", source=tmp_path / "region_only.json")
    from_release = load_assembly(NAME, "test", "V4", source=release)

    for loaded in (from_object, from_release):
        stimulus_set = loaded.attrs.pop("stimulus_set")
        assert set(stimulus_set["stimulus_id"]) == set(loaded["stimulus_id"].values)
        loaded.attrs.pop("stimulus_set_identifier")  # it names the images, which is tested elsewhere
    assert from_object.identical(from_release)


def plant_neuroids(regions):
    """Return neuroids of the given regions."""
    numbers = np.arange(len(regions))
    return pd.DataFrame(
        {
            "neuroid_id": [
                f"subj01_lh_{region}_v{number:05d}" for region, number in zip(regions, numbers, strict=True)
            ],
            "subject": "subj01",
            "hemisphere": "lh",
            "vertex_index": numbers,
            "region": regions,
            "nc_testset": 50.0,
        }
    )
