"""Values that no scanner gives. The build, the recomputation and the reference treat them alike."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.assemble.responses import standardise_images
from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd.files import MGH_DATA_OFFSET
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.recipe import make_recipe
from allen2022_surface_packaging.verify.recomputation import recompute_release
from allen2022_surface_packaging.verify.soundness import verify_release
from reference import prepare_regions, reference_release, session_files, shown_images

N_VERTICES, N_TRIALS, SUBJECT = 162, 60, 1
RECIPE = make_recipe((SUBJECT,), name="one")
VALUES = (1e6, 1e9, 1e12, 1e19, 1e30, 3e38, -3e38, 1e-30, 1e-45, np.inf, -np.inf, np.nan)
POSITIONS = (
    "first trial",
    "last trial",
    "train trial",
    "test trial",
    "unused trial",
    "half a session",
    "whole session",
)


@pytest.fixture(scope="module")
def small_tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("extreme") / "nsd"
    size = TreeSize(
        (SUBJECT,), n_sessions=2, n_trials=N_TRIALS, n_vertices=N_VERTICES, image_size=8, betas=(DEFAULT_BETAS,)
    )
    simulate_tree(root, size)
    return root


def open_betas(path: Path) -> np.memmap:
    """Return the betas of a session, (n_trials, n_vertices), as an array that writes to the file."""
    return np.memmap(path, dtype=">f4", mode="r+", offset=MGH_DATA_OFFSET, shape=(N_TRIALS, N_VERTICES))


def choose_trials(root: Path, position: str) -> slice | int:
    """Return which trials of the first session a position means."""
    expected = reference_release(root, (SUBJECT,))
    shown = shown_images(root, SUBJECT, N_TRIALS)
    used = {*expected["train_ids"], *expected["test_ids"]}
    return {
        "first trial": 0,
        "last trial": N_TRIALS - 1,
        "train trial": next(t for t, image in enumerate(shown) if t and image in expected["train_ids"]),
        "test trial": next(t for t, image in enumerate(shown) if t and image in expected["test_ids"]),
        "unused trial": next(t for t, image in enumerate(shown) if t and image not in used),
        "half a session": slice(0, N_TRIALS, 2),
        "whole session": slice(None),
    }[position]


def assert_all_agree(root: Path, release: Path) -> dict[str, np.ndarray]:
    """Compare a release with the reference and with the recomputation of `verify`, and return its values."""
    expected, actual = reference_release(root, (SUBJECT,)), {}
    for split in ("train", "test"):
        with xarray.open_dataarray(release / f"one_{split}.nc") as assembly:
            actual[split] = assembly.values[:, :, 0]
        assert np.isfinite(actual[split]).all()
        np.testing.assert_allclose(actual[split], expected[split], rtol=1e-5, atol=1e-5, err_msg=split)
    assert recompute_release(release, root, every_vertex=True).problems == []
    return actual


@pytest.mark.filterwarnings("ignore::RuntimeWarning:reference")
@pytest.mark.parametrize("position", POSITIONS)
def test_planted_values_give_the_same_release_everywhere(small_tree, tmp_path, position):
    """Every value is planted in vertices of its own, in the left hemisphere of the first session."""
    root = Path(shutil.copytree(small_tree, tmp_path / "nsd"))
    betas = open_betas(session_files(root, SUBJECT, "lh")[0])
    for i, value in enumerate(VALUES):
        betas[choose_trials(root, position), i :: len(VALUES)] = value
    betas.flush()

    build_release(root, tmp_path / "release", RECIPE)

    assert_all_agree(root, tmp_path / "release")


@pytest.mark.parametrize("n_others", [2, 6])
def test_release_is_sound_when_a_vertex_is_constant_but_for_some_trials(small_tree, tmp_path, n_others):
    """All other responses equal the mean, so that they are zero without having been filled."""
    root = Path(shutil.copytree(small_tree, tmp_path / "nsd"))
    train_ids = set(reference_release(root, (SUBJECT,))["train_ids"])
    first_trials = {image: trial for trial, image in reversed([*enumerate(shown_images(root, SUBJECT, N_TRIALS))])}
    others = [trial for image, trial in first_trials.items() if image in train_ids][:n_others]
    for session, path in enumerate(session_files(root, SUBJECT, "lh")):
        betas = open_betas(path)
        betas[:] = 0
        if session == 0:
            betas[others[::2]], betas[others[1::2]] = 1, -1
        betas.flush()

    build_release(root, tmp_path / "release", RECIPE)

    values = assert_all_agree(root, tmp_path / "release")["train"]
    assert ((values == 0).sum(axis=0) == len(values) - n_others).any()
    assert verify_release(tmp_path / "release") == []


@pytest.mark.parametrize("value", [1e12, 1e30, 3e38])
def test_session_becomes_constant_when_a_trial_that_is_not_used_is_huge(small_tree, tmp_path, value):
    """As in the published procedure, which keeps standardised trials in single precision."""
    root = Path(shutil.copytree(small_tree, tmp_path / "nsd"))
    for session, path in enumerate(session_files(root, SUBJECT, "lh")):
        trial = choose_trials(root, "unused trial") if session == 0 else 0
        betas = open_betas(path)
        betas[trial] = value if session == 0 else betas[0]
        betas.flush()
    shown = shown_images(root, SUBJECT, 2 * N_TRIALS)

    build_release(root, tmp_path / "release", RECIPE)

    values = assert_all_agree(root, tmp_path / "release")["train"]
    expected = reference_release(root, (SUBJECT,))
    only_first = [
        row
        for row, image in enumerate(expected["train_ids"])
        if all(trial < N_TRIALS for trial, shown_image in enumerate(shown) if shown_image == image)
    ]
    is_left = [hemisphere == "lh" for _, _, hemisphere, *_ in expected["neuroids"]]
    columns = values[np.ix_(only_first, is_left)]
    assert len(only_first) > 1
    assert (columns == columns[0]).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning:reference")
@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("nan_policy", ["zero", "drop"])
def test_infinite_prepared_average_counts_as_nan(small_tree, tmp_path, value, nan_policy):
    releases = {}
    for name, planted in (("infinite", value), ("nan", np.nan)):
        root = Path(shutil.copytree(small_tree, tmp_path / name))
        prepare_regions(root, (SUBJECT,))
        path = root / "assemblies" / "Allen2022_surface.V1.nc"
        with xarray.open_dataarray(path) as opened:
            assembly = opened.load()
        assembly[1, 0] = planted
        assembly[:, 1] = planted
        assembly.to_netcdf(path)
        recipe = make_recipe((SUBJECT,), name="one", nan_policy=nan_policy)
        build_release(root, tmp_path / f"{name}_release", recipe, from_region_assemblies=True)
        recomputation = recompute_release(tmp_path / f"{name}_release", root, every_vertex=True)
        assert recomputation.problems == []
        releases[name] = (tmp_path / f"{name}_release" / "one_train.nc").read_bytes()
    assert releases["infinite"] == releases["nan"]


def test_value_is_infinite_when_single_precision_cannot_hold_it():
    averages = np.array([[0, 1e-45], [0, 0], [0, 0]], np.float32)
    test = np.full((1, 3, 2), 1e3, np.float32)

    values = standardise_images(averages, test, train=np.arange(3), statistics_over=np.arange(3))

    assert np.isinf(values["test"][:, 1]).all()
    assert (values["test"][:, 0] == 1e3).all()


def test_value_that_single_precision_cannot_hold_becomes_zero_and_is_counted(small_tree, tmp_path):
    root = Path(shutil.copytree(small_tree, tmp_path / "nsd"))
    prepare_regions(root, (SUBJECT,))
    path = root / "assemblies" / "Allen2022_surface.V1.nc"
    with xarray.open_dataarray(path) as opened:
        assembly = opened.load()
    assembly[:, 0] = 1e-44 * (np.arange(len(assembly)) % 2)
    assembly.to_netcdf(path)

    build_release(root, tmp_path / "release", RECIPE, from_region_assemblies=True)

    assert recompute_release(tmp_path / "release", root, every_vertex=True).problems == []
    with xarray.open_dataarray(tmp_path / "release" / "one_test.nc") as release:
        assert (release.values[:, 0] == 0).all()


def test_noise_ceilings_of_any_ncsnr_are_those_of_the_published_formula(small_tree, tmp_path):
    """A huge ncsnr gives 100 percent, and an infinite one NaN."""
    root = Path(shutil.copytree(small_tree, tmp_path / "nsd"))
    folder = root / "nsddata_betas/ppdata/subj01/fsaverage" / DEFAULT_BETAS
    rng = np.random.default_rng(0)
    for hemisphere in ("lh", "rh"):
        values = np.memmap(folder / f"{hemisphere}.ncsnr.mgh", ">f4", "r+", offset=MGH_DATA_OFFSET, shape=N_VERTICES)
        values[:] = 10.0 ** rng.uniform(5, 38, N_VERTICES)
        values[::10] = rng.choice([0, np.inf, np.nan, 1e-45, 3e38], len(values[::10]))
        values.flush()

    build_release(root, tmp_path / "release", RECIPE)

    with xarray.open_dataarray(tmp_path / "release" / "one_test.nc") as release:
        ceilings = release["nc_testset"].values
    assert np.nanmax(ceilings) == 100
    assert np.isnan(ceilings).any()
    assert verify_release(tmp_path / "release") == []
    assert recompute_release(tmp_path / "release", root, every_vertex=True).problems == []
