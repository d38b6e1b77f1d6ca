"""What `build` says at its end: checked against the files of the release, and the commands that it names are run."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import xarray as xr

from allen2022_surface_packaging.assemble.pipeline import build_releases
from allen2022_surface_packaging.assemble.summary import RELEASE_VARIABLE, describe_build, describe_next
from allen2022_surface_packaging.progress import follow, format_bytes, format_seconds
from allen2022_surface_packaging.recipe import make_recipe, read_recipe
from allen2022_surface_packaging.release import Manifest, ReleaseFolder
from brainscore_allen2022_surface import loaders


@pytest.fixture(scope="module")
def manifests(nsd_tree, tmp_path_factory) -> dict[Path, Manifest]:
    """Two releases from one call, in a folder with a space and a quote in its name."""
    folder = tmp_path_factory.mktemp("built") / "my brain's releases"
    recipes = {
        folder / "streams": replace(read_recipe("streams"), subjects=(1, 3)),
        folder / "dropped": make_recipe((1, 2), name="dropped", nan_policy="drop"),
    }
    return build_releases(nsd_tree, recipes)


def describe_one(manifests: dict[Path, Manifest], name: str) -> tuple[Path, str]:
    path = next(path for path in manifests if path.name == name)
    return path, describe_build({path: manifests[path]}, 1.0)


def test_summary_agrees_with_the_files(manifests):
    path, text = describe_one(manifests, "streams")
    n_zeros = 0  # the simulated responses that are valid are never 0, but a constant vertex is
    for split in ("train", "test"):
        with xr.open_dataarray(path / f"streams_{split}.nc") as assembly:
            n_presentations, n_neuroids, _ = assembly.shape
            n_zeros += int((assembly.values == 0).sum())

    assert re.search(rf"test +{n_presentations // 3} images x 3 repetitions x {n_neuroids} neuroids", text)
    assert f"{len([file for file in path.rglob('*') if file.is_file()])} files" in text
    assert "of subj01, subj03" in text
    assert 0 < int(re.search(r"filled +([\d,]+) values", text)[1].replace(",", "")) <= n_zeros
    assert "simulated" in text


def test_summary_says_how_many_neuroids_were_left_out(manifests):
    path, text = describe_one(manifests, "dropped")
    n_left_out, n_planned = (int(n) for n in re.search(r"dropped +(\d+) of (\d+) neuroids", text).groups())

    assert n_planned - n_left_out == manifests[path].shapes["train"][1]
    assert n_left_out > 0


def test_summary_of_two_releases_is_short(manifests):
    lines = describe_build(manifests, 125.0).splitlines()

    assert lines[0] == "Built 2 releases in 2 min 5 s."
    assert len(lines) < 18
    assert max(map(len, lines)) < 250


@pytest.mark.needs("bash")
def test_commands_of_the_summary_run(manifests):
    path = next(path for path in manifests if path.name == "streams")
    verify, report, *load = [line.strip() for line in describe_next({path: manifests[path]}).splitlines()[1:]]

    assert report == verify.replace(" verify ", " report ")
    command = f"{verify} && {load[0]} && {load[1]}"  # also if a shell does not find the programs by their names
    output = subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True).stdout
    assert "is sound" in output
    assert "streams" in output.partition("is sound")[2]


def test_published_release_is_linked_and_loaded_by_its_identifier(release):
    text = describe_next({release: Manifest.read(ReleaseFolder(release))})

    assert RELEASE_VARIABLE == loaders.RELEASE_VARIABLE
    assert f"allen2022-surface link\n    export {RELEASE_VARIABLE}={release}\n" in text
    assert "load_dataset('Allen2022_fmri_surface.test')" in text


def test_durations_and_sizes_are_written_for_people():
    assert [format_seconds(n) for n in (0.2, 8, 59.6, 125, 4800)] == [
        *("less than a second", "8 s", "1 min 0 s", "2 min 5 s", "1 h 20 min")
    ]
    assert [format_bytes(n) for n in (0, 12_345, 5e6, 1.13e9, 236e9)] == [
        "0 bytes",
        "12.3 kB",
        "5.0 MB",
        "1.1 GB",
        "236 GB",
    ]


@pytest.mark.parametrize(("n_items", "n_lines"), [(1, 0), (3, 1)])
def test_progress_of_a_single_item_shows_no_line(caplog, n_items, n_lines):
    caplog.set_level("INFO")

    assert list(follow(range(n_items), n_items=n_items, title="ceilings", unit="block")) == list(range(n_items))
    assert len(caplog.messages) == n_lines
