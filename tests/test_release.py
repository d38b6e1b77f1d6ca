"""The manifest of a release, and the paths of its files."""

import json

import pytest

from allen2022_surface_packaging.build.pipeline import build_release
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.recipe import make_recipe
from allen2022_surface_packaging.release import FileRecord, FilledCounts, Manifest, ReleaseFolder, record_files


def rewrite_manifest(release, change) -> None:
    path = ReleaseFolder(release).manifest_path
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_manifest_is_the_same_when_it_is_read_and_written(release, tmp_path):
    manifest = Manifest.read(ReleaseFolder(release))

    manifest.write(ReleaseFolder(tmp_path))

    assert (tmp_path / "release.json").read_bytes() == (release / "release.json").read_bytes()
    assert Manifest.read(ReleaseFolder(tmp_path)) == manifest


def test_manifest_describes_the_release(release):
    manifest = Manifest.read(ReleaseFolder(release))

    assert manifest.recipe == make_recipe()
    assert manifest.name == manifest.recipe.name
    assert manifest.shapes == {"train": (102, 920, 1), "test": (78, 920, 1)}
    assert manifest.sessions == {f"subj{s:02d}": 4 if s in (1, 2, 5, 7) else 3 for s in range(1, 9)}
    assert (manifest.n_vertices, manifest.n_trials_per_session) == (642, 300)
    assert isinstance(manifest.nan_counts["subj01"]["V1"], FilledCounts)
    assert isinstance(manifest.files["train_test_split.csv"], FileRecord)


def test_manifest_says_whether_the_tree_was_simulated(release, tmp_path):
    simulate_tree(tmp_path / "nsd", TreeSize(subjects=(1, 2), n_trials=60, n_vertices=160, image_size=8))
    (tmp_path / "nsd" / "SIMULATED.txt").unlink()
    build_release(tmp_path / "nsd", tmp_path / "measured", make_recipe((1, 2), name="Two"))

    assert Manifest.read(ReleaseFolder(release)).simulated is True
    assert json.loads((release / "release.json").read_text())["simulated"] is True
    assert Manifest.read(ReleaseFolder(tmp_path / "measured")).simulated is False


def test_manifest_of_an_earlier_version_without_the_mark_is_of_measurements(release_copy):
    rewrite_manifest(release_copy, lambda manifest: manifest.pop("simulated"))

    assert Manifest.read(ReleaseFolder(release_copy)).simulated is False


def test_manifest_lists_every_file_of_the_release(release_copy):
    (release_copy / "verify.json").touch()
    (release_copy / "report.html").touch()
    folder = ReleaseFolder(release_copy)

    assert Manifest.read(folder).files == record_files(folder)
    assert set(Manifest.read(folder).files) == {
        str(path.relative_to(release_copy))
        for path in release_copy.rglob("*")
        if path.is_file() and path.name not in ("release.json", "verify.json", "report.html")
    }


FAULTS = {
    "wrong type": (lambda m: m.update(n_vertices="many"), r"Expected `int`, got `str`.*n_vertices"),
    "wrong type inside": (lambda m: m["files"].update(a={"size": "big", "sha1": ""}), r"Expected `int`, got `str`"),
    "missing key": (lambda m: m.pop("recipe"), "missing required field `recipe`"),
    "missing key inside": (lambda m: m["recipe"]["regions"][0].pop("atlas"), "missing required field `atlas`"),
    "list instead of a table": (lambda m: m.update(sessions=[1, 2]), "Expected `object`, got `array`"),
    "too few dimensions": (lambda m: m["shapes"].update(train=[1, 2]), "Expected `array` of length 3"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_manifest_is_refused_in_one_line(release_copy, fault):
    change, message = FAULTS[fault]
    rewrite_manifest(release_copy, change)

    with pytest.raises(PackagingError, match=message) as raised:
        Manifest.read(ReleaseFolder(release_copy))
    assert str(raised.value).startswith(f"{release_copy / 'release.json'} is damaged (")
    assert str(raised.value).endswith("). Build the release again.")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b"\xff\xfe{}", b'"\xff"', b"[" * 100_000, b'{"name": ' * 100_000, b'{\n"name":\n}'],
    ids=["empty", "cut", "null", "list", "other encoding", "not UTF-8", "deep list", "deep table", "no value"],
)
def test_manifest_that_is_no_table_is_refused_in_one_line(release_copy, content):
    (release_copy / "release.json").write_bytes(content)

    with pytest.raises(PackagingError, match=r"release\.json is damaged \(.*\)\. Build the release again") as raised:
        Manifest.read(ReleaseFolder(release_copy))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("path", ["missing", "empty", "file"])
def test_folder_without_a_manifest_is_not_a_release(tmp_path, path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()

    with pytest.raises(PackagingError, match=rf"{path} is not a release: it holds no release\.json\. Build one first"):
        Manifest.read(ReleaseFolder(tmp_path / path))
