"""The two sides of a comparison: what is compared of an assembly, and what happens if one of its files is damaged."""

import numpy as np
import pandas as pd
import pytest
import xarray

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.plugin import import_plugin
from allen2022_surface_packaging.verify.sides import Side, load_object, open_release
from support import list_open_files
from verify.planted import TEST, TRAIN


def make_side(region_dimension="neuroid", **options) -> Side:
    """Return a side of two presentations and three neuroids; column 0 of its values is 0, column 1 is 1, and so on."""
    coordinates = {
        "stimulus_id": ("presentation", ["a", "b"]),
        "object_name": ("presentation", ["cat", "dog"]),
        "neuroid_id": ("neuroid", ["n0", "n1", "n2"]),
    }
    if region_dimension is not None:
        names = ["V1", "V2", "V1"] if region_dimension == "neuroid" else ["V1", "V2"]
        coordinates["region"] = (region_dimension, names)
    assembly = xarray.DataArray(np.tile(np.arange(3.0), (2, 1)), coordinates, ("presentation", "neuroid"))
    return Side(assembly, pd.DataFrame(), {}, **options)


def test_coordinates_of_each_dimension_are_its_columns():
    side = make_side()

    assert side.coordinates("presentation").to_dict("list") == {
        "stimulus_id": ["a", "b"],
        "object_name": ["cat", "dog"],
    }
    assert list(side.coordinates("neuroid")) == ["neuroid_id", "region"]


def test_columns_that_the_plugin_added_to_presentations_are_left_out():
    side = make_side(merged_columns=frozenset({"object_name", "region"}))

    assert list(side.coordinates("presentation")) == ["stimulus_id"]
    assert list(side.coordinates("neuroid")) == ["neuroid_id", "region"]


def test_one_region_is_selected():
    selected = make_side().select_region("V1")

    assert selected.region == "V1"
    assert selected.assembly.values.tolist() == [[0, 2], [0, 2]]
    assert selected.coordinates("neuroid")["neuroid_id"].tolist() == ["n0", "n2"]
    assert make_side().select_region(None).assembly.shape == (2, 3)


@pytest.mark.parametrize("region_dimension", [None, "presentation"])
def test_assembly_without_regions_of_neuroids_is_not_compared_with_a_region(region_dimension):
    with pytest.raises(PackagingError, match="The release cannot be compared with V1: its neuroids have no region"):
        make_side(region_dimension).select_region("V1")


def test_paths_of_images_lie_in_the_folder_of_their_split(tiny_release):
    sides = open_release(tiny_release)

    assert list(sides) == ["train", "test"]
    for split, side in sides.items():
        assert set(side.image_paths.values()) == set((tiny_release / f"stimuli_{split}").iterdir())
        side.assembly.close()


def test_no_file_stays_open_when_another_one_is_damaged(tiny_copy):
    (tiny_copy / TEST).write_bytes(b"not NetCDF")

    with pytest.raises(PackagingError, match=f"{TEST} cannot be read") as raised:
        open_release(tiny_copy)

    assert raised.tb is not None  # the frames in it keep what was opened
    assert str(tiny_copy / TRAIN) not in list_open_files()


@pytest.mark.parametrize("error", [OSError("no network"), ValueError("no such object"), KeyError("no version")])
def test_object_that_cannot_be_loaded_is_an_error_with_its_reason(monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(import_plugin("loaders"), "load_assembly", fail)

    with pytest.raises(PackagingError, match=f"name.V1.test cannot be loaded: .*{error.args[0]}"):
        load_object("name.V1.test")
