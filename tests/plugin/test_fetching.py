"""The cache, file by file: what is downloaded, checked, extracted, replaced and refused. A store in memory takes the place of S3."""

import hashlib
import os
import shutil
import time
import zipfile
from pathlib import Path

import pytest

from brainscore_allen2022_surface import cache
from brainscore_allen2022_surface.artifacts import StoredObject
from brainscore_allen2022_surface.cache import (
    fetch,
    fetch_folder,
    is_cached,
    local_file,
    local_folder,
)
from brainscore_allen2022_surface.files import LocalFile, LocalFolder
from plugin.archived import contents, make_zip

IMAGES = {"a.png": b"first image", "b.png": b"second image", "below/c.png": b"third image"}
SHA1 = hashlib.sha1


@pytest.fixture
def store(monkeypatch):
    """A function that puts content into a store, and the keys that were downloaded from it, in order."""
    contents, downloads = {}, []

    def put(key, content, *, sha1=None):
        """Put one content, or a list of them that are downloaded one after the other."""
        contents[key] = list(content) if isinstance(content, list) else [content] * 9
        return StoredObject("brain", key, "v1", sha1 or SHA1(contents[key][-1]).hexdigest())

    def download(stored, path):
        downloads.append(stored.key)
        path.write_bytes(contents[stored.key].pop(0))

    monkeypatch.setattr(cache, "download", download)
    put.downloads = downloads
    return put


def list_hidden(folder):
    return sorted(path.name for path in folder.rglob(".*") if not path.name.endswith(".checked"))


# --- files ------------------------------------------------------------------------------------------------------------


def test_object_is_downloaded_once(store, cache_path, monkeypatch):
    stored = store("some/where/a.nc", b"content")
    assert not is_cached(stored)

    path = fetch(stored)

    assert path == cache_path / SHA1(b"content").hexdigest() / "a.nc"
    assert path.read_bytes() == b"content"
    monkeypatch.setattr(cache, "sha1_of", None)  # nothing is hashed again
    assert is_cached(stored)
    assert fetch(stored) == local_file(stored) == path
    assert store.downloads == ["some/where/a.nc"]
    assert sorted(p.name for p in path.parent.iterdir()) == [".a.nc.checked", "a.nc"]


def test_file_that_others_downloaded_is_taken_after_a_check(store, cache_path):
    stored = store("a.nc", b"content")
    path = cache_path / stored.sha1 / "a.nc"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"content")

    assert fetch(stored) == path
    assert store.downloads == []


def test_damaged_file_in_the_cache_is_replaced(store):
    stored = store("a.nc", b"content")
    fetch(stored).write_bytes(b"damaged")

    assert not is_cached(stored)
    assert fetch(stored).read_bytes() == b"content"
    assert store.downloads == ["a.nc"] * 2
    assert is_cached(stored)


def test_damaged_download_is_tried_once_more(store):
    stored = store("a.nc", [b"damaged", b"content"])

    assert fetch(stored).read_bytes() == b"content"
    assert store.downloads == ["a.nc"] * 2


@pytest.mark.parametrize("was_cached", [False, True])
def test_object_that_stays_wrong_is_refused(store, cache_path, was_cached):
    stored = store("a.nc", b"other content", sha1="0" * 40)
    folder = cache_path / stored.sha1
    if was_cached:
        folder.mkdir(parents=True)
        (folder / "a.nc").write_bytes(b"content of before")

    with pytest.raises(ValueError) as raised:
        fetch(stored)

    assert str(raised.value) == (
        f"s3://brain/a.nc (version v1) was downloaded once more, but has the SHA-1 {SHA1(b'other content').hexdigest()} "
        f"again, expected {'0' * 40}. Someone must upload it again."
    )
    assert store.downloads == ["a.nc"] * (1 if was_cached else 2)
    assert [path.name for path in folder.iterdir()] == (["a.nc"] if was_cached else [])


