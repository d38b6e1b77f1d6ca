"""The regions of any assembly are slices of it, and their files hold exactly those slices."""

import numpy as np
import pandas as pd
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st

from allen2022_surface_packaging.assemble.assembly import create_assembly
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.publish import regions
from allen2022_surface_packaging.publish.regions import list_regions, write_region


def write_assembly(path, names, n_rows):
    """Write an assembly whose neuroids are in some regions, and whose values all differ."""
    neuroids = [
        ("neuroid_id", np.array([f"{name}_{i}" for i, name in enumerate(names)], "S")),
        ("region", np.array(names, "S")),
        ("vertex_index", np.arange(len(names))),
    ]
    presentations = pd.DataFrame({"stimulus_id": [f"nsd_{i:05d}" for i in range(n_rows)], "nsd_id": range(n_rows)})
    with create_assembly(path, identifier="a.test", presentations=presentations, neuroids=neuroids) as file:
        file.write(0, 0, np.arange(n_rows * len(names), dtype=np.float32).reshape(n_rows, -1))
    return path


def read(path):
    with xarray.open_dataarray(path) as array:
        return array.load()


@settings(max_examples=15)  # each writes several files
@given(st.data())
def test_regions_of_any_assembly_are_its_slices(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("slices")
    sizes = data.draw(
        st.dictionaries(st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True), st.integers(1, 4), min_size=1, max_size=4)
    )
    names = [name for name, n in sizes.items() for _ in range(n)]
    path = write_assembly(folder / "a.nc", names, data.draw(st.integers(1, 5)))
    whole = read(path)
    slices = list_regions(path)

    assert [region.name for region in slices] == list(sizes)
    assert [region.n_neuroids for region in slices] == list(sizes.values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regions, "BLOCK_VALUES", data.draw(st.integers(1, 9)))  # so that several blocks are copied
        for region in slices:
            write_region(region, folder / "region.nc", identifier="r", stimulus_set_identifier="s")
            part = read(folder / "region.nc")
            expected = whole.isel(neuroid=np.flatnonzero(whole["region"].values == region.name))
            assert part.attrs == {"identifier": "r", "stimulus_set_identifier": "s"}
            xarray.testing.assert_equal(part, expected)


@pytest.mark.parametrize("names", [["A", "B", "A"], ["A", "B", "B", "C", "B"]])
def test_region_in_two_places_is_refused(tmp_path, names):
    path = write_assembly(tmp_path / "a.nc", names, 2)

    with pytest.raises(PackagingError, match=r"a\.nc: the neuroids of a region are not contiguous\. Build the release"):
        list_regions(path)
