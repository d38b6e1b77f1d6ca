"""A release published to S3: planned, verified, uploaded, and recorded in `artifacts.json`."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import PackagingError
from ..verify.soundness import verify_release
from .objects import BrainioObject, make_objects
from .s3 import PART_BYTES, Bucket, LocalFile, RemoteObject, holds, look_up, open_bucket, put

logger = logging.getLogger(__name__)

PLUGIN = "brainscore_allen2022_surface"
NEW, SAME, DIFFERENT = "new", "same", "different"
MEANING = {NEW: "new", SAME: "already there, skipped", DIFFERENT: "different, replaced only with --overwrite"}


@dataclass(frozen=True)
class PlannedUpload:
    """An object of a release, and what lies in its place.

    Attributes
    ----------
    state : "new", "same" or "different"
    found : what lies there, if anything
    """

    item: BrainioObject
    key: str
    state: str
    found: RemoteObject | None


def publish_release(
    release_path: Path,
    destination: str,
    *,
    artifacts_path: Path | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    tell: Callable[[str], object] = logger.info,
    part_bytes: int = PART_BYTES,
) -> None:
    """Plan, verify, upload and record a release.

    NSD's terms forbid passing the data on: call this for a bucket that only those who accepted them can read.

    Parameters
    ----------
    destination : BUCKET or BUCKET/PREFIX
    artifacts_path : path, optional
        The file to record the objects in; by default the plugin's own `artifacts.json`.
    overwrite : replace objects of another content
    dry_run : stop after the plan
    tell : called with each line that a user should read, the plan among them

    Raises
    ------
    PackagingError
        If the release is not sound, an object of another content is in the way, or S3 cannot do what is asked. What
        was uploaded until then stays, and is not sent again by the next call.
    """
    artifacts_path = artifacts_path or plugin_artifacts_path()
    read_artifacts(artifacts_path)
    with tempfile.TemporaryDirectory(prefix="allen2022_surface_") as folder:
        objects = make_objects(release_path, Path(folder))
        bucket = open_bucket(destination)
        plan = plan_upload(bucket, objects, part_bytes)
        tell(describe_plan(bucket, plan))
        if dry_run:
            return
        refuse_different(bucket, plan, overwrite=overwrite)
        problems = verify_release(release_path)
        if problems:
            raise PackagingError(f"{release_path} is not sound, so nothing was sent: {problems[0]}")
        record_artifacts(artifacts_path, bucket, upload_planned(bucket, plan, part_bytes))
        tell(f"{artifacts_path} now lists {', '.join(dict.fromkeys(item.identifier for item in objects))}")


def plan_upload(bucket: Bucket, objects: Sequence[BrainioObject], part_bytes: int = PART_BYTES) -> list[PlannedUpload]:
    """Find out of each object whether it is new, there with the same content, or there with another."""
    plan = []
    for item in objects:
        key = bucket.key(item.name)
        found = look_up(bucket, key)
        if found is None:
            state = NEW
        elif not holds(bucket, key, found, _file(item), part_bytes):
            state = DIFFERENT
        else:
            # one from before the bucket kept versions has none that could be pinned
            state = NEW if found.version_id == "null" else SAME
        plan.append(PlannedUpload(item, key, state, found))
    return plan


def describe_plan(bucket: Bucket, plan: Sequence[PlannedUpload]) -> str:
    """Write a plan as a table for people."""
    width = max(len(planned.key) for planned in plan)
    lines = [f"To s3://{bucket.name}:"]
    lines += [
        f"{planned.key:{width}}  {planned.item.size:>14,} bytes  SHA-1 {planned.item.sha1}  {MEANING[planned.state]}"
        for planned in plan
    ]
    n_bytes = sum(planned.item.size for planned in plan if planned.state != SAME)
    return "\n".join([*lines, f"{n_bytes:,} bytes to send"])


def refuse_different(bucket: Bucket, plan: Sequence[PlannedUpload], *, overwrite: bool) -> None:
    """Raise a `PackagingError` if an object of another content would be replaced without leave."""
    different = [bucket.url(planned.key) for planned in plan if planned.state == DIFFERENT]
    if different and not overwrite:
        raise PackagingError(
            f"{different[0]} is there with another content ({len(different)} such objects in all). Nothing was sent. "
            "Choose another prefix, or add --overwrite: those who pinned the older version keep it."
        )


def upload_planned(
    bucket: Bucket, plan: Sequence[PlannedUpload], part_bytes: int = PART_BYTES
) -> list[tuple[PlannedUpload, RemoteObject]]:
    """Send what is not there yet, in the order of the plan, and return every object as S3 holds it."""
    n_bytes = sum(planned.item.size for planned in plan if planned.state != SAME)
    published = []
    with tqdm(total=n_bytes, desc="upload", unit="B", unit_scale=True, disable=None) as bar:
        for planned in plan:
            if planned.state == SAME and planned.found is not None:
                published.append((planned, planned.found))
                continue
            remote = put(
                bucket,
                planned.key,
                _file(planned.item),
                replaces=planned.found,
                progress=bar.update,
                part_bytes=part_bytes,
            )
            logger.info("%s: sent, version %s", bucket.url(planned.key), remote.version_id)
            published.append((planned, remote))
    return published


def record_artifacts(path: Path, bucket: Bucket, published: Sequence[tuple[PlannedUpload, RemoteObject]]) -> None:
    """Put the objects of a release into `artifacts.json` in one step; those of other releases stay as they are."""
    entries: dict[str, dict[str, Any]] = {}
    for planned, remote in published:
        entries.setdefault(planned.item.identifier, {})[planned.item.kind] = {
            "bucket": bucket.name,
            "key": planned.key,
            "version_id": remote.version_id,
            "sha1": planned.item.sha1,
            "size": planned.item.size,
        }
    order = ("assembly", "stimulus_csv", "stimulus_zip")
    with _locked(path.parent):
        artifacts = read_artifacts(path)
        artifacts |= {identifier: {kind: own[kind] for kind in order} for identifier, own in entries.items()}
        temporary = path.with_name(f".{path.name}.partial")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(artifacts, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            temporary.chmod(path.stat().st_mode)
        temporary.replace(path)


def read_artifacts(path: Path) -> dict[str, Any]:
    """Read `artifacts.json`; nothing is in one that is not there yet.

    Raises
    ------
    PackagingError
        If it is damaged, or could not be written.
    """
    if not os.access(path.parent, os.W_OK):
        raise PackagingError(
            f"{path} could not be written: its folder is missing or read-only. Choose --artifacts FILE."
        )
    try:
        artifacts = json.loads(path.read_text(encoding="utf-8"))
        return {identifier: dict(objects) for identifier, objects in artifacts.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise PackagingError(
            f"{path} is damaged ({type(error).__name__}: {error}). Mend it, or choose another."
        ) from error


def plugin_artifacts_path() -> Path:
    """Return the `artifacts.json` of the plugin that is installed, without importing it and Brain-Score with it."""
    spec = find_spec(PLUGIN)
    if spec is None or spec.origin is None:
        raise PackagingError(
            f"{PLUGIN} is not installed, so there is no artifacts.json to record in. Add --artifacts FILE."
        )
    return Path(spec.origin).with_name("artifacts.json")


def _file(item: BrainioObject) -> LocalFile:
    return LocalFile(item.path, item.size, item.sha1)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep two uploads that end at the same time from losing each other's entries."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
