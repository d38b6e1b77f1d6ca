"""A FIFO in place of a file never blocks a command, and a damaged stimulus table is one line."""

import os
import re

import pytest

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.publish.objects import write_stimulus_table
from publish.uploads import NAME
from support import run_cli

pytestmark = pytest.mark.timeout(60)


def run_refused(*arguments):
    """Run a command that fails, and return its one line."""
    result = run_cli(*arguments)
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("allen2022-surface: ")]
    return line


def replace_by_fifo(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


FILES = ["release.json", f"{NAME}_test.nc", "stimulus_metadata_train.csv", "stimuli_test", "new"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("command", ["upload", "pack", "record"])
def test_fifo_in_a_release_is_named(release_copy, s3, tmp_path, artifacts_path, command, name):
    target = release_copy / name
    path = replace_by_fifo(min(target.iterdir()) if target.is_dir() else target)
    arguments = {
        "upload": ["--bucket", "brain/x", "--dry-run", "--artifacts", artifacts_path],
        "pack": [tmp_path / "packed"],
        "record": [tmp_path / "version_ids.csv", "--artifacts", artifacts_path],
    }[command]

    assert f"{path} is neither a regular file nor a folder" in run_refused(command, release_copy, *arguments)


def test_fifo_as_artifacts_file_is_named(release, s3, tmp_path):
    path = replace_by_fifo(tmp_path / "artifacts.json")

    line = run_refused("upload", release, "--bucket", "brain/x", "--dry-run", "--artifacts", path)

    assert f"{path} is not a regular file" in line


def test_fifo_as_table_of_version_ids_is_named(release, tmp_path, artifacts_path):
    path = replace_by_fifo(tmp_path / "version_ids.csv")

    assert f"{path} is not a regular file" in run_refused("record", release, path, "--artifacts", artifacts_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(text.splitlines()[1].split(",")[2], ""),
        lambda text: text.replace(text.splitlines()[1].split(",")[2], "../outside.png"),
        lambda text: text + text.splitlines()[1],
        lambda text: text.replace("image_file_name", "name"),
        lambda text: text.splitlines()[0],
        lambda text: text + "a,b,c,d,e,f\n",
        lambda text: text + '"',
        lambda text: "",
    ],
    ids=["empty name", "name outside", "row twice", "no column", "no rows", "long row", "open quote", "empty"],
)
def test_damaged_stimulus_table_is_named(release_copy, s3, artifacts_path, tmp_path, change):
    path = release_copy / "stimulus_metadata_test.csv"
    path.write_text(change(path.read_text()))

    line = run_refused(*("upload", release_copy, "--bucket", "brain/x", "--dry-run", "--artifacts", artifacts_path))

    assert f"{release_copy} is not sound, so it is not published: {path} has " in line
    with pytest.raises(PackagingError, match=f"^{re.escape(str(path))} is damaged") as raised:
        write_stimulus_table(path, tmp_path / "table.csv")
    assert "\n" not in str(raised.value)
