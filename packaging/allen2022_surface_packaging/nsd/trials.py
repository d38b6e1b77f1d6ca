"""Which image was shown in which trial, which images are complete, and how they are split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..arrays import IntArray
from ..errors import PackagingError
from ..facts import N_REPETITIONS, subject_name
from ..recipe import SPLIT_SEED, TRAIN_FRACTION, Recipe
from .files import Design


def list_trials(design: Design, subject: int, *, n_sessions: int, n_trials_per_session: int) -> pd.DataFrame:
    """List a subject's trials in the order in which they were run.

    Returns
    -------
    table with the columns
        ``session`` (1-based), ``trial`` (0-based within the session), ``nsd_id`` (0-based) and ``repetition``
        (0, 1, 2 ... over the sessions acquired).
    """
    trial = np.arange(n_sessions * n_trials_per_session)
    nsd_ids = design.subjectim[subject - 1, design.masterordering[trial] - 1] - 1
    trials = pd.DataFrame(
        {"session": trial // n_trials_per_session + 1, "trial": trial % n_trials_per_session, "nsd_id": nsd_ids}
    )
    trials["repetition"] = trials.groupby("nsd_id").cumcount()
    return trials


def count_repetitions(trials: pd.DataFrame, nsd_ids: IntArray) -> pd.Series[int]:
    """Count how often some images were shown in some trials, indexed by `nsd_id`, in the order of `nsd_ids`."""
    counts = trials["nsd_id"].value_counts().reindex(nsd_ids, fill_value=0)
    return counts.astype(np.int64).rename_axis("nsd_id")


def fewest_repetitions(design: Design, trials: Mapping[int, pd.DataFrame]) -> pd.Series[int]:
    """Return for every shared image the fewest repetitions over the subjects, indexed by `nsd_id`, ascending."""
    counts = [count_repetitions(subject_trials, design.shared_images) for subject_trials in trials.values()]
    return pd.concat(counts, axis=1).min(axis=1)


def choose_images(recipe: Recipe, design: Design, trials: Mapping[int, pd.DataFrame]) -> dict[str, IntArray]:
    """Choose the images of a release by the pool and the split of its recipe.

    Parameters
    ----------
    trials : the trials of each subject of the recipe, from `list_trials`

    Returns
    -------
    the `nsd_id` of the train and of the test images, each ascending

    Raises
    ------
    PackagingError
        If the pool has too few images.
    """
    complete = complete_images(fewest_repetitions(design, trials))
    if recipe.pool == "own":
        (subject,) = recipe.subjects
        own = own_images(design, trials[subject], subject)
        return {"train": own, "test": _require_test_images(complete, subject, design.source)}
    if len(complete) < 2:
        raise PackagingError(
            f"{design.source}: {len(complete) or 'no'} image was seen {N_REPETITIONS} times by every subject chosen, but a "
            "train/test split needs at least 2. Choose fewer subjects, or add more sessions."
        )
    splits = split_images(complete, train_fraction=recipe.train_fraction, seed=recipe.split_seed)
    for split, nsd_ids in splits.items():
        if not len(nsd_ids):
            raise PackagingError(
                f"{recipe}: split.fraction is {recipe.train_fraction}, which leaves no {split} image of {len(complete)}. "
                "Choose another fraction."
            )
    return splits


def complete_images(fewest: pd.Series[int]) -> IntArray:
    """Return the `nsd_id` of the images that every subject saw at least three times, ascending."""
    complete: IntArray = fewest.index.to_numpy()[fewest.to_numpy() >= N_REPETITIONS]
    return complete


def own_images(design: Design, trials: pd.DataFrame, subject: int) -> IntArray:
    """Return the `nsd_id` of the images that a subject saw at least once and that no other subject could see, ascending.

    Raises
    ------
    PackagingError
        If there are none.
    """
    others = np.delete(design.subjectim, subject - 1, axis=0)
    own = np.setdiff1d(trials["nsd_id"].to_numpy(), np.union1d(others - 1, design.shared_images))
    if not len(own):
        raise PackagingError(
            f"{design.source} shows {subject_name(subject)} no image of its own. Choose images.pool = 'shared'."
        )
    return own


def split_images(
    nsd_ids: IntArray, *, train_fraction: float = TRAIN_FRACTION, seed: int = SPLIT_SEED
) -> dict[str, IntArray]:
    """Split images into train and test, each ascending, as Brain-Score's NSD benchmarks do.

    References
    ----------
    Seed, fraction and procedure: Brain-Score's published packaging of NSD (brainscore_vision, data/allen2022_fmri).
    """
    order = np.random.RandomState(seed).permutation(len(nsd_ids))  # noqa: NPY002, the published split
    n_train = int(train_fraction * len(nsd_ids))
    return {"train": nsd_ids[np.sort(order[:n_train])], "test": nsd_ids[np.sort(order[n_train:])]}


def _require_test_images(complete: IntArray, subject: int, source: str) -> IntArray:
    if not len(complete):
        raise PackagingError(
            f"{source}: {subject_name(subject)} saw no shared image {N_REPETITIONS} times, but the test split consists of "
            "those. Add more sessions."
        )
    return complete
