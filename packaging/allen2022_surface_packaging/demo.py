"""Everything in a minute, small: simulate, build, verify, link, load, publish, load from S3, compute ceilings."""

from __future__ import annotations

import io
import logging
import os
import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
import pandas as pd

from .assemble.pipeline import build_release
from .errors import PackagingError
from .link import is_linked, link, unlink
from .nsd.simulation import simulate_tree
from .nsd.size import TreeSize
from .plugin import import_plugin
from .progress import format_bytes, format_program
from .publish.artifacts import read_artifacts
from .publish.upload import publish_release
from .recipe import PUBLISHED_DATASETS, Recipe
from .verify.verdicts import verify

if TYPE_CHECKING:
    from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly

RECIPE = Recipe(PUBLISHED_DATASETS[0].name)
BUCKET, PREFIX = "demo", "brainscore-vision/benchmarks/Allen2022"
CACHES = ("BRAINIO_HOME", "BRAINSCORE_HOME", "RESULTCACHING_HOME")  # of Brain-Score, which are in the home folder else
TOLERANCE = 0.1  # of a measured ceiling from the simulated one
NEXT = (
    "demo FOLDER  # the same, and the files stay there",
    "report FOLDER/release  # a page about the release, for the browser",
    "check NSD_ROOT  # your copy of NSD: which files it lacks, and how to fetch them",
    "build NSD_ROOT RELEASE  # the release of NSD",
)


def run_demo(directory: Path | None, *, log_level: int = logging.INFO) -> None:
    """Run the demo in `directory`, or in a temporary folder that is removed at the end, and print its steps and results.

    Parameters
    ----------
    log_level : int
        Above INFO only results are printed. At DEBUG this package and the libraries log and warn as they usually do.

    Raises
    ------
    PackagingError
        If brainscore_vision is not installed, a folder exists already, or a result is wrong.
    """
    missing = [package for package in ("brainscore_vision", "moto") if find_spec(package) is None]
    if missing:
        raise PackagingError(
            f"{' and '.join(missing)} not installed: the demo loads through brainscore_vision, and from the S3 of moto, in "
            "memory. Install: pip install brainscore_vision 'moto[s3]'"
        )
    if log_level > logging.DEBUG:
        logging.getLogger(__package__).setLevel(logging.WARNING)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary_folder,
        redirect_stdout(io.StringIO()) if log_level > logging.INFO else nullcontext(),
        redirect_stderr(io.StringIO())
        if log_level > logging.DEBUG
        else nullcontext(),  # bars and warnings of libraries
    ):
        ceilings = _run_steps(directory or Path(temporary_folder), Path(temporary_folder) / "caches")
    print(f"\n{ceilings.to_string(index=False, float_format='%.2f')}\n")
    if not ((ceilings["split-half ceiling"] - ceilings["simulated"]).abs() < TOLERANCE).all():
        raise PackagingError(
            f"A measured ceiling differs by {TOLERANCE} or more from the simulated one. Please report this."
        )
    print(f"Every ceiling is within {TOLERANCE} of the simulated one.")
    if log_level <= logging.INFO:
        folder, program = shlex.quote(str(directory or "my_demo")), format_program()
        following = [words.replace("FOLDER", folder) for words in NEXT[directory is not None :]]
        print("\nnext:", *(f"{program} {words}" for words in following), sep="\n    ")


