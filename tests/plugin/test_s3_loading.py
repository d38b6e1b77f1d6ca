"""Loading what was published, from moto's S3 over HTTP, through the real brainscore_vision."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import boto3
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from botocore.awsrequest import AWSResponse
from brainscore_core.supported_data_standards.brainio import fetch as core_fetch
from brainscore_core.supported_data_standards.brainio import packaging as core_packaging
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly
from brainscore_core.supported_data_standards.brainio.s3 import load_assembly_from_s3, load_stimulus_set_from_s3
from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet

from allen2022_surface_packaging.publish.upload import publish_release
from brainscore_allen2022_surface import artifacts
from brainscore_allen2022_surface.links import is_linked, link, unlink
from brainscore_allen2022_surface.loaders import load_assembly, load_stimulus_set

NAMES = ("Allen2022_fmri_surface", "Allen2022_fmri_surface_4subj")
WHOLE = [f"{name}.{split}" for name in NAMES for split in ("train", "test")]
REGIONS = [
    f"{name}.{region}.{split}" for name in NAMES for region in ("V1", "V2", "V4", "IT") for split in ("train", "test")
]
PREFIX = "benchmarks/Allen2022/surface"
IMAGE = "stimulus_Allen2022_fmri_surface_test/nsd_*.png"


@pytest.fixture(scope="module")
def published(release, four_subject_release, moto_port, tmp_path_factory):
    """Both releases in a versioned bucket, and the artifacts.json that lists them."""
    path = tmp_path_factory.mktemp("artifacts") / "artifacts.json"
    with pytest.MonkeyPatch.context() as monkeypatch:
        configure(monkeypatch, moto_port)
        client = boto3.client("s3")
        client.create_bucket(Bucket="brain")
        client.put_bucket_versioning(Bucket="brain", VersioningConfiguration={"Status": "Enabled"})
        for folder in (release, four_subject_release):
            publish_release(folder, f"brain/{PREFIX}", artifacts_path=path)
    return path


def configure(monkeypatch, port):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3(published, moto_port, monkeypatch):
    """A client; whatever loads in this test loads from S3, into a cache that is empty."""
    configure(monkeypatch, moto_port)
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS", str(published))
    monkeypatch.setattr(core_fetch, "_local_data_path", None)  # where it remembers the first BRAINIO_HOME it saw
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # nor the first credentials
    return boto3.client("s3", aws_access_key_id="testing", aws_secret_access_key="testing")


@pytest.fixture
def cache(s3):
    return Path(os.environ["BRAINIO_HOME"])


@pytest.fixture
def downloads(s3, monkeypatch):
    """The keys that are downloaded, in order, as boto3's own events tell."""
    keys = []
    make_client = boto3.client

    def observed(*arguments, **options):
        client = make_client(*arguments, **options)
        client.meta.events.register(
            "before-parameter-build.s3.GetObject", lambda params, **_: keys.append(params["Key"])
        )
        return client

    monkeypatch.setattr(boto3, "client", observed)
    return keys


@pytest.fixture(scope="module")
def brainscore():
    """brainscore_vision with the plugin linked into it."""
    import brainscore_vision

    was_linked = is_linked()
    link()
    yield brainscore_vision
    if not was_linked:
        with contextlib.suppress(OSError):
            unlink()


@pytest.fixture
def local(release, four_subject_release, tmp_path, monkeypatch):
    """Load as from a release on disk."""
    for folder in (release, four_subject_release):
        (tmp_path / folder.name).symlink_to(folder)

    def load(function, *arguments):
        with monkeypatch.context() as patch:
            patch.setenv("BRAINSCORE_ALLEN2022_SURFACE_DIR", str(tmp_path))
            return function(*arguments)

    return load


def assert_same_assembly(found, expected):
    # NaN ceilings of the noise are equal to themselves here, as assert_identical has it
    xr.testing.assert_identical(plain(found), plain(expected))
    names = ("identifier", "stimulus_set_identifier")
    assert [found.attrs[name] for name in names] == [expected.attrs[name] for name in names]
    assert_same_stimuli(found.attrs["stimulus_set"], expected.attrs["stimulus_set"])


def plain(assembly):
    return xr.DataArray(assembly.values, coords=assembly.coords, dims=assembly.dims)


