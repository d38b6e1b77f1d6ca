import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.facts import N_SESSIONS, SUBJECTS, stimulus_name
from allen2022_surface_packaging.nsd.files import Design, read_design
from allen2022_surface_packaging.nsd.storage import Folder, RawFile
from allen2022_surface_packaging.nsd.trials import (
    choose_images,
    complete_images,
    count_repetitions,
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


def test_image_is_complete_when_it_was_seen_more_than_three_times():
    fewest = pd.Series([2, 3, 4, 7], index=[10, 11, 12, 13])

    assert complete_images(fewest).tolist() == [11, 12, 13]


def test_pool_is_refused_when_no_image_is_complete():
    trials = {1: list_trials(DESIGN, 1, n_sessions=2, n_trials_per_session=2)}

    with pytest.raises(PackagingError, match="^the design: no image was seen 3 times by every subject chosen"):
        choose_images(make_recipe((1,), name="one"), DESIGN, trials)


def test_two_complete_images_are_enough_for_a_split():
    trials = {1: list_trials(DESIGN, 1, n_sessions=4, n_trials_per_session=2)}
    recipe = replace(make_recipe((1,), name="one"), train_fraction=0.5)

    assert {split: len(images) for split, images in choose_images(recipe, DESIGN, trials).items()} == {
        "train": 1,
        "test": 1,
    }


@st.composite
def designs(draw):
    """Draw a design of a few subjects with more trials than images."""
    shared = draw(st.lists(st.integers(1, 30), min_size=1, max_size=5, unique=True).map(sorted))
    n_subjects, n_own = draw(st.integers(1, 4)), draw(st.integers(0, 4))
    own = st.lists(st.integers(20, 60).filter(lambda i: i not in shared), min_size=n_own, max_size=n_own, unique=True)
    subjectim = [draw(st.permutations([*shared, *draw(own)])) for _ in range(n_subjects)]
    order = draw(st.lists(st.integers(1, len(shared) + n_own), min_size=8, max_size=40))
    return Design(np.array(order), np.array(subjectim), np.array(shared))


@given(st.data())
def test_trials_and_images_of_any_design_agree_with_plain_counting(data):
    design = data.draw(designs())
    n_per_session = data.draw(st.integers(1, 4))
    n_sessions = st.integers(1, design.n_trials // n_per_session)
    trials, shown = {}, {}
    for subject, images in enumerate(design.subjectim.tolist(), start=1):
        n = data.draw(n_sessions)
        trials[subject] = list_trials(design, subject, n_sessions=n, n_trials_per_session=n_per_session)
        shown[subject] = [images[i - 1] - 1 for i in design.masterordering[: n * n_per_session].tolist()]
        expected = [
            (t // n_per_session + 1, t % n_per_session, image, shown[subject][:t].count(image))
            for t, image in enumerate(shown[subject])
        ]
        assert list(trials[subject].itertuples(index=False, name=None)) == expected
    counts = count_repetitions(trials[1], design.shared_images[::-1])
    assert counts.tolist() == [shown[1].count(image - 1) for image in design.sharedix.tolist()[::-1]]
    fewest = fewest_repetitions(design, trials)
    expected = {i - 1: min(images.count(i - 1) for images in shown.values()) for i in design.sharedix.tolist()}
    assert fewest.to_dict() == expected
    complete = [image for image, n in expected.items() if n >= 3]
    assert complete_images(fewest).tolist() == complete

    seed = data.draw(st.integers(0, 2**32 - 1))
    recipe = replace(make_recipe(list(trials), name="any"), train_fraction=0.5, split_seed=seed)
    if len(complete) > 1:
        assert as_lists(choose_images(recipe, design, trials)) == reference.split_complete_images(complete, 0.5, seed)
    else:
        with pytest.raises(PackagingError, match="needs at least 2"):
            choose_images(recipe, design, trials)


@given(st.data())
def test_own_images_of_any_design_agree_with_plain_counting(data):
    design = data.draw(designs())
    subject = data.draw(st.integers(1, len(design.subjectim)))
    trials = {subject: list_trials(design, subject, n_sessions=1, n_trials_per_session=design.n_trials)}
    shown = trials[subject]["nsd_id"].tolist()
    others = {i - 1 for row, images in enumerate(design.subjectim.tolist(), start=1) if row != subject for i in images}
    own = sorted(set(shown) - others - set(design.shared_images.tolist()))
    complete = [image for image in design.shared_images.tolist() if shown.count(image) >= 3]

    if own and complete:
        splits = choose_images(own_recipe(subject), design, trials)
        assert as_lists(splits) == {"train": own, "test": complete}
    else:
        with pytest.raises(PackagingError, match="no image of its own|saw no shared image 3 times"):
            choose_images(own_recipe(subject), design, trials)


@given(
    st.sets(st.integers(0, 72_999), min_size=1, max_size=40).map(sorted),
    st.floats(0.01, 0.99),
    st.integers(0, 2**32 - 1),
)
def test_any_split_agrees_with_the_reference(nsd_ids, fraction, seed):
    splits = split_images(np.array(nsd_ids), train_fraction=fraction, seed=seed)

    assert as_lists(splits) == reference.split_complete_images(nsd_ids, fraction, seed)


def as_lists(splits):
    return {split: images.tolist() for split, images in splits.items()}


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


def test_chosen_images_are_split_as_the_recipe_says():
    n_images = 20
    design = Design(
        masterordering=np.tile(np.arange(1, n_images + 1), 3),
        subjectim=np.arange(100, 100 + n_images)[np.newaxis],
        sharedix=np.arange(100, 100 + n_images),
    )
    trials = {1: list_trials(design, 1, n_sessions=3, n_trials_per_session=n_images)}
    recipe = replace(make_recipe((1,), name="one"), train_fraction=0.5, split_seed=7)

    order = np.random.RandomState(7).permutation(n_images)
    assert as_lists(choose_images(recipe, design, trials)) == {
        "train": sorted((99 + order[:10]).tolist()),
        "test": sorted((99 + order[10:]).tolist()),
    }


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
