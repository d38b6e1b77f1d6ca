"""The website's way: files for its upload form, and the version ids that come back."""

import csv
import hashlib
import json
import re
import zipfile

import pandas as pd
import pytest

from allen2022_surface_packaging.plugin import plugin_path
from brainscore_allen2022_surface.loaders import load_assembly
from publish.uploads import NAME, OBJECTS, list_recorded
from support import run_cli

FIELDS = ["file_name", "size", "sha1", "bucket", "version_id"]
BUCKET = "brainscore-storage/brainscore-vision/data/user_007/"


@pytest.fixture
def packed(release, tmp_path):
    """The folder that `pack` writes."""
    result = run_cli("pack", release, tmp_path / "packed")
    assert result.returncode == 0, result.stderr
    return tmp_path / "packed"


@pytest.fixture
def rows(packed):
    """The rows of the table, filled in as by a user: the bucket only once."""
    with (packed / "version_ids.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["bucket"] = BUCKET
    return [row | {"version_id": f"version{number}"} for number, row in enumerate(rows)]


@pytest.fixture
def record(release, packed, artifacts_path):
    """Fill in the table, run `record`, and return its output or its one error line."""

    def run(rows, status=0, columns=FIELDS):
        with (packed / "version_ids.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        result = run_cli("record", release, packed / "version_ids.csv", "--artifacts", artifacts_path)
        assert result.returncode == status, result.stderr
        lines = [line for line in result.stderr.splitlines() if line.startswith("allen2022-surface: ")]
        assert len(lines) == (status > 0)
        return lines[0] if lines else result.stdout

    return run


def test_packed_files_are_the_objects_of_the_release(release, packed):
    assert {path.name for path in packed.iterdir()} == {*OBJECTS, "README.md", "version_ids.csv"}
    for split in ("train", "test"):
        whole = (packed / f"assy_{NAME}_{split}.nc").read_bytes()
        assert whole == (release / f"{NAME}_{split}.nc").read_bytes()
        table = pd.read_csv(packed / f"stimulus_{NAME}_{split}.csv")
        with zipfile.ZipFile(packed / f"stimulus_{NAME}_{split}.zip") as archive:
            assert archive.namelist() == table.filename.tolist()
    with (packed / "version_ids.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file_name"] for row in rows] == OBJECTS
    for row in rows:
        content = (packed / row["file_name"]).read_bytes()
        assert (row["size"], row["sha1"]) == (str(len(content)), hashlib.sha1(content).hexdigest())
        assert row["bucket"] == row["version_id"] == ""


def test_page_says_first_that_private_storage_must_be_asked_for(packed):
    page = (packed / "README.md").read_text(encoding="utf-8")
    title, first = (" ".join(part.split()) for part in page.split("\n\n")[:2])

    assert title == f"# Upload `{NAME}` through Brain-Score's website"
    assert first.startswith("**First ask Brain-Score's team for private storage")
    assert "are public by default" in first
    assert "forbid giving the data" in first
    for name in OBJECTS:
        assert f"| `{name}` |" in page
    assert "(CSV)" in page
    assert "(ZIP)" in page
    assert "(NetCDF)" in page
    assert "5 GB. These files have 0.00 GB together. That fits." in page


def test_same_release_is_packed_to_the_same_bytes(release, packed, tmp_path):
    run_cli("pack", release, tmp_path / "again")

    for path in packed.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_existing_folder_is_refused_and_stays_as_it_is(release, tmp_path):
    (tmp_path / "there").mkdir()

    result = run_cli("pack", release, tmp_path / "there")

    assert result.returncode == 1
    assert f"{tmp_path / 'there'} exists already. Remove it" in result.stderr
    assert list((tmp_path / "there").iterdir()) == []


def test_damaged_release_is_not_packed(release_copy, tmp_path):
    path = release_copy / f"{NAME}_test.nc"
    path.write_bytes(path.read_bytes()[:-1])

    result = run_cli("pack", release_copy, tmp_path / "packed")

    assert result.returncode == 1
    assert "release is not sound, so it is not published: " in result.stderr
    assert not (tmp_path / "packed").exists()


def test_recorded_versions_are_those_of_the_table(record, rows, artifacts_path):
    before = json.loads(artifacts_path.read_text())

    output = record(rows)

    assert f"{artifacts_path} now lists {NAME}.train" in output
    recorded = {entry["key"].rpartition("/")[2]: entry for entry in list_recorded(artifacts_path)}
    assert set(recorded) == set(OBJECTS)
    for row in rows:
        entry = recorded[row["file_name"]]
        assert entry["bucket"] == "brainscore-storage"
        assert entry["key"] == f"brainscore-vision/data/user_007/{row['file_name']}"
        assert (entry["version_id"], entry["sha1"], str(entry["size"])) == (row["version_id"], row["sha1"], row["size"])
    after = json.loads(artifacts_path.read_text())
    assert all(after[name] == before[name] for name in before if not name.startswith(f"{NAME}."))


def test_packed_files_load_after_they_are_stored_and_recorded(
    release, packed, s3, rows, record, artifacts_path, monkeypatch
):
    s3.create_bucket(Bucket="website")
    s3.put_bucket_versioning(Bucket="website", VersioningConfiguration={"Status": "Enabled"})
    for row in rows:
        content = (packed / row["file_name"]).read_bytes()
        row["version_id"] = s3.put_object(Bucket="website", Key=f"user_1/{row['file_name']}", Body=content)["VersionId"]
        row["bucket"] = "website/user_1"

    record(rows)

    loaded, expected = (load_assembly(NAME, "test", "V4", source=source) for source in (artifacts_path, release))
    assert (loaded.values == expected.values).all()
    assert loaded["neuroid_id"].values.tolist() == expected["neuroid_id"].values.tolist()


FAULTS = {
    "other SHA-1": (
        lambda rows: rows[3].update(sha1="0" * 40),
        f"{OBJECTS[3]} has SHA-1 0{{40}} and .* the release gives",
    ),
    "other size": (lambda rows: rows[3].update(size="5"), f"{OBJECTS[3]} has SHA-1 .* and 5 bytes, but"),
    "no version": (lambda rows: rows[2].update(version_id=" "), f"{OBJECTS[2]} has no version id. Fill in"),
    "no versioning": (lambda rows: rows[2].update(version_id="null"), f"{OBJECTS[2]} has no version id. Fill in"),
    "no bucket": (lambda rows: rows[0].update(bucket=""), f"{OBJECTS[0]} has no bucket. Fill in BUCKET/PREFIX"),
    "missing file": (lambda rows: rows.pop(), "lacks assy_.*_V4_test.nc .*Add a row"),
    "other file": (lambda rows: rows.append(rows[0] | {"file_name": "x.nc"}), "names x.nc, which is no object"),
    "file twice": (lambda rows: rows.append(rows[0]), f"names {OBJECTS[0]} twice"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_table_is_refused_in_one_line_and_changes_nothing(record, rows, artifacts_path, fault):
    change, message = FAULTS[fault]
    change(rows)
    before = artifacts_path.read_bytes()

    assert re.search(message, line := record(rows, status=1)), line
    assert artifacts_path.read_bytes() == before


def test_table_with_other_columns_is_refused(record, rows):
    assert "has the columns file_name, sha1, expected" in record(rows, status=1, columns=["file_name", "sha1"])


def test_missing_table_is_named(release, tmp_path, artifacts_path):
    result = run_cli("record", release, tmp_path / "none.csv", "--artifacts", artifacts_path)

    assert result.returncode == 1
    assert "none.csv cannot be read" in result.stderr


def test_installed_plugin_is_named_before_its_file_is_changed(release, tmp_path):
    """The table is refused, so that the file stays as it is."""
    before = (plugin_path() / "artifacts.json").read_bytes()
    (tmp_path / "ids.csv").write_text(",".join(FIELDS) + "\n")

    result = run_cli("record", release, tmp_path / "ids.csv")

    assert f"will be recorded in {plugin_path() / 'artifacts.json'}, the file of the installed plugin" in result.stdout
    assert (plugin_path() / "artifacts.json").read_bytes() == before
