"""The plan of a release: everything that is known before the first response is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..arrays import DoubleArray, IntArray
from ..facts import subject_name
from ..recipe import Recipe
from .files import BetasShape, ImageOrigin
from .regions import RegionMap
from .storage import RawFile


@dataclass(frozen=True, eq=False)
class Session:
    """One session of one subject.

    Attributes
    ----------
    number : 1-based
    betas : the betas files by hemisphere
    shape : how many vertices of fsaverage a hemisphere has, and how many trials a betas file
    native_index : by hemisphere the vertex of the subject's own surface that each vertex of fsaverage copies, 0-based; empty
        if the betas are those on fsaverage
    trials, nsd_ids, repetitions : arrays of shape (n_pool_trials,)
        The trials (0-based, ascending) that showed an image of the pool, the `nsd_id` of the image, and which
        repetition of the image it was (0-based).
    """

    subject: int
    number: int
    betas: dict[str, RawFile]
    shape: BetasShape
    native_index: dict[str, IntArray]
    trials: IntArray
    nsd_ids: IntArray
    repetitions: IntArray

    def __str__(self) -> str:
        return f"{subject_name(self.subject)} session {self.number:02d}"


@dataclass(frozen=True, eq=False)
class Plan:
    """A release as far as it is known before the first response is read. No later step looks anything up again.

    Attributes
    ----------
    sessions : the sessions with at least one trial that the release needs, by subject and number
    n_sessions : how many sessions each subject has
    fewest_repetitions : for every shared image the fewest repetitions over the subjects, indexed by `nsd_id`
    splits : `nsd_id` of the train and of the test images, ascending
    ncsnr : per subject, for the vertices of lh and then rh that belong to a region; unitless
    origins : where each image comes from, by `nsd_id`; empty unless all are known
    image_brick : the file with NSD's own images
    extracted_images : the image files that an earlier packaging extracted, by `nsd_id`; empty unless all are there
    image_bytes : of all images of the release: of the extracted files, or else of their pixels
    image_format : "png" or "jpg", of the images in the release
    prepared_assemblies : the files that hold the averages, by region; empty if they are computed from the betas
    inputs : every raw file that the release is made from, without repeats, ordered by its path in NSD's bucket
    is_simulated : whether the tree is simulated
    """

    recipe: Recipe
    region_map: RegionMap
    sessions: tuple[Session, ...]
    n_sessions: dict[int, int]
    n_trials_per_session: int
    fewest_repetitions: pd.Series[int]
    splits: dict[str, IntArray]
    ncsnr: dict[int, DoubleArray]
    origins: dict[int, ImageOrigin]
    image_brick: RawFile
    extracted_images: dict[int, RawFile]
    image_bytes: int
    image_format: str
    prepared_assemblies: dict[str, RawFile]
    inputs: tuple[RawFile, ...]
    is_simulated: bool

    @property
    def from_region_assemblies(self) -> bool:
        """Whether the averages come from prepared region assemblies."""
        return bool(self.prepared_assemblies)

    @property
    def images(self) -> IntArray:
        """The `nsd_id` of all images of the release, ascending."""
        return np.sort(np.concatenate(list(self.splits.values())))

    @property
    def averaged_images(self) -> IntArray:
        """The images whose repetitions are averaged, ascending: those of train and of the statistics."""
        return self.images if self.recipe.standardize_on == "all" else self.splits["train"]

    @property
    def single_trial_images(self) -> IntArray:
        """The images whose single trials are needed, ascending; with prepared averages, those are the test images."""
        return self.splits["test"] if self.from_region_assemblies else self.images
