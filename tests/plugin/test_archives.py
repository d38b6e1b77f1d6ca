"""ZIP files of images that no uploader of this package writes. They lie in the cache, so that nothing is downloaded."""

import hashlib
import shutil
import stat
import struct
import zipfile

import pytest

from brainscore_allen2022_surface import cache
from brainscore_allen2022_surface.artifacts import StoredObject
from plugin.archived import contents, make_zip

SIZE, PLACE = 24, 42  # where an entry of a ZIP file's directory says how large its file is, and where it lies


@pytest.fixture
def put_object(cache_path):
    """A function that puts content into the cache as an S3 object with the name images.zip."""

    def put(content):
        stored = StoredObject("brain", "images.zip", "v", hashlib.sha1(content).hexdigest())
        path = cache_path / stored.sha1 / "images.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return stored

    return put


def special_entry(mode):
    entry = zipfile.ZipInfo("special.png")
    entry.create_system = 3
    entry.external_attr = (mode | 0o644) << 16
    return entry


def claim(field, number):
    """Return a ZIP file whose directory holds a number, which is wrong, in a field of its only entry."""
    content = bytearray(make_zip([("a.png", b"x")]))
    position = content.index(b"PK\x01\x02") + field
    content[position : position + 4] = struct.pack("<I", number)
    return bytes(content)


