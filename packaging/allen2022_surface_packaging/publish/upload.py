"""A release published to S3: planned, verified, uploaded, and recorded in `artifacts.json`."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ..errors import PackagingError
from ..plugin import plugin_path
from ..verify.soundness import verify_release
from .artifacts import DatasetRecord, ObjectRecord, record_datasets, require_writable
from .objects import BrainioObject, make_objects
from .s3 import LARGEST_OBJECT_BYTES, LocalFile, ObjectVersion, UploadTarget, holds, look_up, open_target, put

logger = logging.getLogger(__name__)

NEW, SAME, DIFFERENT = "new", "same", "different"
MEANINGS = {NEW: "new", SAME: "already there, skipped", DIFFERENT: "different, replaced only with --overwrite"}


@dataclass(frozen=True)
class PlannedObject:
    """An object of a release, and what S3 holds under its key.

    Attributes
    ----------
    state : "new", "same" or "different"
    existing : the object that S3 holds, if there is one
    """

    item: BrainioObject
    key: str
    state: str
    existing: ObjectVersion | None

    @property
    def file(self) -> LocalFile:
        """The file to send."""
        return LocalFile(self.item.path, self.item.size, self.item.sha1)


@dataclass(frozen=True)
class PublishedObject:
    """An object of a release as S3 holds it after the upload."""

    planned: PlannedObject
    version: ObjectVersion


def publish_release(
    release_path: Path,
    destination: str,
    *,
    artifacts_path: Path | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    tell: Callable[[str], object] = logger.info,
) -> None:
    """Plan, verify, upload and record a release.

    NSD's terms forbid giving the data to others. Use a bucket that only people who accepted the terms can read.

    Parameters
    ----------
    destination : BUCKET or BUCKET/PREFIX
    artifacts_path : path, optional
        The file to record the objects in; by default the plugin's `artifacts.json`.
    overwrite : replace objects with other content
    dry_run : stop after the plan
    tell : called with each line for the user, and with the plan

    Raises
    ------
    PackagingError
        If the release is not sound, S3 holds an object with other content, or S3 fails. Objects that were uploaded
        before the failure stay, and the next call does not send them again.
    """
    artifacts_path = artifacts_path or plugin_path() / "artifacts.json"
    require_writable(artifacts_path)
    with tempfile.TemporaryDirectory(prefix="allen2022_surface_") as folder:
        objects = make_objects(release_path, Path(folder))
        refuse_large(objects)
        target = open_target(destination)
        plan = plan_upload(target, objects)
        tell(describe_plan(target, plan))
        if dry_run:
            return
        refuse_different(target, plan, overwrite=overwrite)
        problems = verify_release(release_path)
        if problems:
            raise PackagingError(f"{release_path} is not sound, so nothing was sent: {problems[0]}")
        datasets = describe_datasets(target, upload_planned(target, plan))
        record_datasets(artifacts_path, datasets)
        tell(f"{artifacts_path} now lists {', '.join(datasets)}")


def plan_upload(target: UploadTarget, objects: Sequence[BrainioObject]) -> list[PlannedObject]:
    """Find out whether S3 holds each object already, with the same or with other content."""
    plan = []
    for item in objects:
        key = target.key(item.name)
        existing = look_up(target, key)
        planned = PlannedObject(item, key, NEW, existing)
        # An object from before the bucket kept versions has no version that loaders could ask for: send it again.
        state = NEW
        if existing is not None and not holds(target, key, existing, planned.file):
            state = DIFFERENT
        elif existing is not None and existing.version_id != "null":
            state = SAME
        plan.append(PlannedObject(item, key, state, existing))
    return plan


def describe_plan(target: UploadTarget, plan: Sequence[PlannedObject]) -> str:
    """Write a plan as a table for people."""
    width = max(len(planned.key) for planned in plan)
    rows = [
        f"{planned.key:{width}}  {planned.item.size:>14,} bytes  SHA-1 {planned.item.sha1}  {MEANINGS[planned.state]}"
        for planned in plan
    ]
    return "\n".join([f"To s3://{target.bucket}:", *rows, f"{_n_bytes_to_send(plan):,} bytes to send"])


def refuse_large(objects: Sequence[BrainioObject]) -> None:
    """Raise a `PackagingError` if an object is larger than S3 takes in one request."""
    for item in objects:
        if item.size > LARGEST_OBJECT_BYTES:
            raise PackagingError(
                f"{item.path} has {item.size:,} bytes, but S3 takes at most {LARGEST_OBJECT_BYTES:,} in one request. "
                "Nothing was sent. Build releases of fewer subjects or regions."
            )


def refuse_different(target: UploadTarget, plan: Sequence[PlannedObject], *, overwrite: bool) -> None:
    """Raise a `PackagingError` if an object with other content would be replaced without `overwrite`."""
    different = [target.url(planned.key) for planned in plan if planned.state == DIFFERENT]
    if different and not overwrite:
        raise PackagingError(
            f"{different[0]} is there with another content ({len(different)} such objects in all). Nothing was sent. "
            "Choose another prefix, or add --overwrite; loaders that ask for the older version still get it."
        )


def upload_planned(target: UploadTarget, plan: Sequence[PlannedObject]) -> list[PublishedObject]:
    """Send the objects that S3 does not hold, in the order of the plan, and return all objects as S3 holds them."""
    published = []
    with tqdm(total=_n_bytes_to_send(plan), desc="upload", unit="B", unit_scale=True, disable=None) as bar:
        for planned in plan:
            if planned.state == SAME and planned.existing is not None:
                published.append(PublishedObject(planned, planned.existing))
                continue
            version = put(target, planned.key, planned.file, replaces=planned.existing, progress=bar.update)
            logger.info("%s: sent, version %s", target.url(planned.key), version.version_id)
            published.append(PublishedObject(planned, version))
    return published


def describe_datasets(target: UploadTarget, published: Sequence[PublishedObject]) -> dict[str, DatasetRecord]:
    """Return the records of the published objects, by the identifier of the dataset."""
    records: dict[str, dict[str, ObjectRecord]] = {}
    for one in published:
        item = one.planned.item
        record = ObjectRecord(target.bucket, one.planned.key, one.version.version_id, item.sha1, item.size)
        records.setdefault(item.identifier, {})[item.kind] = record
    return {identifier: DatasetRecord(**of_kind) for identifier, of_kind in records.items()}


def _n_bytes_to_send(plan: Sequence[PlannedObject]) -> int:
    return sum(planned.item.size for planned in plan if planned.state != SAME)