def assert_same_stimuli(found, expected):
    assert found.identifier == expected.identifier
    pd.testing.assert_frame_equal(pd.DataFrame(found), pd.DataFrame(expected))
    for stimulus_id in expected.stimulus_id:
        assert found.get_stimulus(stimulus_id).read_bytes() == expected.get_stimulus(stimulus_id).read_bytes()


def split_of(identifier):
    return identifier.rpartition(".")[2]


def stored(kind, identifier="Allen2022_fmri_surface.test"):
    return artifacts.stored_objects(identifier)[kind]


# --- what is loaded ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("identifier", WHOLE + REGIONS)
def test_every_assembly_is_that_of_the_local_release(brainscore, s3, local, identifier):
    assert_same_assembly(brainscore.load_dataset(identifier), local(brainscore.load_dataset, identifier))


@pytest.mark.parametrize("identifier", WHOLE)
def test_every_stimulus_set_is_that_of_the_local_release(brainscore, s3, local, identifier):
    assert_same_stimuli(brainscore.load_stimulus_set(identifier), local(brainscore.load_stimulus_set, identifier))


def test_the_ceiling_is_that_of_the_local_release(brainscore, s3, local):
    def ceiling():
        assembly = brainscore.load_dataset("Allen2022_fmri_surface.V4.test").isel(time_bin=0)
        return brainscore.load_ceiling("internal_consistency")(assembly)

    found, expected = ceiling(), local(ceiling)

    assert float(found) == float(expected) > 0
    np.testing.assert_array_equal(found.raw.values, expected.raw.values)


@pytest.mark.parametrize("identifier", WHOLE)
def test_brainscore_cores_own_loaders_open_what_was_uploaded(s3, local, identifier):
    name, split = identifier.split(".")
    objects = artifacts.stored_objects(identifier)
    own = local(load_assembly, name, split)

    def stimuli():
        return load_stimulus_set_from_s3(
            identifier=identifier,
            bucket=f"brain/{PREFIX}",
            csv_sha1=objects["stimulus_csv"].sha1,
            zip_sha1=objects["stimulus_zip"].sha1,
            csv_version_id=objects["stimulus_csv"].version_id,
            zip_version_id=objects["stimulus_zip"].version_id,
        )

    assembly = load_assembly_from_s3(
        identifier=identifier,
        version_id=objects["assembly"].version_id,
        sha1=objects["assembly"].sha1,
        bucket=f"brain/{PREFIX}",
        cls=NeuroidAssembly,
        stimulus_set_loader=stimuli,
    )

    assert_same_stimuli(stimuli(), own.attrs["stimulus_set"])
    np.testing.assert_array_equal(assembly.values, own.values)
    assert set(assembly.indexes["presentation"].names) == set(own.indexes["presentation"].names)
    for level in (*own.indexes["presentation"].names, *own.indexes["neuroid"].names):
        np.testing.assert_array_equal(assembly[level].values, own[level].values)


BRAINIO = """
import json, sys
import numpy as np
from brainio import fetch
from brainio.assemblies import AssemblyLoader, NeuroidAssembly
from brainio.stimuli import StimulusSet, StimulusSetLoader

csv, archive, netcdf = (
    fetch.fetch_file("S3", f"https://{o['bucket']}.s3.amazonaws.com/{o['key']}", o["sha1"], o["version_id"])
    for o in json.loads(sys.argv[1])
)
stimulus_set = StimulusSetLoader(csv_path=csv, stimuli_directory=fetch.unzip(archive), cls=StimulusSet).load()
assembly = AssemblyLoader(cls=NeuroidAssembly, file_path=netcdf).load()
print(json.dumps([len(stimulus_set), list(assembly.shape), float(assembly.values.astype(np.float64).sum())]))
"""


def test_the_brainio_of_pypi_opens_what_was_uploaded(s3, local):
    own = local(load_assembly, "Allen2022_fmri_surface", "test")
    objects = json.loads(Path(os.environ["BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS"]).read_text())
    kinds = [objects["Allen2022_fmri_surface.test"][k] for k in ("stimulus_csv", "stimulus_zip", "assembly")]

    # in a process of its own: it is another copy of brainscore_core's classes
    run = subprocess.run([sys.executable, "-c", BRAINIO, json.dumps(kinds)], capture_output=True, text=True)

    assert run.returncode == 0, run.stderr
    expected = [len(own.attrs["stimulus_set"]), list(own.shape), float(own.values.astype(np.float64).sum())]
    assert json.loads(run.stdout.splitlines()[-1]) == expected


