"""The report as a file: its facts, its bytes, and the releases that it refuses."""

import json
import os
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from dataclasses import replace
from hashlib import sha1, sha256
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr

from allen2022_surface_packaging import release
from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.cli import main
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.recipe import change_recipe, make_recipe, read_recipe
from allen2022_surface_packaging.release import Manifest, ReleaseFolder
from allen2022_surface_packaging.report.page import write_report
from allen2022_surface_packaging.report.tables import OPTION_MEANINGS
from allen2022_surface_packaging.verify.soundness import verify_release
from report.conftest import plant_neuroids, plant_release
from report.reading import REGION_NAMES, SPLITS, Page, agrees, number, size_text, split_half_ceiling


def test_fact_sheet_and_tiles_equal_the_numbers_of_the_release(page, truth, reported):
    manifest = json.loads((reported / "release.json").read_text())
    table = pd.read_csv(reported / "train_test_split.csv")
    counts = truth.region.value_counts()
    sizes = {path.name: path.stat().st_size for path in reported.rglob("*") if path.is_file()}
    size = sum(sizes.values()) - sizes["release.json"] - sizes["report.html"]

    assert page.fact("Name") == manifest["name"] == "Allen2022_fmri_surface"
    assert page.fact("In Brain-Score") == "Allen2022_fmri_surface.train, Allen2022_fmri_surface.test"
    assert page.fact("Subjects") == ", ".join(sorted(truth.subject.unique()))
    counts_of_images = ", ".join(f"{(table.split == split).sum()} {split}" for split in SPLITS)
    assert page.fact("Images") == f"{counts_of_images}; shared between subjects"
    assert page.fact("Neuroids") == ", ".join(f"{region} {counts[region]:,}" for region in REGION_NAMES)
    assert page.fact("Betas").startswith(
        "betas_fithrf_GLMdenoise_RR: fitted hemodynamic response, GLMdenoise and ridge"
    )
    assert page.fact("Surface") == "fsaverage, 642 vertices per hemisphere"
    for split in SPLITS:
        with xr.open_dataarray(reported / f"Allen2022_fmri_surface_{split}.nc") as assembly:
            shape = " × ".join(f"{n:,}" for n in assembly.shape)
            assert page.fact(f"{split.capitalize()} assembly") == f"{shape} {assembly.dtype}"
            assert page.fact("Time bin").startswith(
                f"{assembly.time_bin_start.item()} to {assembly.time_bin_end.item()} ms"
            )
    assert page.fact("Size") == f"{size_text(size)} in {len(sizes) - 2} files"
    tiles = re.search(
        r"(\S+)subjects\s+(\S+)regions\s+(\S+)images\s+(\S+)neuroids\s+(\S+) %median noise ceiling\s+(\S+)split-half",
        page.text,
    ).groups()
    assert [number(tile) for tile in tiles[:4]] == [8, 4, len(table), len(truth)]
    assert agrees(tiles[4], truth.nc_testset.median(), 1)
    assert agrees(tiles[5], split_half_ceiling(truth), 3)


def test_origin_of_the_release_is_as_in_the_manifest(page, reported):
    manifest = Manifest.read(ReleaseFolder(reported))
    options = {row[0]: row[1] for row in page.rows("option-table")}
    *rows, total = page.rows("input-table")

    assert options == {
        "betas": manifest.recipe.betas,
        "pool": manifest.recipe.pool,
        "train_fraction": str(manifest.recipe.train_fraction),
        "split_seed": str(manifest.recipe.split_seed),
        "standardize_on": manifest.recipe.standardize_on,
        "nan_policy": manifest.recipe.nan_policy,
        "image_format": manifest.image_format,
        "from_region_assemblies": str(manifest.from_region_assemblies),
    }
    assert all(meaning for *_, meaning in page.rows("option-table"))
    assert page.rows("source-table") == [
        [region.name, region.atlas, ", ".join(map(str, region.labels)), str(region.n_vertices)]
        for region in manifest.regions
    ]
    assert dict(page.rows("version-table")) == manifest.versions
    for text, n, size in rows:
        pattern = re.escape(text).replace(r"\*h", "[lr]h").replace(r"\*", r"\d+")
        sizes = [size for path, size in manifest.inputs.items() if re.fullmatch(pattern, path)]
        assert (number(n), size) == (len(sizes), size_text(sum(sizes)))
    assert sum(number(row[1]) for row in rows) == number(total[1]) == len(manifest.inputs)
    assert total[2] == size_text(sum(manifest.inputs.values()))
    files = page.rows("file-table")
    assert {row[0] for row in files} == {path.name for path in reported.iterdir() if path.is_file()} - {"report.html"}
    for name, size, digest in files:
        content = (reported / name).read_bytes()
        assert (size, digest) == (size_text(len(content)), sha1(content).hexdigest())


