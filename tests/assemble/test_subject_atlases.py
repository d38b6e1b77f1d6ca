"""Regions that NSD drew on each subject's own surface, from raw files to maps. Subject 4 lacks aTL-faces."""

import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import xarray as xr
from nibabel.freesurfer.mghformat import MGHImage

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.recipe import Recipe, Region
from brainscore_allen2022_surface.analysis.fsaverage import to_fsaverage
from brainscore_allen2022_surface.loaders import load_assembly
from reference import prepare_regions
from support import run_cli

LABELS, INDEX = "nsddata/freesurfer/{}/label/{}.{}.mgz", "nsddata/ppdata/{}/transforms/{}.white-to-fsaverage.mgz"
NAMES = {
    "floc-faces": ["OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces"],
    "floc-bodies": ["EBA", "FBA-1", "FBA-2", "mTL-bodies"],
    "floc-places": ["OPA", "PPA", "RSC"],
    "floc-words": ["OWFA", "VWFA-1", "VWFA-2", "mfs-words", "mTL-words"],
}
PLACES = [(subject, hemisphere) for subject in ("subj01", "subj04") for hemisphere in ("lh", "rh")]
RECIPE = 'name = "own"\nsubjects = {}\n[[region]]\nname = "aTL"\natlas = "floc-faces"\nlabels = ["aTL-faces"]\n'


def read_vertices(root, path):
    return np.asarray(nibabel.load(root / path).dataobj).ravel()


def labels_on_fsaverage(root, subject, hemisphere, atlas):
    copied = read_vertices(root, INDEX.format(subject, hemisphere))
    return read_vertices(root, LABELS.format(subject, hemisphere, atlas))[copied - 1]


def write_vertices(root, path, values):
    nibabel.save(MGHImage(np.asarray(values).reshape(-1, 1, 1), np.eye(4)), root / path)


@pytest.fixture(scope="module")
def built(tiny_tree, tmp_path_factory):
    """The release of the recipe `category`, and how its build ended."""
    path = tmp_path_factory.mktemp("built") / "category"
    return path, run_cli("build", tiny_tree, path, "--recipe", "category", "--subjects", 1, 4)


def test_each_vertex_has_the_label_of_the_vertex_that_it_copies(tiny_tree, built):
    with xr.open_dataarray(built[0] / "category_test.nc") as assembly:
        names = ("subject", "hemisphere", "region", "vertex_index")
        found = list(zip(*(assembly[name].values.tolist() for name in names), strict=True))

    expected = []
    for atlas, regions in NAMES.items():
        labels = {place: labels_on_fsaverage(tiny_tree, *place, atlas) for place in PLACES}
        for label, region in enumerate(regions, start=1):
            expected += [(*place, region, v) for place in PLACES for v in np.flatnonzero(labels[place] == label)]
    assert found == expected
    assert len({tuple(v for s, h, _, v in found if (s, h) == place) for place in PLACES}) == 4  # nowhere the same


def test_region_that_a_subject_lacks_is_named_and_left_out(built):
    path, build = built

    assert build.returncode == 0
    assert build.stderr.count("category.toml (category): region aTL-faces has no vertex in subj04\n") == 1
    assert build.stderr.count("has no vertex") == 1
    assert set(load_assembly("category", "test", "aTL-faces", source=path)["subject"].values) == {"subj01"}


def test_release_is_what_the_raw_files_give_and_has_a_report(tiny_tree, built):
    verified, reported = run_cli("verify", built[0], "--nsd-root", tiny_tree, "--all"), run_cli("report", built[0])

    assert (verified.returncode, reported.returncode) == (0, 0)
    assert re.search(r"\n +aTL-faces [0-9.e-]+ +-\n", verified.stdout)
    page = re.sub(r"\s*</?t[dh][^>]*>\s*", "|", (built[0] / "report.html").read_text())
    assert re.search(r"aTL-faces\|+subj04\|+0\|+0\|+0\|", page) and "No neuroid is in aTL-faces of subj04." in page


def test_maps_show_each_subject_at_its_own_vertices(tiny_tree, built):
    words = load_assembly("category", "test", "VWFA-1", source=built[0])
    for subject in ("subj01", "subj04"):
        maps = to_fsaverage(words[0, words["subject"].values == subject, 0], n_vertices=1300)
        for hemisphere, values in maps.items():
            labels = labels_on_fsaverage(tiny_tree, subject, hemisphere, "floc-words")
            np.testing.assert_array_equal(np.isfinite(values), labels == 2)


