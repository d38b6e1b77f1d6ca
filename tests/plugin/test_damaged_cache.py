"""A cache that is damaged, and ZIP files that no uploader of this package writes."""

import hashlib
import io
import os
import shutil
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from brainscore_allen2022_surface import cache
from brainscore_allen2022_surface.artifacts import StoredObject
from brainscore_allen2022_surface.loaders import load_assembly

NAME = "Allen2022_fmri_surface"

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore::UserWarning")]


# --- the cache of a release ------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("kind", ["assembly", "table", "zip", "image"])
@pytest.mark.parametrize("make", [make_fifo, make_folder, link_to_device])
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


def test_folder_inside_the_folder_of_images_may_be_missing_or_a_file(s3, cache_path, tmp_path):
    nested = put_zip(s3, {"a/one.png": b"1", "two.png": b"2"})
    folder = cache.fetch_folder(nested)
    shutil.rmtree(folder / "a")
    cache.fetch_folder(nested)
    assert (folder / "a" / "one.png").read_bytes() == b"1"

    shutil.rmtree(folder / "a")
    (folder / "a").write_text("x")
    with pytest.raises(ValueError, match="a file is in the place of a folder"):
        cache.fetch_folder(nested)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"0" * 40, b"0" * 10_000_000])
@pytest.mark.parametrize("kind", ["assembly", "table", "zip", "folder"])
def test_damaged_stamp_only_costs_a_check(filled, downloads, load_locally, assert_same_assembly, kind, content):
    stamp_of(filled[kind]).write_bytes(content)

    actual = load_assembly(NAME, "test")

    assert downloads == []
    assert_same_assembly(actual, load_locally(load_assembly, NAME, "test"))
    assert len(stamp_of(filled[kind]).read_bytes()) == 40


@pytest.mark.parametrize("make", [make_fifo, make_folder, link_to_device, link_to_nothing])
@pytest.mark.parametrize("kind", ["assembly", "folder"])
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


# --- ZIP files -------------------------------------------------------------------------------------------------------------


def put_object(s3, key, content):
    version_id = s3.put_object(Bucket="brain", Key=key, Body=content)["VersionId"]
    return StoredObject("brain", key, version_id, hashlib.sha1(content).hexdigest())


def make_zip(entries, compression=zipfile.ZIP_STORED):
    """Return a ZIP file; an entry is a name or a ZipInfo, and its content."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for entry, data in entries:
            archive.writestr(zipfile.ZipInfo(entry) if isinstance(entry, str) else entry, data, compression)
    return content.getvalue()


def put_zip(s3, entries, compression=zipfile.ZIP_STORED):
    pairs = entries.items() if isinstance(entries, dict) else entries
    return put_object(s3, "images.zip", make_zip(pairs, compression))


def special_entry(mode):
    entry = zipfile.ZipInfo("special.png")
    entry.create_system = 3
    entry.external_attr = (mode | 0o644) << 16
    return entry


def claim_size(n_bytes):
    """Return a ZIP file whose directory claims a size for its only entry."""
    content = bytearray(make_zip([("a.png", b"x")]))
    position = content.index(b"PK\x01\x02") + 24
    content[position : position + 4] = struct.pack("<I", n_bytes)
    return bytes(content)


def mark_encrypted():
    content = bytearray(make_zip([("a.png", b"x")]))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


UNSAFE = {
    "link": (lambda: make_zip([(special_entry(stat.S_IFLNK), "/etc/passwd")]), "is a link or another special file"),
    "FIFO": (lambda: make_zip([(special_entry(stat.S_IFIFO), "")]), "is a link or another special file"),
    "device": (lambda: make_zip([(special_entry(stat.S_IFCHR), "")]), "is a link or another special file"),
    "backslash": (lambda: make_zip([("a\\b.png", "x")]), "points outside its folder"),
    "drive": (lambda: make_zip([("C:a.png", "x")]), "points outside its folder"),
    "empty name": (lambda: make_zip([("a.png", "x")]).replace(b"a.png", b"\0.png"), "points outside its folder"),
    "empty part": (lambda: make_zip([("a//b.png", "x")]), "is not the name of a file"),
    "dot": (lambda: make_zip([("./b.png", "x")]), "is not the name of a file"),
    "long name": (lambda: make_zip([("a" * 300, "x")]), "is not the name of a file"),
    "file and folder": (lambda: make_zip([("a", "x"), ("a/b.png", "x")]), "two entries have the same name"),
    "encrypted": (mark_encrypted, "is encrypted, or compressed in an unusual way"),
    "LZMA": (lambda: make_zip([("a.png", b"x")], zipfile.ZIP_LZMA), "is encrypted, or compressed in an unusual way"),
    "claimed size": (lambda: claim_size(4_000_000_000), "would become 4,000,000,000 bytes of images"),
    "bomb": (
        lambda: make_zip([(f"{i}.png", bytes(200_000)) for i in range(50)], zipfile.ZIP_DEFLATED),
        "would become 10,000,000 bytes of images",
    ),
}


@pytest.mark.parametrize("kind", UNSAFE)
def test_unsafe_zip_file_is_refused_before_anything_is_extracted(s3, cache_path, kind):
    make, reason = UNSAFE[kind]
    stored = put_object(s3, "images.zip", make())

    with pytest.raises(
        ValueError, match=f"s3://brain/images.zip .* is not a sound ZIP file: .*{reason}.*Nothing is extracted"
    ) as error:
        cache.fetch_folder(stored)
    assert "\n" not in str(error.value)
    assert [path.name for path in (cache_path / stored.sha1).iterdir() if not path.name.startswith(".")] == [
        "images.zip"
    ]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_file_with_a_name_twice_is_refused(s3, cache_path):
    stored = put_zip(s3, [("a.png", b"1"), ("a.png", b"2")])

    with pytest.raises(ValueError, match="two entries have the same name. Nothing is extracted"):
        cache.fetch_folder(stored)


def test_compressed_zip_file_is_extracted(s3):
    stored = put_zip(s3, {"a.png": bytes(1_000_000)}, zipfile.ZIP_DEFLATED)  # a small file may become larger

    assert (cache.fetch_folder(stored) / "a.png").read_bytes() == bytes(1_000_000)


def test_zip_file_damaged_anywhere_is_refused_or_right(s3, cache_path, rng):
    """The SHA-1 is that of the damaged file, so that only what is in the file can be noticed."""
    entries = {f"{i}.png": rng.bytes(50) for i in range(4)}
    sound = make_zip(entries.items())
    n_refused = 0
    for position in range(0, len(sound), 3):
        content = bytearray(sound)
        content[position] ^= 1 + rng.integers(255)
        stored = StoredObject("brain", "images.zip", "v", hashlib.sha1(content).hexdigest())
        path = cache_path / stored.sha1 / "images.zip"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        try:
            folder = cache.fetch_folder(stored)
        except ValueError as error:
            assert "is not a sound ZIP file" in str(error)
            assert "\n" not in str(error)
            assert not path.with_suffix("").exists()
            n_refused += 1
        else:
            found = {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
            assert set(found.values()) <= set(entries.values())
    assert n_refused > len(sound) / 3 / 2
