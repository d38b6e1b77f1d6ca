"""The whole of it, small, in a minute: simulate, build, verify, link, load, publish, load from S3, ceilings."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pandas as pd

from .build.pipeline import build_release
from .errors import PackagingError
from .nsd.files import SUBJECTS
from .nsd.regions import REGIONS
from .nsd.simulation import Recipe, simulate_tree
from .nsd.trials import N_REPETITIONS
from .publish.upload import publish_release
from .release import NAMES
from .verify.soundness import verify_release

NAME = NAMES[SUBJECTS]
BUCKET, PREFIX = "demo", "brainscore-vision/benchmarks/Allen2022"
RELEASE_VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_DIR"
ARTIFACTS_VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS"


def run_demo(directory: Path | None) -> None:
    """Run the demo in `directory`, or in a temporary folder that is removed at the end.

    Raises
    ------
    PackagingError
        If brainscore_vision is not installed, something is in the way, or a ceiling is not what was simulated.
    """
    missing = [package for package in ("brainscore_vision", "moto") if find_spec(package) is None]
    if missing:
        raise PackagingError(
            f"{' and '.join(missing)} not installed: the demo loads through brainscore_vision, from a local S3 server of "
            "moto's. Install brainscore_allen2022_surface[test]."
        )
    with tempfile.TemporaryDirectory() if directory is None else nullcontext(str(directory)) as folder:
        nsd_root, release_path = Path(folder) / "nsd", Path(folder) / "release"
        _step("simulate", f"a small NSD in {nsd_root}")
        simulate_tree(nsd_root, Recipe())
        _step("build", f"a release in {release_path}")
        build_release(nsd_root, release_path, subjects=SUBJECTS)
        _step("verify", "the release from disk")
        problems = verify_release(release_path)
        if problems:
            raise PackagingError(problems[0])
        with _linked():
            _step("load", f"load_dataset('{NAME}.test') through brainscore_vision, from the release")
            with _environment({RELEASE_VARIABLE: str(release_path)}):
                assembly = load_test_split()
            _step("upload", f"the release to an S3 server on this machine, bucket {BUCKET}")
            artifacts_path = Path(folder) / "artifacts.json"
            with local_s3(BUCKET), tempfile.TemporaryDirectory() as empty_cache:
                publish_release(release_path, f"{BUCKET}/{PREFIX}", artifacts_path=artifacts_path, tell=print)
                _step("load", "the same from there, into an empty cache")
                from_s3 = {RELEASE_VARIABLE: "", ARTIFACTS_VARIABLE: str(artifacts_path), "BRAINIO_HOME": empty_cache}
                with _environment(from_s3):
                    fetched = load_test_split()
        if not fetched.identical(assembly):
            raise PackagingError("What was loaded from S3 differs from the release, which should not happen.")
        print("   identical to the release")
        ceilings = measure_ceilings(assembly)
        print(f"\n{ceilings.to_string(index=False, float_format='%.2f')}\n")
        apart = (ceilings["split-half ceiling"] - ceilings["simulated"]).abs()
        if not (apart < 0.1).all():
            raise PackagingError("A measured ceiling lies 0.1 or more from the simulated one, which should not happen.")
        print("Every ceiling is within 0.1 of what was simulated.")


def load_test_split() -> Any:
    """Load the test split as any user of Brain-Score would."""
    from brainscore_vision import load_dataset, load_stimulus_set

    stimulus_set = load_stimulus_set(f"{NAME}.test")
    assembly = load_dataset(f"{NAME}.test").isel(time_bin=0)
    n_presentations, n_neuroids = assembly.sizes["presentation"], assembly.sizes["neuroid"]
    print(f"   {n_presentations} presentations of {len(stimulus_set)} images, {n_neuroids} neuroids")
    assembly.attrs["stimulus_set"] = None  # its paths are where it was loaded from, all else must be the same
    return assembly


def measure_ceilings(assembly: Any) -> pd.DataFrame:
    """Compute the ceilings with Brain-Score, and set them beside those that were simulated."""
    from brainscore_vision import load_ceiling

    _step("ceiling", "load_ceiling('internal_consistency'), Brain-Score's own")
    raw = load_ceiling("internal_consistency")(assembly).raw
    rows: list[dict[str, Any]] = []
    for region in REGIONS:
        # a constant neuroid, or one without a valid trial, has no ceiling
        own = (raw["region"].values == region.name) & np.isfinite(raw.values).all(axis=0)
        rows.append(
            {
                "region": region.name,
                "neuroids": int(own.sum()),
                "split-half ceiling": float(np.median(raw.values[:, own], axis=1).mean()),
                "simulated": float(np.median(expected_consistency(raw["nc_testset"].values[own]))),
            }
        )
    return pd.DataFrame(rows)


def expected_consistency(nc_testset: np.ndarray) -> np.ndarray:
    """Return the split-half consistency to expect of a neuroid: one repetition against the mean of two, corrected.

    Parameters
    ----------
    nc_testset : array
        Noise ceiling of three repetitions, percent.

    Notes
    -----
    With the signal's variance s in units of the noise's, one repetition has the variance s + 1, the mean of two s + 1/2,
    and both share s. Brain-Score applies the Spearman-Brown correction for two halves to their correlation.
    """
    explained = nc_testset / 100
    signal = explained / (1 - explained) / N_REPETITIONS
    correlation = signal / np.sqrt((signal + 1) * (signal + 1 / 2))
    return 2 * correlation / (1 + correlation)


@contextmanager
def _linked() -> Iterator[None]:
    """Link the plugin into brainscore_vision, and take it out again unless it was there before."""
    from brainscore_allen2022_surface.links import is_linked, link, unlink

    was_linked = is_linked()
    link()
    try:
        yield
    finally:
        if not was_linked:
            unlink()


@contextmanager
def local_s3(bucket: str) -> Iterator[None]:
    """Run an S3 server on this machine with one versioned bucket, and lead boto3 to it."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # or it prints a line per request
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


_START = time.monotonic()


def _step(name: str, what: str) -> None:
    print(f"[{time.monotonic() - _START:3.0f} s] {name}: {what}", flush=True)
