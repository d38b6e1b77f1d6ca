"""The objects of a release: as brainio expects them, and the same bytes from the same release."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import xarray as xr

from allen2022_surface_packaging.publish import objects
from allen2022_surface_packaging.publish.objects import open_release, write_objects
from publish.uploads import NAME, OBJECTS, REGIONS
from support import hashes, run_cli


def test_objects_have_the_same_bytes_on_any_day_and_machine(release, tmp_path):
    later = Path(shutil.copytree(release, tmp_path / "later"))
    for path in later.rglob("*"):
        path.chmod(0o700)
        os.utime(path, (1_900_000_000, 1_900_000_000))
    command = [sys.executable, "-m", "allen2022_surface_packaging", "pack", later, tmp_path / "later_objects"]
    environment = os.environ | {"PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo"}
    subprocess.run(command, env=environment, umask=0o077, check=True, capture_output=True)

    run_cli("pack", release, tmp_path / "objects")

    assert hashes(tmp_path / "objects") == hashes(tmp_path / "later_objects")
    assert {*OBJECTS} < hashes(tmp_path / "objects").keys()


def test_stimulus_zip_is_flat_and_in_the_order_of_the_table(release, tmp_path):
    files = {file.item.name: file.path for file in write_objects(*open_release(release), tmp_path)}
    table = pd.read_csv(files[f"stimulus_{NAME}_test.csv"])

    with zipfile.ZipFile(files[f"stimulus_{NAME}_test.zip"]) as archive:
        assert archive.namelist() == table.filename.tolist()
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert all(archive.read(name) == (release / "stimuli_test" / name).read_bytes() for name in archive.namelist())
    assert list(table) == ["stimulus_id", "filename", "nsd_id", "image_file_name", "coco_id"]
    pd.testing.assert_frame_equal(table.drop(columns="filename"), pd.read_csv(release / "stimulus_metadata_test.csv"))


def test_region_object_equals_the_part_of_the_whole(release, tmp_path, monkeypatch):
    """In values, coordinates, attributes and layout."""
    monkeypatch.setattr(objects, "VALUES_AT_A_TIME", 300)  # so that several blocks are copied
    files = {file.item.name: file for file in write_objects(*open_release(release), tmp_path)}

    for split in ("train", "test"):
        whole_path = files[f"assy_{NAME}_{split}.nc"].path
        assert whole_path == release / f"{NAME}_{split}.nc"
        for name in REGIONS:
            file = files[f"assy_{NAME}_{name}_{split}.nc"]
            with xr.open_dataarray(whole_path) as whole, xr.open_dataarray(file.path) as part:
                expected = whole.isel(neuroid=whole["region"].values == name).assign_attrs(
                    identifier=f"{NAME}.{name}.{split}", stimulus_set_identifier=f"{NAME}.{split}"
                )
                assert part.identical(expected)
                assert part.shape == file.item.shape
                assert part.dtype == np.float32
                assert all(part[coordinate].dtype == expected[coordinate].dtype for coordinate in expected.coords)
            with netCDF4.Dataset(whole_path) as whole_file, netCDF4.Dataset(file.path) as part_file:
                assert list(part_file.variables) == list(whole_file.variables)
                assert part_file["data"].chunking() == "contiguous"
