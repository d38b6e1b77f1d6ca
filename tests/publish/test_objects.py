"""The objects of a release: the same bytes from the same release."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.publish.objects import make_objects, read_manifest
from allen2022_surface_packaging.release import ReleaseFolder
from publish.uploads import NAME, OBJECTS


def list_objects(path, folder):
    """List the objects of the release in a folder."""
    release = ReleaseFolder(path)
    return make_objects(release, read_manifest(release), folder)


def test_stimulus_zip_is_flat_ordered_and_without_times(release, tmp_path):
    objects = {item.name: item for item in list_objects(release, tmp_path)}
    table = pd.read_csv(objects[f"stimulus_{NAME}_test.csv"].path)
    release_table = pd.read_csv(release / "stimulus_metadata_test.csv")

    with zipfile.ZipFile(objects[f"stimulus_{NAME}_test.zip"].path) as archive:
        assert archive.namelist() == table.filename.tolist()
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert all(archive.read(name) == (release / "stimuli_test" / name).read_bytes() for name in archive.namelist())
    assert list(table) == ["stimulus_id", "filename", "nsd_id", "image_file_name", "coco_id"]
    pd.testing.assert_frame_equal(table.drop(columns="filename"), release_table)


def test_objects_have_the_same_bytes_on_any_day_and_machine(release, tmp_path):
    later = Path(shutil.copytree(release, tmp_path / "later"))
    for path in later.rglob("*"):
        path.chmod(0o700)
        os.utime(path, (1_900_000_000, 1_900_000_000))
    script = (
        "import os, sys, pathlib; from allen2022_surface_packaging.publish.objects import make_objects, read_manifest\n"
        "from allen2022_surface_packaging.release import ReleaseFolder\n"
        "os.umask(0o077); folder = pathlib.Path(sys.argv[2]); folder.mkdir()\n"
        "release = ReleaseFolder(pathlib.Path(sys.argv[1]))\n"
        "print([(item.name, item.sha1) for item in make_objects(release, read_manifest(release), folder)])"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", script, str(source), str(tmp_path / seed)],
            env=os.environ | {"PYTHONHASHSEED": seed, "TZ": zone},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for source, seed, zone in ((release, "1", "UTC"), (later, "77", "Asia/Tokyo"))
    ]

    assert outputs[0] == outputs[1] != ""


def test_objects_have_the_names_that_brainio_expects(release, tmp_path):
    assert [item.name for item in list_objects(release, tmp_path)] == OBJECTS


def test_release_is_refused_when_an_image_is_missing(release_copy, tmp_path):
    next((release_copy / "stimuli_test").iterdir()).unlink()
    (tmp_path / "made").mkdir()

    with pytest.raises(PackagingError, match="release is incomplete: .*stimuli_test/nsd_.*missing"):
        list_objects(release_copy, tmp_path / "made")