def mark_encrypted():
    content = bytearray(make_zip([("a.png", b"x")]))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def make_bomb(n_bytes):
    """Return a ZIP file of less than 50 kB whose entries have `n_bytes` together."""
    entries = [(f"{number}.png", bytes(n_bytes // 50)) for number in range(49)]
    return make_zip([*entries, ("last.png", bytes(n_bytes - 49 * (n_bytes // 50)))], zipfile.ZIP_DEFLATED)


UNSAFE = {
    "parent": (lambda: make_zip([("../outside.png", "x")]), "'../outside.png' points outside its folder"),
    "parent inside": (lambda: make_zip([("a/../../outside.png", "x")]), "points outside its folder"),
    "absolute": (lambda: make_zip([("/outside.png", "x")]), "'/outside.png' points outside its folder"),
    "parent with backslashes": (lambda: make_zip([("..\\outside.png", "x")]), "points outside its folder"),
    "backslash": (lambda: make_zip([("a\\b.png", "x")]), "points outside its folder"),
    "drive": (lambda: make_zip([("C:a.png", "x")]), "points outside its folder"),
    "empty name": (lambda: make_zip([("a.png", "x")]).replace(b"a.png", b"\0.png"), "points outside its folder"),
    "link": (lambda: make_zip([(special_entry(stat.S_IFLNK), "/etc/passwd")]), "is a link or another special file"),
    "FIFO": (lambda: make_zip([(special_entry(stat.S_IFIFO), "")]), "is a link or another special file"),
    "device": (lambda: make_zip([(special_entry(stat.S_IFCHR), "")]), "is a link or another special file"),
    "empty part": (lambda: make_zip([("a//b.png", "x")]), "is not the name of a file"),
    "dot": (lambda: make_zip([("./b.png", "x")]), "is not the name of a file"),
    "long name": (lambda: make_zip([("a" * 256, "x")]), f"'{'a' * 80}' is not the name of a file"),
    "long name in bytes": (lambda: make_zip([("é" * 128, "x")]), "is not the name of a file"),
    "long folder": (lambda: make_zip([("a" * 256 + "/b.png", "x")]), "is not the name of a file"),
    "file and folder": (lambda: make_zip([("a", "x"), ("a/b.png", "x")]), "two entries have the same name"),
    "encrypted": (mark_encrypted, "is encrypted, or compressed in an unusual way"),
    "LZMA": (lambda: make_zip([("a.png", b"x")], zipfile.ZIP_LZMA), "is encrypted, or compressed in an unusual way"),
    "claimed size": (lambda: claim(SIZE, 4_000_000_000), "would become 4,000,000,000 bytes of images"),
    "claimed offset": (lambda: claim(PLACE, 2**31), "lies outside the file"),
    "bomb": (lambda: make_bomb(10_000_000), "would become 10,000,000 bytes of images"),
    "small bomb": (lambda: make_bomb(2**20 + 1), "would become 1,048,577 bytes of images"),
}


@pytest.mark.parametrize("kind", UNSAFE)
def test_unsafe_zip_file_is_refused_before_anything_is_extracted(put_object, cache_path, kind):
    make, reason = UNSAFE[kind]
    stored = put_object(make())

    with pytest.raises(
        ValueError, match=f"s3://brain/images.zip .* is not a sound ZIP file: .*{reason}.*Nothing is extracted"
    ) as error:
        cache.fetch_folder(stored)
    assert "\n" not in str(error.value)
    assert [path.name for path in cache_path.rglob("*") if not path.name.startswith(".")] == [
        stored.sha1,
        "images.zip",
    ]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_file_with_a_name_twice_is_refused(put_object):
    stored = put_object(make_zip([("a.png", b"1"), ("a.png", b"2")]))

    with pytest.raises(ValueError, match="two entries have the same name. Nothing is extracted"):
        cache.fetch_folder(stored)


def test_safe_entry_does_not_hide_an_unsafe_one(put_object, cache_path):
    stored = put_object(make_zip([("fine.png", b"fine"), ("../outside.png", b"hostile"), ("also_fine.png", b"fine")]))

    with pytest.raises(ValueError, match="'../outside.png' points outside its folder. Nothing is extracted"):
        cache.fetch_folder(stored)
    assert not list(cache_path.rglob("*.png"))


def test_object_that_is_no_zip_is_refused(put_object):
    with pytest.raises(ValueError, match="s3://brain/images.zip .* is not a sound ZIP file"):
        cache.fetch_folder(put_object(b"no zip"))


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127, "a/b/" + "c" * 255, "..a.png", "a..png", ".a.png", "a b.png"])
def test_unusual_names_are_extracted(put_object, name):
    folder = cache.fetch_folder(put_object(make_zip([(name, b"1")])))

    assert contents(folder) == {name: b"1"}


def test_regular_files_of_unix_and_of_windows_are_extracted(put_object):
    of_unix, of_windows = special_entry(stat.S_IFREG), zipfile.ZipInfo("plain.png")
    of_windows.create_system, of_windows.external_attr = 0, 0x20

    folder = cache.fetch_folder(put_object(make_zip([(of_unix, b"1"), (of_windows, b"2")])))

    assert contents(folder) == {"special.png": b"1", "plain.png": b"2"}


def test_folders_inside_a_zip_are_extracted(put_object):
    folder = cache.fetch_folder(put_object(make_zip([("a/", b""), ("a/one.png", b"1"), ("two.png", b"2")])))

    assert contents(folder) == {"a/one.png": b"1", "two.png": b"2"}


def test_small_file_may_become_a_megabyte(put_object):
    folder = cache.fetch_folder(put_object(make_bomb(2**20)))

    assert sum(map(len, contents(folder).values())) == 2**20


def make_ratio(rng, n_zeros):
    """Return a ZIP file of 100 kB that do not shrink, and of zeros that shrink to nearly nothing."""
    return make_zip([("a.png", rng.bytes(100_000)), ("b.png", bytes(n_zeros))], zipfile.ZIP_DEFLATED)


def test_large_file_may_become_twenty_times_as_large(put_object, rng):
    fine, large = make_ratio(rng, 1_900_000), make_ratio(rng, 2_000_000)
    assert 19 < 2_000_000 / len(fine) < 20 < 2_100_000 / len(large) < 21

    assert (cache.fetch_folder(put_object(fine)) / "b.png").stat().st_size == 1_900_000
    with pytest.raises(ValueError, match=f"its {len(large):,} bytes would become 2,100,000 bytes of images"):
        cache.fetch_folder(put_object(large))


def test_folder_inside_the_folder_of_images_may_be_missing_or_a_file(put_object):
    nested = put_object(make_zip([("a/one.png", b"1"), ("two.png", b"2")]))
    folder = cache.fetch_folder(nested)
    shutil.rmtree(folder / "a")
    cache.fetch_folder(nested)
    assert (folder / "a" / "one.png").read_bytes() == b"1"

    shutil.rmtree(folder / "a")
    (folder / "a").write_text("x")
    with pytest.raises(ValueError, match="a file is in the place of a folder"):
        cache.fetch_folder(nested)


def test_zip_file_damaged_anywhere_is_refused_or_right(put_object, cache_path, rng):
    """The SHA-1 is that of the damaged file, so that only what is in the file can be noticed."""
    entries = {f"{i}.png": rng.bytes(50) for i in range(4)}
    sound = make_zip(entries.items())
    n_refused = 0
    for position in range(0, len(sound), 3):
        content = bytearray(sound)
        content[position] ^= 1 + rng.integers(255)
        stored = put_object(bytes(content))
        try:
            folder = cache.fetch_folder(stored)
        except ValueError as error:
            assert "is not a sound ZIP file" in str(error)
            assert "\n" not in str(error)
            assert not (cache_path / stored.sha1 / "images").exists()
            n_refused += 1
        else:
            assert set(contents(folder).values()) <= set(entries.values())
    assert n_refused > len(sound) / 3 / 2
