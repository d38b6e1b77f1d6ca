"""Cases: which file is damaged how, which commands run on it, and which outcomes are allowed."""

import os
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import xarray
from PIL import Image

from allen2022_surface_packaging.release import Manifest, ReleaseFolder
from brainscore_allen2022_surface import cache as plugin_cache
from brainscore_allen2022_surface import downloading
from support import accept, run_cli

from . import damages
from .samples import LOADED, RECIPES, Samples, fingerprint

UNCHECKED = {"versions"}  # nothing but the manifest knows them
BETAS = "nsd/nsddata_betas/ppdata/*/fsaverage/*"
LABELS = "nsd/nsddata/freesurfer/fsaverage/label"
EXPERIMENT = "nsd/nsddata/experiments/nsd"


@dataclass(frozen=True)
class Target:
    """Files of one type: a pattern of their paths, and the damages that know the format, beside those of any file."""

    pattern: str
    known: tuple[damages.Damage, ...] = ()


TARGETS = {
    "raw": (
        Target(f"{BETAS}/?h.betas_*.mgh", damages.BETAS),
        Target(f"{BETAS}/?h.ncsnr.mgh", damages.BETAS),
        Target(f"{LABELS}/?h.*.mgz", damages.LABELS),
        Target(f"{LABELS}/*.ctab", damages.LINES),
        Target(f"{EXPERIMENT}/nsd_expdesign.mat", damages.DESIGN),
        Target(f"{EXPERIMENT}/nsd_stim_info_merged.csv", damages.TABLES),
        Target("nsd/nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", damages.HDF5),
        Target("nsd/assemblies/*.nc", damages.HDF5),
    ),
    "release": (
        Target("release/release.json", damages.JSON),
        Target("release/release.json", damages.JSON),
        Target("release/*.nc", damages.HDF5),
        Target("release/*.csv", damages.TABLES),
        Target("release/stimuli_*/*.png"),
    ),
    "artifacts": (Target("artifacts.json", damages.JSON), Target("objects/version_ids.csv", damages.TABLES)),
    "cache": (Target("brainio/**/*.*"), Target("sessions/*.npy")),
    "recipe": tuple(Target(f"{name}.toml", damages.LINES) for name in RECIPES),
}


CYCLE = ("raw", "release", "artifacts", "raw", "release", "cache", "raw", "release", "recipe")


def kind_of(number: int) -> str:
    """Return the kind of a case."""
    return CYCLE[number % len(CYCLE)]


