"""Identifiers of stimulus sets: other images have another identifier, because Brain-Score caches pixels by identifier."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from brainscore_allen2022_surface import loaders
from brainscore_allen2022_surface.loaders import load_assembly, load_stimulus_set

NAME = "Allen2022_fmri_surface"


@pytest.mark.parametrize("split", ["train", "test"])
def test_release_on_disk_has_a_marker(release, split):
    stimulus_set = load_stimulus_set(NAME, split, source=release)
    assembly = load_assembly(NAME, split, region="V4", source=release)

    assert re.fullmatch(f"{NAME}.{split}--[0-9a-f]{{8}}", stimulus_set.identifier)
    assert assembly.attrs["stimulus_set_identifier"] == assembly.stimulus_set.identifier == stimulus_set.identifier
    assert assembly.attrs["identifier"] == f"{NAME}.V4.{split}"


def test_marker_is_the_same_for_a_copy_and_changes_with_one_pixel_and_with_exchanged_images(release, release_copy):
    def identify(source):
        return load_stimulus_set(NAME, "test", source=source).identifier

    paths = sorted((release_copy / "stimuli_test").iterdir())
    identifiers = [identify(release), identify(release_copy)]
    with Image.open(paths[0]) as image:
        image.putpixel((3, 5), (1, 2, 3))
        image.save(paths[0])
    identifiers.append(identify(release_copy))
    shutil.copy(release / "stimuli_test" / paths[0].name, paths[1])
    shutil.copy(release / "stimuli_test" / paths[1].name, paths[0])
    identifiers.append(identify(release_copy))

    assert identifiers[0] == identifiers[1]
    assert len(set(identifiers)) == 3


def test_only_images_of_the_shipped_file_have_the_registered_identifier(s3, release, published, monkeypatch):
    monkeypatch.setattr(loaders, "SHIPPED_ARTIFACTS_PATH", published)

    assembly = load_assembly(NAME, "test", region="V4", source=published)

    assert assembly.attrs["stimulus_set_identifier"] == assembly.stimulus_set.identifier == f"{NAME}.test"
    assert "--" in load_stimulus_set(NAME, "test", source=release).identifier


@pytest.mark.parametrize("kind", ["stimulus_zip", "stimulus_csv"])
def test_objects_that_differ_from_the_shipped_ones_have_a_marker(s3, published, tmp_path, monkeypatch, kind):
    entries = json.loads(published.read_text())
    entries[f"{NAME}.test"][kind]["sha1"] = "0" * 40
    (tmp_path / "shipped.json").write_text(json.dumps(entries))
    monkeypatch.setattr(loaders, "SHIPPED_ARTIFACTS_PATH", tmp_path / "shipped.json")

    assert "--" in load_stimulus_set(NAME, "test", source=published).identifier
    assert load_stimulus_set(NAME, "train", source=published).identifier == f"{NAME}.train"


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


def test_place_on_screen_with_cache_returns_images_of_each_release(release, release_copy, tmp_path):
    """In another process, because Brain-Score reads the folder of its cache when it is imported."""
    for path in release_copy.glob("stimuli_test/*.png"):
        Image.new("RGB", (64, 64), (200, 200, 200)).save(path)
    homes = {"RESULTCACHING_HOME": str(tmp_path / "results"), "BRAINSCORE_HOME": str(tmp_path / "bs")}
    command = [sys.executable, "-c", PLACE_ON_SCREEN, release, release_copy, release]

    run = subprocess.run(command, capture_output=True, text=True, env=os.environ | homes)

    assert run.returncode == 0, run.stderr
    identifiers = run.stdout.splitlines()[-3:]
    assert len(set(identifiers)) == 2 and identifiers[0] == identifiers[2]
    assert len(list((tmp_path / "results").rglob("*.pkl"))) == 2  # the cache is on