def test_page_shows_the_regions_of_the_recipe(nsd_tree, tmp_path):
    recipe = make_recipe(name="other")
    regions = tuple(replace(region, name=region.name.replace("V4", "LO")) for region in recipe.regions)
    build_release(nsd_tree, tmp_path / "other", replace(recipe, regions=regions))

    page = Page(write_report(tmp_path / "other"))

    assert (
        {row[0] for row in page.rows("region-table")}
        == {row[0] for row in page.rows("heat")}
        == {"V1", "V2", "LO", "IT"}
    )
    assert page.alts("neuroids in LO, with the expected curve")
    assert "V1, V2, LO and IT" in page.text
    assert "V4" not in page.text


@pytest.fixture(scope="session")
def many_regions(nsd_tree, tmp_path_factory) -> Path:
    """A release of 180 regions and three subjects, with its report."""
    path = tmp_path_factory.mktemp("many") / "hcp_mmp1"
    build_release(nsd_tree, path, change_recipe(read_recipe("hcp_mmp1"), subjects=(1, 2, 5)))
    write_report(path)
    return path


def test_report_of_180_regions_is_short_and_small(many_regions):
    page = Page(many_regions / "report.html")
    manifest = Manifest.read(ReleaseFolder(many_regions))

    assert len(manifest.regions) == 180
    assert [row[0] for row in page.rows("heat")] == [region.name for region in manifest.regions]
    assert len(page.rows("region-table")) == 180 * 4
    assert "The release covers 180 regions of HCP_MMP1" in page.text
    assert re.fullmatch(r"\d+ to \d+ in a region", page.fact("Neuroids"))
    assert len(page.source.encode()) < 3e6


def test_report_of_180_regions_shows_one_region_at_a_time(tab, many_regions):
    tab.open(many_regions / "report.html", width=1280)
    visible = "[...document.querySelectorAll('.panel')].filter(e => e.offsetHeight).map(e => e.querySelector('h3').textContent)"

    assert tab.evaluate(visible) == ["All regions"]
    tab.evaluate("document.querySelector('#heat tbody tr:nth-child(7) a').click()")
    assert tab.evaluate(visible) == [Page(many_regions / "report.html").rows("heat")[6][0]]
    assert tab.evaluate("document.documentElement.scrollHeight") < 7000
    assert tab.problems(1280) == []


def test_report_of_own_images_explains_its_splits(nsd_tree, tmp_path):
    build_release(nsd_tree, tmp_path / "own", read_recipe("subj01_own"))

    page = Page(write_report(tmp_path / "own"))

    assert "The train split holds the images that only this subject saw" in page.text
    assert page.fact("Images").endswith("train images are own images")
    assert page.fact("Values").endswith("per vertex over train images")
    options = {row[0]: row[1:] for row in page.rows("option-table")}
    assert options["pool"] == ["own", OPTION_MEANINGS["pool", "own"]]
    assert "split_seed" not in options
    assert page.tables["heat"][0] == ["Region", "subj01"]  # no column for all of one subject
    assert "1subject" in page.text


def test_report_of_the_whole_cortex_names_it(nsd_tree, tmp_path):
    build_release(nsd_tree, tmp_path / "cortex", change_recipe(read_recipe("cortex"), subjects=(1,)))

    page = Page(write_report(tmp_path / "cortex"))

    assert "The release covers the whole cortex" in page.text
    assert page.rows("source-table") == [["cortex", "cortex", "every vertex", "1,284"]]
    assert "All regions" not in page.text


def test_names_cannot_change_the_page(full_size, tmp_path, monkeypatch):
    monkeypatch.setattr(release, "_checks", lambda _: iter(()))  # a manifest with such a name is refused before
    hostile = "</script><img src=x onerror=alert(1)>\"'&"
    neuroids = plant_neuroids().replace({"region": {"V2": hostile}})
    plant_release(tmp_path / "release", full_size, neuroids)
    folder = ReleaseFolder(tmp_path / "release")
    manifest = Manifest.read(folder)
    recipe = replace(manifest.recipe, description=hostile)
    replace(manifest, recipe=recipe, versions={hostile: hostile}, inputs={hostile: 3}).write(folder)

    page = Page(write_report(tmp_path / "release"))

    assert [row[0] for row in page.rows("heat")] == ["V1", hostile, "V4", "IT"]
    assert page.rows("version-table") == [[hostile, hostile]]
    assert page.data["cortex-data"]["regions"][1] == hostile
    assert "<img src=x" not in page.source
    assert page.source.count("</script>") == 3


