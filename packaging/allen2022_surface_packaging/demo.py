"""Everything in a minute, small: simulate, build, verify, link, load, publish, load from S3, compute ceilings."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .build.pipeline import build_release
from .errors import PackagingError
from .nsd.simulation import simulate_tree
from .plugin import import_plugin
from .publish.upload import publish_release
from .recipe import PUBLISHED_REGIONS, make_recipe
from .verify.soundness import verify_release

if TYPE_CHECKING:
    from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly

RECIPE = make_recipe()
BUCKET, PREFIX = "demo", "brainscore-vision/benchmarks/Allen2022"
TOLERANCE = 0.1  # of a measured ceiling from the simulated one


def run_demo(directory: Path | None) -> None:
    """Run the demo in `directory`, or in a temporary folder that is removed at the end.

    Raises
    ------
    PackagingError
        If brainscore_vision is not installed, a folder exists already, or a result is wrong.
    """
    _require_packages("brainscore_vision", "moto")
    announce = _Announcer()
    with tempfile.TemporaryDirectory() if directory is None else nullcontext(str(directory)) as folder:
        nsd_root, release_path = Path(folder) / "nsd", Path(folder) / "release"
        announce("simulate", f"a small NSD in {nsd_root}")
        simulate_tree(nsd_root)
        announce("build", f"a release in {release_path}")
        build_release(nsd_root, release_path, RECIPE)
        announce("verify", "the release on disk")
        problems = verify_release(release_path)
        if problems:
            raise PackagingError(problems[0])
        with _linked():
            announce("load", f"load_dataset('{RECIPE.name}.test') through brainscore_vision, from the release")
            assembly = load_from_release(release_path)
            announce("upload", f"the release to an S3 server on this machine, bucket {BUCKET}")
            fetched = publish_and_load(release_path, Path(folder) / "artifacts.json", announce)
        if not fetched.identical(assembly):
            raise PackagingError("The assembly loaded from S3 differs from the release. Please report this.")
        print("   identical to the release")
        announce("ceiling", "load_ceiling('internal_consistency'), Brain-Score's own")
        check_ceilings(measure_ceilings(assembly))


def load_from_release(release_path: Path) -> NeuroidAssembly:
    """Load the test split through Brain-Score, from a release on disk."""
    sources = import_plugin("sources")
    with _environment({sources.RELEASE_VARIABLE: str(release_path)}):
        return load_test_split()


def publish_and_load(release_path: Path, artifacts_path: Path, announce: _Announcer) -> NeuroidAssembly:
    """Upload a release to a local S3 server, and load the test split from there into an empty cache."""
    sources = import_plugin("sources")
    with local_s3(BUCKET), tempfile.TemporaryDirectory() as empty_cache:
        publish_release(
            release_path, f"{BUCKET}/{PREFIX}", artifacts_path=artifacts_path, allow_simulated=True, tell=print
        )
        announce("load", "the same from there, into an empty cache")
        settings = {
            sources.RELEASE_VARIABLE: "",
            sources.ARTIFACTS_VARIABLE: str(artifacts_path),
            "BRAINIO_HOME": empty_cache,
        }
        with _environment(settings):
            return load_test_split()


def load_test_split() -> NeuroidAssembly:
    """Load the test split as any user of Brain-Score would."""
    from brainscore_vision import load_dataset, load_stimulus_set

    stimulus_set = load_stimulus_set(f"{RECIPE.name}.test")
    assembly = load_dataset(f"{RECIPE.name}.test").isel(time_bin=0)
    n_presentations, n_neuroids = assembly.sizes["presentation"], assembly.sizes["neuroid"]
    print(f"   {n_presentations} presentations of {len(stimulus_set)} images, {n_neuroids} neuroids")
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

    expected_consistency = import_plugin("ceiling").expected_consistency
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
    print(f"\n{ceilings.to_string(index=False, float_format='%.2f')}\n")
    distances = (ceilings["split-half ceiling"] - ceilings["simulated"]).abs()
    if not (distances < TOLERANCE).all():
        raise PackagingError(
            f"A measured ceiling differs by {TOLERANCE} or more from the simulated one. Please report this."
        )
    print(f"Every ceiling is within {TOLERANCE} of the simulated one.")


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
    links = import_plugin("links")
    was_linked = links.is_linked()
    links.link()
    try:
        yield
    finally:
        if not was_linked:
            links.unlink()


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


class _Announcer:
    """Prints the name of a step, and the seconds since the start."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def __call__(self, step: str, description: str) -> None:
        print(f"[{time.monotonic() - self.start:3.0f} s] {step}: {description}", flush=True)