@dataclass
class Case:
    """One damaged file.

    Attributes
    ----------
    copy : of the sound data, damaged
    damaged : the file
    complaints : outcomes that are not allowed
    outcomes : how often a command was refused, by what its message names, and how often it gave a sound result
    """

    kind: str
    sound: Samples
    copy: Samples
    rng: Random
    damaged: Path
    title: str = ""
    complaints: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)

    def judge(self) -> None:
        """Run the commands of the kind."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            JUDGES[self.kind](self)
        self.require_only(self.copy.root / "tmp")

    def run(self, *arguments: object, also_named: str = "") -> bool:
        """Run a command, and return whether it ended with status 0. If not, it must say why in one line."""
        result = run_cli(*arguments)
        command = " ".join(str(argument).removeprefix(f"{self.copy.root}/") for argument in arguments)
        for line in result.stdout.split("\n") if arguments[1] != "show" else ():  # which prints the file as it is
            self.require(line.isprintable(), f"{command}: a line of the output cannot be printed: {line!r}")
        if result.returncode == 0:
            return True
        lines = [line for line in result.stderr.split("\n") if line.startswith("allen2022-surface: ")]
        if result.returncode != 1 or len(lines) != 1 or not result.stderr.endswith(f"{lines[0]}\n"):
            self.complain(f"{command}: status {result.returncode}, {result.stderr[-300:]!r}")
        else:
            self.judge_message(command, lines[0], also_named)
        return False

    def load(self, split: str, region: str | None, source: Path, also_named: str = "") -> str | None:
        """Load an assembly, and return its fingerprint; None if it was refused in one line."""
        try:
            return fingerprint(split, region, source)
        except (ValueError, FileNotFoundError, ConnectionError) as error:
            self.judge_message(f"load {split} {region or ''}", str(error), also_named)
            return None

    def judge_message(self, title: str, message: str, also_named: str = "") -> None:
        """Complain about a message that is not one line, or names neither the damaged file nor its folder."""
        self.require(message.isprintable(), f"{title}: the message cannot be printed: {message!r}")
        if self.damaged.name in message:
            self.outcomes["refused, the file is named"] += 1
        elif str(self.copy.root) in message or (also_named and also_named in message):
            self.outcomes["refused, its folder is named"] += 1
        else:
            self.complain(f"{title}: the message names neither the file nor its folder: {message}")

    def require(self, condition: object, complaint: str) -> None:
        if not condition:
            self.complain(complaint)

    def complain(self, complaint: str) -> None:
        self.complaints.append(complaint.replace(str(self.copy.root), "CASE"))

    def require_only(self, folder: Path, *names: str) -> None:
        """Complain if a folder holds anything else than some names."""
        left = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        self.require(set(left) <= set(names), f"left behind in {folder.name}: {left}")


def run_case(sound: Samples, root: Path, seed: int, number: int, announce: Callable[[str], object]) -> Case:
    """Damage one file in a copy of the sound data, run commands on it, and judge the outcomes.

    `announce` is called with the title of the case before anything is damaged.
    """
    rng = Random(f"{seed}/{number}")
    target = rng.choice(TARGETS[kind_of(number)])
    case = _prepare_case(sound, root, kind_of(number), target, rng)
    groups = [
        group for group in (damages.BYTES, target.known, target.known, damages.FILES[: rng.choice([3, 8])]) if group
    ]
    damage = rng.choice(rng.choice(groups))
    case.title = f"{damage.__name__} of {case.damaged.relative_to(root)}"
    announce(case.title)
    damage(case.damaged, rng)
    case.judge()
    return case


def run_sound_cases(sound: Samples, root: Path) -> None:
    """Run the commands on sound data: no outcome may be a complaint, and later cases need not import their modules."""
    for kind, targets in TARGETS.items():
        for number, target in enumerate((targets[0], targets[-1])):
            case = _prepare_case(sound, root / f"{kind}{number}", kind, target, Random(number))
            case.judge()
            if case.complaints or not any(name.startswith("equal") for name in +case.outcomes):
                raise AssertionError(f"sound data is not taken as sound, {target}: {case.complaints}, {case.outcomes}")
            shutil.rmtree(case.copy.root)


def _prepare_case(sound: Samples, root: Path, kind: str, target: Target, rng: Random) -> Case:
    """Copy the sound data that a kind needs, and choose a file."""
    copy = sound.copy(root, *PARTS[kind](sound))
    _isolate(copy)
    if kind == "cache":
        _fill_caches(copy)
    path = rng.choice(sorted(path for path in root.glob(target.pattern) if path.is_file()))
    return Case(kind, sound, copy, rng, path)


def _fill_caches(copy: Samples) -> None:
    """Fill both caches: with images, stamps of what was checked, and sessions, whose names depend on the tree's path."""
    for split, region in LOADED:
        fingerprint(split, region, copy.artifacts)
    release = copy.root / "out" / "release"
    run_cli("build", copy.tree, release, "--recipe", copy.recipe("plain"), "--cache", copy.sessions)
    shutil.rmtree(release)


