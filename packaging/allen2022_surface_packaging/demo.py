"""Everything in a minute, small: simulate, build, verify, link, load, publish, load from S3, compute ceilings."""

from __future__ import annotations

import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .assemble.pipeline import build_release
from .errors import PackagingError
from .link import is_linked, link, unlink
from .nsd.simulation import simulate_tree
from .output import tell
from .plugin import import_plugin
from .progress import format_bytes
from .publish.artifacts import Artifacts
from .publish.upload import publish_release
from .recipe import PUBLISHED_REGIONS, make_recipe
from .verify.soundness import verify_release

if TYPE_CHECKING:
    from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly

RECIPE = make_recipe()
BUCKET, PREFIX = "demo", "brainscore-vision/benchmarks/Allen2022"
TITLE_WIDTH = 76
TOLERANCE = 0.1  # of a measured ceiling from the simulated one


def run_demo(directory: Path | None, *, log_level: int = logging.INFO) -> None:
    """Run the demo in `directory`, or in a temporary folder that is removed at the end, and print its steps and results.

    Parameters
    ----------
    log_level : int
        Above INFO only results are printed. At DEBUG this package and the libraries say everything that they usually do.

    Raises
    ------
    PackagingError
        If brainscore_vision is not installed, a folder exists already, or a result is wrong.
    """
    _require_packages("brainscore_vision", "moto")
    is_verbose = log_level <= logging.DEBUG
    steps = _Steps(is_shown=log_level <= logging.INFO, is_interrupted=is_verbose)
    with (
        tempfile.TemporaryDirectory() if directory is None else nullcontext(str(directory)) as folder,
        nullcontext() if is_verbose else _quiet_libraries(),
    ):
        nsd_root, release_path = Path(folder) / "nsd", Path(folder) / "release"
        steps.tell(f"Everything once, small, without NSD's files: about a minute. The files are in {folder}.\n")
        with steps("simulate", "a small NSD: its file names and types, made-up responses") as step:
            simulate_tree(nsd_root)
            step.result = f"8 subjects, {_describe_folder(nsd_root)}"
        with steps("build", "a release: what Brain-Score needs of it") as step:
            build_release(nsd_root, release_path, RECIPE)
            step.result = _describe_folder(release_path)
        with steps("verify", "its hashes, shapes, coordinates and images"):
            problems = verify_release(release_path)
            if problems:
                raise PackagingError(problems[0])
        with _linked():
            with steps("load", f"load_dataset('{RECIPE.name}.test'), from the folder") as step:
                _import_brainscore()
                assembly = load_from_release(release_path)
                n_images = len(np.unique(assembly["stimulus_id"].values))
                n_presentations, n_neuroids = assembly.sizes["presentation"], assembly.sizes["neuroid"]
                step.result = f"{n_presentations} presentations of {n_images} images, {n_neuroids} neuroids"
            publish_and_load(release_path, Path(folder) / "artifacts.json", assembly, steps)
        with (
            steps("ceiling", "load_ceiling('internal_consistency'), by Brain-Score"),
            nullcontext() if is_verbose else _no_bars(),
        ):
            ceilings = measure_ceilings(assembly)
        check_ceilings(ceilings)
        steps.tell(_describe_next(directory))


def load_from_release(release_path: Path) -> NeuroidAssembly:
    """Load the test split through Brain-Score, from a release on disk."""
    sources = import_plugin("sources")
    with _environment({sources.RELEASE_VARIABLE: str(release_path)}):
        return load_test_split()


def publish_and_load(release_path: Path, artifacts_path: Path, expected: NeuroidAssembly, steps: _Steps) -> None:
    """Upload a release to a local S3 server, and load the test split from there into an empty cache.

    Raises
    ------
    PackagingError
        If it is not identical to the expected assembly.
    """
    sources = import_plugin("sources")
    with local_s3(BUCKET), tempfile.TemporaryDirectory() as empty_cache:
        with steps("upload", "the release to an S3 server on this machine") as step:
            publish_release(release_path, f"{BUCKET}/{PREFIX}", artifacts_path=artifacts_path, allow_simulated=True)
            step.result = f"{_count_objects(artifacts_path)} objects, each recorded with its version and SHA-1"
        settings = {
            sources.RELEASE_VARIABLE: "",
            sources.ARTIFACTS_VARIABLE: str(artifacts_path),
            "BRAINIO_HOME": empty_cache,
        }
        with steps("load", "the same dataset from there, into an empty cache") as step, _environment(settings):
            if not load_test_split().identical(expected):
                raise PackagingError("The assembly loaded from S3 differs from the release. Please report this.")
            step.result = "identical to the release"


def load_test_split() -> NeuroidAssembly:
    """Load the test split as any user of Brain-Score would."""
    from brainscore_vision import load_dataset

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
    rows = []
    for region in PUBLISHED_REGIONS:
        members = (raw["region"].values == region.name) & np.isfinite(raw.values).all(axis=0)
        rows.append(
            {
                "region": region.name,
                "neuroids": int(members.sum()),
                "split-half ceiling": float(np.median(raw.values[:, members], axis=1).mean()),
                "simulated": float(np.median(expected_consistency(raw["nc_testset"].values[members]))),
            }
        )
    return pd.DataFrame(rows)


