"""Identifiers of stimulus sets: other images have another identifier, because Brain-Score caches pixels by identifier."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainscore_allen2022_surface import sources
from brainscore_allen2022_surface.loaders import load_assembly, load_stimulus_set
from brainscore_allen2022_surface.markers import hash_images, image_marker, marker_of
from support import accept

NAME = "Allen2022_fmri_surface"


@pytest.fixture
def gray_release(release_copy) -> Path:
    """The release of eight subjects with other pixels in the same image files."""
    for path in release_copy.glob("stimuli_*/*.png"):
        with Image.open(path) as image:
            gray = Image.new("RGB", image.size, (200, 200, 200))
        gray.save(path)
        accept(release_copy, str(path.relative_to(release_copy)))
    return release_copy


@pytest.fixture
def images(tmp_path) -> dict[str, Path]:
    """Two image files, by stimulus id."""
    paths = {"nsd_00001": tmp_path / "a.png", "nsd_00002": tmp_path / "b.png"}
    for number, path in enumerate(paths.values()):
        Image.fromarray(np.full((8, 8, 3), 100 + number, dtype=np.uint8)).save(path)
    return paths


def test_marker_is_the_same_for_copies_in_any_order(images, tmp_path):
    copies = {
        stimulus_id: shutil.copy(path, tmp_path / f"copy_{path.name}") for stimulus_id, path in reversed(images.items())
    }

    assert re.fullmatch("[0-9a-f]{8}", image_marker(hash_images(images)))
    assert image_marker(hash_images(copies)) == image_marker(hash_images(images))


def test_marker_changes_with_one_pixel(images):
    before = image_marker(hash_images(images))
    pixels = np.full((8, 8, 3), 101, dtype=np.uint8)
    pixels[3, 5, 0] += 1
    Image.fromarray(pixels).save(images["nsd_00002"])

    assert image_marker(hash_images(images)) != before


def test_marker_changes_when_two_images_are_swapped(images):
    swapped = dict(zip(images, reversed(images.values()), strict=True))

    assert image_marker(hash_images(swapped)) != image_marker(hash_images(images))


def test_marker_follows_the_separator_of_an_identifier():
    assert marker_of(f"{NAME}.test--0123abcd") == "0123abcd"
    assert marker_of(f"{NAME}.test") == ""


@pytest.mark.parametrize("split", ["train", "test"])
def test_release_on_disk_has_a_marker(release, split):
    stimulus_set = load_stimulus_set(NAME, split, source=release)
    assembly = load_assembly(NAME, split, region="V4", source=release)

    assert stimulus_set.identifier == f"{NAME}.{split}--{image_marker(hash_images(stimulus_set.stimulus_paths))}"
    assert assembly.attrs["stimulus_set_identifier"] == assembly.stimulus_set.identifier == stimulus_set.identifier
    assert assembly.attrs["identifier"] == f"{NAME}.V4.{split}"


def test_release_with_other_images_has_another_marker(release, gray_release):
    identifiers = {load_stimulus_set(NAME, "test", source=source).identifier for source in (release, gray_release)}

    assert len(identifiers) == 2


def test_objects_have_the_marker_of_their_release(s3, release, published):
    from_disk = load_stimulus_set(NAME, "test", source=release)
    from_s3 = load_stimulus_set(NAME, "test", source=published)

    assert from_s3.identifier == from_disk.identifier
    assert marker_of(from_s3.identifier)


def test_only_images_of_the_shipped_file_have_the_registered_identifier(s3, release, published, monkeypatch):
    monkeypatch.setattr(sources, "SHIPPED_PATH", published)

    assembly = load_assembly(NAME, "test", region="V4", source=published)

    assert assembly.attrs["stimulus_set_identifier"] == assembly.stimulus_set.identifier == f"{NAME}.test"
    assert marker_of(assembly.stimulus_set.identifier) == ""
    assert marker_of(load_stimulus_set(NAME, "test", source=release).identifier)


@pytest.mark.parametrize("kind", ["stimulus_zip", "stimulus_csv"])
def test_objects_that_differ_from_the_shipped_ones_have_a_marker(s3, published, tmp_path, monkeypatch, kind):
    entries = json.loads(published.read_text())
    entries[f"{NAME}.test"][kind]["sha1"] = "0" * 40
    (tmp_path / "shipped.json").write_text(json.dumps(entries))
    monkeypatch.setattr(sources, "SHIPPED_PATH", tmp_path / "shipped.json")

    assert marker_of(load_stimulus_set(NAME, "test", source=published).identifier)
    assert load_stimulus_set(NAME, "train", source=published).identifier == f"{NAME}.train"


def test_identifier_with_marker_can_be_cached_by_brainscore(brainscore, release):
    from brainscore_vision.benchmark_helpers.cache_contract import assert_stimulus_identifier_is_cacheable

    assert_stimulus_identifier_is_cacheable(load_stimulus_set(NAME, "test", source=release).identifier)


PLACE_ON_SCREEN = """
import sys
import numpy as np
from PIL import Image
from brainscore_allen2022_surface.loaders import load_stimulus_set
from brainscore_vision.benchmark_helpers.screen import place_on_screen

for source in sys.argv[1:]:
    stimulus_set = load_stimulus_set("Allen2022_fmri_surface", "test", source=source)
    on_screen = place_on_screen(stimulus_set, target_visual_degrees=4.2, source_visual_degrees=8.4)
    first = stimulus_set["stimulus_id"][0]
    cropped = np.asarray(Image.open(stimulus_set.get_stimulus(first)))[16:48, 16:48]
    assert np.array_equal(np.asarray(Image.open(on_screen.get_stimulus(first))), cropped), source
    print(on_screen.identifier)
"""


def test_place_on_screen_with_cache_returns_images_of_each_release(release, gray_release, tmp_path):
    """In another process, because Brain-Score reads the folder of its cache when it is imported."""
    environment = os.environ | {
        "RESULTCACHING_HOME": str(tmp_path / "results"),
        "BRAINSCORE_HOME": str(tmp_path / "bs"),
    }
    command = [sys.executable, "-c", PLACE_ON_SCREEN, str(release), str(gray_release), str(release)]

    run = subprocess.run(command, capture_output=True, text=True, env=environment)

    assert run.returncode == 0, run.stderr
    identifiers = run.stdout.splitlines()[-3:]
    assert len(set(identifiers)) == 2 and identifiers[0] == identifiers[2]
    cached = list((tmp_path / "results").rglob("*.pkl"))
    assert len(cached) == 2  # the cache is on