def test_objects_made_by_brainscore_core_load_as_well(s3, local, tmp_path, monkeypatch):
    """The published objects were: compressed, strings of any length, the CSV's columns in whatever order."""
    own = local(load_assembly, "Allen2022_fmri_surface", "test")
    stimuli = own.attrs["stimulus_set"]
    table = StimulusSet(stimuli[["stimulus_id", "nsd_id"]].copy())
    table.stimulus_paths = stimuli.stimulus_paths
    names = {"stimulus_csv": "stimulus_X.csv", "stimulus_zip": "stimulus_X.zip", "assembly": "assy_X.nc"}
    _, table["filename"] = core_packaging.create_stimulus_zip(table, str(tmp_path / names["stimulus_zip"]))
    core_packaging.create_stimulus_csv(table, tmp_path / names["stimulus_csv"])
    bare = plain(own).reset_index(["presentation", "neuroid", "time_bin"])
    bare = NeuroidAssembly(bare.drop_vars(["filename", "image_file_name", "coco_id"]))
    core_packaging.write_netcdf(bare, str(tmp_path / names["assembly"]))
    entries = {}
    for kind, name in names.items():
        content = (tmp_path / name).read_bytes()
        version_id = s3.put_object(Bucket="brain", Key=f"theirs/{name}", Body=content)["VersionId"]
        sha1 = hashlib.sha1(content).hexdigest()
        entries[kind] = {"bucket": "brain", "key": f"theirs/{name}", "version_id": version_id, "sha1": sha1}
    listed = tmp_path / "artifacts.json"
    listed.write_text(json.dumps({"Allen2022_fmri_surface.test": entries}))
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS", str(listed))

    found = load_assembly("Allen2022_fmri_surface", "test")
    region = load_assembly("Allen2022_fmri_surface", "test", region="V2")

    np.testing.assert_array_equal(found.values, own.values)
    for level in ("stimulus_id", "nsd_id", "repetition", "filename", *own.indexes["neuroid"].names):
        np.testing.assert_array_equal(found[level].values, own[level].values)
    np.testing.assert_array_equal(region.values, own.values[:, own["region"].values == "V2"])


# --- artifacts.json ------------------------------------------------------------------------------------------------------


def test_the_plugins_artifacts_are_those_that_brainscore_vision_registers():
    """The ids that came with brain-score/vision 2.4.2, read from its own registration lines."""
    import brainscore_vision

    folder = Path(brainscore_vision.__file__).parent / "data"
    registered = "".join(
        (folder / name / "__init__.py").read_text() for name in ("allen2022_fmri", "allen2022_fmri_surface")
    )
    listed = json.loads(artifacts.PUBLISHED_PATH.read_text())

    assert list(listed) == WHOLE
    for identifier, objects in listed.items():
        infix = "_4subj" if "4subj" in identifier else ""
        split = split_of(identifier)
        prefix = "brainscore-vision/benchmarks/Allen2022"
        assert {kind: entry["key"] for kind, entry in objects.items()} == {
            "assembly": f"{prefix}/Allen2022_fmri_surface/assy_Allen2022_fMRI_surface{infix}_{split}_Assembly.nc",
            "stimulus_csv": f"{prefix}/Allen2022_fmri/stimulus_Allen2022_fMRI{infix}_{split}_Stimuli.csv",
            "stimulus_zip": f"{prefix}/Allen2022_fmri/stimulus_Allen2022_fMRI{infix}_{split}_Stimuli.zip",
        }
        for kind, entry in objects.items():
            name = Path(entry["key"]).stem.removeprefix("assy_").removeprefix("stimulus_")
            lines = registered[registered.index(f'identifier="{name}"') :].partition("registry[")[0]
            what = {"assembly": "", "stimulus_csv": "csv_", "stimulus_zip": "zip_"}[kind]
            assert entry["bucket"] == "brainscore-storage"
            assert f'{what}version_id="{entry["version_id"]}"' in lines
            assert f'{what}sha1="{entry["sha1"]}"' in lines


def test_a_dataset_that_is_not_listed_is_told(s3):
    with pytest.raises(FileNotFoundError, match="lists Allen2022_fmri_surface.test, .*expected Other.test. Upload it"):
        load_assembly("Other", "test")


