"""Publishing to moto's S3 over HTTP, through a proxy that counts requests: plan, order, objects and artifacts.json."""

import hashlib
import json
import logging
import shutil
from pathlib import Path

import pytest
import xarray as xr

from allen2022_surface_packaging.plugin import plugin_path
from allen2022_surface_packaging.publish import upload as publishing
from allen2022_surface_packaging.publish.upload import publish_release
from publish.uploads import NAME, OBJECTS, PREFIX, REGIONS, list_recorded, list_versions, mark_simulated, publish


@pytest.mark.parametrize("simulated", [False, True])
def test_dry_run_prints_the_plan_and_changes_nothing(upload, release_copy, s3, proxy, artifacts_path, simulated):
    before = artifacts_path.read_bytes()

    plan = upload("--dry-run", path=mark_simulated(release_copy, simulated), status=0)

    assert ("was built from a simulated tree: without --dry-run, it is refused." in plan) == simulated
    path = release_copy / f"{NAME}_train.nc"
    sha1 = hashlib.sha1(path.read_bytes()).hexdigest()
    line = next(line for line in plan.splitlines() if "assy_" in line)
    assert line.split() == [
        f"{PREFIX}/assy_{NAME}_train.nc", f"{path.stat().st_size:,}", "bytes", "SHA-1", sha1, "new"
    ]  # fmt: skip
    assert plan.count(" new") == len(OBJECTS)
    assert f"The objects will be recorded in {artifacts_path}" in plan
    assert not list_versions(s3)
    assert artifacts_path.read_bytes() == before
    assert {request.method for request in proxy.requests} == {"GET", "HEAD"}


