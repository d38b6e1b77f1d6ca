"""What `build` says at its end: checked against the files of the release, and the commands that it names are run."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import xarray as xr

from allen2022_surface_packaging.assemble.pipeline import build_releases
from allen2022_surface_packaging.assemble.summary import RELEASE_VARIABLE, describe_build, describe_release
from allen2022_surface_packaging.facts import subject_names
from allen2022_surface_packaging.progress import format_bytes, format_seconds
from allen2022_surface_packaging.recipe import make_recipe, read_recipe
from allen2022_surface_packaging.release import Manifest, ReleaseFolder
from brainscore_allen2022_surface import loaders


@pytest.fixture(scope="module")
def releases(nsd_tree, tmp_path_factory) -> dict[str, Path]:
    """Two releases from one call, in a folder with a space and a quote in its name."""
    folder = tmp_path_factory.mktemp("built") / "my brain's releases"
    recipes = {
        "streams": replace(read_recipe("streams"), subjects=(1, 3)),
        "dropped": make_recipe((1, 2), name="dropped", nan_policy="drop"),
    }
    paths = {name: folder / name for name in recipes}
    manifests = build_releases(nsd_tree, {paths[name]: recipe for name, recipe in recipes.items()})
    in_files = read_manifests(*paths.values())
    assert {path: m.to_json() for path, m in manifests.items()} == {path: m.to_json() for path, m in in_files.items()}
    return paths


def count_zeros(path: Path) -> int:
    """Count the values of both assemblies that are exactly zero. The simulated responses that are valid never are."""
    n_zeros = 0
    for assembly_path in path.glob("*.nc"):
        with xr.open_dataarray(assembly_path) as assembly:
            n_zeros += int((assembly.values == 0).sum())
    return n_zeros


def read_manifests(*paths: Path) -> dict[Path, Manifest]:
    return {path: Manifest.read(ReleaseFolder(path)) for path in paths}


def run_in_shell(line: str, **options) -> str:
    python = f"{Path(sys.executable).parent}"
    command = f'PATH="{python}:$PATH"; {line}'
    return subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True, **options).stdout


def test_summary_needs_no_file_of_the_release(releases):
    """The release is there already, so an error of its disk must not make the command fail."""
    (manifest,) = read_manifests(releases["streams"]).values()

    text = describe_build({Path("/nowhere/streams"): manifest}, 1.0)

    assert "streams in /nowhere/streams: " in text


def test_summary_agrees_with_the_files(releases):
    path = releases["streams"]
    with xr.open_dataarray(path / "streams_test.nc") as assembly:
        n_presentations, n_neuroids, _ = assembly.shape
    text = describe_release(path, Manifest.read(ReleaseFolder(path)))

    assert re.search(rf"test +{n_presentations // 3} images x 3 repetitions x {n_neuroids} neuroids", text)
    assert f"{len([file for file in path.rglob('*') if file.is_file()])} files" in text
    assert "of subj01, subj03" in text
    n_filled = int(re.search(r"filled +([\d,]+) values", text)[1].replace(",", ""))
    assert 0 < n_filled <= count_zeros(path)  # a constant vertex is 0 and was not filled
    assert "simulated" in text


def test_summary_says_how_many_neuroids_were_left_out(releases):
    path = releases["dropped"]
    with xr.open_dataarray(path / "dropped_train.nc") as assembly:
        n_neuroids = assembly.sizes["neuroid"]
    text = describe_release(path, Manifest.read(ReleaseFolder(path)))

    n_left_out, n_planned = (int(n) for n in re.search(r"(\d+) of (\d+) neuroids had an invalid trial", text).groups())
    assert n_planned - n_left_out == n_neuroids
    assert n_left_out > 0


def test_summary_of_two_releases_is_short(releases):
    lines = describe_build(read_manifests(*releases.values()), 125.0).splitlines()

    assert lines[0] == "Built 2 releases in 2 min 5 s."
    assert len(lines) < 25
    assert max(map(len, lines)) < 250


@pytest.mark.needs("bash")
def test_commands_of_the_summary_run(releases):
    path = releases["streams"]
    lines = [
        line.strip() for line in describe_build(read_manifests(path), 1.0).partition("next:")[2].strip().splitlines()
    ]
    verify, report, load = lines

    assert "is sound" in run_in_shell(verify)
    assert report == verify.replace("verify", "report")
    assert "streams" in run_in_shell(load)


def test_a_published_release_is_loaded_by_its_identifier(release):
    text = describe_build(read_manifests(release), 1.0)

    assert RELEASE_VARIABLE == loaders.RELEASE_VARIABLE
    assert f"export {RELEASE_VARIABLE}={release}\n" in text
    assert "load_dataset('Allen2022_fmri_surface.test')" in text
    assert "allen2022-surface link" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "less than a second"), (8, "8 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"), (4800, "1 h 20 min")],
)
def test_durations_are_written_for_people(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (12_345, "12.3 kB"), (236e9, "236 GB"), (1.13e9, "1.1 GB"), (5e6, "5.0 MB")],
)
def test_sizes_are_written_for_people(n_bytes, text):
    assert format_bytes(n_bytes) == text


@pytest.mark.parametrize(
    ("subjects", "text"),
    [
        ((1,), "subj01"),
        ((1, 2), "subj01, subj02"),
        ((1, 2, 3), "subj01-subj03"),
        ((1, 2, 5, 7), "subj01, subj02, subj05, subj07"),
    ],
)
def test_subjects_are_written_for_people(subjects, text):
    assert subject_names(subjects) == text
