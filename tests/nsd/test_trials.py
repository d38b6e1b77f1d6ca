import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.files import (
    LAYOUTS,
    SESSIONS_OF_NSD,
    SUBJECTS,
    Design,
    open_tree,
    read_design,
)
from allen2022_surface_packaging.nsd.trials import (
    complete_images,
    fewest_repetitions,
    shared_trials,
    split_images,
    stimulus_name,
)

# Two subjects, four images each, of which 5 and 9 (1-based 73k ids) are shared.
DESIGN = Design(
    masterordering=np.array([1, 3, 2, 1, 4, 2, 1, 2]),
    subjectim=np.array([[5, 9, 11, 12], [5, 9, 21, 22]]),
    sharedix=np.array([5, 9]),
)


def test_trials_follow_the_master_ordering_in_0_based_ids():
    trials = shared_trials(DESIGN, 2, n_sessions=4, n_trials_per_session=2)

    expected = [(1, 0, 4, 0), (2, 0, 8, 0), (2, 1, 4, 1), (3, 1, 8, 1), (4, 0, 4, 2), (4, 1, 8, 2)]
    assert list(trials.itertuples(index=False, name=None)) == expected
    assert list(trials) == ["session", "trial", "nsd_id", "repetition"]


def test_only_acquired_sessions_count():
    trials = shared_trials(DESIGN, 1, n_sessions=3, n_trials_per_session=2)

    assert Counter(trials.nsd_id) == {4: 2, 8: 2}


def test_an_image_is_complete_only_if_every_subject_saw_it_three_times():
    trials = {1: shared_trials(DESIGN, 1, n_sessions=4, n_trials_per_session=2)}
    assert complete_images(fewest_repetitions(DESIGN, trials)).tolist() == [4, 8]

    trials[2] = trials[1][trials[1].nsd_id == 4]
    with pytest.raises(PackagingError, match="1 image was seen 3 times by every subject.*needs at least 2"):
        complete_images(fewest_repetitions(DESIGN, trials))


def test_the_split_is_four_fifths_by_the_published_seed():
    ids = np.arange(100, 1600, 10)
    splits = split_images(ids)

    order = np.random.RandomState(42).permutation(150)
    assert splits["train"].tolist() == sorted(ids[order[:120]])
    assert splits["test"].tolist() == sorted(ids[order[120:]])


def test_stimulus_names_have_five_digits():
    assert stimulus_name(3049) == "nsd_03049"


@pytest.fixture
def nsd_design(tmp_path) -> Design:
    path = os.environ.get("NSD_EXPDESIGN")
    if not path:
        pytest.skip("set NSD_EXPDESIGN to NSD's own nsd_expdesign.mat, which may not be passed on")
    place = tmp_path / LAYOUTS["official"].experiment / "nsd_expdesign.mat"
    place.parent.mkdir(parents=True)
    shutil.copyfile(Path(path), place)
    return read_design(open_tree(tmp_path))


@pytest.mark.parametrize(
    ("subjects", "n_complete", "n_train", "n_test", "n_sessions_needed"),
    [(SUBJECTS, 515, 412, 103, 240), ((1, 2, 5, 7), 1000, 800, 200, 160)],
)
def test_nsds_own_design_gives_the_published_images(
    nsd_design, subjects, n_complete, n_train, n_test, n_sessions_needed
):
    trials = {
        s: shared_trials(nsd_design, s, n_sessions=SESSIONS_OF_NSD[s], n_trials_per_session=750) for s in subjects
    }
    fewest = fewest_repetitions(nsd_design, trials)
    images = complete_images(fewest)
    splits = split_images(images)

    assert (len(images), len(splits["train"]), len(splits["test"])) == (n_complete, n_train, n_test)
    needed = pd.concat(t[t.nsd_id.isin(images)].assign(subject=s) for s, t in trials.items())
    assert needed.groupby("subject").session.nunique().sum() == n_sessions_needed
    if subjects == SUBJECTS:
        assert fewest.value_counts().sort_index().tolist() == [93, 141, 251, 515]
        assert (splits["train"][0], splits["train"][-1]) == (3049, 72719)
