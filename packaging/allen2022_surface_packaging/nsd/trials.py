"""Which image was shown in which trial, which images are complete, and how they are split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..arrays import IntArray
from ..errors import PackagingError
from .facts import N_REPETITIONS
from .files import Design

TRAIN_FRACTION = 0.8
SPLIT_SEED = 42


def list_shared_trials(design: Design, subject: int, *, n_sessions: int, n_trials_per_session: int) -> pd.DataFrame:
    """List a subject's trials that showed a shared image, in the order in which they were run.

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
    trials = trials[trials["nsd_id"].isin(design.shared_images)].reset_index(drop=True)
    trials["repetition"] = trials.groupby("nsd_id").cumcount()
    return trials


def count_repetitions(design: Design, trials: pd.DataFrame) -> pd.Series[int]:
    """Count how often each shared image was shown in some trials, indexed by `nsd_id`, ascending."""
    counts = trials["nsd_id"].value_counts().reindex(design.shared_images, fill_value=0)
    return counts.astype(np.int64).rename_axis("nsd_id")


def fewest_repetitions(design: Design, trials: Mapping[int, pd.DataFrame]) -> pd.Series[int]:
    """Return for every shared image the fewest repetitions over the subjects, indexed by `nsd_id`, ascending."""
    counts = [count_repetitions(design, subject_trials) for subject_trials in trials.values()]
    return pd.concat(counts, axis=1).min(axis=1)


def complete_images(fewest: pd.Series[int]) -> IntArray:
    """Return the `nsd_id` of the images that every subject saw at least three times, ascending.

    Raises
    ------
    PackagingError
        If there are fewer than two, so that no split is possible.
    """
    complete: IntArray = fewest.index.to_numpy()[fewest.to_numpy() >= N_REPETITIONS]
    if len(complete) < 2:
        raise PackagingError(
            f"{len(complete) or 'No'} image was seen {N_REPETITIONS} times by every subject chosen, but a train/test "
            "split needs at least 2. Choose fewer subjects, or add more sessions."
        )
    return complete


def split_images(nsd_ids: IntArray) -> dict[str, IntArray]:
    """Split images into train and test, each ascending, as Brain-Score's NSD benchmarks do.

    References
    ----------
    Seed, fraction and procedure: Brain-Score's published packaging of NSD (brainscore_vision, data/allen2022_fmri).
    """
    order = np.random.RandomState(SPLIT_SEED).permutation(len(nsd_ids))  # noqa: NPY002, the published split
    n_train = int(TRAIN_FRACTION * len(nsd_ids))
    return {"train": nsd_ids[np.sort(order[:n_train])], "test": nsd_ids[np.sort(order[n_train:])]}
