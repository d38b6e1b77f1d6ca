"""A release published to S3: verified, planned, uploaded, and recorded in `artifacts.json`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import PackagingError
from ..files import unreplaced
from ..progress import follow_bytes
from ..release import Manifest, ReleaseFolder
from .artifacts import DatasetRecord, ObjectRecord, announce_artifacts, describe_datasets, record_release
from .objects import BrainioObject, make_objects, read_manifest, require_sound
from .privacy import require_private
from .s3 import LARGEST_OBJECT_BYTES, LocalFile, ObjectVersion, UploadTarget, holds, look_up, open_target, put
from .temporary import temporary_folder

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
    allow_simulated: bool = False,
    tell: Callable[[str], object] = logger.info,
) -> None:
    """Verify, plan, upload and record a release.

    NSD's terms forbid giving the data to others. Use a bucket that only people who accepted the terms can read; an object
    that anybody can read stops the upload.

    Parameters
    ----------
    destination : BUCKET or BUCKET/PREFIX
    artifacts_path : path, optional
        The file to record the objects in; by default the plugin's `artifacts.json`.
    overwrite : replace objects with other content
    dry_run : verify and plan only
    allow_simulated : publish a simulated release as well, marked as such; for demonstrations and tests
    tell : called with each line for the user, and with the plan

    Raises
    ------
    PackagingError
        If the release is simulated or not sound, S3 holds an object with other content, anybody can read an object, or S3
        fails. Objects that were uploaded before the failure stay, and the next call does not send them again.
    """
    with unreplaced(release_path):
        release = ReleaseFolder(release_path)
        manifest = read_manifest(release, allow_simulated=allow_simulated)
        artifacts_path = announce_artifacts(artifacts_path, tell)
        require_sound(release)
        with temporary_folder() as folder:
            objects = make_objects(release, manifest, folder)
            refuse_large(objects)
            target = open_target(destination)
            plan = plan_upload(target, objects)
            tell(describe_plan(target, plan))
            if dry_run:
                return
            refuse_different(target, plan, overwrite=overwrite)
            datasets = record_published(target, manifest, upload_planned(target, plan))
    record_release(artifacts_path, manifest.name, datasets)
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
    """Send the objects that S3 does not hold, in the order of the plan, and return all objects as S3 holds them.

    Every object must be private: those that S3 holds already, before the first one is sent, and each one that is sent, before
    the next one.

    Raises
    ------
    PackagingError
        If anybody can read an object, or S3 fails.
    """
    for planned in plan:
        if planned.existing is not None:
            require_private(target, planned.key, planned.existing, sent="Nothing was sent.")
    published, sent = [], []
    with follow_bytes(_n_bytes_to_send(plan), title="upload") as progress:
        for planned in plan:
            if planned.state == SAME and planned.existing is not None:
                published.append(PublishedObject(planned, planned.existing))
                continue
            version = _send(target, planned, progress)
            sent.append(target.url(planned.key))
            require_private(target, planned.key, version, sent=f"Sent so far: {', '.join(sent)}.")
            published.append(PublishedObject(planned, version))
    return published


def record_published(
    target: UploadTarget, manifest: Manifest, published: Sequence[PublishedObject]
) -> dict[str, DatasetRecord]:
    """Return the records of the published objects, by the identifier of the dataset."""
    return describe_datasets(
        (
            one.planned.item,
            ObjectRecord(
                bucket=target.bucket,
                key=one.planned.key,
                version_id=one.version.version_id,
                sha1=one.planned.item.sha1,
                size=one.planned.item.size,
                shape=one.planned.item.shape,
                simulated=manifest.simulated and one.planned.item.kind == "assembly",
            ),
        )
        for one in published
    )


def _send(target: UploadTarget, planned: PlannedObject, progress: Callable[[int], object]) -> ObjectVersion:
    version = put(target, planned.key, planned.file, replaces=planned.existing, progress=progress)
    logger.info("%s: sent, version %s", target.url(planned.key), version.version_id)
    return version


def _n_bytes_to_send(plan: Sequence[PlannedObject]) -> int:
    return sum(planned.item.size for planned in plan if planned.state != SAME)
