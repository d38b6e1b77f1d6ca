"""Values computed again from raw betas: each step by hand, without a release."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.storage import Folder, RawFile
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.release import Manifest, ReleaseFolder
from allen2022_surface_packaging.verify import values
from allen2022_surface_packaging.verify.expectation import Trial, read_expectation
from allen2022_surface_packaging.verify.raw import read_design
from allen2022_surface_packaging.verify.values import Block, list_sessions, recompute_values

IMAGES = [2, 4, 7, 9, 30]
SPLITS = {"train": [2, 7, 30], "test": [4, 9]}
# Image 30 was shown once, and image 7 four times. The others were shown three times.
N_SHOWN = {2: 3, 4: 3, 7: 4, 9: 3, 30: 1}
N_TRIALS = 5


def list_trials():
    """Return the trials of each image: the n-th repetition of the i-th image is trial i of session n + 1."""
    return {nsd_id: [Trial(n + 1, i) for n in range(N_SHOWN[nsd_id])] for i, nsd_id in enumerate(IMAGES)}


def expect(*, standardize_on="all", prepared=False, tree=None, n_trials=N_TRIALS):
    """Return what `recompute_values` asks of an expectation."""
    return SimpleNamespace(
        images=IMAGES,
        splits=SPLITS,
        trials={"subj01": list_trials()},
        tree=tree,
        manifest=SimpleNamespace(
            n_trials_per_session=n_trials,
            from_region_assemblies=prepared,
            recipe=SimpleNamespace(standardize_on=standardize_on, betas="betas"),
        ),
    )


def table(vertices, *, region="V1"):
    return pd.DataFrame({"vertex_index": vertices, "region": region, "subject": "subj01", "hemisphere": "lh"})


@pytest.fixture
def betas(rng):
    """Responses of sessions 1 to 4 and vertices 0 to 19."""
    return {number: rng.normal(2, 3, (N_TRIALS, 20)) for number in range(1, 5)}


@pytest.fixture
def raw_betas(betas, monkeypatch):
    """Let `read_trials` return `betas`, and note what is asked for."""
    asked = []

    def read_trials(file, vertices):
        asked.append(file)
        return betas[file[2]][:, vertices]

    monkeypatch.setattr(values, "read_trials", read_trials)
    return asked


TREE = SimpleNamespace(betas=lambda *place: place)


def standardise(responses):
    """Standardise the rows of an array; a sum of squares in place of `std`."""
    responses = responses - responses.sum(axis=0) / len(responses)
    return (responses / np.sqrt((responses**2).sum(axis=0) / len(responses))).astype(np.float32).astype(float)


def test_vertices_of_a_block_are_ascending_and_unique():
    assert Block("subj01", "lh", table([7, 2, 9, 2])).vertices.tolist() == [2, 7, 9]


def test_values_of_regions_follow_from_standardised_sessions(betas, raw_betas):
    neuroids = pd.concat([table([3, 11]), table([0, 3, 19], region="IT")])

    first, second = recompute_values(expect(tree=TREE), Block("subj01", "lh", neuroids))

    assert raw_betas == [(1, "lh", session, "betas") for session in (1, 2, 3, 4)]
    assert (first.subject, first.region, second.region) == ("subj01", "V1", "IT")
    assert second.neuroids["vertex_index"].tolist() == [0, 3, 19]
    sessions = {number: standardise(session) for number, session in betas.items()}
    averages = np.array(
        [np.mean([sessions[n + 1][i] for n in range(N_SHOWN[nsd_id])], axis=0) for i, nsd_id in enumerate(IMAGES)]
    )
    mean, deviation = averages.mean(axis=0), averages.std(axis=0)
    train = (averages[[0, 2, 4]] - mean) / deviation
    test = (np.array([sessions[n + 1][i] for i in (1, 3) for n in range(3)]) - mean) / deviation
    for result, columns in ((first, [3, 11]), (second, [0, 3, 19])):
        np.testing.assert_allclose(result.by_split["train"], train[:, columns], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(result.by_split["test"], test[:, columns], rtol=1e-5, atol=1e-5)
        assert not result.has_invalid_trial.any()


def test_another_number_of_trials_than_in_the_manifest_is_an_error(raw_betas):
    block = Block("subj01", "lh", table([1]))

    with pytest.raises(PackagingError, match=r"holds 5 trials, but the manifest says 750\. Download it again\.$"):
        list(recompute_values(expect(tree=TREE, n_trials=750), block))


def test_sessions_that_are_needed():
    assert list_sessions(expect(), "subj01") == [1, 2, 3, 4]
    assert list_sessions(expect(prepared=True), "subj01") == [1, 2, 3]  # only those of test images
    sources = values._list_sources(expect(), "subj01")
    assert [(source.trial, source.row, source.repetition) for source in sources[4]] == [(2, 2, 3)]
    assert [(source.trial, source.row, source.repetition) for source in sources[2]] == [
        (i, i, 1) for i in range(len(IMAGES) - 1)
    ]


def test_standardised_session_has_no_mean_and_a_deviation_of_one(rng):
    betas = rng.normal(5, 2, (40, 3))

    actual = values._standardise_session(betas)

    np.testing.assert_allclose(actual, standardise(betas), atol=1e-6)
    assert np.array_equal(actual, actual.astype(np.float32))


def test_constant_vertex_becomes_zero_and_invalid_ones_nan():
    betas = np.array([[0.1, np.nan, 1, 1], [0.1, 2, np.inf, 3], [0.1, 3, 2, 5], [0.1, 4, 3, 7]])

    with np.errstate(invalid="raise"):  # no warning either
        actual = values._standardise_session(betas)

    assert (actual[:, 0] == 0).all()
    assert np.isnan(actual[:, 1:3]).all()
    np.testing.assert_allclose(actual[:, 3], np.array([-3, -1, 1, 3]) / np.sqrt(5), rtol=1e-6)


def test_deviation_that_double_precision_cannot_hold_counts_as_one():
    actual = values._standardise_session(np.array([[0, 1.0], [1e-200, 2.0]]))

    np.testing.assert_allclose(actual, [[0, -1], [0, 1]])


@pytest.fixture
def responses(rng):
    """Responses to images of shape (n_images, 4, 6); NaN where an image was not shown."""
    responses = rng.normal(1, 2, (len(IMAGES), 4, 6))
    for i, nsd_id in enumerate(IMAGES):
        responses[i, N_SHOWN[nsd_id] :] = np.nan
    return responses


@pytest.mark.parametrize("standardize_on", ["all", "train"])
def test_images_are_standardised_over_all_images_or_those_of_train(responses, standardize_on):
    actual, has_invalid = values._standardise_images(expect(standardize_on=standardize_on), "subj01", responses, None)

    averages = np.nanmean(responses, axis=1).astype(np.float32).astype(float)
    base = averages if standardize_on == "all" else averages[[0, 2, 4]]
    np.testing.assert_allclose(actual["train"], (averages[[0, 2, 4]] - base.mean(axis=0)) / base.std(axis=0))
    expected_test = (responses[[1, 3], :3].reshape(6, 6) - base.mean(axis=0)) / base.std(axis=0)
    np.testing.assert_allclose(actual["test"], expected_test)
    assert has_invalid.tolist() == [False] * 6


def test_nan_trials_are_left_out_of_averages_and_noted(responses):
    """One in a train image, one in a test image, one in the fourth repetition, and all trials of an image."""
    responses[0, 1, 0] = responses[1, 2, 1] = responses[2, 3, 2] = responses[0, :, 3] = np.nan

    actual, has_invalid = values._standardise_images(expect(), "subj01", responses, None)

    assert has_invalid.tolist() == [True, True, True, True, False, False]
    averages = np.array([[np.mean(cell[~np.isnan(cell)]) for cell in image.T[[0, 1, 2]]] for image in responses])
    averages = averages.astype(np.float32)
    for split in ("train", "test"):
        is_nan = np.isnan(actual[split])
        assert is_nan.sum() == 1
        assert is_nan[(0, 3) if split == "train" else (2, 1)]
    expected = (averages[[0, 2, 4]] - averages.mean(axis=0)) / averages.std(axis=0)
    np.testing.assert_allclose(actual["train"][:, :3], expected, rtol=1e-5)


def test_neuroid_that_is_the_same_in_all_images_becomes_zero(responses):
    responses[:, :, 4] = np.where(np.isnan(responses[:, :, 4]), np.nan, 3)

    actual, _ = values._standardise_images(expect(), "subj01", responses, None)

    assert (actual["train"][:, 4] == 0).all() and (actual["test"][:, 4] == 0).all()


def test_values_beyond_single_precision_are_nan(responses):
    responses[1, 0, 0] = 1e39
    responses[:, :, 1] *= 1e-30
    responses[1, 0, 1] = 1e20  # is 1e19 in any scale

    with np.errstate(over="raise"):  # no warning either
        actual, _ = values._standardise_images(expect(standardize_on="train"), "subj01", responses, None)

    assert np.isnan(actual["test"][0, :2]).all()
    assert not np.isnan(actual["test"][:, 2:]).any()


def test_prepared_averages_take_the_place_of_averages(responses, rng):
    prepared = rng.normal(0, 5, (len(IMAGES), 6))
    prepared[2, 0] = np.nan
    responses[0, 0, 1] = np.nan  # of a train image, which the prepared averages replace
    responses[1, 2, 2] = np.nan
    responses[3, 3, 3] = np.nan

    actual, has_invalid = values._standardise_images(expect(prepared=True), "subj01", responses, prepared)

    assert has_invalid.tolist() == [True, False, True, False, False, False]
    mean, deviation = np.nanmean(prepared, axis=0), np.nanstd(prepared, axis=0)
    np.testing.assert_allclose(actual["train"], (prepared[[0, 2, 4]] - mean) / deviation)
    np.testing.assert_allclose(actual["test"], (responses[[1, 3], :3].reshape(6, 6) - mean) / deviation)


def test_prepared_averages_of_a_block_are_found_by_their_coordinates(tmp_path, rng):
    """The rows are in another order of images, and the columns are of two subjects and hemispheres."""
    ids, content = [30, 2, 4, 9, 7, 8], rng.normal(size=(6, 8)).astype(np.float32)
    content[1, 1], content[2, 0] = np.inf, np.nan
    assembly = xarray.DataArray(
        content,
        dims=("presentation", "neuroid"),
        coords={
            "nsd_id": ("presentation", ids),
            "subject": ("neuroid", ["subj01"] * 4 + ["subj02"] * 4),
            "hemisphere": ("neuroid", ["lh", "lh", "lh", "rh"] * 2),
            "vertex_index": ("neuroid", [3, 5, 9, 3] * 2),
        },
    )
    assembly.to_netcdf(tmp_path / "V1.nc")
    tree = SimpleNamespace(prepared_assembly=lambda region: RawFile(Folder(tmp_path), f"{region}.nc", f"{region}.nc"))

    actual = values._read_prepared_averages(expect(tree=tree), "V1", Block("subj01", "lh", table([9, 3, 5])))

    rows = [ids.index(nsd_id) for nsd_id in IMAGES]
    expected = content[:, [2, 0, 1]][rows].astype(float)
    expected[~np.isfinite(expected)] = np.nan
    np.testing.assert_array_equal(actual, expected)
    assert np.isnan(actual).sum() == 2


def test_mean_of_valid_values_is_nan_if_there_are_none():
    actual = values._mean_of_valid(np.array([[1.0, np.nan], [np.nan, np.nan], [4, np.nan]]), axis=0)

    np.testing.assert_array_equal(actual, [2.5, np.nan])


def test_simulated_release_has_the_values_of_a_block(release, nsd_tree):
    """With the real reader, expectation and tree."""
    folder, tree = ReleaseFolder(release), open_tree(nsd_tree)
    manifest = Manifest.read(folder)
    expected = read_expectation(tree, manifest, read_design(tree.design))
    is_of_block = (expected.neuroids["subject"] == "subj03") & (expected.neuroids["hemisphere"] == "rh")
    (result,) = recompute_values(
        expected, Block("subj03", "rh", expected.neuroids[is_of_block & (expected.neuroids["region"] == "V4")])
    )

    with xarray.open_dataarray(folder.assembly_path(manifest.name, "train")) as assembly:
        column = list(assembly["neuroid_id"].values).index(result.neuroids["neuroid_id"].iloc[1])
        actual = assembly.values[:, column, 0]
    np.testing.assert_allclose(actual, np.nan_to_num(result.by_split["train"][:, 1]), atol=1e-5)
