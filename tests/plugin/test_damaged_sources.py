"""Sources that are missing, damaged or mixed up: one line that names the file and says what to do."""

import json
import os
import warnings

import pytest

from brainscore_allen2022_surface import loaders
from brainscore_allen2022_surface.loaders import SimulatedDataWarning, load_assembly, load_stimulus_set

NAME = "Allen2022_fmri_surface"
ASSEMBLY, TABLE = f"{NAME}_test.nc", "stimulus_metadata_test.csv"


def write(release, name, content):
    """Write a file, and let release.json list its size, so that another check must notice."""
    (release / name).write_bytes(content)
    manifest = json.loads((release / "release.json").read_text())
    manifest["files"][name]["size"] = len(content)
    (release / "release.json").write_text(json.dumps(manifest))


def change_table(release, old, new):
    write(release, TABLE, (release / TABLE).read_bytes().replace(old, new))


def first_image(release):
    return sorted((release / "stimuli_test").iterdir())[0]


DAMAGES = {
    "manifest is no JSON": (lambda r: (r / "release.json").write_text("{"), "release.json cannot be read"),
    "manifest has no name": (lambda r: (r / "release.json").write_text("{}"), "release.json cannot be read"),
    "assembly is missing": (lambda r: (r / ASSEMBLY).unlink(), f"{ASSEMBLY} is missing"),
    "assembly is cut short": (lambda r: os.truncate(r / ASSEMBLY, 99), f"{ASSEMBLY} .*it has 99 bytes"),
    "assembly is no NetCDF": (lambda r: write(r, ASSEMBLY, bytes(5000)), f"{ASSEMBLY} cannot be read"),
    "table is missing": (lambda r: (r / TABLE).unlink(), f"{TABLE} is missing"),
    "table is no table": (lambda r: write(r, TABLE, b"\xff\x00"), f"{TABLE} cannot be read"),
    "table has no column of ids": (lambda r: change_table(r, b"stimulus_id", b"x"), f"{TABLE} cannot be read"),
    "table has an empty cell": (lambda r: change_table(r, first_image(r).name.encode(), b""), "it has empty cells"),
    "table lacks a stimulus": (
        lambda r: write(r, TABLE, b"\n".join((r / TABLE).read_bytes().splitlines()[:-1])),
        f"{ASSEMBLY} cannot be read: .*nsd_",
    ),
    "image is missing": (lambda r: first_image(r).unlink(), "png and 0 more images .* are missing"),
    "images are missing": (lambda r: (r / "stimuli_test").rename(r / "x"), "and 25 more images .* are missing"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_release_is_one_line(release_copy, damage, message):
    damage(release_copy)

    with pytest.raises(FileNotFoundError if "missing" in message else ValueError, match=message) as raised:
        load_assembly(NAME, "test", source=release_copy)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["{", "[]", '{"x": {"assembly": {}}}', f'{{"{NAME}.test": {{}}}}'], ids=str)
def test_damaged_artifacts_file_is_one_line(tmp_path, content):
    path = tmp_path / "artifacts.json"
    path.write_text(content)

    with pytest.raises(ValueError, match=rf"^{path} cannot be read") as raised:
        load_stimulus_set(NAME, "test", source=path)
    assert "\n" not in str(raised.value)


def test_source_that_does_not_exist_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_DIR", str(tmp_path / "nowhere"))

    with pytest.raises(FileNotFoundError, match="nowhere does not exist.*BRAINSCORE_ALLEN2022_SURFACE_DIR"):
        load_assembly(NAME, "test")


def test_environment_names_a_release_first_then_artifacts_then_what_ships(monkeypatch, tmp_path):
    assert loaders.default_source() == loaders.SHIPPED_ARTIFACTS_PATH
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS", "~/artifacts.json")
    assert loaders.default_source() == tmp_path.home() / "artifacts.json"
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_DIR", str(tmp_path))
    assert loaders.default_source() == tmp_path


def test_folder_must_hold_the_release_once(four_subject_release, release, tmp_path):
    (tmp_path / "four").symlink_to(four_subject_release)
    (tmp_path / ".hidden").symlink_to(release)

    with pytest.raises(FileNotFoundError, match=rf"holds {NAME}_4subj \(1\), expected {NAME} once"):
        load_assembly(NAME, "test", source=tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(release)
    with pytest.raises(FileNotFoundError, match=rf"holds .*{NAME} \(2\).*, expected {NAME} once"):
        load_assembly(NAME, "test", source=tmp_path)


@pytest.mark.parametrize(
    ("split", "region", "message"),
    [
        ("all", None, "one of train, test"),
        ("test", "MT", "of region MT, only of IT, V1, V2, V4. Choose one of these.$"),
    ],
)
def test_unknown_split_and_region_are_named(release, split, region, message):
    with pytest.raises(ValueError, match=message):
        load_assembly(NAME, split, region, source=release)


def test_simulated_release_warns_where_it_is_loaded(release, release_copy):
    with pytest.warns(SimulatedDataWarning) as caught:
        load_stimulus_set(NAME, "test", source=release)
    assert [warning.filename for warning in caught] == [__file__]

    manifest = json.loads((release_copy / "release.json").read_text())
    (release_copy / "release.json").write_text(json.dumps(manifest | {"simulated": False}))
    with warnings.catch_warnings():
        warnings.simplefilter("error", SimulatedDataWarning)
        load_stimulus_set(NAME, "test", source=release_copy)
