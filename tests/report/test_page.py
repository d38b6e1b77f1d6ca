"""The report as a file: what it says of releases of other recipes, its bytes, and the releases that it refuses."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from hashlib import sha1, sha256
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.recipe import change_recipe, read_recipe
from allen2022_surface_packaging.report.page import write_report
from report.reading import REGION_NAMES, SPLITS, Page, agrees, change_manifest, number, split_half_ceiling
from support import accept, hashes, run_cli


def test_facts_and_tiles_equal_the_release(page, truth, reported):
    manifest = json.loads((reported / "release.json").read_text())
    table = pd.read_csv(reported / "train_test_split.csv")
    counts = truth.region.value_counts()

    expected = {
        "Name": "Allen2022_fmri_surface",
        "In Brain-Score": "Allen2022_fmri_surface.train, Allen2022_fmri_surface.test",
        "Subjects": ", ".join(sorted(truth.subject.unique())),
        "Images": ", ".join(f"{(table.split == split).sum()} {split}" for split in SPLITS)
        + "; shared between subjects",
        "Neuroids": ", ".join(f"{region} {counts[region]:,}" for region in REGION_NAMES),
        "Surface": "fsaverage, 642 vertices per hemisphere",
        "Test assembly": " × ".join(f"{n:,}" for n in manifest["shapes"]["test"]) + " float32",
        "Time bin": "70 to 170 ms, a placeholder that Brain-Score requires",
    }
    assert expected.items() <= page.facts.items()
    n_images = len(table)
    for text in (
        "fMRI responses of subj01-subj08 of the Natural Scenes Dataset (Allen et al., 2022; data: https://doi.org/10.60489/roda.v8l0sr)",
        "betas (betas_fithrf_GLMdenoise_RR) with fitted hemodynamic response, GLMdenoise and ridge regression (NSD's b3), on",
        f"We used those {n_images} of NSD's shared images that each of these subjects saw three times. A random split (seed 42)",
        f"{(table.split == 'train').sum()} training images and {(table.split == 'test').sum()} test images.",
        "average responses to all of these images. Values that were not a number (",
        "V1 (labels 1, 2), V2 (labels 3, 4) and V4 (label 7) of the atlas Kastner2015 (Wang et al., 2015); "
        "IT (label 5) of the atlas streams (Allen et al., 2022)",
        f"with brainscore_allen2022_surface {manifest['versions']['brainscore_allen2022_surface']} (recipe Allen2022",
    ):
        assert text in page.methods
    assert re.findall(r"https://doi.org/\S+?(?=[\s);])", page.methods + " ") == [
        "https://doi.org/10.60489/roda.v8l0sr",
        "https://doi.org/10.1038/s41593-021-00962-x",
        "https://doi.org/10.1093/cercor/bhu277",
    ]
    assert page.facts["Size"].endswith(f" in {len(manifest['files'])} files")
    tiles = re.search(
        r"(\S+)subjects\s+(\S+)regions\s+(\S+)images\s+(\S+)neuroids\s+(\S+) %median noise ceiling\s+(\S+)split-half",
        page.text,
    ).groups()
    assert [number(tile) for tile in tiles[:4]] == [8, 4, len(table), len(truth)]
    assert agrees(tiles[4], truth.nc_testset.median(), 1)
    assert agrees(tiles[5], split_half_ceiling(truth), 3)


def test_origin_of_the_release_is_as_in_the_manifest(page, reported):
    manifest = json.loads((reported / "release.json").read_text())
    options = {option: value for option, value, meaning in page.rows("option-table") if meaning}
    choices = {name: manifest["recipe"].get(name, manifest.get(name)) for name in options}

    assert options == {name: str(value) for name, value in choices.items()}
    assert set(options) >= {"betas", "pool", "train_fraction", "split_seed", "standardize_on", "nan_policy"}
    assert [row[0] for row in page.rows("source-table")] == list(REGION_NAMES)
    assert dict(page.rows("version-table")) == manifest["versions"]
    *rows, total = page.rows("input-table")
    assert sum(number(row[1]) for row in rows) == number(total[1]) == len(manifest["inputs"]) > len(rows)
    files = page.rows("file-table")
    assert {row[0] for row in files} == {path.name for path in reported.iterdir() if path.is_file()} - {"report.html"}
    assert all(digest == sha1((reported / name).read_bytes()).hexdigest() for name, _, digest in files)


def test_contact_sheets_show_the_images_of_each_split_in_order(page, reported):
    tables = [pd.read_csv(reported / f"stimulus_metadata_{split}.csv") for split in SPLITS]

    assert [picture["alt"] for picture in page.pictures] == [name for table in tables for name in table.stimulus_id]
    assert f"Train: all {len(tables[0])} images" in page.text


def assert_fits(tab, path):
    """Assert that nothing is wider than a screen or a phone, with everything unfolded."""
    for width in (1280, 390):
        tab.open(path, width=width)
        tab.evaluate("document.querySelectorAll('details').forEach(e => (e.open = true))")
        assert tab.problems(width) == []


def test_report_of_180_regions_is_small_and_shows_one_region_at_a_time(tab, nsd_tree, tmp_path):
    build_release(nsd_tree, tmp_path / "many", change_recipe(read_recipe("hcp_mmp1"), subjects=(1, 2)))
    path = write_report(tmp_path / "many")
    page = Page(path)
    assert len(page.rows("heat")) == 180
    assert len(page.rows("region-table")) == 180 * 3
    assert "The release covers 180 regions of HCP_MMP1" in page.text
    assert "Regions were 180 regions of the atlas HCP_MMP1 (Glasser et al., 2016)" in page.methods
    assert "https://doi.org/10.1038/nature18933" in page.methods and "Wang" not in page.methods
    assert re.fullmatch(r"\d+ to \d+ in a region", page.facts["Neuroids"])
    assert path.stat().st_size < 3e6

    tab.open(path, width=1280)

    assert tab.texts(".panel h3") == ["All regions"]
    tab.evaluate("document.querySelector('#heat tbody tr:nth-child(7) a').click()")
    assert tab.texts(".panel h3") == [page.rows("heat")[6][0]]
    assert tab.evaluate("document.documentElement.scrollHeight") < 7000
    assert_fits(tab, path)


def test_report_of_one_subject_with_own_images_explains_its_splits(tab, nsd_tree, tmp_path):
    build_release(nsd_tree, tmp_path / "own", read_recipe("subj01_own"))

    path = write_report(tmp_path / "own")

    page = Page(path)

    assert "The train split holds the images that only this subject saw" in page.text
    assert page.facts["Images"].endswith("train images are own images")
    assert page.facts["Values"].endswith("per vertex over train images")
    assert "split_seed" not in {row[0] for row in page.rows("option-table")}
    assert page.tables["heat"][0] == ["Region", "subj01"]  # no column for all of one subject
    assert "responses of one person" in page.text
    assert "Correlation with other subjects" not in page.source
    assert re.search(r"The \d+ training images are those that only subj01 saw\. The \d+ test images", page.methods)
    assert "average responses to the training images alone" in page.methods
    assert_fits(tab, path)


def test_report_of_the_whole_cortex_has_one_region(tab, nsd_tree, tmp_path):
    recipe = change_recipe(read_recipe("cortex"), subjects=(1,), nan_policy="drop")
    build_release(nsd_tree, tmp_path / "cortex", recipe)

    path = write_report(tmp_path / "cortex")

    page = Page(path)

    assert "The release covers the whole cortex" in page.text
    assert page.rows("source-table") == [["cortex", "cortex", "every vertex", "1,284"]]
    assert "All regions" not in page.text
    assert (
        "Vertices were left out if any of these responses was not a number. Regions were the whole cortical"
        in page.methods
    )
    assert_fits(tab, path)


@pytest.mark.parametrize(("simulated", "n_maps"), [(True, 1), (False, 0)])
def test_vertices_have_maps_if_their_positions_are_known(reported, tmp_path, simulated, n_maps):
    copy = shutil.copytree(reported, tmp_path / "release")
    change_manifest(copy, n_vertices=700, simulated=simulated)

    page = Page(write_report(copy))

    assert page.text.count("There are no maps: this release has 700 vertices per hemisphere") == 1 - n_maps
    assert list(page.data).count("cortex-data") == n_maps


def test_names_cannot_change_the_page(reported, tmp_path):
    copy = shutil.copytree(reported, tmp_path / "release")
    hostile = "</script><img src=x onerror=alert(1)>\"'&"
    change_manifest(copy, versions={hostile: hostile})

    page = Page(write_report(copy))

    assert page.rows("version-table") == [[hostile, hostile]]
    assert "<img src=x" not in page.source
    assert page.source.count("</script>") == 3


def test_report_is_replaced_with_the_same_bytes_in_any_process(reported, tmp_path):
    copy = Path(shutil.copytree(reported, tmp_path / "elsewhere"))
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    environment.pop("HDF5_USE_FILE_LOCKING", None)
    command = [sys.executable, "-m", "allen2022_surface_packaging", "report", str(copy)]

    with (copy / "Allen2022_fmri_surface_test.nc").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as on a disk that refuses the locks of HDF5
        result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        assert write_report(copy, tmp_path / "with_locks.html").read_text() == Page(copy / "report.html").source

    assert result.stdout == f"The report is in {copy / 'report.html'}\n"
    assert "warning" not in result.stderr.lower()
    assert (copy / "report.html").read_bytes() == (reported / "report.html").read_bytes()
    assert run_cli("verify", copy).returncode == 0  # a report is no part of the release


@pytest.mark.needs("mount")
def test_report_of_a_read_only_release_is_written_elsewhere(reported, tmp_path):
    release, output = tmp_path / "read_only", tmp_path / "new" / "report.html"
    release.mkdir()
    subprocess.run(["mount", "--bind", reported, release], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", release], check=True)
        refused = run_cli("report", release)
        written = [run_cli("report", release, "--output", output) for _ in range(2)]  # the second replaces the first
    finally:
        subprocess.run(["umount", release], check=True)

    advice = f"Write the report elsewhere: allen2022-surface report {release} --output FILE"
    assert f"{release} cannot be written (Read-only file system). {advice}" in refused.stderr.splitlines()[-1]
    assert [result.stdout for result in written] == [f"The report is in {output}\n"] * 2
    assert output.read_bytes() == (reported / "report.html").read_bytes()
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("", "is a folder, expected the file to write"),
        ("release.json", "exists already and is not a report"),
        ("/dev/null", "is a device, expected the file to write"),
    ],
)
def test_report_replaces_nothing_but_a_report(release_copy, output, message):
    before = hashes(release_copy)

    result = run_cli("report", release_copy, "--output", release_copy / output)

    assert result.returncode == 1
    assert f"{release_copy / output} {message}" in result.stderr
    assert hashes(release_copy) == before


def test_page_may_load_nothing_and_runs_only_its_script(page, full_size):
    for shown in (page, Page(full_size / "report.html")):
        assert all(picture["src"].startswith("data:image/") for picture in shown.pictures)
        assert {link for link in shown.links if not link.startswith(("#", "data:"))} == {
            "https://doi.org/10.1038/s41593-021-00962-x",
            "https://doi.org/10.60489/roda.v8l0sr",
            "https://naturalscenesdataset.org",
        }
        (script,) = re.findall(r"<script>(.*?)</script>", shown.source, re.DOTALL)
        digest = b64encode(sha256(script.encode()).digest()).decode()
        assert "Content-Security-Policy\" content=\"default-src 'none'; img-src data:;" in shown.source
        assert f"script-src 'sha256-{digest}'" in shown.source
        assert len(shown.source.encode()) < 8e6


def test_incomplete_or_damaged_release_is_refused_in_one_line(release_copy):
    path = release_copy / "Allen2022_fmri_surface_test.nc"
    size = path.stat().st_size
    for damage, message in (
        (lambda: path.write_bytes(bytes(size)), "is not a sound release"),
        (
            lambda: path.write_bytes(bytes(size - 1)),
            f"{path.name} has {size - 1:,} bytes, but release.json lists it with",
        ),
        (path.unlink, f"{path.name} is missing, but release.json lists it with"),
    ):
        damage()
        result = run_cli("report", release_copy)
        assert result.returncode == 1
        assert message in result.stderr.splitlines()[-1]
        assert f"`allen2022-surface verify {release_copy}`" in result.stderr.splitlines()[-1]
    assert not (release_copy / "report.html").exists()


def test_release_with_a_black_image_is_refused(release_copy):
    path = sorted((release_copy / "stimuli_train").iterdir())[3]
    Image.new("RGB", (64, 64)).save(path)
    accept(release_copy, f"stimuli_train/{path.name}")

    assert f"{path} is black" in run_cli("report", release_copy).stderr.splitlines()[-1]
