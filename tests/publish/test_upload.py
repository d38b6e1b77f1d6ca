"""Publishing to moto's S3 over HTTP, through a proxy that counts requests: plan, order, objects and artifacts.json."""

import hashlib
import json
from pathlib import Path

import netCDF4
import pytest
import xarray as xr

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.plugin import plugin_path
from allen2022_surface_packaging.publish import upload
from allen2022_surface_packaging.publish.s3 import open_target
from allen2022_surface_packaging.publish.upload import publish_release
from allen2022_surface_packaging.recipe import PUBLISHED_REGIONS
from publish.proxy import refuse
from publish.uploads import NAME, OBJECTS, PREFIX, REGIONS, list_recorded, list_versions, publish
from support import accept


def test_dry_run_prints_the_plan_and_changes_nothing(release, s3, proxy, artifacts_path):
    before = artifacts_path.read_bytes()

    plan = publish(release, artifacts_path, dry_run=True)

    path = release / f"{NAME}_train.nc"
    sha1 = hashlib.sha1(path.read_bytes()).hexdigest()
    line = next(line for line in plan.splitlines() if "assy_" in line)
    assert line.split() == [
        f"{PREFIX}/assy_{NAME}_train.nc", f"{path.stat().st_size:,}", "bytes", "SHA-1", sha1, "new"
    ]  # fmt: skip
    assert plan.count(" new") == len(OBJECTS)
    assert not list_versions(s3)
    assert artifacts_path.read_bytes() == before
    assert {request.method for request in proxy.requests} <= {"GET", "HEAD", "POST"}
    assert all(request.path == "/" for request in proxy.requests if request.method == "POST")  # who am I


def test_stimulus_sets_go_first_and_artifacts_describe_all_objects(release, s3, proxy, artifacts_path):
    publish(release, artifacts_path)

    assert proxy.contents_sent() == OBJECTS
    assert list_versions(s3) == {
        Path(entry["key"]).name: [entry["version_id"]] for entry in list_recorded(artifacts_path)
    }
    for entry in list_recorded(artifacts_path):
        found = s3.get_object(Bucket=entry["bucket"], Key=entry["key"], VersionId=entry["version_id"])
        content = found["Body"].read()
        assert hashlib.sha1(content).hexdigest() == entry["sha1"] == found["Metadata"]["sha1"]
        assert len(content) == entry["size"]


def test_uploaded_assembly_equals_the_file_of_the_release(release, s3, artifacts_path):
    publish(release, artifacts_path)

    for split in ("train", "test"):
        content = s3.get_object(Bucket="brain", Key=f"{PREFIX}/assy_{NAME}_{split}.nc")["Body"].read()
        assert content == (release / f"{NAME}_{split}.nc").read_bytes()


def test_objects_are_tagged_with_the_uploader_and_stay_private(release, s3, proxy, artifacts_path):
    publish(release, artifacts_path)

    for name in OBJECTS:
        tags = s3.get_object_tagging(Bucket="brain", Key=f"{PREFIX}/{name}")["TagSet"]
        assert [tag["Key"] for tag in tags] == ["uploadedBy"]
    names = {name.lower() for request in proxy.requests for name in [*request.headers, *request.query]}
    assert "x-amz-tagging" in names
    assert not {name for name in names if name == "acl" or name.startswith(("x-amz-acl", "x-amz-grant"))}


def test_objects_are_not_tagged_when_aws_does_not_answer(release, s3, proxy, artifacts_path, caplog):
    """A firewall may allow S3 only, and S3 may not be that of Amazon."""
    body = b"<ErrorResponse><Error><Code>UnsupportedOperation</Code><Message>no</Message></Error></ErrorResponse>"
    answer = 400, {"Content-Type": "text/xml"}, body
    proxy.fault = lambda request: answer if request.method == "POST" and request.path == "/" else None

    publish(release, artifacts_path)

    assert "does not say who uploads (UnsupportedOperation)" in caplog.text
    for name in OBJECTS:
        assert s3.get_object_tagging(Bucket="brain", Key=f"{PREFIX}/{name}")["TagSet"] == []


def test_second_upload_sends_nothing_and_records_the_same(release, s3, proxy, artifacts_path, tmp_path):
    publish(release, artifacts_path)
    first = list_versions(s3)
    proxy.clear()

    plan = publish(release, tmp_path / "other.json")

    assert plan.count("already there, skipped") == len(OBJECTS)
    assert proxy.contents_sent() == []
    assert list_versions(s3) == first
    assert list_recorded(tmp_path / "other.json") == list_recorded(artifacts_path)


