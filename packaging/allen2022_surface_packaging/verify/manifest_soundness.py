"""Whether a manifest is as `build` writes it, and whether its inputs can be those of its recipe."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..facts import HEMISPHERES, subject_name
from ..files import read_file
from ..nsd.storage import Folder
from ..nsd.tree import EXTRACTED_FOLDERS, OFFICIAL, NSDTree
from ..release import VERSIONED, FilledCounts, Manifest, ReleaseFolder
from .tables import read_split_table, read_table

MGH_HEADER_BYTES = 284
VALUE_BYTES = 4
OFFICIAL_TREE = NSDTree(
    Folder(Path()), OFFICIAL
)  # only for the paths of its files, by which a manifest lists its inputs
EXTRACTED_NAME = re.compile(r"(?:stimulus_)?nsd_([0-9]{5})\.(png|jpg)")
NEEDLESS_KEYS = ("simulated",)  # a manifest of an earlier version lacks it, and counts as one of measurements


def find_manifest_problems(folder: ReleaseFolder, manifest: Manifest) -> Iterator[str]:
    """Find keys of a manifest that no reader knows or that are missing, and inputs that contradict the recipe.

    Raises
    ------
    PackagingError
        If a table of the release cannot be read.
    """
    name = folder.manifest_path.name
    repeated: list[str] = []

    def note_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
        keys = [key for key, _ in pairs]
        repeated.extend(key for key in dict.fromkeys(keys) if keys.count(key) > 1)
        return dict(pairs)

    content = json.loads(read_file(folder.manifest_path), object_pairs_hook=note_repeats)
    for key in repeated:
        yield f"{name} has the key {key} more than once."
    for key, problem in _compare_keys(content, json.loads(json.dumps(manifest.to_json()))):
        yield f"{name} {problem} the key {key}."
    expected_packages = {"brainscore_allen2022_surface", *VERSIONED}
    if set(manifest.versions) != expected_packages or not all(manifest.versions.values()):
        yield f"{name} has versions of {sorted(manifest.versions)}, expected one of each of {sorted(expected_packages)}."
    counts = [count for by_region in manifest.nan_counts.values() for count in by_region.values()]
    if manifest.recipe.nan_policy == "drop" and any(count != FilledCounts(0, 0, 0) for count in counts):
        yield f"{name} counts filled values, but its recipe drops every neuroid with a value to fill."
    for problem in _find_input_problems(folder, manifest):
        yield f"{name}: {problem}"


def _compare_keys(found: object, expected: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every key that only one of two JSON documents has, and what to say about it."""
    if isinstance(found, list) and isinstance(expected, list):
        for number, (item, expected_item) in enumerate(zip(found, expected, strict=False)):
            yield from _compare_keys(item, expected_item, f"{prefix}[{number}]")
    if not isinstance(found, dict) or not isinstance(expected, dict):
        return
    for key in found.keys() | expected.keys():
        path = f"{prefix}.{key}" if prefix else key
        if key not in expected:
            yield path, "has an unknown value under"
        elif key not in found and path not in NEEDLESS_KEYS:
            yield path, "lacks"
        elif key in found:
            yield from _compare_keys(found[key], expected[key], path)


def _find_input_problems(folder: ReleaseFolder, manifest: Manifest) -> Iterator[str]:
    """Compare the inputs with what the recipe reads. Only the tree tells their sizes, but betas cannot be too short."""
    images = read_split_table(folder.split_path)
    has_coco_ids = any("coco_id" in read_table(folder.stimulus_table_path(split)) for split in ("train", "test"))
    inputs, recipe = dict(manifest.inputs), manifest.recipe
    required = [OFFICIAL_TREE.design.official_path]
    required += [OFFICIAL_TREE.labels(atlas, h).official_path for atlas in recipe.atlases for h in HEMISPHERES]
    if has_coco_ids:
        required.append(OFFICIAL_TREE.stimulus_info.official_path)
    if manifest.from_region_assemblies:
        required += [OFFICIAL_TREE.prepared_assembly(region.name).official_path for region in recipe.regions]
    for path in required:
        if path not in inputs:
            yield f"inputs lack {path}, which the recipe needs."
    for path in (*required, OFFICIAL_TREE.stimulus_info.official_path):
        if inputs.pop(path, None) == 0:
            yield f"the size of the input {path} is 0."
    for atlas in recipe.atlases:  # an empty table of names is as good as none
        inputs.pop(OFFICIAL_TREE.label_names(atlas).official_path, None)
    yield from _find_image_input_problems(inputs, images["nsd_id"].tolist())
    yield from _find_surface_problems(inputs, manifest)
    for path in inputs:
        yield f"inputs hold {path}, which the recipe does not need."


def _find_image_input_problems(inputs: dict[str, int], nsd_ids: list[int]) -> Iterator[str]:
    """Check that there is either imgBrick or an extracted image for each of the images. Both are taken out of `inputs`."""
    extracted = list_extracted_images(inputs)
    for path in extracted.values():
        del inputs[path]
    has_all = inputs.pop(OFFICIAL.images[0], 0) > 0
    if has_all == bool(extracted) or (extracted and sorted(extracted) != sorted(nsd_ids)):
        yield (
            f"inputs hold {len(extracted)} extracted images and {'' if has_all else 'no '}{OFFICIAL.images[0]}, expected "
            "either that file or every image of the release."
        )


def list_extracted_images(inputs: dict[str, int]) -> dict[int, str]:
    """Return the inputs that an earlier packaging extracted, by their `nsd_id`."""
    images = {}
    for path in inputs:
        matched = EXTRACTED_NAME.fullmatch(PurePosixPath(path).name)
        if matched and str(PurePosixPath(path).parent) in EXTRACTED_FOLDERS:
            images[int(matched[1])] = path
    return images


def _find_surface_problems(inputs: dict[str, int], manifest: Manifest) -> Iterator[str]:
    """Check betas and ncsnr of every subject, and take them out of `inputs`."""
    recipe = manifest.recipe
    n_map_bytes = VALUE_BYTES * manifest.n_vertices
    for subject in recipe.subjects:
        name = subject_name(subject)
        for hemisphere in HEMISPHERES:
            path = OFFICIAL_TREE.ncsnr(subject, hemisphere, recipe.betas).official_path
            if inputs.pop(path, 0) < MGH_HEADER_BYTES + n_map_bytes:
                yield f"inputs lack {path}, or it is too small for {manifest.n_vertices:,} vertices."
        sessions: dict[str, list[int]] = {hemisphere: [] for hemisphere in HEMISPHERES}
        for session in range(1, manifest.sessions[name] + 1):
            for hemisphere in HEMISPHERES:
                path = OFFICIAL_TREE.betas(subject, hemisphere, session, recipe.betas).official_path
                if path not in inputs:
                    continue
                sessions[hemisphere].append(session)
                if inputs.pop(path) < MGH_HEADER_BYTES + n_map_bytes * manifest.n_trials_per_session:
                    yield (
                        f"the input {path} is too small for {manifest.n_trials_per_session} trials of "
                        f"{manifest.n_vertices:,} vertices."
                    )
        if sessions["lh"] != sessions["rh"] or not sessions["lh"]:
            yield f"inputs hold lh betas of the sessions {sessions['lh']} of {name}, but rh betas of {sessions['rh']}."
