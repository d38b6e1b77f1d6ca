"""The plan of a release: everything that is known before the first response is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..arrays import DoubleArray, IntArray
from ..facts import HEMISPHERES, subject_name
from ..recipe import Recipe
from .files import BetasShape
from .regions import RegionMap
from .storage import RawFile
from .tree import NSDTree


@dataclass(frozen=True, eq=False)
class Session:
    """One session of one subject.

    Attributes
    ----------
    number : 1-based
    betas : the betas files by hemisphere
    shape : the shape of each betas file
    trials, nsd_ids, repetitions : arrays of shape (n_pool_trials,)
        The trials (0-based, ascending) that showed an image of the pool, the `nsd_id` of the image, and which
        repetition of the image it was (0-based).
    """

    subject: int
    number: int
    betas: dict[str, RawFile]
    shape: BetasShape
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
    extracted_images : the image files that an earlier packaging extracted, by `nsd_id`; empty unless all are there
    image_format : "png" or "jpg", of the images in the release
    from_region_assemblies : whether the averages come from prepared region assemblies
    """

    tree: NSDTree
    recipe: Recipe
    region_map: RegionMap
    sessions: tuple[Session, ...]
    n_sessions: dict[int, int]
    n_trials_per_session: int
    fewest_repetitions: pd.Series[int]
    splits: dict[str, IntArray]
    ncsnr: dict[int, DoubleArray]
    extracted_images: dict[int, RawFile]
    image_format: str
    from_region_assemblies: bool

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

    @property
    def inputs(self) -> list[RawFile]:
        """Every raw file that the release is made from, without repeats, ordered by its path in NSD's bucket."""
        tree, recipe = self.tree, self.recipe
        files = [tree.design]
        files += [tree.stimulus_info] if tree.stimulus_info.exists() else []
        files += list(self.extracted_images.values()) or [tree.images]
        files += [tree.labels(atlas, hemisphere) for atlas in recipe.atlases for hemisphere in HEMISPHERES]
        files += [file for file in map(tree.label_names, recipe.atlases_with_names) if file.exists()]
        files += [tree.ncsnr(s, hemisphere, recipe.betas) for s in recipe.subjects for hemisphere in HEMISPHERES]
        files += [file for session in self.sessions for file in session.betas.values()]
        if self.from_region_assemblies:
            files += [tree.prepared_assembly(region.name) for region in recipe.regions]
        return sorted(files, key=lambda file: file.official_path)
