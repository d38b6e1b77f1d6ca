"""Which image was shown in which trial, which images are complete, and how they are split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..arrays import IntArray
from ..errors import PackagingError
from ..facts import N_REPETITIONS, subject_name
from ..recipe import Recipe
from .files import Design


def list_trials(design: Design, subject: int, *, n_sessions: int, n_trials_per_session: int) -> pd.DataFrame:
    """List a subject's trials in the order in which they were run.

    Returns
    -------
    table with the columns
        ``session`` (1-based), ``trial`` (0-based within the session), ``nsd_id`` (0-based) and ``repetition``
        (0, 1, 2 ... over the sessions acquired).

    Raises
    ------
    PackagingError
        If the design has fewer subjects or trials.
    """
    n_trials = n_sessions * n_trials_per_session
    if subject > len(design.subjectim):
        raise PackagingError(
            f"{design.source} has {len(design.subjectim)} subjects, expected at least {subject}. Choose other subjects."
        )
    if n_trials > design.n_trials:
        raise PackagingError(
            f"{design.source} orders {design.n_trials:,} trials, but {n_sessions} sessions of {n_trials_per_session} trials are "
            "there. Do design and betas belong together?"
        )
    trial = np.arange(n_trials)
    nsd_ids = design.subjectim[subject - 1, design.masterordering[trial] - 1] - 1
    trials = pd.DataFrame(
        {"session": trial // n_trials_per_session + 1, "trial": trial % n_trials_per_session, "nsd_id": nsd_ids}
    )
    trials["repetition"] = trials.groupby("nsd_id").cumcount()
    return trials


def count_repetitions(design: Design, trials: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Count how often every subject saw each shared image: rows are indexed by `nsd_id`, ascending; columns by subject."""
    counts = {
        subject: subject_trials["nsd_id"].value_counts().reindex(design.shared_images, fill_value=0)
        for subject, subject_trials in trials.items()
    }
    return pd.DataFrame(counts, dtype=np.int64).rename_axis("nsd_id")


def choose_images(
    recipe: Recipe, design: Design, trials: Mapping[int, pd.DataFrame], fewest_repetitions: pd.Series[int]
) -> dict[str, IntArray]:
    """Choose the images of a release by the pool and the split of its recipe.

    Parameters
    ----------
    trials : the trials of each subject of the recipe, from `list_trials`
    fewest_repetitions : for every shared image the fewest repetitions over the subjects, indexed by `nsd_id`, ascending

    Returns
    -------
    the `nsd_id` of the train and of the test images, each ascending

    Raises
    ------
    PackagingError
        If one of them is empty.

    References
    ----------
    Seed, fraction and procedure: Brain-Score's published packaging of NSD (brainscore_vision, data/allen2022_fmri).
    """
    complete: IntArray = fewest_repetitions.index.to_numpy()[fewest_repetitions.to_numpy() >= N_REPETITIONS]
    if len(complete) < 2:
        raise PackagingError(
            f"{design.source}: {len(complete) or 'no'} image was seen {N_REPETITIONS} times by every subject chosen, but a "
            "release needs at least 2. Choose fewer subjects, or add more sessions."
        )
    if recipe.pool == "own":
        (subject,) = recipe.subjects
        others = np.delete(design.subjectim, subject - 1, axis=0) - 1
        own = np.setdiff1d(trials[subject]["nsd_id"].to_numpy(), np.union1d(others, design.shared_images))
        if not len(own):
            raise PackagingError(
                f"{design.source} shows {subject_name(subject)} no image of its own. Choose images.pool = 'shared'."
            )
        return {"train": own, "test": complete}
    order = np.random.RandomState(recipe.split_seed).permutation(len(complete))  # noqa: NPY002, the published split
    n_train = int(recipe.train_fraction * len(complete))
    if not 0 < n_train < len(complete):
        raise PackagingError(
            f"{recipe}: split.fraction is {recipe.train_fraction}, which leaves {n_train} train images of {len(complete)}. "
            "Choose another fraction."
        )
    return {"train": complete[np.sort(order[:n_train])], "test": complete[np.sort(order[n_train:])]}
