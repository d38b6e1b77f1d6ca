"""Trials, repetitions and images, against plain counting and against NSD's own design."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.facts import N_SESSIONS, SUBJECTS
from allen2022_surface_packaging.nsd.files import Design, read_design
from allen2022_surface_packaging.nsd.storage import Folder, RawFile
from allen2022_surface_packaging.nsd.trials import choose_images, count_repetitions, list_trials
from allen2022_surface_packaging.recipe import PUBLISHED_DATASETS, make_recipe

# Two subjects with four images each. Images 5 and 9 (1-based 73k ids) are shared.
DESIGN = Design(
    masterordering=np.array([1, 3, 2, 1, 4, 2, 1, 2]),
    subjectim=np.array([[5, 9, 11, 12], [5, 9, 21, 22]]),
    sharedix=np.array([5, 9]),
)


def own_recipe(subject):
    return replace(make_recipe((subject,), name="own", standardize_on="train"), pool="own")


def choose(recipe, design, trials):
    splits = choose_images(recipe, design, trials, count_repetitions(design, trials))
    return {split: images.tolist() for split, images in splits.items()}


def split_plainly(images, fraction, seed):
    shuffled = [images[i] for i in np.random.RandomState(seed).permutation(len(images))]
    n_train = int(fraction * len(images))
    return {"train": sorted(shuffled[:n_train]), "test": sorted(shuffled[n_train:])}


def test_choice_without_train_images_is_refused():
    only_shared = replace(DESIGN, masterordering=np.array([1, 2, 1, 2, 1, 2]))
    with pytest.raises(PackagingError, match="shows subj02 no image of its own"):
        choose(own_recipe(2), only_shared, list_trials(only_shared, {2: 3}, 2))

    recipe = replace(make_recipe((1,), name="one"), train_fraction=0.4)
    with pytest.raises(PackagingError, match=r"split.fraction is 0.4, which leaves 0 train images of 2"):
        choose(recipe, DESIGN, list_trials(DESIGN, {1: 4}, 2))


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
    subjects = range(1, len(design.subjectim) + 1)
    n_sessions = {s: data.draw(st.integers(1, design.n_trials // n_per_session)) for s in subjects}
    trials, shown = list_trials(design, n_sessions, n_per_session), {}
    for subject, images in zip(subjects, design.subjectim.tolist(), strict=True):
        n_trials = n_sessions[subject] * n_per_session
        shown[subject] = [images[i - 1] - 1 for i in design.masterordering[:n_trials].tolist()]
        assert list(trials[subject].itertuples(index=False, name=None)) == [
            (t // n_per_session + 1, t % n_per_session, image, shown[subject][:t].count(image))
            for t, image in enumerate(shown[subject])
        ]
    shared = design.shared_images.tolist()
    complete = [image for image in shared if all(images.count(image) >= 3 for images in shown.values())]
    seed = data.draw(st.integers(0, 2**32 - 1))
    recipe = replace(make_recipe(list(trials), name="any"), train_fraction=0.5, split_seed=seed)

    if len(complete) < 2:
        with pytest.raises(PackagingError, match="image was seen 3 times by every subject chosen.* needs at least 2"):
            choose(recipe, design, trials)
        return
    assert choose(recipe, design, trials) == split_plainly(complete, 0.5, seed)
    subject = data.draw(st.sampled_from(sorted(trials)))
    others = {i - 1 for row, images in enumerate(design.subjectim.tolist(), start=1) if row != subject for i in images}
    own = sorted(set(shown[subject]) - others - set(shared))
    if own:
        complete = [image for image in shared if shown[subject].count(image) >= 3]
        assert choose(own_recipe(subject), design, {subject: trials[subject]}) == {"train": own, "test": complete}


@pytest.fixture
def nsd_design() -> Design:
    variable = os.environ.get("NSD_EXPDESIGN")
    if not variable:
        pytest.skip("set NSD_EXPDESIGN to NSD's nsd_expdesign.mat, which may not be shared")
    path = Path(variable)
    return read_design(RawFile(Folder(path.parent), path.name, path.name))


@pytest.mark.parametrize("dataset", PUBLISHED_DATASETS, ids=lambda dataset: dataset.name)
def test_design_of_nsd_gives_the_published_images(nsd_design, dataset):
    trials = list_trials(nsd_design, {s: N_SESSIONS[s] for s in dataset.subjects}, 750)
    fewest = count_repetitions(nsd_design, trials).min(axis=1)
    splits = choose(make_recipe(dataset.subjects), nsd_design, trials)

    assert {split: len(images) for split, images in splits.items()} == dataset.n_images
    if dataset.subjects == SUBJECTS:
        assert fewest.value_counts().sort_index().tolist() == [93, 141, 251, 515]
        assert (splits["train"][0], splits["train"][-1]) == (3049, 72719)


def test_own_images_of_nsd_are_nine_thousand(nsd_design):
    trials = list_trials(nsd_design, {1: 40}, 750)

    splits = choose(own_recipe(1), nsd_design, trials)

    assert (len(splits["train"]), len(splits["test"])) == (9000, 1000)
    assert not set(splits["train"]) & set(nsd_design.shared_images)