@pytest.mark.parametrize("size", ["5", None])
def test_object_is_not_recorded_when_s3_reports_other_content(release, s3, proxy, artifacts_path, size):
    """A wrong size, or the right size of wrong bytes."""
    before = artifacts_path.read_bytes()

    def fault(request):
        if request.method == "HEAD" and "versionId" in request.query:
            headers = s3.head_object(Bucket="brain", Key=f"{PREFIX}/{request.name}")["ResponseMetadata"]["HTTPHeaders"]
            return (
                200,
                headers | {"Content-Length": size or headers["content-length"], "x-amz-checksum-sha1": "AAAA"},
                b"",
            )
        if request.method == "GET" and "versionId" in request.query:
            return 200, {}, b"other bytes"
        return None

    proxy.fault = fault

    with pytest.raises(
        PackagingError, match=rf"{OBJECTS[0]} is not what was sent: S3 reports .*expected .* bytes of SHA-1"
    ):
        publish(release, artifacts_path)
    assert artifacts_path.read_bytes() == before
    assert set(proxy.contents_sent()) == {OBJECTS[0]}


def test_other_content_is_replaced_only_with_overwrite(release, s3, proxy, artifacts_path):
    key = f"{PREFIX}/assy_{NAME}_test.nc"
    theirs = s3.put_object(Bucket="brain", Key=key, Body=b"another file")["VersionId"]

    with pytest.raises(PackagingError, match=rf"s3://brain/{key} is there with another content .*--overwrite"):
        publish(release, artifacts_path)
    assert proxy.contents_sent() == []

    plan = publish(release, artifacts_path, overwrite=True)

    assert "different, replaced only with --overwrite" in plan
    assert list_versions(s3)[Path(key).name][1:] == [theirs]
    assert s3.get_object(Bucket="brain", Key=key, VersionId=theirs)["Body"].read() == b"another file"


def test_content_is_compared_when_another_tool_put_the_object(release, s3, proxy, artifacts_path, tmp_path):
    """The tool stores no SHA-1, and files of the same size may differ in a single byte."""
    same, other = (release / f"{NAME}_{split}.nc" for split in ("train", "test"))
    changed = bytearray(other.read_bytes())
    changed[-1] ^= 1
    s3.put_object(Bucket="brain", Key=f"{PREFIX}/assy_{NAME}_train.nc", Body=same.read_bytes())
    s3.put_object(Bucket="brain", Key=f"{PREFIX}/assy_{NAME}_test.nc", Body=bytes(changed))

    lines = publish(release, artifacts_path, dry_run=True).splitlines()

    assert "already there" in next(line for line in lines if f"assy_{NAME}_train.nc" in line)
    assert "different" in next(line for line in lines if f"assy_{NAME}_test.nc" in line)


def test_object_from_before_versioning_gets_a_version(release, s3, artifacts_path):
    s3.create_bucket(Bucket="older")
    s3.put_object(Bucket="older", Key=f"assy_{NAME}_train.nc", Body=(release / f"{NAME}_train.nc").read_bytes())
    s3.put_bucket_versioning(Bucket="older", VersioningConfiguration={"Status": "Enabled"})

    publish_release(release, "older", artifacts_path=artifacts_path)

    assert all(entry["version_id"] not in ("null", None, "") for entry in list_recorded(artifacts_path))


@pytest.mark.parametrize("dry_run", [False, True])
def test_damaged_release_is_not_sent(release_copy, s3, proxy, artifacts_path, dry_run):
    path = release_copy / f"{NAME}_test.nc"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    with pytest.raises(PackagingError, match="not sound, so it is not published: .*SHA-1"):
        publish(release_copy, artifacts_path, dry_run=dry_run)
    assert proxy.contents_sent() == []


@pytest.mark.parametrize("status", [None, "Suspended"])
def test_bucket_without_versions_is_refused(release, s3, artifacts_path, status):
    s3.create_bucket(Bucket="plain")
    if status:
        s3.put_bucket_versioning(Bucket="plain", VersioningConfiguration={"Status": status})

    with pytest.raises(PackagingError, match="s3://plain keeps no versions .*Switch versioning on"):
        publish_release(release, "plain", artifacts_path=artifacts_path)


@pytest.mark.parametrize("destination", ["", "/", "s3://", "brain/a//b", "brain/a b"])
def test_destination_is_refused_when_brainio_cannot_load_from_it(release, s3, artifacts_path, destination):
    with pytest.raises(PackagingError, match="expected BUCKET or BUCKET/PREFIX"):
        publish_release(release, destination, artifacts_path=artifacts_path)


@pytest.mark.parametrize("destination", ["brain", "brain/", "s3://brain/", "brain/one/two/", "s3://brain/one/two"])
def test_destination_may_have_any_usual_form(s3, destination):
    target = open_target(destination)

    assert target.bucket == "brain"
    assert target.key("x.nc") == ("one/two/x.nc" if "one" in destination else "x.nc")