def _run_steps(folder: Path, cache_path: Path) -> pd.DataFrame:
    """Run every step in `folder`, print what it does and gives, and return the ceilings."""
    nsd_root, release_path, artifacts_path = folder / "nsd", folder / "release", folder / "artifacts.json"
    print(f"Everything once, small, without NSD's files: about a minute. The files are in {folder}.\n")
    with _step("1  simulate  a small NSD: its file names and types, made-up responses") as results:
        simulate_tree(nsd_root, TreeSize())
        results.append(f"8 subjects, {_describe_folder(nsd_root)}")
    with _step("2  build     a release: what Brain-Score needs of it") as results:
        build_release(nsd_root, release_path, RECIPE)
        results.append(_describe_folder(release_path))
    with _step("3  verify    its hashes, shapes, coordinates and images"):
        answers = verify(release_path)
        if answers["release"].problems:
            raise PackagingError(answers["release"].problems[0])
    with ExitStack() as endings:
        if not is_linked():
            endings.callback(unlink)
        link()
        endings.enter_context(_s3_in_memory())
        endings.enter_context(patch.dict(os.environ, {name: str(cache_path / name) for name in CACHES}))
        with _step(f"4  load      load_dataset('{RECIPE.name}.test'), from the folder") as results:
            assembly = _load_test_split(release_path)
            n_images = len(np.unique(assembly["stimulus_id"].values))
            results.append(f"{len(assembly)} presentations of {n_images} images, {assembly.sizes['neuroid']} neuroids")
        with _step("5  upload    the release to S3, as moto simulates it in memory") as results:
            publish_release(release_path, f"{BUCKET}/{PREFIX}", artifacts_path=artifacts_path, allow_simulated=True)
            n_identifiers = len(read_artifacts(artifacts_path))
            results.append(f"the objects of {n_identifiers} identifiers, each with its version and SHA-1")
        with _step("6  load      the same dataset from there, into an empty cache") as results:
            if not _load_test_split(artifacts_path).identical(assembly):
                raise PackagingError("The assembly loaded from S3 differs from the release. Please report this.")
            results.append("identical to the release")
        with _step("7  ceiling   load_ceiling('internal_consistency'), by Brain-Score"):
            return measure_ceilings(assembly)


def _load_test_split(source: Path) -> NeuroidAssembly:
    """Load the test split as any user of Brain-Score would, from the release or artifacts file that the environment names."""
    from brainscore_vision import load_dataset

    with patch.dict(os.environ, BRAINSCORE_ALLEN2022_SURFACE_DIR=str(source)):
        assembly = load_dataset(f"{RECIPE.name}.test").isel(time_bin=0)
    assembly.attrs["stimulus_set"] = None  # its paths differ between sources; everything else must be equal
    return assembly


def measure_ceilings(assembly: NeuroidAssembly) -> pd.DataFrame:
    """Compute the ceilings with Brain-Score, next to those that were simulated.

    Returns
    -------
    table with a row per region
        ``split-half ceiling`` and ``simulated`` are unitless, medians over neuroids. Constant neuroids and those
        without a valid trial have no ceiling and are left out.
    """
    from brainscore_vision import load_ceiling

    expected_consistency = import_plugin("analysis.ceiling").expected_consistency
    raw = load_ceiling("internal_consistency")(assembly).raw
    raw = raw[:, np.isfinite(raw.values).all(axis=0)]
    region = pd.Series(raw["region"].values, name="region")
    measured = pd.DataFrame(raw.values.T).groupby(region, sort=False)  # a column per split into halves
    simulated = pd.Series(expected_consistency(raw["nc_testset"].values)).groupby(region, sort=False)
    columns = {
        "neuroids": measured.size(),
        "split-half ceiling": measured.median().mean(axis=1),
        "simulated": simulated.median(),
    }
    return pd.DataFrame(columns).loc[[one.name for one in RECIPE.regions]].reset_index()


@contextmanager
def _step(title: str) -> Iterator[list[str]]:
    """Print a title when a step begins; at its end its seconds, and what was appended to the list."""
    start, results = time.monotonic(), list[str]()
    print(f"{title:76}", end="", flush=True)
    try:
        yield results
    finally:
        print(f"{time.monotonic() - start:5.1f} s", *results, sep=f"\n{'':13}")


def _describe_folder(folder: Path) -> str:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return f"{len(sizes)} files, {format_bytes(sum(sizes))}"


@contextmanager
def _s3_in_memory() -> Iterator[None]:
    """Let boto3 talk to moto in place of AWS, with one versioned bucket. The AWS settings of this machine may not work."""
    import boto3
    from moto import mock_aws

    settings = {name: text for name, text in os.environ.items() if not name.startswith("AWS_")}
    settings |= dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)
    with patch.dict(os.environ, settings | {"AWS_DEFAULT_REGION": "us-east-1"}, clear=True), mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        yield