def _isolate(copy: Samples) -> None:
    """Keep temporary files in the folder of the case, and the network away. A process runs one case."""
    (copy.root / "tmp").mkdir()
    tempfile.tempdir = str(copy.root / "tmp")
    os.environ |= {
        "BRAINIO_HOME": str(copy.downloads),
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",  # nobody answers there
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nobody",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


# --- one judge per kind --------------------------------------------------------------------------------------------------


def judge_raw(case: Case) -> None:
    """A release is refused, or it is what independent code computes from the same damaged files."""
    copy = case.copy
    is_prepared = "assemblies" in case.damaged.parts
    recipe = copy.recipe("plain" if is_prepared else case.rng.choice(sorted(RECIPES)))
    case.run("check", copy.tree, "--recipe", recipe)
    judge_build(case, recipe, *["--from-region-assemblies"] * is_prepared)


def judge_build(case: Case, recipe: Path, *options: str) -> None:
    folder = case.copy.root / "out"
    release = folder / "release"
    built = case.run("build", case.copy.tree, release, "--recipe", recipe, "--cache", "none", *options)
    case.require_only(folder, *["release"] * built)
    if built:
        result = run_cli("verify", release, "--nsd-root", case.copy.tree, "--all")
        problems = [line for line in result.stdout.splitlines() if line.startswith("problem: ")]
        case.require(result.returncode == 0, f"silent difference: {problems[:3] or result.stderr[-500:]}")
        case.outcomes["equal to the recomputation"] += 1


def judge_release(case: Case) -> None:
    """A release that differs is refused, by `verify` or at least by a recomputation; then the loaders may differ too."""
    release, tree = case.copy.release, case.copy.tree
    is_accepted = case.damaged.is_file() and case.damaged.name != "release.json" and case.rng.random() < 0.5
    if is_accepted:  # the manifest agrees with the damage, so that the hash cannot show it
        accept(release, str(case.damaged.relative_to(release)))
        case.title += " (accepted)"
    differing = differing_files(release, case.sound.release, ignored={"files"} if is_accepted else set())
    is_sound = case.run("verify", release)
    is_equal = case.run("verify", release, "--nsd-root", tree, "--all")
    if differing:
        case.require(not is_equal, f"silent difference: the recomputation finds nothing in {differing}")
        is_hashed = not is_accepted and case.damaged.name != "release.json"
        case.require(not (is_sound and is_hashed), f"silent difference: verify finds nothing in {differing}")
    case.outcomes["equal to the sound release"] += not differing
    case.run("report", release)
    folder = case.copy.root / "out"
    if case.rng.random() < 0.5:
        case.require(case.run("pack", release, folder / "packed") <= is_sound, "a release that is not sound was packed")
        case.require_only(folder, "packed")
    else:
        arguments = ("upload", release, "--bucket", "brain", "--dry-run", "--artifacts", case.copy.artifacts)
        case.require(not case.run(*arguments, also_named="s3://brain"), "upload succeeds without a network")
    for split, region in LOADED:
        loaded = case.load(split, region, release)
        if loaded is not None and is_equal:
            case.require(loaded == case.sound.fingerprints[split, region], f"{split} {region} differs")


def judge_artifacts(case: Case) -> None:
    """The loaders refuse an artifacts file, or give what it names: a sound object, if not always the right one."""
    copy = case.copy
    if case.damaged == copy.artifacts:
        for split, region in LOADED:
            loaded = case.load(split, region, copy.artifacts, also_named="s3://")
            case.require(loaded is None or loaded in case.sound.fingerprints.values(), f"{split} {region} differs")
    present = {copy.artifacts.name, *(path.name for path in copy.root.iterdir())}
    recorded = case.run("record", copy.release, copy.version_ids, "--artifacts", copy.artifacts)
    case.require_only(copy.root, *present)
    if recorded:
        for split, region in LOADED:
            loaded = case.load(split, region, copy.artifacts, also_named="s3://")
            expected = case.sound.fingerprints[split, region]
            case.require(loaded in (expected, None), f"{split} {region} differs after `record`")
            case.outcomes["equal to the sound objects"] += loaded == expected


def judge_cache(case: Case) -> None:
    """The loaders and the build never use a damaged file of their caches."""
    copy = case.copy
    if "sessions" in case.damaged.parts:
        release = copy.root / "out" / "release"
        if case.run("build", copy.tree, release, "--recipe", copy.recipe("plain"), "--cache", copy.sessions):
            case.require(not differing_files(release, case.sound.release), "silent difference after a damaged entry")
            case.outcomes["equal to the sound release"] += 1
        case.require_only(release.parent, "release")
        return
    plugin_cache.download = downloading.download
    if case.rng.random() < 0.5:  # the network is there
        plugin_cache.download = lambda stored, path: shutil.copyfile(copy.objects / Path(stored.key).name, path)
    for split, region in LOADED:
        loaded = case.load(split, region, copy.artifacts, also_named="s3://")
        case.require(loaded in (case.sound.fingerprints[split, region], None), f"{split} {region} differs")
        case.outcomes["equal to the sound objects"] += loaded is not None


def judge_recipe(case: Case) -> None:
    """A recipe is refused, or gives what independent code computes."""
    is_valid = case.run("recipes", "check", case.damaged)
    case.run("recipes", "show", case.damaged)
    if not is_valid:
        case.require(not case.run("check", case.copy.tree, "--recipe", case.damaged), "check takes an invalid recipe")
        return
    case.run("check", case.copy.tree, "--recipe", case.damaged)
    judge_build(case, case.damaged)


JUDGES: dict[str, Callable[[Case], None]] = {
    "raw": judge_raw,
    "release": judge_release,
    "artifacts": judge_artifacts,
    "cache": judge_cache,
    "recipe": judge_recipe,
}
PARTS: dict[str, Callable[[Samples], list[Path]]] = {
    "raw": lambda samples: [samples.tree],
    "release": lambda samples: [samples.tree, samples.release, samples.artifacts],
    "artifacts": lambda samples: [samples.release, samples.objects, samples.artifacts, samples.downloads],
    "cache": lambda samples: [samples.tree, samples.objects, samples.artifacts, samples.downloads],
    "recipe": lambda samples: [samples.tree],
}


# --- how two releases differ ---------------------------------------------------------------------------------------------


def differing_files(path: Path, sound_path: Path, ignored: set[str] = frozenset()) -> list[str]:
    """Return the files of two releases that differ in their meaning, and not only in their bytes.

    `ignored` are keys of the manifest.
    """
    names = {
        str(file.relative_to(root)) for root in (path, sound_path) for file in root.rglob("*") if not file.is_dir()
    }
    names -= {"verify.json", "report.html"}
    return sorted(name for name in names if not _same_file(path / name, sound_path / name, ignored | UNCHECKED))


def _same_file(path: Path, sound_path: Path, ignored: set[str]) -> bool:
    if not (path.is_file() and sound_path.is_file()):
        return False
    if path.read_bytes() == sound_path.read_bytes():
        return True
    same_content = {
        ".json": partial(_same_manifest, ignored),
        ".csv": _same_table,
        ".nc": _same_assembly,
        ".png": _same_image,
    }
    try:
        return same_content[path.suffix](path, sound_path)
    except Exception:  # whatever the readers raise for a damaged file
        return False


def _same_manifest(ignored: set[str], path: Path, sound_path: Path) -> bool:
    manifest, sound = (asdict(Manifest.read(ReleaseFolder(file.parent))) for file in (path, sound_path))
    return manifest | dict.fromkeys(ignored) == sound | dict.fromkeys(ignored)


def _same_table(path: Path, sound_path: Path) -> bool:
    table, sound = (pd.read_csv(file, dtype=str, keep_default_na=False) for file in (path, sound_path))
    return table.equals(sound)


def _same_assembly(path: Path, sound_path: Path) -> bool:
    with xarray.open_dataarray(path) as assembly, xarray.open_dataarray(sound_path) as sound:
        return assembly.identical(sound) and assembly.dtype == sound.dtype


def _same_image(path: Path, sound_path: Path) -> bool:
    with Image.open(path) as image, Image.open(sound_path) as sound:
        return image.mode == sound.mode and np.array_equal(np.asarray(image), np.asarray(sound))
