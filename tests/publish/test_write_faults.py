"""A disk that fails while objects are made from a release. The error names the file that could not be written."""

import errno
import os
import tempfile
import zipfile
from pathlib import Path

import pytest

from allen2022_surface_packaging.publish.objects import write_stimulus_zip
from allen2022_surface_packaging.publish.regions import list_regions, write_region
from allen2022_surface_packaging.publish.temporary import temporary_folder
from publish.uploads import NAME


def fail(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_region_that_cannot_be_written_is_named_and_not_its_release(release, tmp_path, monkeypatch):
    region = list_regions(release / f"{NAME}_train.nc")[0]
    monkeypatch.setattr(os, "pwrite", fail)

    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/V1\.nc'"):
        write_region(region, tmp_path / "V1.nc", identifier="x", stimulus_set_identifier="y")


def test_zip_that_cannot_be_written_is_named(release, tmp_path, monkeypatch):
    stimuli_path = release / "stimuli_test"
    name = sorted(path.name for path in stimuli_path.iterdir())[0]
    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)

    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/images\.zip'"):
        write_stimulus_zip(stimuli_path, [name], tmp_path / "images.zip")


def test_no_temporary_folder_is_left_when_it_cannot_get_its_name(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError), temporary_folder():
        pass

    assert not list(tmp_path.iterdir())


def test_error_of_unlocking_a_temporary_folder_hides_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ValueError, match="first"), monkeypatch.context() as patch, temporary_folder():
        patch.setattr(os, "close", fail)
        raise ValueError("first")
