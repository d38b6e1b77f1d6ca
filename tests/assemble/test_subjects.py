"""One subject from its cached sessions to final values, with more vertices than are computed and stored at once."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray

import reference
from allen2022_surface_packaging.assemble import subjects
from allen2022_surface_packaging.assemble.entries import BLOCK_VERTICES, write_entry
from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.assemble.sessions import SessionCache, SessionTask, SubjectResponses
from allen2022_surface_packaging.assemble.subjects import (
    MOST_VERTICES,
    SubjectTask,
    SubjectValues,
    compute_subject,
    plan_subject,
)
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.inspection import inspect_tree
from allen2022_surface_packaging.nsd.plan import Session
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.recipe import Region, make_recipe

IMAGES = np.array([3, 5, 8, 9])
N_REPETITIONS = 4  # one more than a release holds
# Two computed blocks in lh, of which the last one is not full, and two stored blocks in rh.
N_VERTICES = {"lh": MOST_VERTICES + 70, "rh": BLOCK_VERTICES + 1}
N_COLUMNS = sum(N_VERTICES.values())


@pytest.fixture
def shown(rng):
    """The responses of all vertices, of shape (n_images, n_repetitions, n_vertices); NaN is what was not shown."""
    shown = rng.normal(0.5, 2, (len(IMAGES), N_REPETITIONS, N_COLUMNS)).astype(np.float32)
    shown[0, 2:] = shown[2, 3] = np.nan  # of a train image, and of a test image
    return shown


@pytest.fixture
def responses(shown, tmp_path):
    """The same responses in the cache: repetitions 0 and 1 are in session 1, and the others in session 2."""
    sessions, tasks = [], []
    for number in (1, 2):
        cells = [(i, n) for n in (2 * number - 2, 2 * number - 1) for i in range(4) if not np.isnan(shown[i, n]).all()]
        rows, repetitions = np.array(cells).T
        trials = 5 + 2 * np.arange(len(cells))
        session = Session(1, number, {}, None, trials, IMAGES[rows], repetitions)
        values = shown[rows, repetitions]
        path = tmp_path / f"{number}.responses"
        vertices = {hemisphere: np.arange(n) for hemisphere, n in N_VERTICES.items()}
        halves = {"lh": values[:, : N_VERTICES["lh"]], "rh": values[:, N_VERTICES["lh"] :]}
        write_entry(path, trials, vertices, halves)
        sessions.append(session)
        tasks.append(SessionTask(session, trials, {}, path))
    return SubjectResponses(IMAGES, N_REPETITIONS, sessions, tasks)


@pytest.fixture
def task(responses, tmp_path):
    """The images 3 and 9 are train, and 5 and 8 are test."""
    return SubjectTask(
        subject=1,
        responses=responses,
        vertices={hemisphere: np.arange(n) for hemisphere, n in N_VERTICES.items()},
        averaged=np.arange(4),
        train=np.array([0, 3]),
        statistics=np.arange(4),
        test=np.array([1, 2]),
        averages=None,
        is_validity_needed=False,
        path=tmp_path / "values",
    )


def read_values(values: SubjectValues) -> dict[str, np.ndarray]:
    """Return all values of each split."""
    bands = {split: list(values.bands(split)) for split in ("train", "test")}
    for split, parts in bands.items():
        starts = np.cumsum([0, *(len(band) for _, band in parts)])
        assert [start for start, _ in parts] == starts[:-1].tolist()
        assert starts[-1] == values.n_rows[split]
    return {split: np.concatenate([band for _, band in parts]) for split, parts in bands.items()}


def compute_plainly(shown, averages=None, base=(0, 1, 2, 3)):
    """Return the values before NaN becomes 0."""
    averages = np.nanmean(shown.astype(np.float64), axis=1).astype(np.float32) if averages is None else averages
    averages = averages.astype(np.float64)
    mean, deviation = np.nanmean(averages[list(base)], axis=0), np.nanstd(averages[list(base)], axis=0)
    return {
        "train": (averages[[0, 3]] - mean) / deviation,
        "test": (shown[[1, 2], :3].reshape(6, -1) - mean) / deviation,
    }


def test_values_of_all_blocks_equal_plain_arithmetic(task, shown):
    values = compute_subject(task)
    expected = compute_plainly(shown)

    assert values.n_rows == {"train": 2, "test": 6}
    for split, actual in read_values(values).items():
        np.testing.assert_allclose(actual, expected[split], rtol=1e-6, atol=1e-5)
        assert actual.dtype == np.float32
    assert values.blocks == [(0, MOST_VERTICES), (MOST_VERTICES, 70), (N_VERTICES["lh"], BLOCK_VERTICES + 1)]
    assert (values.subject, values.path, values.is_valid.all()) == (1, task.path, True)


def test_statistics_are_over_the_images_of_the_task(task, shown):
    values = compute_subject(replace(task, statistics=np.array([1, 2, 3])))

    expected = compute_plainly(shown, base=(1, 2, 3))
    for split, actual in read_values(values).items():
        np.testing.assert_allclose(actual, expected[split], rtol=1e-6, atol=1e-5)


def test_only_the_averaged_images_are_averaged(task, shown, monkeypatch):
    shapes = set()
    average = subjects.average_repetitions
    monkeypatch.setattr(subjects, "average_repetitions", lambda r: (shapes.add(r.shape[:2]), average(r))[1])
    values = compute_subject(
        replace(task, averaged=np.array([0, 3]), train=np.array([0, 1]), statistics=np.array([0, 1]))
    )

    assert shapes == {(2, N_REPETITIONS)}
    expected = compute_plainly(shown, base=(0, 3))
    np.testing.assert_allclose(read_values(values)["test"], expected["test"], rtol=1e-6, atol=1e-5)


def test_prepared_averages_take_the_place_of_averages(task, shown, rng):
    averages = rng.normal(1, 3, (4, N_COLUMNS)).astype(np.float32)
    values = compute_subject(replace(task, averages=averages))

    expected = compute_plainly(shown, averages)
    for split, actual in read_values(values).items():
        np.testing.assert_allclose(actual, expected[split], rtol=1e-6, atol=1e-5)


COLUMNS = (0, MOST_VERTICES - 1, MOST_VERTICES, N_VERTICES["lh"], N_COLUMNS - 1)  # at the limits of all blocks


@pytest.fixture
def damage(responses, shown):
    """A function that makes a response NaN in the cache."""

    def set_to_nan(image, repetition, column):
        shown[image, repetition, column] = np.nan
        for session, task in zip(responses.sessions, responses.tasks, strict=True):
            values = shown[np.searchsorted(IMAGES, session.nsd_ids), session.repetitions]
            halves = {"lh": values[:, : N_VERTICES["lh"]], "rh": values[:, N_VERTICES["lh"] :]}
            vertices = {hemisphere: np.arange(n) for hemisphere, n in N_VERTICES.items()}
            write_entry(task.path, session.trials, vertices, halves)

    return set_to_nan


@pytest.mark.filterwarnings("ignore:Mean of empty slice")  # of the plain arithmetic
@pytest.mark.parametrize("column", COLUMNS)
def test_nan_is_counted_and_zero_in_its_column(task, damage, shown, column):
    for repetition in range(N_REPETITIONS):  # then the average of this train image is NaN
        damage(3, repetition, column)
    damage(1, 2, column)
    values = compute_subject(task)

    expected = compute_plainly(shown)
    for split, actual in read_values(values).items():
        assert np.flatnonzero(values.n_invalid[split]).tolist() == [column]
        assert values.n_invalid[split][column] == 1
        np.testing.assert_allclose(actual, np.nan_to_num(expected[split]), rtol=1e-6, atol=1e-5)
        assert (actual[np.isnan(expected[split])] == 0).all()
    assert values.is_valid.all()  # because the task does not ask


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(("image", "repetition"), [(0, 1), (1, 0), (2, 2), (1, 3)])
def test_vertex_is_invalid_when_any_shown_trial_is_nan(task, damage, image, repetition, column):
    """Of a train or of a test image, a repetition that the release does not hold included."""
    damage(image, repetition, column)
    values = compute_subject(replace(task, is_validity_needed=True))

    assert np.flatnonzero(~values.is_valid).tolist() == [column]


@pytest.mark.parametrize("column", COLUMNS)
def test_vertex_is_invalid_when_a_prepared_average_is_nan(task, rng, column):
    averages = rng.normal(1, 3, (4, N_COLUMNS)).astype(np.float32)
    averages[2, column] = np.nan
    values = compute_subject(replace(task, averages=averages, is_validity_needed=True))

    assert np.flatnonzero(~values.is_valid).tolist() == [column]


@pytest.mark.parametrize("is_prepared", [False, True])
def test_single_vertex_is_computed_as_a_matrix(task, rng, monkeypatch, is_prepared):
    """NumPy sums a single column in another order, which may change the last bit of a value."""
    shapes, standardise = [], subjects.standardise_images

    def look(averages, tests, **options):
        shapes.append((averages.shape, tests.shape))
        return standardise(averages, tests, **options)

    monkeypatch.setattr(subjects, "standardise_images", look)
    averages = rng.normal(1, 3, (4, 1)).astype(np.float32) if is_prepared else None
    alone = replace(task, vertices={"lh": np.array([7]), "rh": np.array([], int)}, averages=averages)
    values = compute_subject(replace(alone, is_validity_needed=True))

    assert shapes == [((4, 2), (2, N_REPETITIONS, 2))]
    assert {split: array.shape for split, array in read_values(values).items()} == {"train": (2, 1), "test": (6, 1)}
    assert len(values.is_valid) == len(values.n_invalid["test"]) == 1


def test_one_vertex_has_the_same_bytes_alone_and_among_others(task):
    among_others = read_values(compute_subject(task))
    alone = read_values(compute_subject(replace(task, vertices={"lh": np.array([7]), "rh": np.array([], int)})))

    for split in ("train", "test"):
        assert alone[split].tobytes() == among_others[split][:, [7]].tobytes()


@pytest.mark.parametrize(
    ("n_band_values", "n_rows"), [(2 * N_COLUMNS, [2, 2, 2]), (1, [1] * 6), (5 * N_COLUMNS, [5, 1])]
)
def test_bytes_are_the_same_for_any_limits(task, monkeypatch, n_band_values, n_rows):
    whole = read_values(compute_subject(task))
    monkeypatch.setattr(subjects, "MOST_RESPONSES", 1)  # so that a block is as narrow as possible
    monkeypatch.setattr(subjects, "MOST_THREADS", 1)
    monkeypatch.setattr(subjects, "BAND_VALUES", n_band_values)
    values = compute_subject(task)

    widths = [width for _, width in values.blocks]
    assert widths == [*[BLOCK_VERTICES] * 8, 70, BLOCK_VERTICES, 1]
    assert [len(band) for _, band in values.bands("test")] == n_rows
    for split, actual in read_values(values).items():
        assert actual.tobytes() == whole[split].tobytes()


@pytest.mark.parametrize(("n_blocks", "width"), [(0.5, 1), (1, 1), (2.5, 2), (8, 8), (100, 8)])
def test_width_of_a_block_follows_the_number_of_trials(task, monkeypatch, n_blocks, width):
    n_trials = len(IMAGES) * N_REPETITIONS
    monkeypatch.setattr(subjects, "MOST_RESPONSES", int(n_blocks * n_trials * BLOCK_VERTICES))

    assert compute_subject(task).blocks[0] == (0, width * BLOCK_VERTICES)


def test_values_are_whole_when_the_disk_writes_short(task, monkeypatch):
    whole = read_values(compute_subject(task))
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, buffer: write(descriptor, buffer[:5000]))

    for split, actual in read_values(compute_subject(task)).items():
        assert actual.tobytes() == whole[split].tobytes()


def test_file_of_values_that_was_cut_short_is_named(task):
    values = compute_subject(task)
    os.truncate(task.path, task.path.stat().st_size - 1)

    with pytest.raises(PackagingError, match="values ended early. Is the disk sound"):
        read_values(values)


@pytest.fixture(scope="module")
def tiny_plan(tiny_tree):
    recipe = replace(
        make_recipe((1, 4), name="Two"), regions=(Region("cortex", "cortex"), Region("V4", "Kastner2015", (7,)))
    )
    return inspect_tree(open_tree(tiny_tree), recipe).require_sound()


def plan_task(tiny_plan, tmp_path, averages=None, **changes):
    plan = replace(tiny_plan, recipe=replace(tiny_plan.recipe, **changes))
    return plan, plan_subject(plan, SessionCache([plan], tmp_path / "cache"), 4, averages, tmp_path / "values")


def test_task_of_the_published_method_averages_every_image(tiny_plan, tmp_path):
    plan, task = plan_task(tiny_plan, tmp_path)

    assert task.subject == 4
    assert task.responses.images.tolist() == plan.images.tolist()
    assert task.averaged.tolist() == task.statistics.tolist() == list(range(len(plan.images)))
    assert plan.images[task.train].tolist() == plan.splits["train"].tolist()
    assert plan.images[task.test].tolist() == plan.splits["test"].tolist()
    assert {h: len(vertices) for h, vertices in task.vertices.items()} == {"lh": 1300, "rh": 1300}
    assert (task.averages, task.is_validity_needed, task.path) == (None, False, tmp_path / "values")


def test_task_without_test_images_in_the_statistics_averages_train_images(tiny_plan, tmp_path):
    plan, task = plan_task(tiny_plan, tmp_path, standardize_on="train")

    assert plan.images[task.averaged].tolist() == plan.splits["train"].tolist()
    assert task.train.tolist() == task.statistics.tolist() == list(range(len(plan.splits["train"])))
    assert plan.images[task.test].tolist() == plan.splits["test"].tolist()


def test_task_of_the_policy_drop_finds_valid_vertices(tiny_plan, tmp_path):
    averages = np.zeros((1, 1), np.float32)
    _, task = plan_task(tiny_plan, tmp_path, averages, nan_policy="drop")

    assert task.is_validity_needed is True
    assert task.averages is averages


@pytest.mark.parametrize("choices", [{}, {"standardize_on": "train"}, {"nan_policy": "drop"}])
def test_release_of_many_blocks_equals_the_reference(tiny_tree, tiny_plan, tmp_path, choices):
    build_release(tiny_tree, tmp_path / "r", replace(tiny_plan.recipe, **choices))

    regions = [("cortex", None, "all"), ("V4", "Kastner2015", (7,))]
    drop = choices.get("nan_policy") == "drop"
    on = choices.get("standardize_on", "all")
    expected = reference.reference_release(tiny_tree, (1, 4), regions=regions, drop=drop, standardize_on=on)
    for split in ("train", "test"):
        assembly = open_assembly(tmp_path / "r" / f"Two_{split}.nc")
        np.testing.assert_allclose(assembly.values[:, :, 0], expected[split], rtol=0, atol=1e-5)
        assert assembly["neuroid_id"].values.tolist() == [neuroid[0] for neuroid in expected["neuroids"]]


def open_assembly(path: Path) -> xarray.DataArray:
    with xarray.open_dataarray(path) as assembly:
        return assembly.load()
