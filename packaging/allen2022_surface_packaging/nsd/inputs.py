"""The raw files that a recipe needs: the one list that a check, a build and its manifest use."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from ..facts import HEMISPHERES, N_SESSIONS, NATIVE, NATIVE_ATLASES
from ..recipe import Recipe
from .storage import RawFile
from .tree import NSDTree

# The kinds of files, as people read them
DESIGN, ORIGINS, LABELS, LABEL_NAMES = "experiment design", "COCO ids", "labels", "names of labels"
IMAGES, EXTRACTED, NCSNR, BETAS = "images", "extracted images", "noise ceilings", "betas"
PREPARED, NATIVE_INDEX = "prepared assemblies", "maps to fsaverage"


@dataclass(frozen=True)
class InputFile:
    """A raw file that a recipe needs.

    Attributes
    ----------
    kind : one of the kinds above
    name : of the atlas of labels and their names; of the region of a prepared assembly
    subject, session : whose the file is, or 0 if it is the same for all; of betas, 1-based
    is_optional : whether a release can be built without it
    """

    file: RawFile
    kind: str
    name: str = ""
    subject: int = 0
    session: int = 0
    hemisphere: str = ""
    is_optional: bool = False


def list_inputs(
    tree: NSDTree, recipe: Recipe, *, is_reduced: bool = False, from_region_assemblies: bool = False
) -> list[InputFile]:
    """List the files that a recipe needs, whether they are there or not.

    Parameters
    ----------
    is_reduced : whether the tree may end with any session, and not with NSD's last one
    from_region_assemblies : whether the averages come from prepared region assemblies
    """
    inputs = [
        InputFile(tree.design, DESIGN),
        InputFile(tree.stimulus_info, ORIGINS, is_optional=True),
        InputFile(tree.images, IMAGES),
        *(InputFile(file, EXTRACTED, is_optional=True) for file in tree.extracted_images().values()),
    ]
    for atlas in recipe.atlases:
        owners = recipe.subjects if atlas in NATIVE_ATLASES else (0,)
        for subject, h in itertools.product(owners, HEMISPHERES):
            inputs.append(InputFile(tree.labels(atlas, h, subject), LABELS, atlas, subject, hemisphere=h))
        if any(region.needs_names for region in recipe.regions if region.atlas == atlas):
            inputs += [InputFile(tree.label_names(atlas, s), LABEL_NAMES, atlas, s) for s in owners]
    for subject, hemisphere in itertools.product(recipe.subjects, HEMISPHERES):
        if recipe.files == NATIVE or {*recipe.atlases} & {*NATIVE_ATLASES}:
            index = tree.native_index(subject, hemisphere)
            inputs.append(InputFile(index, NATIVE_INDEX, subject=subject, hemisphere=hemisphere))
        ncsnr = tree.ncsnr(subject, hemisphere, recipe.betas)
        inputs.append(InputFile(ncsnr, NCSNR, subject=subject, hemisphere=hemisphere))
    for subject in recipe.subjects:
        n_sessions = N_SESSIONS[subject]
        if is_reduced:
            n_sessions = max(tree.sessions_present(subject, recipe.betas, recipe.files), default=1)
        for session, hemisphere in itertools.product(range(1, n_sessions + 1), HEMISPHERES):
            betas = tree.betas(subject, hemisphere, session, recipe.betas, recipe.files)
            inputs.append(InputFile(betas, BETAS, subject=subject, session=session, hemisphere=hemisphere))
    if from_region_assemblies:
        inputs += [InputFile(tree.prepared_assembly(r.name), PREPARED, r.name) for r in recipe.regions]
    return inputs
