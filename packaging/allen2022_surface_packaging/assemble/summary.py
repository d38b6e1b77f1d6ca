"""What a build made, in a few lines, and what to do with it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path

from ..facts import N_REPETITIONS, subject_names
from ..progress import format_bytes, format_seconds
from ..recipe import published_dataset
from ..release import SPLITS, Manifest

N_NAMED_REGIONS = 8
RELEASE_VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_DIR"  # the plugin's


def describe_build(manifests: Mapping[Path, Manifest], seconds: float) -> str:
    """Write for people what the releases of one build hold, how long it took, and which commands come next.

    Nothing is read: the releases are there already, so no error may follow.
    """
    n_releases = f"{len(manifests)} release{'s' * (len(manifests) > 1)}"
    blocks = [describe_release(path, manifest) for path, manifest in manifests.items()]
    return "\n\n".join([f"Built {n_releases} in {format_seconds(seconds)}.", *blocks, _describe_next(manifests)])


def describe_release(path: Path, manifest: Manifest) -> str:
    """Write for people what a release holds, in a few lines."""
    n_images = {split: manifest.shapes[split][0] // (N_REPETITIONS if split == "test" else 1) for split in SPLITS}
    n_neuroids = manifest.shapes["train"][1]
    names = [region.name for region in manifest.regions]
    more = f" and {len(names) - N_NAMED_REGIONS} more" if len(names) > N_NAMED_REGIONS else ""
    n_bytes = sum(file.size for file in manifest.files.values())
    rows = {
        "train": f"{n_images['train']:,} images x {n_neuroids:,} neuroids, averaged over repetitions",
        "test": f"{n_images['test']:,} images x {N_REPETITIONS} repetitions x {n_neuroids:,} neuroids",
        "regions": f"{', '.join(names[:N_NAMED_REGIONS])}{more} of {subject_names(manifest.recipe.subjects)}",
        "filled": _describe_filled(manifest),
    }
    if manifest.simulated:
        rows["note"] = "simulated data, not the responses of people"
    title = f"{manifest.name} in {path}: {format_bytes(n_bytes)}, {len(manifest.files) + 1:,} files"
    return "\n".join([title, *(f"    {key:8} {text}" for key, text in rows.items())])


def _describe_filled(manifest: Manifest) -> str:
    if manifest.recipe.nan_policy == "drop":
        n_planned = len(manifest.recipe.subjects) * sum(region.n_vertices for region in manifest.regions)
        n_dropped = n_planned - manifest.shapes["train"][1]
        return f"nothing; {n_dropped:,} of {n_planned:,} neuroids had an invalid trial and were left out"
    counts = {
        subject: sum(count.train + count.test for count in regions.values())
        for subject, regions in manifest.nan_counts.items()
    }
    n_filled, n_values = sum(counts.values()), sum(math.prod(shape) for shape in manifest.shapes.values())
    if not n_filled:
        return "nothing: every value was valid"
    most = max(counts, key=lambda subject: counts[subject])
    where = f"; {most} has most, {counts[most]:,}" if len(counts) > 1 else ""
    return f"{n_filled:,} values ({100 * n_filled / n_values:.2g} %) were invalid and are 0{where}"


def _describe_next(manifests: Mapping[Path, Manifest]) -> str:
    path, manifest = next(iter(manifests.items()))
    source = path.absolute() if len(manifests) == 1 else path.absolute().parent
    likewise = "" if len(manifests) == 1 else " (likewise for the other releases)"
    lines = [
        f"next{likewise}:",
        f"    allen2022-surface verify {shlex.quote(str(path))}",
        f"    allen2022-surface report {shlex.quote(str(path))}",
    ]
    if published_dataset(manifest.name):
        code = f"from brainscore_vision import load_dataset; print(load_dataset('{manifest.name}.test'))"
        lines += [
            "    allen2022-surface link",
            f"    export {RELEASE_VARIABLE}={shlex.quote(str(source))}",
        ]
    else:
        code = (
            "from brainscore_allen2022_surface.loaders import load_assembly; "
            f"print(load_assembly({manifest.name!r}, 'test', source={str(source)!r}))"
        )
    return "\n".join([*lines, f"    python -c {_quote(code)}"])


def _quote(code: str) -> str:
    """Quote code for a shell, in double quotes where that is possible, because the code has single ones."""
    return shlex.quote(code) if any(character in code for character in '"$`\\!') else f'"{code}"'