def test_failed_download_leaves_nothing(store, monkeypatch):
    stored = store("a.nc", b"content")

    def fail(_, path):
        path.write_bytes(b"half")
        raise ConnectionError("cut off")

    monkeypatch.setattr(cache, "download", fail)
    with pytest.raises(ConnectionError, match="cut off"):
        fetch(stored)

    assert list(cache._path_of(stored).parent.iterdir()) == []


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nothing")])
def test_something_else_in_place_of_a_file_is_named(store, cache_path, make):
    stored = store("a.nc", b"content")
    path = cache_path / stored.sha1 / "a.nc"
    path.parent.mkdir(parents=True)
    make(path)

    assert not is_cached(stored)
    with pytest.raises(
        (FileNotFoundError, ValueError), match=r"a\.nc is .*Remove it, or set BRAINIO_HOME to another folder\.$"
    ):
        fetch(stored)
    assert store.downloads == []


@pytest.mark.parametrize("place", ["cache", "folder"])
def test_file_in_place_of_a_folder_is_named(store, cache_path, place):
    stored = store("a.nc", b"content")
    shutil.rmtree(cache_path, ignore_errors=True)
    if place == "folder":
        cache_path.mkdir(parents=True)
    (cache_path if place == "cache" else cache_path / stored.sha1).write_bytes(b"")

    message = (
        rf"{stored.sha1} cannot be created, because a file is in the place of a folder\. Remove it, or set BRAINIO_HOME"
    )
    with pytest.raises(ValueError, match=message):
        fetch(stored)


def test_abandoned_downloads_of_the_same_file_are_removed(store, cache_path):
    stored = store("a.nc", b"content")
    folder = cache_path / stored.sha1
    folder.mkdir(parents=True)
    ages = {
        ".a.nc.old": 24 * 3600 + 60,
        ".a.nc.young": 24 * 3600 - 60,
        ".b.nc.old": 48 * 3600,
        "a.nc.old": 48 * 3600,
    }
    for name, age in ages.items():
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    (folder / ".a.nc.folder").mkdir()  # cannot be removed as a file
    os.utime(folder / ".a.nc.folder", (0, 0))

    fetch(stored)

    assert ages.keys() - {path.name for path in folder.iterdir()} == {".a.nc.old"}


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(store):
    return store("images.zip", make_zip(IMAGES.items()))


def test_images_are_extracted_beside_the_archive_once(archive, cache_path, monkeypatch):
    folder = fetch_folder(archive)

    assert folder == cache_path / archive.sha1 / "images"
    assert contents(folder) == IMAGES
    assert list_hidden(cache_path) == []
    monkeypatch.setattr(cache, "_is_extracted", None)  # nothing is read again
    assert fetch_folder(archive) == local_folder(archive) == folder


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("damage", ["missing", "other content", "longer", "empty"])
def test_damaged_image_is_extracted_again(archive, cache_path, name, damage):
    folder = fetch_folder(archive)
    untouched = {other: (folder / other).stat().st_ino for other in IMAGES if other != name}
    if damage == "missing":
        (folder / name).unlink()
    else:
        content = {"other content": IMAGES[name][::-1], "longer": IMAGES[name] + b"\n", "empty": b""}
        (folder / name).write_bytes(content[damage])

    assert contents(fetch_folder(archive)) == IMAGES
    assert {other: (folder / other).stat().st_ino for other in untouched} == untouched
    assert list_hidden(cache_path) == []


def test_folder_below_that_is_missing_is_extracted_again(archive):
    shutil.rmtree(fetch_folder(archive) / "below")

    assert contents(fetch_folder(archive)) == IMAGES


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_something_else_in_place_of_an_image_is_named(archive, make):
    path = fetch_folder(archive) / "a.png"
    path.unlink()
    make(path)

    with pytest.raises(ValueError, match=r"a\.png is .*, expected a regular file\. Remove it, or set BRAINIO_HOME"):
        fetch_folder(archive)


def test_file_in_place_of_the_images_is_named(archive):
    folder = fetch_folder(archive)
    shutil.rmtree(folder)
    folder.write_bytes(b"")

    with pytest.raises(
        ValueError, match=r"images is not a folder\. Remove it, or set BRAINIO_HOME to another folder\.$"
    ):
        fetch_folder(archive)