def test_only_the_entries_of_the_release_are_replaced(release, four_subject_release, s3, artifacts_path):
    before = json.loads(artifacts_path.read_text())
    before[f"{NAME}.train"] = before["Allen2022_fmri_surface.train"]
    artifacts_path.write_text(json.dumps(before))

    publish(release, artifacts_path)
    between = json.loads(artifacts_path.read_text())
    publish(four_subject_release, artifacts_path, allow_simulated=True)
    after = json.loads(artifacts_path.read_text())

    assert list(between)[:5] == list(after)[:5] == list(before)
    assert [name for name in before if between[name] != before[name]] == [f"{NAME}.train"]
    changed = [name for name in between if after[name] != between[name]]
    assert changed == [f"Allen2022_fmri_surface_4subj.{split}" for split in ("train", "test")]
    assert len(after) == 4 + 2 * (1 + len(REGIONS)) + 2 * len(PUBLISHED_REGIONS)


def test_entries_of_regions_that_the_release_no_longer_has_are_removed(release, s3, artifacts_path):
    artifacts = json.loads(artifacts_path.read_text())
    artifacts[f"{NAME}.LO1.test"] = {"assembly": artifacts["Allen2022_fmri_surface.test"]["assembly"]}
    artifacts["Other.LO1.test"] = artifacts[f"{NAME}.LO1.test"]
    artifacts_path.write_text(json.dumps(artifacts))

    publish(release, artifacts_path)

    after = json.loads(artifacts_path.read_text())
    assert f"{NAME}.LO1.test" not in after
    assert after["Other.LO1.test"] == artifacts["Other.LO1.test"]


def test_release_of_another_name_gets_other_entries(release_copy, s3, artifacts_path):
    manifest = json.loads((release_copy / "release.json").read_text())
    manifest["name"] = manifest["recipe"]["name"] = "Other"
    for split in ("train", "test"):
        with netCDF4.Dataset(release_copy / f"{NAME}_{split}.nc", "r+") as file:
            file["data"].identifier = file["data"].stimulus_set_identifier = f"Other.{split}"
        (release_copy / f"{NAME}_{split}.nc").rename(release_copy / f"Other_{split}.nc")
        del manifest["files"][f"{NAME}_{split}.nc"]
    (release_copy / "release.json").write_text(json.dumps(manifest))
    for split in ("train", "test"):
        accept(release_copy, f"Other_{split}.nc")

    publish(release_copy, artifacts_path)

    assert [Path(entry["key"]).name for entry in list_recorded(artifacts_path, "Other")][0] == "assy_Other_train.nc"
    assert len(json.loads(artifacts_path.read_text())) == 4 + 2 * (1 + len(REGIONS))


def test_nothing_is_sent_when_artifacts_cannot_be_written(release, s3, proxy, artifacts_path, tmp_path):
    artifacts_path.write_text("{not json")

    with pytest.raises(PackagingError, match="artifacts.json is damaged .*Repair it"):
        publish(release, artifacts_path)
    with pytest.raises(PackagingError, match="could not be written: its folder is missing or read-only"):
        publish(release, tmp_path / "nowhere" / "artifacts.json")
    assert proxy.requests == []


def test_plugin_path_is_that_of_the_installed_plugin(monkeypatch):
    import brainscore_allen2022_surface

    assert (plugin_path() / "artifacts.json") == Path(brainscore_allen2022_surface.__file__).with_name("artifacts.json")


def test_file_of_the_installed_plugin_is_named_before_anything_is_sent(release, s3, proxy):
    path = plugin_path() / "artifacts.json"
    before = path.read_bytes()
    told = []
    proxy.fault = lambda request: refuse(403, "AccessDenied") if request.puts() else None

    publish_release(release, "brain", dry_run=True, tell=told.append)
    with pytest.raises(PackagingError, match="failed to put the object"):
        publish_release(release, "brain", tell=told.append)

    says = (
        f"The objects will be recorded in {path}, the file of the installed plugin (--artifacts FILE chooses another)"
    )
    assert told[0] == told[2] == says
    assert path.read_bytes() == before


def test_recorded_shapes_are_those_of_the_objects(release, s3, artifacts_path, tmp_path):
    publish(release, artifacts_path)

    recorded = [entry for entry in list_recorded(artifacts_path) if entry["key"].endswith(".nc")]
    assert len(recorded) == 2 * (1 + len(REGIONS))
    for entry in recorded:
        s3.download_file(entry["bucket"], entry["key"], str(tmp_path / "object.nc"))
        with xr.open_dataarray(tmp_path / "object.nc") as assembly:
            assert entry["shape"] == list(assembly.shape)


def test_large_object_is_refused_before_anything_is_sent(release, s3, proxy, artifacts_path, monkeypatch):
    monkeypatch.setattr(upload, "LARGEST_OBJECT_BYTES", 10_000)

    with pytest.raises(PackagingError, match="S3 takes at most 10,000 in one request. Nothing was sent"):
        publish(release, artifacts_path)
    assert proxy.requests == []
