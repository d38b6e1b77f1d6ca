"""`verify --against`: releases with known differences, and published objects."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import netCDF4
import numpy as np
import pytest

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.publish.upload import publish_release
from allen2022_surface_packaging.recipe import Region, make_recipe
from support import create_versioned_bucket, run_cli, verify
from verify.planted import CHANGE_ONE_BIT, NAME, TEST, TEST_TABLE, TRAIN, rewritten, values


def read_ids(release, name=TEST) -> tuple[list[str], list[str]]:
    """Return the stimulus of each presentation, and the neuroids."""
    with netCDF4.Dataset(release / name) as file:
        return tuple(file[column][:].tolist() for column in ("stimulus_id", "neuroid_id"))


def by_what(release, other) -> dict:
    """Return the differences that `verify --against` keeps, by what differs."""
    ((_, compared),) = verify(release, "--against", other)["against"].items()
    return {f"{row['split']} {row['what']}": row for row in compared["differences"]}


def test_differences_within_the_tolerance_are_shown_and_no_problem(tiny_copy, tiny_release):
    def change(array):
        array.view(np.uint32)[4, 33, 0] ^= 1  # the last bit
        array[5, array[5, :, 0] == 0] = np.nan  # another way to fill

    with netCDF4.Dataset(tiny_release / TEST) as file:
        n_filled = int((file["data"][5] == 0).sum())
    values(change)(tiny_copy)
    result = run_cli("verify", tiny_copy, "--against", tiny_release)

    assert n_filled > 0
    assert "2 differences, 0 of them by more than 1e-05" in result.stdout
    findings = json.loads((tiny_copy / "verify.json").read_text())["against"][str(tiny_release)]
    assert findings["verdict"] == "the same within tolerance"
    of_value, of_fill = findings["differences"]
    stimuli, neuroids = read_ids(tiny_release)
    assert (of_value["differ"], of_value["beyond"]) == (1, 0)
    assert f"{stimuli[4]} repetition 1, {neuroids[33]}" in of_value["where"]
    assert 0 < of_value["largest"] < 1e-6
    assert (of_fill["what"], of_fill["differ"]) == ("values that are NaN on one side only", n_filled)


def test_values_that_differ_are_counted_by_subject_and_region_with_their_size(tiny_copy, tiny_release):
    _, neuroids = read_ids(tiny_release)
    v1, it = neuroids.index("subj02_rh_V1_v00010"), neuroids.index("subj01_lh_IT_v00003")

    def change(array):
        array[:2, v1] += 0.5
        array[2, v1] -= 2
        array[:, it] += 1

    values(change)(tiny_copy)
    result = run_cli("verify", tiny_copy, "--against", tiny_release)

    assert result.returncode == 1
    assert f"{tiny_copy} differs from {tiny_release}. " in result.stderr
    differences = by_what(tiny_copy, tiny_release)
    assert list(differences) == ["test values of subj02 V1", "test values of subj01 IT"]
    of_v1 = differences["test values of subj02 V1"]
    assert (of_v1["differ"], of_v1["beyond"], of_v1["largest"]) == (3, 3, pytest.approx(2))
    assert "values of subj02 V1: 3 of " in result.stdout
    assert " differ by 1 on average and by 2 at most. nsd_" in result.stdout
    assert ", subj02_rh_V1_v00010 has " in of_v1["where"]
    with netCDF4.Dataset(tiny_release / TEST) as file:
        assert differences["test values of subj01 IT"]["differ"] == file["data"].shape[0]


def name_otherwise(assembly):
    return assembly.assign_coords(stimulus_id=("presentation", [f"other_{row}" for row in range(len(assembly))]))


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (lambda assembly: assembly[::-1, ::-1], ["order of presentations", "order of neuroids"]),
        (name_otherwise, ["presentations only here", "presentations only there"]),
    ],
)
def test_rows_are_paired_by_their_coordinates_whatever_their_order(tiny_copy, tiny_release, change, kinds):
    rewritten(change)(tiny_copy)

    differences = by_what(tiny_copy, tiny_release)

    assert list(differences) == [f"test {kind}" for kind in kinds]


def test_releases_of_other_subjects_and_regions_are_compared_where_they_overlap(tiny_tree, tiny_release, tmp_path):
    regions = (Region("V2", "Kastner2015", (3, 4)), Region("V1", "Kastner2015", (1,)))
    recipe = replace(make_recipe((1,), name="one"), regions=regions, nan_policy="drop")
    build_release(tiny_tree, tmp_path / "one", recipe)

    differences = by_what(tmp_path / "one", tiny_release)

    # The numbers in the names of the neuroids differ, because V1 has one label less.
    kinds = {what for what in differences if what.startswith("train") and "values of" not in what}
    assert kinds == {"train neuroids only there", "train order of neuroids", "train neuroid_id of neuroids"}
    assert not any("values of subj01 V2" in what for what in differences)
    with netCDF4.Dataset(tmp_path / "one/one_train.nc") as one, netCDF4.Dataset(tiny_release / TRAIN) as both:
        n = both["data"].shape[1] - one["data"].shape[1]
    assert differences["train neuroids only there"]["differ"] == n


def test_file_names_may_differ_if_the_images_are_equal(tiny_copy, tiny_release):
    path = min((tiny_copy / "stimuli_test").iterdir())
    path.rename(path.with_name("first.png"))
    (tiny_copy / TEST_TABLE).write_text((tiny_copy / TEST_TABLE).read_text().replace(path.name, "first.png"))

    assert by_what(tiny_copy, tiny_release) == {}


@pytest.mark.parametrize("name", [TEST, TEST_TABLE, "release.json"])
def test_damaged_release_is_not_compared(tiny_copy, tiny_release, name):
    (tiny_copy / name).write_bytes(b"x")

    for here, there in ((tiny_copy, tiny_release), (tiny_release, tiny_copy)):
        result = run_cli("verify", here, "--against", there)
        assert result.returncode == 1
        assert str(tiny_copy / name) in result.stdout + result.stderr
        assert f"was not compared with {there}" in result.stderr or result.stdout == ""


@pytest.fixture
def published(tiny_release, empty_s3, tmp_path, monkeypatch) -> Path:
    """A release like the tiny one on a local S3 server; an artifacts file lists its objects."""
    create_versioned_bucket(empty_s3, "compared")
    (tmp_path / "artifacts.json").write_text("{}")
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS", str(tmp_path / "artifacts.json"))
    publish_release(tiny_release, "compared/prefix", artifacts_path=tmp_path / "artifacts.json", allow_simulated=True)
    return tiny_release


def test_release_is_compared_with_a_published_object_or_its_region(published, tmp_path, monkeypatch):
    copy = Path(shutil.copytree(published, tmp_path / "release"))
    # Without its own source the plugin would load the release itself from here.
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_DIR", str(copy))
    for identifier in (f"{NAME}.train", f"{NAME}.test", f"{NAME}.V4.test"):
        assert by_what(copy, identifier) == {}

    CHANGE_ONE_BIT(copy)

    result = run_cli("verify", copy, "--against", f"{NAME}.test")
    assert result.returncode == 1
    assert "test values of subj02 IT: 1 of " in result.stdout
    assert by_what(copy, f"{NAME}.V4.test") == {}


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        *(
            (name, "is neither the folder of a release nor an identifier")
            for name in ("nowhere", "a.V1.V2.train", "a.b")
        ),
        (f"{NAME}.train", "cannot be loaded: "),
    ],
)
def test_text_that_names_neither_release_nor_object_is_refused(tiny_copy, tmp_path, monkeypatch, identifier, message):
    (tmp_path / "artifacts.json").write_text("{}")
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS", str(tmp_path / "artifacts.json"))

    assert f"problem: {identifier} {message}" in run_cli("verify", tiny_copy, "--against", identifier).stdout
