"""The cache of S3 objects: nothing is downloaded twice, and every damaged file is replaced."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from brainscore_core.supported_data_standards.brainio import fetch as core_fetch

from brainscore_allen2022_surface import cache
from brainscore_allen2022_surface.loaders import load_assembly, load_stimulus_set

NAME = "Allen2022_fmri_surface"
IMAGES = "*/stimulus_Allen2022_fmri_surface_test/nsd_*.png"


def test_cached_files_are_not_downloaded_again(s3, cache_path, objects, downloads):
    load_assembly(NAME, "test")
    assert len(downloads) == 3
    downloads.clear()

    load_assembly(NAME, "test", region="IT")
    core_path = core_fetch.fetch_file(
        "S3",
        f"https://brain.s3.amazonaws.com/{objects.assembly.key}",
        sha1=objects.assembly.sha1,
        version_id=objects.assembly.version_id,
    )

    assert downloads == []
    assert Path(core_path) == cache_path / objects.assembly.sha1 / "assy_Allen2022_fmri_surface_test.nc"


def test_stimulus_set_loads_without_download_of_assembly(s3, downloads):
    load_stimulus_set(NAME, "test")

    assert {Path(key).suffix for key in downloads} == {".csv", ".zip"}


def test_unchanged_file_is_not_hashed_again(s3, monkeypatch):
    """Hashing a whole assembly takes several times as long as reading one region of it."""
    load_assembly(NAME, "test")
    monkeypatch.setattr(cache, "sha1_of", lambda path: pytest.fail(f"{path} was hashed"))

    load_assembly(NAME, "test", region="V4")


def test_cache_holds_only_the_downloaded_files_and_images(s3, cache_path):
    load_assembly(NAME, "test")

    visible = {path.name for path in cache_path.glob("*/*") if not path.name.endswith(".checked")}
    assert visible == {
        "assy_Allen2022_fmri_surface_test.nc",
        "stimulus_Allen2022_fmri_surface_test",
        "stimulus_Allen2022_fmri_surface_test.csv",
        "stimulus_Allen2022_fmri_surface_test.zip",
    }


def test_abandoned_download_is_removed_after_a_day(s3, cache_path, objects):
    folder = cache_path / objects.assembly.sha1
    folder.mkdir(parents=True)
    old, young = (folder / f".{Path(objects.assembly.key).name}.{end}" for end in ("0a1b", "2c3d"))
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (0, 0))

    cache.fetch(objects.assembly)

    assert not old.exists()
    assert young.exists()


def test_read_only_cache_is_read(s3, cache_path, monkeypatch):
    load_assembly(NAME, "test")
    for path in cache_path.glob("*/.*.checked"):
        path.unlink()
    write_text = Path.write_text

    def refuse(path, *arguments, **options):
        if cache_path in path.parents:
            raise PermissionError(13, "Read-only file system", str(path))
        return write_text(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", refuse)

    assert load_assembly(NAME, "test").sizes["time_bin"] == 1


# --- damage --------------------------------------------------------------------------------------------------------------


def change_a_byte(path):
    """Damage a file as a failing disk does: its size and modification time stay the same."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("kind", "damage"), [("assembly", change_a_byte), ("stimulus_csv", truncate), ("stimulus_zip", empty)]
)
def test_damaged_file_in_cache_is_downloaded_again(
    s3, cache_path, objects, load_locally, assert_same_assembly, downloads, kind, damage
):
    load_assembly(NAME, "test")
    load_assembly(NAME, "test")
    damaged = getattr(objects, kind)
    damage(cache_path / damaged.sha1 / Path(damaged.key).name)
    downloads.clear()

    actual = load_assembly(NAME, "test")

    assert downloads == [damaged.key]
    assert_same_assembly(actual, load_locally(load_assembly, NAME, "test"))


@pytest.mark.parametrize("was_cached", [False, True])
def test_object_with_wrong_content_is_refused_after_second_download(
    s3, cache_path, downloads, published, tmp_path, monkeypatch, was_cached
):
    """S3 holds another file under the pinned version."""
    artifacts = json.loads(published.read_text())
    entry = artifacts[f"{NAME}.test"]["stimulus_csv"]
    entry["version_id"] = s3.put_object(Bucket="brain", Key="wrong.csv", Body=b"stimulus_id\n")["VersionId"]
    entry["key"] = "wrong.csv"
    (tmp_path / "artifacts.json").write_text(json.dumps(artifacts))
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS", str(tmp_path / "artifacts.json"))
    folder = cache_path / entry["sha1"]
    if was_cached:
        folder.mkdir(parents=True)
        (folder / "wrong.csv").write_bytes(b"damaged")

    with pytest.raises(
        ValueError, match=r"s3://brain/wrong.csv .* was downloaded once more, but has the SHA-1 \w+ again"
    ):
        load_stimulus_set(NAME, "test")

    assert downloads == ["wrong.csv"] * (1 if was_cached else 2)
    assert sorted(path.name for path in folder.iterdir()) == (["wrong.csv"] if was_cached else [])


def remove_every_second_file(folder):
    for path in sorted(folder.iterdir())[::2]:
        path.unlink()


def truncate_one_file(folder):
    truncate(sorted(folder.iterdir())[1])


def change_a_byte_of_one_file(folder):
    change_a_byte(sorted(folder.iterdir())[2])


def remove_all_files(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    "damage",
    [remove_every_second_file, truncate_one_file, change_a_byte_of_one_file, remove_all_files, shutil.rmtree],
)
def test_damaged_images_in_cache_are_extracted_again(
    s3, cache_path, load_locally, assert_same_stimuli, downloads, damage
):
    load_stimulus_set(NAME, "test")
    damage(next(cache_path.glob(IMAGES)).parent)
    downloads.clear()

    actual = load_stimulus_set(NAME, "test")

    assert downloads == []  # the ZIP file is in the cache
    assert_same_stimuli(actual, load_locally(load_stimulus_set, NAME, "test"))


LOAD = """
import sys
from brainscore_allen2022_surface.loaders import load_assembly
assembly = load_assembly("Allen2022_fmri_surface", "test")
print(float(abs(assembly.values).sum()), len(assembly.attrs["stimulus_set"].stimulus_paths))
"""


@pytest.mark.parametrize("state", ["empty", "half extracted", "damaged"])
def test_two_processes_load_at_the_same_time(s3, cache_path, load_locally, state):
    if state != "empty":
        load_assembly(NAME, "test")
    if state == "half extracted":
        remove_every_second_file(next(cache_path.glob(IMAGES)).parent)
    if state == "damaged":
        for path in cache_path.glob("*/*.*"):
            truncate(path)
    expected = load_locally(load_assembly, NAME, "test")

    processes = [
        subprocess.Popen([sys.executable, "-c", LOAD], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in processes]

    assert [process.returncode for process in processes] == [0, 0], outputs
    facts = [float(abs(expected.values).sum()), len(expected.attrs["stimulus_set"])]
    for output, _ in outputs:
        assert [float(value) for value in output.split()[-2:]] == facts