def test_dry_run_without_credentials_shows_the_files_and_what_is_unknown(upload, s3, monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    plan = upload("--dry-run", status=0)

    assert plan.count("  unknown, see below") == len(OBJECTS)
    assert "What S3 holds is unknown: s3://brain: failed to look at the bucket (" in plan
    assert "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY." in plan


def test_nothing_is_sent_without_accepting_the_terms(upload, proxy):
    assert "then add --accept-nsd-terms" in upload(status=2)
    assert proxy.requests == []


def flip_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DESTINATION = "expected BUCKET or BUCKET/PREFIX"
REFUSED = {  # what is spoiled of the release, of the artifacts file or in S3; options of the command; what the user reads
    "simulated release": (lambda r, a, s3: mark_simulated(r), {}, "a simulated tree, so it is not published. Build a"),
    "damaged release": (lambda r, a, s3: flip_last_byte(r / f"{NAME}_test.nc"), {}, f"{NAME}_test.nc has the SHA-1 "),
    "damaged artifacts file": (lambda r, a, s3: a.write_text("{not json"), {}, "artifacts.json is damaged ("),
    "read-only artifacts file": (None, {"artifacts": "nowhere/a.json"}, "its folder is missing or read-only. Choose another"),
    "bucket without versions": (
        *(lambda r, a, s3: s3.create_bucket(Bucket="plain"), {"bucket": "plain"}),
        "s3://plain keeps no versions (versioning is never switched on)",
    ),
    "bucket that is missing": (None, {"bucket": "nowhere"}, "s3://nowhere: failed to look at the bucket (NoSuchBucket"),
    "no bucket": (None, {"bucket": "/"}, DESTINATION),
    "prefix from which brainio cannot load": (None, {"bucket": "brain/a//b"}, DESTINATION),
    "prefix with a space": (None, {"bucket": "brain/a b"}, DESTINATION),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_upload_is_refused_before_anything_is_sent(
    upload, release_copy, s3, proxy, artifacts_path, spoil, options, message
):
    if spoil:
        spoil(release_copy, artifacts_path, s3)
    before = artifacts_path.read_bytes()

    line = upload("--accept-nsd-terms", path=release_copy, **{"artifacts": artifacts_path} | options)

    assert message in line
    assert {request.method for request in proxy.requests} <= {"GET"}  # it may have looked at the bucket
    assert artifacts_path.read_bytes() == before


def test_published_name_with_another_shape_is_warned_of(four_subject_release, release, s3, tmp_path, caplog):
    publish(release, tmp_path / "artifacts.json", dry_run=True)
    assert "published dataset" not in caplog.text
    measured = mark_simulated(Path(shutil.copytree(four_subject_release, tmp_path / "four")), simulated=False)

    publish(measured, tmp_path / "artifacts.json", dry_run=True)

    (train, test) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert train.startswith("Allen2022_fmri_surface_4subj.train has the shape (")
    assert "but the published dataset of this name has (800, 110584, 1). Was it built from all of NSD?" in train
    assert "has (600, 110584, 1)" in test


def test_stimulus_sets_go_first_and_artifacts_describe_all_objects(release, s3, proxy, artifacts_path, tmp_path):
    publish(release, artifacts_path)

    assert proxy.contents_sent() == OBJECTS
    recorded = list_recorded(artifacts_path)
    assert list_versions(s3) == {Path(entry["key"]).name: [entry["version_id"]] for entry in recorded}
    for entry in recorded:
        found = s3.get_object(Bucket=entry["bucket"], Key=entry["key"], VersionId=entry["version_id"])
        content = found["Body"].read()
        assert hashlib.sha1(content).hexdigest() == entry["sha1"]
        assert len(content) == entry["size"]
        assert "simulated" not in entry
        if entry["key"].endswith(".nc"):
            (tmp_path / "object.nc").write_bytes(content)
            with xr.open_dataarray(tmp_path / "object.nc") as assembly:
                assert entry["shape"] == list(assembly.shape)


def test_second_upload_sends_nothing_and_records_the_same(release, s3, proxy, artifacts_path, tmp_path):
    publish(release, artifacts_path)
    first = list_versions(s3)
    proxy.clear()

    plan = publish(release, artifacts_path, dry_run=True)
    publish(release, tmp_path / "other.json")

    assert plan.count("already there, skipped") == len(OBJECTS)
    assert proxy.contents_sent() == []
    assert list_versions(s3) == first
    assert list_recorded(tmp_path / "other.json") == list_recorded(artifacts_path)


def test_other_content_is_replaced_only_with_overwrite(upload, s3, proxy, artifacts_path):
    key = f"{PREFIX}/assy_{NAME}_test.nc"
    theirs = s3.put_object(Bucket="brain", Key=key, Body=b"another file")["VersionId"]

    assert f"s3://brain/{key} is there with another content (1 such objects in all)" in upload("--accept-nsd-terms")
    assert proxy.contents_sent() == []

    assert "different, replaced only with --overwrite" in upload("--dry-run", status=0)

    (line,) = upload("-q", "--accept-nsd-terms", "--overwrite", status=0).splitlines()
    assert line.startswith(f"{artifacts_path} now lists ")  # and not the plan
    assert list_versions(s3)[Path(key).name][1:] == [theirs]
    assert s3.get_object(Bucket="brain", Key=key, VersionId=theirs)["Body"].read() == b"another file"


def test_content_is_compared_when_another_tool_put_the_object(release_copy, release, s3, artifacts_path):
    """S3 has no SHA-1 of it, and files of the same size may differ in a single byte."""
    flip_last_byte(release_copy / f"{NAME}_test.nc")
    for split in ("train", "test"):
        s3.upload_file(str(release_copy / f"{NAME}_{split}.nc"), "brain", f"{PREFIX}/assy_{NAME}_{split}.nc")

    lines = publish(release, artifacts_path, dry_run=True).splitlines()

    assert "already there" in next(line for line in lines if f"assy_{NAME}_train.nc" in line)
    assert "different" in next(line for line in lines if f"assy_{NAME}_test.nc" in line)


@pytest.mark.parametrize(("destination", "start"), [("s3://brain", ""), ("brain/one/two/", "one/two/")])
def test_destination_is_a_bucket_with_or_without_a_prefix(upload, s3, destination, start):
    plan = upload("--dry-run", bucket=destination, status=0)

    assert plan.startswith(f"To s3://brain:\n{start}{OBJECTS[0]} ")


def test_only_the_entries_of_the_release_are_replaced(release, four_subject_release, s3, artifacts_path):
    before = json.loads(artifacts_path.read_text())
    before[f"{NAME}.LO1.test"] = {"assembly": before["Allen2022_fmri_surface.test"]["assembly"]}  # of an older release
    before["Other.LO1.test"] = before[f"{NAME}.LO1.test"]
    artifacts_path.write_text(json.dumps(before))
    del before[f"{NAME}.LO1.test"]

    publish(release, artifacts_path)
    between = json.loads(artifacts_path.read_text())
    publish(four_subject_release, artifacts_path, allow_simulated=True)
    after = json.loads(artifacts_path.read_text())

    assert list(between) == [*before, *(f"{NAME}.{split}" for split in ("train", "test")), *IDENTIFIERS_OF_REGIONS]
    assert all(between[name] == before[name] for name in before)
    assert list(after)[: len(between)] == list(between)
    changed = [name for name in between if after[name] != between[name]]
    assert changed == [f"Allen2022_fmri_surface_4subj.{split}" for split in ("train", "test")]
    assert after["Allen2022_fmri_surface_4subj.V1.test"]["assembly"]["simulated"] is True


IDENTIFIERS_OF_REGIONS = [f"{NAME}.{region}.{split}" for split in ("train", "test") for region in REGIONS]


def test_file_of_the_installed_plugin_is_the_default(release, s3):
    plan = publish_release(release, "brain", dry_run=True)

    assert f"The objects will be recorded in {plugin_path()}/artifacts.json (--artifacts FILE chooses another)" in plan


def test_large_object_is_refused_before_anything_is_sent(upload, proxy, monkeypatch):
    monkeypatch.setattr(publishing, "LARGEST_OBJECT_BYTES", 10_000)

    assert "S3 takes at most 10,000 in one request. Nothing was sent" in upload("--accept-nsd-terms")
    assert proxy.requests == []