def test_report_has_the_same_bytes_in_any_process(reported, tmp_path):
    copy = Path(shutil.copytree(reported, tmp_path / "elsewhere"))
    (copy / "report.html").unlink()
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nsavefig.dpi: 40\n")
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "MATPLOTLIBRC": str(tmp_path)}
    command = [sys.executable, "-m", "allen2022_surface_packaging", "report", str(copy)]

    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)

    assert not re.search("warning|font", result.stderr, re.IGNORECASE)  # only the package itself writes
    assert (copy / "report.html").read_bytes() == (reported / "report.html").read_bytes()


def test_release_with_a_report_is_still_sound(reported):
    assert verify_release(reported) == []


def test_page_requests_nothing_from_other_files_or_machines(reported, full_size):
    for path in (reported, full_size):
        text = (path / "report.html").read_text(encoding="utf-8")
        page = Page(path / "report.html")
        assert all(picture["src"].startswith("data:image/") for picture in page.pictures)
        assert set(page.links) - {link for link in page.links if link.startswith(("#", "data:"))} == {
            "https://doi.org/10.1038/s41593-021-00962-x",
            "https://naturalscenesdataset.org",
        }
        assert not re.search(r"@import|url\(|<script[^>]*src|<iframe|fetch\(|XMLHttpRequest", text)
        assert len(text.encode()) < 8e6


def test_only_the_script_of_the_page_may_run(reported):
    text = (reported / "report.html").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)

    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in policy
    assert not re.search(r"\son\w+=", text.replace(script, ""))  # no script in an attribute


def test_command_line_prints_the_path_of_the_report(release_copy, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["report", str(release_copy)])

    assert leaving.value.code == 0
    assert capsys.readouterr().out == f"The report is in {release_copy / 'report.html'}\n"


@pytest.mark.parametrize("package", ["jinja2", "nilearn"])
def test_command_line_names_a_missing_package_and_how_to_install_it(package, release_copy, monkeypatch, capsys):
    for name in [
        name for name in sys.modules if name.startswith((f"{package}.", "allen2022_surface_packaging.report"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(SystemExit) as leaving:
        main(["report", str(release_copy)])

    error = capsys.readouterr().err
    assert leaving.value.code == 1
    assert error.count("\n") == 1
    assert f"needs {package}" in error
    assert "pip install jinja2 matplotlib nilearn" in error


def test_folder_that_is_no_release_is_refused(tmp_path):
    with pytest.raises(PackagingError, match="is not a release: it holds no release.json"):
        write_report(tmp_path)


@pytest.mark.parametrize("name", ["Allen2022_fmri_surface_test.nc", "stimulus_metadata_train.csv", "stimuli_test"])
def test_incomplete_release_is_refused(release_copy, name):
    path = release_copy / name
    path = min(path.iterdir()) if path.is_dir() else path

    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        PackagingError, match=rf"{path.name} has [\d,]+ bytes, but release.json lists it with [\d,]+ bytes"
    ):
        write_report(release_copy)

    path.unlink()
    with pytest.raises(PackagingError, match=rf"{path.name} is missing, but release.json lists it with"):
        write_report(release_copy)
    assert not (release_copy / "report.html").exists()


def test_damaged_release_is_refused_with_the_command_that_says_why(release_copy):
    path = release_copy / "Allen2022_fmri_surface_test.nc"
    path.write_bytes(bytes(path.stat().st_size))

    with pytest.raises(PackagingError, match=r"cannot be read \(.*`allen2022-surface verify .*` says what is wrong"):
        write_report(release_copy)


def test_banner_says_that_data_is_simulated_and_is_missing_for_measurements(reported, full_size):
    simulated, measured = ((path / "report.html").read_text(encoding="utf-8") for path in (reported, full_size))
    body = simulated.partition("<body>")[2].lstrip()

    assert re.match(r'<p class="simulated" .*>Simulated data\.</strong> .*These are no measurements\.</p>', body)
    assert "<title>Simulated: Allen2022_fmri_surface</title>" in simulated
    assert "Simulated" not in measured
