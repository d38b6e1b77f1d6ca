"""A release published to S3: verified, planned, uploaded, and recorded in `artifacts.json`."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from ..errors import PackagingError
from ..facts import N_REPETITIONS
from ..progress import follow, format_bytes
from ..recipe import N_NEUROIDS_OF_PUBLISHED_REGIONS, published_dataset
from ..release import Manifest
from .artifacts import ObjectRecord, choose_artifacts, record_release
from .objects import ObjectFile, open_release, write_objects
from .s3 import ExistingObject, UploadTarget

logger = logging.getLogger(__name__)

LARGEST_OBJECT_BYTES = 5 * 2**30  # of one PutObject: Amazon S3 User Guide, "Uploading objects"
NO_SETTINGS: Mapping[str, str] = {}
Plan: TypeAlias = Sequence[tuple[ObjectFile, ExistingObject | None]]  # each file, and what S3 holds under its key


def publish_release(
    release_path: Path,
    destination: str,
    *,
    artifacts_path: Path | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    allow_simulated: bool = False,
    put_settings: Mapping[str, str] = NO_SETTINGS,
) -> str:
    """Verify, plan, upload and record a release. The plan is logged.

    NSD's terms forbid giving the data to others. Use a bucket that only people who accepted the terms can read; an object
    that anybody can read stops the upload.

    Parameters
    ----------
    destination : BUCKET or BUCKET/PREFIX
    artifacts_path : path, optional
        The file to record the objects in; by default the plugin's `artifacts.json`.
    overwrite : replace objects with other content
    dry_run : verify and plan only; this works with a simulated release as well, and without access to S3
    allow_simulated : publish a simulated release as well, marked as such; for demonstrations and tests
    put_settings : what the bucket requires of each PutObject, by the names of boto3, such as ``ServerSideEncryption``

    Returns
    -------
    what was done, or in a dry run the plan, for the user

    Raises
    ------
    PackagingError
        If the release is simulated or not sound, S3 holds an object with other content, anybody can read an object, or S3
        fails. Objects that were uploaded before the failure stay, and the next call does not send them again.
    """
    target = UploadTarget(destination.removeprefix("s3://").strip("/"), put_settings)
    artifacts_path = choose_artifacts(artifacts_path)
    release, manifest = open_release(release_path, allow_simulated=allow_simulated or dry_run)
    _warn_of_other_shape(manifest)
    with tempfile.TemporaryDirectory(prefix="allen2022_surface_upload_", ignore_cleanup_errors=True) as folder:
        files = write_objects(release, manifest, Path(folder))
        largest = max(files, key=lambda file: file.size)
        if largest.size > LARGEST_OBJECT_BYTES:
            raise PackagingError(
                f"{largest.path} has {largest.size:,} bytes, but S3 takes at most {LARGEST_OBJECT_BYTES:,} in one request. "
                "Nothing was sent. Build releases of fewer subjects or regions."
            )
        plan, problem = _make_plan(target, files)
        if problem and not dry_run:
            raise problem
        description = _describe_plan(target, plan, problem)
        description += f"\nThe objects will be recorded in {artifacts_path} (--artifacts FILE chooses another)"
        if dry_run and manifest.simulated:
            description += f"\n{release} was built from a simulated tree: without --dry-run, it is refused."
        if dry_run:
            return description
        logger.info(description)
        different = [target.url(file) for file, existing in plan if existing and not existing.is_same]
        if different and not overwrite:
            raise PackagingError(
                f"{different[0]} is there with another content ({len(different)} such objects in all). Nothing was sent. "
                "Choose another prefix, or add --overwrite; loaders that ask for the older version still get it."
            )
        versions = _send(target, plan)
    records = []
    for file, version_id in zip(files, versions, strict=True):
        address = (target.bucket, target.key(file), version_id)
        records.append((file.item, ObjectRecord(*address, file.sha1, file.size, file.item.shape, file.item.simulated)))
    return record_release(artifacts_path, manifest.name, records)


def _warn_of_other_shape(manifest: Manifest) -> None:
    """Warn if a release has the name of a published dataset, but another shape: a tree without all of NSD's files."""
    dataset = published_dataset(manifest.name)
    if dataset is None or manifest.simulated:
        return
    n_neuroids = len(dataset.subjects) * sum(N_NEUROIDS_OF_PUBLISHED_REGIONS.values())
    for split, n_images in dataset.n_images.items():
        expected = (n_images * (N_REPETITIONS if split == "test" else 1), n_neuroids, 1)
        if manifest.shapes[split] != expected:
            logger.warning(
                f"{manifest.name}.{split} has the shape {manifest.shapes[split]}, but the published dataset of this name has "
                f"{expected}. Was it built from all of NSD?"
            )


def _make_plan(target: UploadTarget, files: Sequence[ObjectFile]) -> tuple[Plan, PackagingError | None]:
    """Ask S3 what it holds of the files. If that fails, return the error, and a plan that sends everything."""
    try:
        target.require_versions()
        return [(file, target.look_up(file)) for file in files], None
    except PackagingError as error:
        return [(file, None) for file in files], error


def _describe_plan(target: UploadTarget, plan: Plan, problem: PackagingError | None) -> str:
    """Write a plan as a table for people."""
    width = max(len(target.key(file)) for file, _ in plan)
    lines = [f"To s3://{target.bucket}:"]
    for file, existing in plan:
        state = "unknown, see below" if problem else "new"
        if existing is not None:
            state = "already there, skipped" if existing.is_same else "different, replaced only with --overwrite"
        lines.append(f"{target.key(file):{width}}  {file.size:>14,} bytes  SHA-1 {file.sha1}  {state}")
    n_bytes = sum(file.size for file, existing in plan if not (existing and existing.is_same))
    lines.append(f"{format_bytes(n_bytes)} to send")
    return "\n".join([*lines, f"What S3 holds is unknown: {problem}"] if problem else lines)


def _send(target: UploadTarget, plan: Plan) -> list[str]:
    """Send the objects that S3 does not hold, in the order of the plan, and return the versions of all objects.

    Every object must be private: those that S3 holds already, before the first one is sent, and each one that is sent, before
    the next one.
    """
    for file, existing in plan:
        if existing is not None:
            target.require_private(file, "Nothing was sent.")
    versions, sent = [], []
    for file, existing in follow(plan, n_items=len(plan), title="upload", unit="object"):
        if existing is not None and existing.is_same:
            versions.append(existing.version_id)
            continue
        versions.append(target.put(file, existing))
        sent.append(target.url(file))
        logger.info("%s: sent, version %s", sent[-1], versions[-1])
        target.require_private(file, f"Sent so far: {', '.join(sent)}.")
    return versions
