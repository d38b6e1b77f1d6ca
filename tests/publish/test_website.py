"""The website's way: files for its upload form, and the version ids that come back."""

import csv
import hashlib
import json
import re

import pytest

from brainscore_allen2022_surface.loaders import load_assembly
from publish.uploads import NAME, OBJECTS, list_recorded, mark_simulated, publish
from support import create_versioned_bucket, hashes, run_cli


@pytest.fixture(scope="module")
def packed(release, tmp_path_factory):
    """The folder that `pack` writes."""
    folder = tmp_path_factory.mktemp("website") / "packed"
    result = run_cli("pack", release, folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def rows(packed):
    """The rows of the table, filled in as by a user: the bucket only once."""
    with (packed / "version_ids.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["bucket"] = "website/user_007/"
    return [row | {"version_id": f"version{number}"} for number, row in enumerate(rows)]


@pytest.fixture
def record(release, tmp_path, artifacts_path):
    """Fill in the table, run `record`, and return its output or its one error line."""

    def run(rows, status=0, **form):
        with (tmp_path / "version_ids.csv").open("w", newline="", encoding=form.pop("encoding", "utf-8")) as file:
            writer = csv.DictWriter(file, list(rows[0]), **form)
            writer.writeheader()
            writer.writerows(rows)
        result = run_cli("record", release, tmp_path / "version_ids.csv", "--artifacts", artifacts_path)
        assert result.returncode == status, result.stderr
        lines = [line for line in result.stderr.splitlines() if line.startswith("allen2022-surface: ")]
        assert len(lines) == (status > 0)
        return lines[0] if lines else result.stdout

    return run


def test_packed_files_are_those_of_the_table_and_of_an_upload(release, packed, s3, tmp_path):
    with (packed / "version_ids.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    publish(release, tmp_path / "uploaded.json", prefix="uploaded")

    assert hashes(packed).keys() == {*OBJECTS, "README.md", "version_ids.csv"}
    assert [row["file_name"] for row in rows] == OBJECTS
    for row in rows:
        content = (packed / row["file_name"]).read_bytes()
        assert (row["size"], row["sha1"]) == (str(len(content)), hashlib.sha1(content).hexdigest())
        assert row["bucket"] == row["version_id"] == ""
        assert str(release.parent).encode() not in content  # no path of this machine
        assert content == s3.get_object(Bucket="brain", Key=f"uploaded/{row['file_name']}")["Body"].read()


def test_page_says_first_that_private_storage_must_be_asked_for(packed):
    page = (packed / "README.md").read_text(encoding="utf-8")
    title, first = (" ".join(part.split()) for part in page.split("\n\n")[:2])

    assert title == f"# Upload `{NAME}` through Brain-Score's website"
    assert first.startswith("**First ask Brain-Score's team for private storage")
    assert all(f"| `{name}` |" in page for name in OBJECTS)
    assert re.search(r"gives each user 5\.0 GB\. These files have \d\d\d kB together\. That fits\.", page)


def test_existing_folder_and_simulated_release_are_refused(release_copy, tmp_path):
    (tmp_path / "there").mkdir()

    result = run_cli("pack", release_copy, tmp_path / "there")
    assert f"{tmp_path / 'there'} exists already. Remove it" in result.stderr
    assert list((tmp_path / "there").iterdir()) == []
    result = run_cli("pack", mark_simulated(release_copy), tmp_path / "packed")
    assert f"{release_copy} was built from a simulated tree, so it is not published" in result.stderr
    assert not (tmp_path / "packed").exists()


def test_packed_files_load_after_they_are_stored_and_recorded(release, packed, s3, rows, record, artifacts_path):
    create_versioned_bucket(s3, "website")
    for row in rows:
        content, key = (packed / row["file_name"]).read_bytes(), f"user_007/{row['file_name']}"
        row["version_id"] = s3.put_object(Bucket="website", Key=key, Body=content)["VersionId"]
    before = json.loads(artifacts_path.read_text())

    output = record(rows)

    assert f"{artifacts_path} now lists {NAME}.train, {NAME}.test, {NAME}.V1.train" in output
    after = json.loads(artifacts_path.read_text())
    assert {name: after[name] for name in before} == before
    recorded = {entry["key"]: entry for entry in list_recorded(artifacts_path)}
    assert len(recorded) == len(OBJECTS)
    for row in rows:
        entry = recorded[f"user_007/{row['file_name']}"]
        assert entry["bucket"] == "website"
        assert (entry["version_id"], entry["sha1"], str(entry["size"])) == (row["version_id"], row["sha1"], row["size"])
    loaded, expected = (load_assembly(NAME, "test", "V4", source=source) for source in (artifacts_path, release))
    assert (loaded.values == expected.values).all()
    assert loaded["neuroid_id"].values.tolist() == expected["neuroid_id"].values.tolist()


def test_table_that_a_spreadsheet_saved_is_recorded(record, rows):
    """With a byte-order mark, and semicolons where numbers have a decimal comma."""
    assert "now lists" in record(rows, encoding="utf-8-sig", delimiter=";")


FAULTS = {
    "table of another release": (
        lambda rows: rows[4].update(sha1="0" * 40),
        f"{OBJECTS[4]} has SHA-1 {'0' * 40}, but that of the release has",
    ),
    "damaged size": (lambda rows: rows[3].update(size="?"), "version_ids.csv cannot be read"),
    "no version": (lambda rows: rows[2].update(version_id=" "), f"{OBJECTS[2]} has no bucket or no version id. Fill in"),
    "no versioning": (lambda rows: rows[2].update(version_id="null"), f"{OBJECTS[2]} has no bucket or no version id"),
    "no bucket": (lambda rows: rows[0].update(bucket=""), f"{OBJECTS[0]} has no bucket or no version id"),
    "missing row": (lambda rows: rows.pop(), f"lacks {OBJECTS[-1]}. Add its row"),
    "other columns": (lambda rows: [row.pop("size") for row in rows], "version_ids.csv cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_table_is_refused_in_one_line_and_changes_nothing(record, rows, artifacts_path, fault):
    change, message = FAULTS[fault]
    change(rows)
    before = artifacts_path.read_bytes()

    assert message in record(rows, status=1)
    assert artifacts_path.read_bytes() == before