def test_region_that_all_subjects_lack_is_named_and_left_out(tiny_tree, tmp_path):
    build = run_cli("build", tiny_tree, tmp_path / "faces", "--recipe", "faces", "--subjects", 4)

    assert build.returncode == 0
    assert "faces.toml (faces): region aTL-faces has no vertex in subj04\n" in build.stderr
    with xr.open_dataarray(tmp_path / "faces/faces_test.nc") as assembly:
        assert set(assembly["region"].values) == set(NAMES["floc-faces"][:-1])


@pytest.mark.parametrize("policy", ["zero", "drop"])
def test_subject_may_lack_all_regions_but_not_all_subjects(tiny_tree, tmp_path, policy):
    for name, subjects in (("both", [1, 4]), ("one", [4])):
        (tmp_path / f"{name}.toml").write_text(RECIPE.format(subjects))
    options = ("--nan-policy", policy, "--recipe")

    some = run_cli("build", tiny_tree, tmp_path / "both", *options, tmp_path / "both.toml")
    none = run_cli("build", tiny_tree, tmp_path / "one", *options, tmp_path / "one.toml")

    assert (some.returncode, none.returncode) == (0, 1)
    assert run_cli("verify", tmp_path / "both", "--nsd-root", tiny_tree).returncode == 0
    assert "(own): region 1: aTL (label 5 of floc-faces) has no vertex in subj04. Leave it out, or " in none.stderr


def test_prepared_averages_give_the_same_values_as_betas(tiny_tree, tmp_path):
    root = Path(shutil.copytree(tiny_tree, tmp_path / "nsd"))
    recipe = Recipe("own", (1, 4), tuple(Region(name[:3], "floc-faces", (name,)) for name in ("aTL-faces", "OFA")))
    prepare_regions(root, recipe.subjects, recipe.regions)
    for name, is_prepared in (("raw", False), ("prepared", True)):
        build_release(root, tmp_path / name, recipe, from_region_assemblies=is_prepared)

    raw, prepared = (xr.open_dataarray(tmp_path / name / "own_train.nc").load() for name in ("raw", "prepared"))
    np.testing.assert_allclose(prepared.values, raw.values, rtol=0, atol=1e-5)


def rename_in_table(root):
    path = root / "nsddata/freesurfer/subj04/label/floc-faces.mgz.ctab"
    path.write_text(path.read_text().replace("1 OFA", "9 OFA"))


def change(path, make):
    """Return what writes other values into a file of vertices."""
    return lambda root: write_vertices(root, path, make(read_vertices(root, path)))


LH_INDEX, RH_LABELS = INDEX.format("subj01", "lh"), LABELS.format("subj04", "rh", "floc-faces")
FAULTS = {
    "0-based map": (change(LH_INDEX, lambda index: index - index.min()), f"{LH_INDEX} holds 0 at vertex "),
    "short map": (change(LH_INDEX, lambda index: index[1:]), f"{LH_INDEX} holds 1,299 vertices, expected 1,300"),
    "map of fractions": (
        change(LH_INDEX, lambda index: np.float32(index / 2)),
        "expected the 1-based number of a vertex",
    ),
    "no map": (lambda root: (root / LH_INDEX).unlink(), f"{LH_INDEX} is missing"),
    "labels on fsaverage": (
        change(RH_LABELS, lambda labels: labels[:1300]),
        f"{RH_LABELS} holds 1,300 vertices, expected 1,[0-9]+, as on the surface of subj04",
    ),
    "no labels": (lambda root: (root / RH_LABELS).unlink(), f"{RH_LABELS} is missing"),
    "names of other labels": (rename_in_table, "subj04/label/floc-faces.mgz.ctab gives a name to other labels than"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_damaged_and_foreign_files_are_one_line(tiny_tree, tmp_path, name):
    root = Path(shutil.copytree(tiny_tree, tmp_path / "nsd", copy_function=shutil.copyfile))
    make_fault, message = FAULTS[name]
    make_fault(root)

    checked = run_cli("check", root, "--recipe", "faces", "--subjects", 1, 4)
    built = run_cli("build", root, tmp_path / "faces", "--recipe", "faces", "--subjects", 1, 4)

    assert checked.returncode == built.returncode == 1
    (line,) = re.findall(r"^problem: (.*)$", checked.stdout, re.MULTILINE)
    assert re.search(message, line) and re.search(message, built.stderr.splitlines()[-1])