@pytest.mark.parametrize("content", ["{", "[]", '{"Allen2022_fmri_surface.test": {"assembly": {"sha1": "x"}}}'])
def test_damaged_artifacts_are_told(s3, tmp_path, monkeypatch, content):
    (tmp_path / "artifacts.json").write_text(content)
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS", str(tmp_path / "artifacts.json"))

    with pytest.raises(ValueError, match="artifacts.json is damaged"):
        load_assembly("Allen2022_fmri_surface", "test")


# --- cache ---------------------------------------------------------------------------------------------------------------


def test_what_is_cached_is_not_downloaded_again_and_brainscore_core_finds_it_too(s3, cache, downloads):
    load_assembly("Allen2022_fmri_surface", "test")
    assert len(downloads) == 3
    downloads.clear()

    load_assembly("Allen2022_fmri_surface", "test", region="IT")
    assembly = stored("assembly")
    path = core_fetch.fetch_file(
        "S3", f"https://brain.s3.amazonaws.com/{assembly.key}", sha1=assembly.sha1, version_id=assembly.version_id
    )

    assert downloads == []
    assert Path(path) == cache / assembly.sha1 / "assy_Allen2022_fmri_surface_test.nc"


def test_a_stimulus_set_comes_without_the_assembly(s3, downloads):
    load_stimulus_set("Allen2022_fmri_surface", "test")

    assert {Path(key).suffix for key in downloads} == {".csv", ".zip"}


def test_the_version_is_pinned(s3, local):
    """A later version of an object changes nothing for those who pinned the older."""
    key = stored("assembly").key
    later = s3.put_object(Bucket="brain", Key=key, Body=b"a later version")["VersionId"]
    try:
        found = load_assembly("Allen2022_fmri_surface", "test")
    finally:
        s3.delete_object(Bucket="brain", Key=key, VersionId=later)

    assert_same_assembly(found, local(load_assembly, "Allen2022_fmri_surface", "test"))