def test_file_in_place_of_a_folder_of_images_is_named(archive):
    folder = fetch_folder(archive)
    shutil.rmtree(folder / "below")
    (folder / "below").write_bytes(b"")

    with pytest.raises(ValueError, match=r"below"):
        fetch_folder(archive)


def test_process_that_extracts_second_takes_the_folder_of_the_first(archive, cache_path, monkeypatch):
    extract = cache._extract

    def extract_while_another_process_finishes(archive_file, entry, path):
        folder = cache_path / archive.sha1 / "images"
        if not folder.exists():
            folder.mkdir()
            (folder / "a.png").write_bytes(IMAGES["a.png"])
        extract(archive_file, entry, path)

    monkeypatch.setattr(cache, "_extract", extract_while_another_process_finishes)

    folder = fetch_folder(archive)

    assert contents(folder) == IMAGES
    assert list_hidden(cache_path) == []


def test_extraction_that_fails_leaves_nothing(archive, cache_path, monkeypatch):
    extract = cache._extract

    def fail(archive_file, entry, path):
        if entry.filename == "b.png":
            raise OSError(28, "No space left on device")
        extract(archive_file, entry, path)

    monkeypatch.setattr(cache, "_extract", fail)
    with pytest.raises(OSError, match="No space left"):
        fetch_folder(archive)

    assert [path.name for path in (cache_path / archive.sha1).iterdir() if not path.name.startswith(".")] == [
        "images.zip"
    ]
    assert list_hidden(cache_path) == []


def test_object_that_is_no_archive_is_named(store):
    stored = store("images.zip", b"damaged")

    with pytest.raises(ValueError) as raised:
        fetch_folder(stored)
    assert str(raised.value).startswith("s3://brain/images.zip (version v1) is not a sound ZIP file: ")
    assert str(raised.value).endswith(". Someone must upload a sound one.")


def test_archive_that_extracts_to_much_more_is_refused(store):
    stored = store("images.zip", make_zip([("a.png", bytes(2**24))], zipfile.ZIP_DEFLATED))

    with pytest.raises(ValueError, match="would become 16,777,216 bytes"):
        fetch_folder(stored)


# --- releases on disk -------------------------------------------------------------------------------------------------


@pytest.fixture
def released(tmp_path):
    path = tmp_path / "release" / "a.nc"
    path.parent.mkdir()
    path.write_bytes(b"content")
    return LocalFile(path, SHA1(b"content").hexdigest())


def test_file_of_a_release_is_hashed_once(released, cache_path, monkeypatch):
    assert local_file(released) == released.path
    assert [path.name for path in released.path.parent.iterdir()] == ["a.nc"]
    assert len(list((cache_path / ".allen2022_surface").iterdir())) == 1

    monkeypatch.setattr(cache, "sha1_of", None)
    assert local_file(released) == released.path


def test_file_of_a_release_is_hashed_for_each_release_that_lists_it(released):
    """Two release.json may list other hashes for the same path, one after the other."""
    local_file(released)

    with pytest.raises(ValueError, match=f"expected {'1' * 40}"):
        local_file(LocalFile(released.path, "1" * 40))


def test_damaged_file_of_a_release_is_named(released):
    local_file(released)
    released.path.write_bytes(b"damaged")

    with pytest.raises(ValueError) as raised:
        local_file(released)
    assert str(raised.value) == (
        f"{released.path} is damaged: its SHA-1 is {SHA1(b'damaged').hexdigest()}, expected {released.sha1} as in release.json. "
        "Build the release again."
    )


def test_missing_file_of_a_release_is_named(released):
    released.path.unlink()

    with pytest.raises(FileNotFoundError, match=r"a\.nc is missing\. Build the release again\.$"):
        local_file(released)


def test_folder_of_a_release_is_taken_as_it_is(tmp_path):
    assert local_folder(LocalFolder(tmp_path, {})) == tmp_path