def check_ceilings(ceilings: pd.DataFrame) -> None:
    """Print the ceilings, and raise a `PackagingError` if one is far from the simulated one."""
    tell(f"\n{ceilings.to_string(index=False, float_format='%.2f')}\n")
    distances = (ceilings["split-half ceiling"] - ceilings["simulated"]).abs()
    if not (distances < TOLERANCE).all():
        raise PackagingError(
            f"A measured ceiling differs by {TOLERANCE} or more from the simulated one. Please report this."
        )
    tell(f"Every ceiling is within {TOLERANCE} of the simulated one.")


@contextmanager
def local_s3(bucket: str) -> Iterator[None]:
    """Run an S3 server on this machine with one versioned bucket, and direct boto3 to it."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # otherwise it prints a line per request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": "demo",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        with _environment(settings):
            client = boto3.client("s3")
            client.create_bucket(Bucket=bucket)
            client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
            yield
    finally:
        server.stop()


def _require_packages(*packages: str) -> None:
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise PackagingError(
            f"{' and '.join(missing)} not installed: the demo loads through brainscore_vision, and from a local S3 "
            "server of moto. Install: pip install brainscore_vision 'moto[server]'"
        )


@contextmanager
def _linked() -> Iterator[None]:
    """Link the plugin into brainscore_vision, and remove the link again unless it was there before."""
    was_linked = is_linked()
    link()
    try:
        yield
    finally:
        if not was_linked:
            unlink()


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Hide what is said while everything is in order: the progress of this package, and known warnings of others."""
    from scipy.stats import ConstantInputWarning

    package_logger = logging.getLogger(__package__)
    level = package_logger.level
    package_logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=ConstantInputWarning)  # some simulated vertices are constant
            warnings.filterwarnings("ignore", category=FutureWarning, module="brainscore_")
            warnings.filterwarnings("ignore", message=".*holds simulated data")  # as the first line says
            yield
    finally:
        package_logger.setLevel(level)


@contextmanager
def _no_bars() -> Iterator[None]:
    """Hide the bars of Brain-Score's cross-validation."""
    import brainscore_vision.metric_helpers.transformations as transformations

    original_tqdm = transformations.tqdm
    transformations.tqdm = partial(original_tqdm, disable=True)
    try:
        yield
    finally:
        transformations.tqdm = original_tqdm


def _import_brainscore() -> None:
    """Import brainscore_vision without its change of the root logger, after which every library would log at INFO."""
    root = logging.getLogger()
    handler = logging.NullHandler()  # while root has a handler, `logging.basicConfig` changes nothing
    root.addHandler(handler)
    try:
        import brainscore_vision  # noqa: F401
    finally:
        root.removeHandler(handler)


def _count_objects(artifacts_path: Path) -> int:
    datasets = Artifacts.read(artifacts_path).datasets.values()
    records = [
        record for d in datasets for record in (d.assembly, d.stimulus_csv, d.stimulus_zip) if record is not None
    ]
    return len({record.key for record in records})


def _describe_folder(folder: Path) -> str:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return f"{len(sizes)} files, {format_bytes(sum(sizes))}"


def _describe_next(directory: Path | None) -> str:
    kept = Path("my_demo") if directory is None else directory
    lines = {
        f"allen2022-surface report {kept}/release": "a page about the release, for the browser",
        "allen2022-surface check NSD_ROOT": "your copy of NSD: which files it lacks, and how to fetch them",
        "allen2022-surface build NSD_ROOT RELEASE": "the release of NSD",
    }
    if directory is None:
        lines = {f"allen2022-surface demo {kept}": "the same, and the files stay"} | lines
    width = min(max(map(len, lines)), 44)  # a long path does not move the other lines
    return "\n".join(["\nnext:", *(f"    {command:{width}}  # {text}" for command, text in lines.items())])


@dataclass
class _Step:
    """What a step found, in a few words."""

    result: str = ""


class _Steps:
    """Prints the number and name of each step when it begins, and its seconds and result when it ends.

    Parameters
    ----------
    is_shown : whether to print anything
    is_interrupted : whether other lines may be printed during a step, so that it does not end on the line where it began
    """

    def __init__(self, *, is_shown: bool, is_interrupted: bool) -> None:
        self.is_shown = is_shown
        self.is_interrupted = is_interrupted
        self.n_steps = 0

    def tell(self, text: str) -> None:
        if self.is_shown:
            tell(text)

    @contextmanager
    def __call__(self, name: str, description: str) -> Iterator[_Step]:
        start, step = time.monotonic(), _Step()
        self.n_steps += 1
        title = f"{self.n_steps}  {name:9} {description}"
        if self.is_shown:
            tell(title if self.is_interrupted else f"{title:{TITLE_WIDTH}}", end="\n" * self.is_interrupted)
        try:
            yield step
        except BaseException:
            self.tell("")  # the message begins on a line of its own
            raise
        self.tell(f"{time.monotonic() - start:5.1f} s")
        if step.result:
            self.tell(f"{'':13}{step.result}")
