"""A cache that is damaged, or holds special files in place of its files and stamps; `test_fetching.py` tries more, one by one."""

import os
import shutil
from pathlib import Path

import pytest

from brainscore_allen2022_surface.loaders import load_assembly

NAME = "Allen2022_fmri_surface"

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore::UserWarning")]


@pytest.fixture
def filled(s3, cache_path, objects, downloads) -> dict[str, Path]:
    """The paths of a cache that holds the test split. Downloads after it are counted."""
    load_assembly(NAME, "test")
    downloads.clear()
    zip_path = cache_path / objects.stimulus_zip.sha1 / Path(objects.stimulus_zip.key).name
    folder = zip_path.with_suffix("")
    return {
        "assembly": cache_path / objects.assembly.sha1 / Path(objects.assembly.key).name,
        "table": cache_path / objects.stimulus_csv.sha1 / Path(objects.stimulus_csv.key).name,
        "zip": zip_path,
        "folder": folder,
        "image": min(folder.iterdir()),
    }


def stamp_of(path):
    return path.with_name(f".{path.name}.checked")


def remove(path):
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def make_fifo(path):
    os.mkfifo(path)


def make_folder(path):
    path.mkdir()


def link_to_device(path):
    path.symlink_to("/dev/zero")


def link_to_nothing(path):
    path.symlink_to("/nowhere")


@pytest.mark.parametrize(
    ("kind", "make"),
    [("assembly", make_fifo), ("table", make_folder), ("zip", link_to_device), ("image", make_fifo)],
)
def test_special_file_in_the_cache_is_named(filled, downloads, kind, make):
    remove(filled[kind])
    make(filled[kind])

    with pytest.raises(ValueError, match=r"expected a regular file. Remove it, or set BRAINIO_HOME") as error:
        load_assembly(NAME, "test")

    assert str(filled[kind]) in str(error.value)
    assert downloads == []


@pytest.mark.parametrize("make", [make_fifo, lambda path: path.write_text("x")], ids=["FIFO", "file"])
def test_file_in_place_of_the_folder_of_images_is_named(filled, make):
    shutil.rmtree(filled["folder"])
    make(filled["folder"])

    with pytest.raises(ValueError, match="is not a folder. Remove it, or set BRAINIO_HOME") as error:
        load_assembly(NAME, "test")
    assert str(filled["folder"]) in str(error.value)


@pytest.mark.parametrize(
    ("kind", "content"),
    [("assembly", b""), ("table", b"\xff" * 100), ("zip", b"0" * 40), ("folder", b"0" * 10_000_000)],
)
def test_damaged_stamp_only_costs_a_check(filled, downloads, load_locally, assert_same_assembly, kind, content):
    stamp_of(filled[kind]).write_bytes(content)

    actual = load_assembly(NAME, "test")

    assert downloads == []
    assert_same_assembly(actual, load_locally(load_assembly, NAME, "test"))
    assert len(stamp_of(filled[kind]).read_bytes()) == 40


@pytest.mark.parametrize(
    ("kind", "make"),
    [("assembly", make_fifo), ("folder", make_folder), ("assembly", link_to_device), ("folder", link_to_nothing)],
)
def test_special_file_as_stamp_is_never_opened(filled, downloads, kind, make):
    stamp_of(filled[kind]).unlink()
    make(stamp_of(filled[kind]))

    assert load_assembly(NAME, "test").sizes["time_bin"] == 1
    assert downloads == []


def test_copied_stamp_of_another_file_does_not_hide_damage(filled, downloads, objects):
    stamp_of(filled["table"]).write_bytes(stamp_of(filled["assembly"]).read_bytes())
    filled["table"].write_bytes(b"stimulus_id\n")

    load_assembly(NAME, "test")

    assert downloads == [objects.stimulus_csv.key]


@pytest.mark.parametrize("depth", [0, 1])
def test_file_in_place_of_the_cache_is_named(s3, tmp_path, monkeypatch, depth):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("BRAINIO_HOME", str(tmp_path / "file" / ("inside" * depth)))

    with pytest.raises(ValueError, match="a file is in the place of a folder. Remove it, or set BRAINIO_HOME") as error:
        load_assembly(NAME, "test")
    assert str(tmp_path / "file") in str(error.value)


def test_cache_in_the_home_folder_is_found(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BRAINIO_HOME", "~/cache")

    load_assembly(NAME, "test", region="V4")

    assert list((tmp_path / "cache").glob(f"*/assy_{NAME}_V4_test.nc"))


def test_image_that_is_a_link_to_its_content_is_accepted(filled, tmp_path, downloads):
    """A cache may be spread over several disks."""
    shutil.move(filled["image"], tmp_path / "elsewhere.png")
    filled["image"].symlink_to(tmp_path / "elsewhere.png")

    load_assembly(NAME, "test")

    assert filled["image"].is_symlink()
    assert downloads == []
