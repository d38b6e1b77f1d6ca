"""Sound data of every kind, small enough that a case takes a fraction of a second."""

import csv
import hashlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.files import sha1_of
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.publish.website import pack_release, record_versions
from allen2022_surface_packaging.recipe import PUBLISHED_REGIONS, read_recipe
from brainscore_allen2022_surface.loaders import load_assembly
from reference import prepare_regions
from support import recipe_lines

SUBJECTS = (1, 2)
LOADED = (("train", None), ("test", None), ("test", "V1"))  # split and region
NAMED_REGIONS = """
[[region]]
name = "early"
atlas = "streams"
labels = ["early", "midventral"]

[[region]]
atlas = "Kastner2015"
each = true

[[region]]
name = "general"
atlas = "nsdgeneral"
labels = [1]

[[region]]
name = "cortex"
atlas = "cortex"
"""
RECIPES = {
    "plain": recipe_lines("fuzz", SUBJECTS, PUBLISHED_REGIONS),
    "named": f'name = "named"\nsubjects = [2]\n{NAMED_REGIONS}\n[invalid]\npolicy = "drop"\n',
    "own": recipe_lines("own", [1], PUBLISHED_REGIONS) + '\n[images]\npool = "own"\n\n[standardise]\nover = "train"\n',
}


@dataclass(frozen=True)
class Samples:
    """The folder of the sound data, and the paths in it. A case has a copy of it, with the same paths.

    Attributes
    ----------
    fingerprints : of what the loaders give, by split and region
    """

    root: Path
    fingerprints: dict[tuple[str, str | None], str] = field(default_factory=dict)

    @property
    def tree(self) -> Path:
        return self.root / "nsd"

    @property
    def release(self) -> Path:
        return self.root / "release"

    @property
    def objects(self) -> Path:
        """The objects of the release, as S3 would hold them."""
        return self.root / "objects"

    @property
    def version_ids(self) -> Path:
        return self.objects / "version_ids.csv"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts.json"

    @property
    def downloads(self) -> Path:
        """The cache of the loaders."""
        return self.root / "brainio"

    @property
    def sessions(self) -> Path:
        """The cache of the build."""
        return self.root / "sessions"

    def recipe(self, name: str) -> Path:
        return self.root / f"{name}.toml"

    def copy(self, root: Path, *parts: Path) -> "Samples":
        """Copy some of the data."""
        for part in (*parts, *map(self.recipe, RECIPES)):
            target = root / part.relative_to(self.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            if part.is_dir():
                shutil.copytree(part, target)
            else:
                shutil.copy2(part, target)
        return Samples(root, self.fingerprints)


def make_samples(root: Path) -> Samples:
    """Write the sound data into a new folder."""
    samples = Samples(root)
    simulate_tree(samples.tree, TreeSize(SUBJECTS, 2, 30, n_vertices=120, image_size=32, betas=(DEFAULT_BETAS,)))
    (samples.tree / "SIMULATED.txt").unlink()  # the release stands for measurements, or it would not be published
    prepare_regions(samples.tree, SUBJECTS)
    for name, text in RECIPES.items():
        samples.recipe(name).write_text(text)
    recipe = read_recipe(str(samples.recipe("plain")))
    build_release(samples.tree, samples.release, recipe)
    pack_release(samples.release, samples.objects)
    _fill_version_ids(samples.version_ids)
    record_versions(samples.release, samples.version_ids, artifacts_path=samples.artifacts, tell=lambda line: None)
    for path in samples.objects.glob("*_*.*"):
        target = samples.downloads / sha1_of(path) / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    samples.fingerprints.update({key: fingerprint(*key, samples.release) for key in LOADED})
    return samples


def fingerprint(split: str, region: str | None, source: Path) -> str:
    """Load an assembly, and return a hash of its values, coordinates, stimulus set and images."""
    assembly = load_assembly("fuzz", split, region, source=source)
    digest = hashlib.sha1(f"{assembly.dtype} {assembly.shape}".encode())
    digest.update(assembly.values.tobytes())
    for dimension in assembly.dims:
        index = assembly.indexes[dimension]
        for level in sorted(index.names):
            digest.update(f"{level} {index.get_level_values(level).tolist()}".encode(errors="surrogatepass"))
    stimulus_set = assembly.attrs["stimulus_set"]
    digest.update(f"{list(stimulus_set)} {stimulus_set.to_numpy().tolist()}".encode(errors="surrogatepass"))
    for stimulus_id in stimulus_set["stimulus_id"]:
        digest.update(_pixels(Path(stimulus_set.get_stimulus(stimulus_id))))
    return digest.hexdigest()


def _fill_version_ids(path: Path) -> None:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | {"bucket": "brain", "version_id": f"version{i}"} for i, row in enumerate(rows))


def _pixels(path: Path) -> bytes:
    try:
        with Image.open(path) as image:
            return np.asarray(image).tobytes()
    except (OSError, SyntaxError):  # a loader does not open the images
        return path.read_bytes()