def change_a_byte(path):
    """Damage a file as a failing disk does: nothing of its size or modification time tells."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [change_a_byte, truncate, empty])
@pytest.mark.parametrize("kind", ["assembly", "stimulus_csv", "stimulus_zip"])
def test_a_damaged_file_in_the_cache_is_fetched_once_more(s3, cache, local, downloads, kind, damage):
    load_assembly("Allen2022_fmri_surface", "test")
    load_assembly("Allen2022_fmri_surface", "test")
    damaged = stored(kind)
    damage(cache / damaged.sha1 / Path(damaged.key).name)
    downloads.clear()

    found = load_assembly("Allen2022_fmri_surface", "test")

    assert downloads == [damaged.key]
    assert_same_assembly(found, local(load_assembly, "Allen2022_fmri_surface", "test"))


@pytest.mark.parametrize("was_cached", [False, True])
def test_an_object_that_is_not_what_it_should_be_is_fetched_once_more_and_then_told(
    s3, cache, downloads, published, tmp_path, monkeypatch, was_cached
):
    """What lies on S3 under the pinned version is another file."""
    listed = json.loads(published.read_text())
    entry = listed["Allen2022_fmri_surface.test"]["stimulus_csv"]
    entry["version_id"] = s3.put_object(Bucket="brain", Key="else.csv", Body=b"stimulus_id\n")["VersionId"]
    entry["key"] = "else.csv"
    (tmp_path / "artifacts.json").write_text(json.dumps(listed))
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS", str(tmp_path / "artifacts.json"))
    if was_cached:
        (cache / entry["sha1"]).mkdir(parents=True)
        (cache / entry["sha1"] / "else.csv").write_bytes(b"damaged")

    with pytest.raises(ValueError, match=r"s3://brain/else.csv .* was fetched once more, but has the SHA-1 \w+ again"):
        load_stimulus_set("Allen2022_fmri_surface", "test")

    assert downloads == ["else.csv"] * (1 if was_cached else 2)
    assert sorted(path.name for path in (cache / entry["sha1"]).iterdir()) == (["else.csv"] if was_cached else [])


def half_extracted(folder):
    for path in sorted(folder.iterdir())[::2]:
        path.unlink()


def cut_short(folder):
    truncate(sorted(folder.iterdir())[1])


def changed(folder):
    change_a_byte(sorted(folder.iterdir())[2])


def emptied(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize("damage", [half_extracted, cut_short, changed, emptied, shutil.rmtree])
def test_damaged_images_in_the_cache_are_restored(s3, cache, local, downloads, damage):
    load_stimulus_set("Allen2022_fmri_surface", "test")
    damage(next(cache.glob(f"*/{IMAGE}")).parent)
    downloads.clear()

    found = load_stimulus_set("Allen2022_fmri_surface", "test")

    assert downloads == []  # the ZIP is there
    assert_same_stimuli(found, local(load_stimulus_set, "Allen2022_fmri_surface", "test"))


def test_nothing_but_the_files_stays_in_the_cache(s3, cache):
    load_assembly("Allen2022_fmri_surface", "test")

    visible = {path.name for path in cache.glob("*/*") if not path.name.endswith(".checked")}
    assert visible == {
        "assy_Allen2022_fmri_surface_test.nc",
        "stimulus_Allen2022_fmri_surface_test",
        "stimulus_Allen2022_fmri_surface_test.csv",
        "stimulus_Allen2022_fmri_surface_test.zip",
    }


def test_what_a_killed_download_left_is_removed_a_day_later(s3, cache):
    assembly = stored("assembly")
    folder = cache / assembly.sha1
    folder.mkdir(parents=True)
    old, young = (folder / f".{Path(assembly.key).name}.{end}" for end in ("0a1b", "2c3d"))
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (0, 0))

    artifacts.fetch(assembly)

    assert not old.exists()
    assert young.exists()


def test_a_file_that_has_not_changed_is_not_hashed_again(s3, monkeypatch):
    """To hash a whole assembly takes several times as long as to read one region of it."""
    load_assembly("Allen2022_fmri_surface", "test")
    monkeypatch.setattr(artifacts, "_sha1_of", lambda path: pytest.fail(f"{path} was hashed"))

    load_assembly("Allen2022_fmri_surface", "test", region="V4")


def test_a_cache_that_cannot_be_written_to_is_read(s3, cache, monkeypatch):
    load_assembly("Allen2022_fmri_surface", "test")
    for path in cache.glob("*/.*.checked"):
        path.unlink()
    write_text = Path.write_text

    def refuse(path, *arguments, **options):
        if cache in path.parents:
            raise PermissionError(13, "Read-only file system", str(path))
        return write_text(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", refuse)

    assert load_assembly("Allen2022_fmri_surface", "test").sizes["time_bin"] == 1


LOAD = """
import sys
from brainscore_allen2022_surface.loaders import load_assembly
assembly = load_assembly("Allen2022_fmri_surface", "test")
print(float(abs(assembly.values).sum()), len(assembly.attrs["stimulus_set"].stimulus_paths))
"""


@pytest.mark.parametrize("state", ["empty", "half extracted", "damaged"])
def test_two_processes_that_load_at_the_same_time_both_succeed(s3, cache, local, state):
    if state != "empty":
        load_assembly("Allen2022_fmri_surface", "test")
        damage = (
            half_extracted if state == "half extracted" else lambda folder: [truncate(p) for p in cache.glob("*/*.*")]
        )
        damage(next(cache.glob(f"*/{IMAGE}")).parent)
    own = local(load_assembly, "Allen2022_fmri_surface", "test")

    processes = [
        subprocess.Popen([sys.executable, "-c", LOAD], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in processes]

    assert [process.returncode for process in processes] == [0, 0], outputs
    expected = [float(abs(own.values).sum()), len(own.attrs["stimulus_set"])]
    for output, _ in outputs:
        assert [float(value) for value in output.split()[-2:]] == expected


# --- ZIP -----------------------------------------------------------------------------------------------------------------


def put_zip(s3, entries, tmp_path):
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    content = path.read_bytes()
    version_id = s3.put_object(Bucket="brain", Key="made.zip", Body=content)["VersionId"]
    return artifacts.StoredObject("brain", "made.zip", version_id, hashlib.sha1(content).hexdigest())


@pytest.mark.parametrize(
    "name", ["../outside.png", "/outside.png", "a/../../outside.png", "..\\outside.png", "C:\\outside.png"]
)
def test_a_zip_entry_that_points_outside_its_folder_is_refused(s3, cache, tmp_path, name):
    hostile = put_zip(s3, {"fine.png": b"fine", name: b"hostile"}, tmp_path)

    with pytest.raises(ValueError, match="points outside its folder. It is refused"):
        artifacts.fetch_folder(hostile)
    assert not list(cache.rglob("*outside*"))
    assert not list(cache.rglob("fine.png"))


def test_folders_inside_a_zip_are_extracted(s3, tmp_path):
    nested = put_zip(s3, {"a/": b"", "a/one.png": b"1", "two.png": b"2"}, tmp_path)

    folder = artifacts.fetch_folder(nested)

    assert {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")} == {
        "a/one.png": b"1",
        "two.png": b"2",
    }


def test_a_file_that_is_no_zip_is_told(s3):
    version_id = s3.put_object(Bucket="brain", Key="no.zip", Body=b"no zip")["VersionId"]
    stored_object = artifacts.StoredObject("brain", "no.zip", version_id, hashlib.sha1(b"no zip").hexdigest())

    with pytest.raises(ValueError, match="s3://brain/no.zip .* is not a sound ZIP file"):
        artifacts.fetch_folder(stored_object)


# --- access --------------------------------------------------------------------------------------------------------------


def test_without_network_and_cache_the_error_says_what_where_and_the_way_out(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    with pytest.raises(ConnectionError) as error:
        load_stimulus_set("Allen2022_fmri_surface", "test")

    message = str(error.value)
    assert f"s3://brain/{PREFIX}/stimulus_Allen2022_fmri_surface_test.csv" in message
    assert "set BRAINSCORE_ALLEN2022_SURFACE_DIR to a release" in message
    assert "\n" not in message


def test_without_network_the_cache_is_enough(s3, local, monkeypatch):
    load_assembly("Allen2022_fmri_surface", "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    found = load_assembly("Allen2022_fmri_surface", "test")

    assert_same_assembly(found, local(load_assembly, "Allen2022_fmri_surface", "test"))


@pytest.fixture
def public(s3):
    """An object that everyone may read."""
    version_id = s3.put_object(Bucket="brain", Key="public.csv", Body=b"x", ACL="public-read")["VersionId"]
    return artifacts.StoredObject("brain", "public.csv", version_id, hashlib.sha1(b"x").hexdigest())


def test_without_credentials_access_without_any_is_tried(public, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)

    assert artifacts.fetch(public).read_bytes() == b"x"


class Empty(BytesIO):
    """The body of an answer without one."""

    def stream(self):
        return iter(())


def test_where_credentials_are_refused_access_without_any_is_tried(public, monkeypatch):
    """A public bucket refuses signatures of credentials that it does not know."""
    make_client = boto3.client
    refused = []

    def answer(request, **_):
        if "Authorization" not in request.headers:
            return None
        refused.append(request.url)
        return AWSResponse(request.url, 403, {}, Empty())

    def strict(*arguments, **options):
        client = make_client(*arguments, **options)
        client.meta.events.register("before-send.s3", answer)
        return client

    monkeypatch.setattr(boto3, "client", strict)

    assert artifacts.fetch(public).read_bytes() == b"x"
    assert refused


def test_where_access_is_refused_both_refusals_are_told(s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)

    with pytest.raises(ConnectionError, match="Unable to locate credentials; without credentials: .*403"):
        load_stimulus_set("Allen2022_fmri_surface", "test")


def test_credentials_with_a_line_end_are_told_but_not_shown(s3, gone, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAQUITESECRET00000\n")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)

    with pytest.raises(ConnectionError, match="the credentials hold a character") as error:
        load_stimulus_set("Allen2022_fmri_surface", "test")
    assert "QUITESECRET" not in str(error.value)


@pytest.fixture
def gone(published, tmp_path, monkeypatch):
    """An artifacts.json whose test table is not on S3."""
    listed = json.loads(published.read_text())
    listed["Allen2022_fmri_surface.test"]["stimulus_csv"]["key"] = "gone.csv"
    (tmp_path / "artifacts.json").write_text(json.dumps(listed))
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS", str(tmp_path / "artifacts.json"))


def test_an_object_that_is_gone_is_told(s3, gone):
    with pytest.raises(
        ConnectionError, match="s3://brain/gone.csv .* could not be downloaded: .*404.*without credentials"
    ):
        load_stimulus_set("Allen2022_fmri_surface", "test")
