"""What a build made, in a few lines, and what to do with it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path

from ..facts import N_REPETITIONS, subject_names
from ..progress import format_bytes, format_program, format_seconds
from ..recipe import published_dataset
from ..release import Manifest

N_NAMED_REGIONS = 8
RELEASE_VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_DIR"  # the plugin's


def describe_build(manifests: Mapping[Path, Manifest], seconds: float) -> str:
    """Write for people what the releases of one build hold, and how long it took.

    Nothing is read: the releases are there already, so no error may follow.
    """
    title = f"Built {len(manifests)} release{'s' * (len(manifests) > 1)} in {format_seconds(seconds)}."
    return "\n\n".join([title, *(_describe(path, manifest) for path, manifest in manifests.items())])


def describe_next(manifests: Mapping[Path, Manifest]) -> str:
    """Write which commands come after a build."""
    program = format_program()
    path, manifest = next(iter(manifests.items()))
    source = path.absolute() if len(manifests) == 1 else path.absolute().parent
    is_published = published_dataset(manifest.name) is not None
    code = f"from brainscore_allen2022_surface.loaders import load_assembly; print(load_assembly('{manifest.name}', 'test'))"
    if is_published:
        code = f"from brainscore_vision import load_dataset; print(load_dataset('{manifest.name}.test'))"
    commands = [
        f"{program} verify {shlex.quote(str(path))}",
        f"{program} report {shlex.quote(str(path))}",
        *([f"{program} link"] if is_published else []),
        f"export {RELEASE_VARIABLE}={shlex.quote(str(source))}",
        f'{format_program("python")} -c "{code}"',
    ]
    following = "next" if len(manifests) == 1 else "next (likewise for the other releases)"
    return "\n    ".join([f"{following}:", *commands])


def _describe(path: Path, manifest: Manifest) -> str:
    """Write what a release holds."""
    (n_train, n_neuroids, _), (n_test, _, _) = manifest.shapes["train"], manifest.shapes["test"]
    names = [region.name for region in manifest.regions]
    more = f" and {len(names) - N_NAMED_REGIONS} more" if len(names) > N_NAMED_REGIONS else ""
    n_bytes = sum(file.size for file in manifest.files.values())
    lines = [
        f"{manifest.name} in {path}: {format_bytes(n_bytes)}, {len(manifest.files) + 1:,} files",
        f"train    {n_train:,} images x {n_neuroids:,} neuroids, averaged over repetitions",
        f"test     {n_test // N_REPETITIONS:,} images x {N_REPETITIONS} repetitions x {n_neuroids:,} neuroids",
        f"regions  {', '.join(names[:N_NAMED_REGIONS])}{more} of {subject_names(manifest.recipe.subjects)}",
        f"filled   {_describe_filled(manifest)}",
    ]
    if not manifest.recipe.keeps_all:
        n_planned = sum(sum(region.n_vertices.values()) for region in manifest.regions)
        n_dropped = n_planned - n_neuroids
        lines.append(f"dropped  {n_dropped:,} of {n_planned:,} neuroids, which had an invalid trial or were copies")
    if manifest.simulated:
        lines.append("note     simulated data, not the responses of people")
    return "\n    ".join(lines)


def _describe_filled(manifest: Manifest) -> str:
    counts = {name: sum(n.train + n.test for n in regions.values()) for name, regions in manifest.nan_counts.items()}
    n_filled, n_values = sum(counts.values()), sum(map(math.prod, manifest.shapes.values()))
    if not n_filled:
        return "nothing: every value was valid"
    most = max(counts, key=lambda subject: counts[subject])
    return f"{n_filled:,} values ({100 * n_filled / n_values:.2g} %) were invalid and are 0; {most} has most, {counts[most]:,}"
