"""What the raw files say about the manifest of a release: its extent, whether it is simulated, and its inputs.

As `expectation`, this module uses no code of the builder.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..nsd.storage import RawFile
from ..nsd.tree import NSDTree
from ..release import Manifest
from .expectation import HEMISPHERES, RAW_FILES_GIVE, Expectation
from .raw import Design, read_extent
from .values import list_sessions

# Of NSD (NSD Data Manual): a tree with its design must have all of them, and others are not used.
N_TRIALS_OF_NSD = 30_000
N_SESSIONS_OF_NSD = (40, 40, 32, 30, 40, 32, 40, 30)


def find_extent_problems(tree: NSDTree, manifest: Manifest, design: Design) -> Iterator[str]:
    """Compare the numbers of vertices, trials and sessions with those of the raw files, and the mark of a simulated tree.

    Nothing else can be recomputed if one of the numbers is wrong.
    """
    if manifest.simulated != tree.simulation_mark.exists():
        marked = "lacks" if manifest.simulated else "has"
        yield f"The manifest has simulated = {manifest.simulated}, but {tree} {marked} the mark of a simulated tree."
    for subject in manifest.recipe.subjects:
        name = f"subj{subject:02d}"
        n_sessions = max(tree.sessions_present(subject, manifest.recipe.betas), default=0)
        if design.masterordering.size == N_TRIALS_OF_NSD:
            n_sessions = N_SESSIONS_OF_NSD[subject - 1]
        if manifest.sessions[name] != n_sessions:
            yield f"The manifest has {manifest.sessions[name]} sessions of {name}, {RAW_FILES_GIVE} {n_sessions}."
        n_vertices, _ = read_extent(tree.ncsnr(subject, HEMISPHERES[0], manifest.recipe.betas))
        if manifest.n_vertices != n_vertices:
            yield f"The manifest has {manifest.n_vertices:,} vertices, {RAW_FILES_GIVE} {n_vertices:,} of {name}."
        _, n_trials = read_extent(tree.betas(subject, HEMISPHERES[0], 1, manifest.recipe.betas))
        if manifest.n_trials_per_session != n_trials:
            yield (
                f"The manifest has {manifest.n_trials_per_session} trials in a session, {RAW_FILES_GIVE} {n_trials} of {name}."
            )
        if subject > len(design.subjectim):
            yield f"The recipe has {name}, but {tree.design} has {len(design.subjectim)} subjects."
        if n_sessions * n_trials > design.masterordering.size:
            yield f"{tree.design} orders {design.masterordering.size:,} trials, but {name} has more."


def find_input_problems(expected: Expectation) -> Iterator[str]:
    """Compare the inputs that the manifest lists, and their sizes, with the files from which the release is made."""
    files = {file.official_path: file for file in _list_inputs(expected)}
    listed = expected.manifest.inputs
    for path in sorted(files.keys() - listed.keys()):
        yield f"The manifest lacks the input {path}, but the release is made from {files[path]}."
    for path in sorted(listed.keys() - files.keys()):
        yield f"The manifest has the input {path}, but the release is not made from it."
    for path in sorted(listed.keys() & files.keys()):
        size = files[path].size() if files[path].exists() else None
        if size != listed[path]:
            found = "it is missing" if size is None else f"{files[path]} has {size:,}"
            yield f"The manifest says that the input {path} has {listed[path]:,} bytes, but {found}."


def _list_inputs(expected: Expectation) -> Iterator[RawFile]:
    tree, manifest = expected.tree, expected.manifest
    recipe = manifest.recipe
    yield tree.design
    if tree.stimulus_info.exists():
        yield tree.stimulus_info
    for atlas in {region.atlas for region in recipe.regions} - {"cortex"}:
        yield from (tree.labels(atlas, hemisphere) for hemisphere in HEMISPHERES)
    for region in recipe.regions:
        if (region.each or any(isinstance(label, str) for label in region.labels)) and tree.label_names(
            region.atlas
        ).exists():
            yield tree.label_names(region.atlas)
    for subject in recipe.subjects:
        for hemisphere in HEMISPHERES:
            yield tree.ncsnr(subject, hemisphere, recipe.betas)
            for session in list_sessions(expected, f"subj{subject:02d}"):
                yield tree.betas(subject, hemisphere, session, recipe.betas)
    if manifest.from_region_assemblies:
        yield from (tree.prepared_assembly(region.name) for region in recipe.regions)
    # The builder was asked to copy the extracted images of one format, or to read the others. The release says which.
    copied = [file for file in tree.extracted_images().values() if file.official_path in manifest.inputs]
    yield from copied or [tree.images]
