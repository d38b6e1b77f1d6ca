"""The manifest of a release, and the paths of its files."""

import json
import shutil
from dataclasses import replace

import pytest

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.recipe import make_recipe
from allen2022_surface_packaging.release import Manifest, ReleaseFolder


def rewrite_manifest(release, change) -> None:
    path = ReleaseFolder(release).manifest_path
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.fixture
def written(release, tmp_path):
    """A folder with the manifest of a release alone."""
    shutil.copy(release / "release.json", tmp_path)
    return tmp_path


def test_manifest_is_the_same_when_it_is_read_and_written(written, release):
    Manifest.read(ReleaseFolder(release)).write(ReleaseFolder(written))

    assert (written / "release.json").read_bytes() == (release / "release.json").read_bytes()


def test_simulated_tree_is_marked_until_its_mark_is_removed(tiny_tree_copy, tmp_path):
    recipe = make_recipe((1,), name="one")
    build_release(tiny_tree_copy, tmp_path / "simulated", recipe)
    (tiny_tree_copy / "SIMULATED.txt").unlink()
    build_release(tiny_tree_copy, tmp_path / "measured", recipe)

    assert Manifest.read(ReleaseFolder(tmp_path / "simulated")).simulated
    assert not Manifest.read(ReleaseFolder(tmp_path / "measured")).simulated


def test_manifest_of_an_earlier_version_without_the_mark_is_of_measurements(written):
    rewrite_manifest(written, lambda manifest: manifest.pop("simulated"))

    assert Manifest.read(ReleaseFolder(written)).simulated is False


SHA1, TEST_NAME = "0" * 40, "Allen2022_fmri_surface_test.nc"
DAMAGES = {
    "wrong type": (lambda m: m.update(n_vertices="many"), r"Expected `int`, got `str`.*n_vertices"),
    "missing key": (lambda m: m.pop("recipe"), "Object missing required field `recipe`"),
    "negative size": (lambda m: m["files"].update(a={"size": -1, "sha1": SHA1}), "Expected `int` >= 0"),
    "another name": (lambda m: m.update(name="Other"), "name is 'Other', expected 'Allen2022_fmri_surface', the na"),
    "impossible recipe": (lambda m: m["recipe"].update(subjects=[4, 1]), r"recipe is .subjects is \[4, 1\], expected"),
    "image format": (lambda m: m.update(image_format="gif"), r"Expected `str` matching regex .*image_format"),
    "short hash": (lambda m: m["files"].update(a={"size": 1, "sha1": "a" * 39}), "Expected `str` matching regex"),
    "region name": (lambda m: m["regions"][0].update(name="a b"), r"Expected `str` matching regex .*regions.*name"),
    "region twice": (lambda m: m["regions"][0].update(name="V2"), "regions is .*'V2', 'V2'.* expected every name once"),
    "no regions": (lambda m: m.update(regions=[]), r"regions is \[\], expected every name once"),
    "no sessions": (lambda m: m.update(sessions={}), r"the keys of sessions is \[\], expected \['subj01', 'subj02'"),
    "counts of one region": (lambda m: m["nan_counts"]["subj04"].pop("V4"), "the keys of nan_counts of subj04 is"),
    "neuroids of one split": (lambda m: m["shapes"].update(test=[78, 921, 1]), "shapes is .*expected equal neuroids"),
    "repetition missing": (lambda m: m["shapes"].update(test=[79, 920, 1]), "shapes is .*3 presentations of each"),
    "no assembly": (lambda m: m["files"].pop(TEST_NAME), f"files is 'without {TEST_NAME}', expected the size"),
    "no split": (lambda m: m["files"].pop("train_test_split.csv"), "files is 'without train_test_split.csv', expected"),
    "empty": (b"", ""),
    "cut short": (b"{", ""),
    "not UTF-8": (b"\xff\xfe{}", ""),
    "deeply nested": (b"[" * 100_000, ""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_manifest_is_refused_in_one_line(written, damage):
    change, message = DAMAGES[damage]
    if callable(change):
        rewrite_manifest(written, change)
    else:
        (written / "release.json").write_bytes(change)

    expected = rf"^\S*release\.json is damaged \({message}.*\)\. Build the release again\.$"
    with pytest.raises(PackagingError, match=expected):
        Manifest.read(ReleaseFolder(written))


def test_manifest_of_another_version_that_cannot_be_read_names_the_version(written):
    versions = {"brainscore_allen2022_surface": "99.0"}
    rewrite_manifest(written, lambda manifest: manifest.update(versions=versions, shapes="as in version 99"))

    message = r"It was built by version 99\.0 of this package, and this is .*: install that\."
    with pytest.raises(PackagingError, match=message):
        Manifest.read(ReleaseFolder(written))


@pytest.mark.parametrize("path", ["missing", "empty", "file"])
def test_folder_without_a_manifest_is_not_a_release(tmp_path, path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()

    with pytest.raises(PackagingError, match=rf"{path} is not a release: it holds no release\.json\. Build one first"):
        Manifest.read(ReleaseFolder(tmp_path / path))


def test_manifest_holds_no_description_and_no_path_of_the_recipe(written):
    manifest = Manifest.read(ReleaseFolder(written))
    recipe = replace(manifest.recipe, description="for people", source="/home/me/two.toml")
    replace(manifest, recipe=recipe).write(ReleaseFolder(written))

    text = (written / "release.json").read_text()
    assert "for people" not in text
    assert "/home/me" not in text
