import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.facts import N_SESSIONS, SUBJECTS, stimulus_name
from allen2022_surface_packaging.nsd.files import Design, read_design
from allen2022_surface_packaging.nsd.storage import Folder, RawFile
from allen2022_surface_packaging.nsd.trials import (
    choose_images,
    complete_images,
    fewest_repetitions,
    list_trials,
    split_images,
)
from allen2022_surface_packaging.recipe import make_recipe

# Two subjects with four images each. Images 5 and 9 (1-based 73k ids) are shared.
DESIGN = Design(
    masterordering=np.array([1, 3, 2, 1, 4, 2, 1, 2]),
    subjectim=np.array([[5, 9, 11, 12], [5, 9, 21, 22]]),
    sharedix=np.array([5, 9]),
)


def test_trials_follow_the_master_ordering_with_0_based_ids():
    trials = list_trials(DESIGN, 2, n_sessions=4, n_trials_per_session=2)

    expected = [
        *((1, 0, 4, 0), (1, 1, 20, 0), (2, 0, 8, 0), (2, 1, 4, 1)),
        *((3, 0, 21, 0), (3, 1, 8, 1), (4, 0, 4, 2), (4, 1, 8, 2)),
    ]
    assert list(trials.itertuples(index=False, name=None)) == expected
    assert list(trials) == ["session", "trial", "nsd_id", "repetition"]


def test_trials_of_acquired_sessions_only_are_counted():
    trials = list_trials(DESIGN, 1, n_sessions=3, n_trials_per_session=2)

    assert Counter(trials.nsd_id) == {4: 2, 8: 2, 10: 1, 11: 1}


def test_image_is_complete_when_every_subject_saw_it_three_times():
    trials = {1: list_trials(DESIGN, 1, n_sessions=4, n_trials_per_session=2)}
    assert complete_images(fewest_repetitions(DESIGN, trials)).tolist() == [4, 8]

    trials[2] = trials[1][trials[1].nsd_id == 4]
    assert complete_images(fewest_repetitions(DESIGN, trials)).tolist() == [4]
    with pytest.raises(PackagingError, match="1 image was seen 3 times by every subject.*needs at least 2"):
        choose_images(make_recipe((1, 2), name="two"), DESIGN, trials)


def own_recipe(subject):
    return replace(make_recipe((subject,), name="own", standardize_on="train"), pool="own")


def test_own_images_are_those_that_no_other_subject_saw():
    trials = {2: list_trials(DESIGN, 2, n_sessions=4, n_trials_per_session=2)}

    splits = choose_images(own_recipe(2), DESIGN, trials)

    assert {split: images.tolist() for split, images in splits.items()} == {"train": [20, 21], "test": [4, 8]}


def test_own_images_were_shown_at_least_once():
    trials = {2: list_trials(DESIGN, 2, n_sessions=4, n_trials_per_session=2)}
    trials[2] = trials[2][trials[2].nsd_id != 21]

    assert choose_images(own_recipe(2), DESIGN, trials)["train"].tolist() == [20]


def test_image_of_two_subjects_is_nobodys_own():
    shared_by_chance = replace(DESIGN, subjectim=np.array([[5, 9, 11, 21], [5, 9, 21, 22]]))
    trials = {2: list_trials(shared_by_chance, 2, n_sessions=4, n_trials_per_session=2)}

    assert choose_images(own_recipe(2), shared_by_chance, trials)["train"].tolist() == [21]


def test_own_pool_is_refused_when_an_image_is_missing_for_a_split():
    trials = {2: list_trials(DESIGN, 2, n_sessions=3, n_trials_per_session=2)}
    with pytest.raises(PackagingError, match="subj02 saw no shared image 3 times"):
        choose_images(own_recipe(2), DESIGN, trials)

    only_shared = replace(DESIGN, masterordering=np.array([1, 2, 1, 2, 1, 2]))
    trials = {2: list_trials(only_shared, 2, n_sessions=3, n_trials_per_session=2)}
    with pytest.raises(PackagingError, match="shows subj02 no image of its own"):
        choose_images(own_recipe(2), only_shared, trials)


@pytest.mark.parametrize(("fraction", "split"), [(0.4, "train"), (0.0001, "train")])
def test_split_without_an_image_is_refused(fraction, split):
    trials = {1: list_trials(DESIGN, 1, n_sessions=4, n_trials_per_session=2)}
    recipe = replace(make_recipe((1,), name="one"), train_fraction=fraction)

    with pytest.raises(PackagingError, match=f"split.fraction is {fraction}, which leaves no {split} image of 2"):
        choose_images(recipe, DESIGN, trials)


def test_split_takes_four_fifths_with_the_published_seed():
    ids = np.arange(100, 1600, 10)
    splits = split_images(ids)

    order = np.random.RandomState(42).permutation(150)
    assert splits["train"].tolist() == sorted(ids[order[:120]])
    assert splits["test"].tolist() == sorted(ids[order[120:]])


def test_split_follows_another_fraction_and_seed():
    ids = np.arange(100, 1600, 10)
    splits = split_images(ids, train_fraction=0.5, seed=7)

    order = np.random.RandomState(7).permutation(150)
    assert splits["train"].tolist() == sorted(ids[order[:75]])
    assert splits["test"].tolist() == sorted(ids[order[75:]])


def test_stimulus_names_have_five_digits():
    assert stimulus_name(3049) == "nsd_03049"


@pytest.fixture
def nsd_design() -> Design:
    variable = os.environ.get("NSD_EXPDESIGN")
    if not variable:
        pytest.skip("set NSD_EXPDESIGN to NSD's nsd_expdesign.mat, which may not be shared")
    path = Path(variable)
    return read_design(RawFile(Folder(path.parent), path.name, path.name))


@pytest.mark.parametrize(
    ("subjects", "n_complete", "n_train", "n_test", "n_sessions_needed"),
    [(SUBJECTS, 515, 412, 103, 240), ((1, 2, 5, 7), 1000, 800, 200, 160)],
)
def test_design_of_nsd_gives_the_published_images(nsd_design, subjects, n_complete, n_train, n_test, n_sessions_needed):
    trials = {s: list_trials(nsd_design, s, n_sessions=N_SESSIONS[s], n_trials_per_session=750) for s in subjects}
    fewest = fewest_repetitions(nsd_design, trials)
    images = complete_images(fewest)
    splits = split_images(images)

    assert (len(images), len(splits["train"]), len(splits["test"])) == (n_complete, n_train, n_test)
    needed = pd.concat(table[table.nsd_id.isin(images)].assign(subject=s) for s, table in trials.items())
    assert needed.groupby("subject").session.nunique().sum() == n_sessions_needed
    if subjects == SUBJECTS:
        assert fewest.value_counts().sort_index().tolist() == [93, 141, 251, 515]
        assert (splits["train"][0], splits["train"][-1]) == (3049, 72719)


def test_own_images_of_nsd_are_nine_thousand(nsd_design):
    trials = {1: list_trials(nsd_design, 1, n_sessions=40, n_trials_per_session=750)}

    splits = choose_images(own_recipe(1), nsd_design, trials)

    assert (len(splits["train"]), len(splits["test"])) == (9000, 1000)
    assert not set(splits["train"]) & set(nsd_design.shared_images)
