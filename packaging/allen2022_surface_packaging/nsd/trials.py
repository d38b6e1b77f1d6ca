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


def list_trials(design: Design, n_sessions: Mapping[int, int], n_trials_per_session: int) -> dict[int, pd.DataFrame]:
    """List the trials of subjects in the order in which they were run.

    Parameters
    ----------
    n_sessions : by subject

    Returns
    -------
    by subject a table with the columns
        ``session`` (1-based), ``trial`` (0-based within the session), ``nsd_id`` (0-based) and ``repetition``
        (0, 1, 2 ... over the sessions acquired).

    Raises
    ------
    PackagingError
        If the design has fewer subjects or trials.
    """
    last, most = max(n_sessions), max(n_sessions.values())
    if last > len(design.subjectim):
        raise PackagingError(
            f"{design.source} has {len(design.subjectim)} subjects, expected at least {last}. Choose other subjects."
        )
    if most * n_trials_per_session > design.n_trials:
        raise PackagingError(
            f"{design.source} orders {design.n_trials:,} trials, but {most} sessions of {n_trials_per_session} trials are there. "
            "Do design and betas belong together?"
        )
    tables = {}
    for subject, n in n_sessions.items():
        session, trial = np.divmod(np.arange(n * n_trials_per_session), n_trials_per_session)
        nsd_ids = design.subjectim[subject - 1, design.masterordering[: len(trial)] - 1] - 1
        table = pd.DataFrame({"session": session + 1, "trial": trial, "nsd_id": nsd_ids})
        tables[subject] = table.assign(repetition=table.groupby("nsd_id").cumcount())
    return tables


def count_repetitions(design: Design, trials: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Count how often every subject saw each shared image: rows are indexed by `nsd_id`, ascending; columns by subject."""
    counts = {
        subject: subject_trials["nsd_id"].value_counts().reindex(design.shared_images, fill_value=0)
        for subject, subject_trials in trials.items()
    }
    return pd.DataFrame(counts, dtype=np.int64).rename_axis("nsd_id")


def choose_images(
    recipe: Recipe, design: Design, trials: Mapping[int, pd.DataFrame], repetitions: pd.DataFrame
) -> dict[str, IntArray]:
    """Choose the images of a release by the pool and the split of its recipe.

    Parameters
    ----------
    trials : the trials of each subject of the recipe, from `list_trials`
    repetitions : of every shared image, from `count_repetitions`

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
    complete: IntArray = repetitions.index.to_numpy()[(repetitions >= N_REPETITIONS).all(axis=1)]
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
