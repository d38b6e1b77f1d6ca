"""The report: every number is recomputed here from the release, and the page is looked at in headless Chromium."""

import base64
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from hashlib import sha1
from html.parser import HTMLParser
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import pytest
import websocket
import xarray as xr
from PIL import Image
from sklearn.model_selection import ShuffleSplit

from allen2022_surface_packaging.build.assembly import create_assembly, presentations
from allen2022_surface_packaging.build.pipeline import Method, build_release
from allen2022_surface_packaging.cli import main
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.release import write_manifest
from allen2022_surface_packaging.report import page as report
from allen2022_surface_packaging.report.figures import (
    REGION_COLOURS,
    cortical_map,
    expected_split_half,
    noise_ceiling_distributions,
    split_half_against_noise_ceiling,
)
from allen2022_surface_packaging.report.page import write_report
from allen2022_surface_packaging.verify.soundness import verify_release

REGION_NAMES = ("V1", "V2", "V4", "IT")
SPLITS = ("train", "test")
N_VERTICES = 163_842
WIDTHS = {"desktop": 1280, "phone": 360}


class Page(HTMLParser):
    """What a page says: its tables by id (rows of texts, header first), its pictures, its list of facts and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.pictures: list[dict[str, str]] = []
        self.links: list[str] = []
        self.terms: list[str] = []
        self.facts: list[str] = []
        self.text = ""
        self._into: list[str] | None = None
        self._muted = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if tag == "table":
            self._rows = self.tables.setdefault(named["id"], [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th", "dt", "dd"):
            self._into = {"dt": self.terms, "dd": self.facts}.get(tag) if tag[0] == "d" else self._rows[-1]
            self._into.append("")
        elif tag == "img":
            self.pictures.append(named)
        elif tag in ("link", "a"):
            self.links.append(named["href"])
        self._muted = tag in ("style", "title")

    def handle_endtag(self, tag):
        if tag in ("td", "th", "dt", "dd"):
            self._into = None
        self._muted = False

    def handle_data(self, data):
        if not self._muted:
            self.text += data
        if self._into is not None:
            self._into[-1] += data

    def rows(self, table: str) -> list[list[str]]:
        return self.tables[table][1:]

    def fact(self, term: str) -> str:
        return self.facts[self.terms.index(term)]

    def alts(self, pattern: str) -> list[str]:
        return [picture["alt"] for picture in self.pictures if re.search(pattern, picture["alt"])]


@pytest.fixture(scope="module")
def reported(release, tmp_path_factory) -> Path:
    """The release of the small tree, with its report."""
    path = Path(shutil.copytree(release, tmp_path_factory.mktemp("reported") / "release"))
    write_report(path)
    return path


@pytest.fixture(scope="module")
def page(reported) -> Page:
    return Page(reported / "report.html")


@pytest.fixture(scope="module")
def truth(reported) -> pd.DataFrame:
    """The neuroids of the release, with the split-half ceiling of each split computed by other means."""
    return measure(reported / "Allen2022_fmri_surface_test.nc")


def measure(path: Path) -> pd.DataFrame:
    with xr.open_dataarray(path) as assembly:
        names = ("neuroid_id", "subject", "hemisphere", "vertex_index", "region", "nc_testset")
        neuroids = pd.DataFrame({name: assembly[name].values for name in names})
        images = pd.MultiIndex.from_arrays([assembly["stimulus_id"].values, assembly["repetition"].values])
        responses = pd.DataFrame(assembly.values[:, :, 0].astype(float), index=images)
    repetitions = [responses.xs(repetition, level=1) for repetition in range(3)]
    for i, (one, two) in enumerate(ShuffleSplit(10, train_size=0.5, random_state=1).split(range(3))):
        halves = [sum(repetitions[k] for k in half) / len(half) for half in (one, two)]
        r = halves[0].corrwith(halves[1]).to_numpy()
        constant = [half.nunique().to_numpy() == 1 for half in halves]
        neuroids[f"split_{i}"] = np.where(constant[0] | constant[1], np.nan, 2 * r / (1 + r))
    for one, two in itertools.combinations(range(3), 2):
        neuroids[f"pair_{one}{two}"] = repetitions[one].corrwith(repetitions[two]).to_numpy()
    return neuroids


def ceiling(neuroids: pd.DataFrame) -> float:
    return neuroids.filter(like="split_").median().mean()


def number(text: str) -> float:
    return np.nan if text == "–" else float(text.replace(",", "").replace("−", "-"))


def agrees(text: str, expected: float, n_digits: int) -> bool:
    """Tell whether a number is the expected one, rounded; a millionth is left for single precision."""
    if np.isnan(expected):
        return text == "–"
    return len(text.partition(".")[2]) == n_digits and abs(number(text) - expected) <= 0.5 * 10**-n_digits + 1e-6


def bytes_of(size: int) -> str:
    exponent = min(3, (len(str(size)) - 1) // 3)
    return f"{size} bytes" if exponent == 0 else f"{size / 1000**exponent:,.1f} {('kB', 'MB', 'GB')[exponent - 1]}"


def test_every_number_of_regions_and_subjects_is_that_of_the_release(page, truth, reported):
    nan_counts = json.loads((reported / "release.json").read_text())["nan_counts"]
    subjects = sorted(nan_counts)
    rows = page.rows("region-table")
    assert [row[:2] for row in rows] == [[r, s] for r in REGION_NAMES for s in subjects] + [
        [r, "all"] for r in REGION_NAMES
    ]

    for region, subject, n, n_left, n_right, shared, n_invalid, noise_ceiling, split_half in rows:
        chosen = subjects if subject == "all" else [subject]
        own = truth[(truth.region == region) & truth.subject.isin(chosen)]
        assert [number(n), number(n_left), number(n_right)] == [
            len(own),
            (own.hemisphere == "lh").sum(),
            (own.hemisphere == "rh").sum(),
        ]
        others = truth[(truth.region != region) & truth.subject.isin(chosen)]
        overlap = own.merge(others, on=["subject", "hemisphere", "vertex_index"]).region_y.value_counts()
        assert shared == (", ".join(f"{overlap[r]:,} in {r}" for r in REGION_NAMES if r in overlap) or "0")
        assert number(n_invalid) == sum(nan_counts[name][region]["neuroids"] for name in chosen)
        assert agrees(noise_ceiling, own.nc_testset.median(), 1)
        assert agrees(split_half, ceiling(own), 3)


def test_v4_and_it_are_said_to_share_vertices_in_the_small_tree(page):
    assert {row[5] for row in page.rows("region-table") if row[0] in ("V1", "V2")} == {"0"}
    assert all(re.fullmatch(r"\d+ in IT", row[5]) for row in page.rows("region-table") if row[0] == "V4")


def test_a_split_half_ceiling_is_what_brain_score_computes(page, reported):
    from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly
    from brainscore_vision import load_ceiling

    with xr.open_dataarray(reported / "Allen2022_fmri_surface_test.nc") as assembly:
        own = (assembly["region"] == "V2") & (assembly["subject"] == "subj05")
        responses = NeuroidAssembly(assembly.isel(neuroid=np.flatnonzero(own), time_bin=0).load())
    expected = load_ceiling("internal_consistency")(responses)

    (found,) = [row[-1] for row in page.rows("region-table") if row[:2] == ["V2", "subj05"]]
    assert agrees(found, float(expected), 3)


def test_sessions_and_agreement_of_repetitions_are_those_of_the_release(page, truth, reported):
    manifest = json.loads((reported / "release.json").read_text())
    rows = page.rows("repetition-table")
    assert [row[0] for row in rows] == [*manifest["sessions"], "all"]

    for subject, n_sessions, n_trials, *correlations in rows:
        own = truth if subject == "all" else truth[truth.subject == subject]
        assert number(n_sessions) == (
            sum(manifest["sessions"].values()) if subject == "all" else manifest["sessions"][subject]
        )
        assert number(n_trials) == manifest["n_trials_per_session"]
        for text, pair in zip(correlations, ("pair_01", "pair_02", "pair_12"), strict=True):
            assert agrees(text, own[pair].median(), 3)


def test_splits_are_those_of_the_release(page, reported):
    table = pd.read_csv(reported / "train_test_split.csv")
    rows = page.rows("split-table")
    assert [row[0] for row in rows] == list(SPLITS)

    for split, n_images, per_image, n_presentations, kept, nsd_ids, size in rows:
        own = table[table.split == split]
        path = reported / f"Allen2022_fmri_surface_{split}.nc"
        with xr.open_dataarray(path) as assembly:
            assert number(n_presentations) == assembly.sizes["presentation"]
            assert {int(per_image)} == set(pd.Series(assembly["nsd_id"].values).value_counts())
        assert number(n_images) == len(own)
        assert kept == {"train": "averaged", "test": "apart"}[split]
        assert nsd_ids == f"{own.nsd_id.min()} to {own.nsd_id.max()}"
        assert size == bytes_of(path.stat().st_size)
    n_train, n_test = (len(table[table.split == split]) for split in SPLITS)
    assert page.alts(f"{n_train} train and {n_test} test images")


def test_what_was_filled_is_what_the_manifest_counts(page, truth, reported):
    manifest = json.loads((reported / "release.json").read_text())
    n_presentations = {split: manifest["shapes"][split][0] for split in SPLITS}
    *rows, total = page.rows("invalid-table")
    filled = {(r, s): c for s, regions in manifest["nan_counts"].items() for r, c in regions.items() if any(c.values())}
    missing = truth[truth.nc_testset.isna()].groupby(["region", "subject"]).size()
    assert {tuple(row[:2]) for row in rows} == set(filled) | set(missing.index)

    for region, subject, n, train, test, n_dropped, n_without in rows:
        n_neuroids = len(truth[(truth.region == region) & (truth.subject == subject)])
        assert number(n) == filled[region, subject]["neuroids"]
        assert (n_dropped, n_without) == ("0", str(missing.get((region, subject), 0)))
        for text, split in ((train, "train"), (test, "test")):
            count = filled[region, subject][split]
            percent = 100 * count / (n_neuroids * n_presentations[split])
            assert text == (f"{count:,} ({percent:.2f} %)" if count else "0")
    assert total[:2] == ["all", "all"]
    assert number(total[2]) == sum(count["neuroids"] for count in filled.values()) > 0
    for text, split in zip(total[3:5], SPLITS, strict=True):
        count = sum(counts[split] for counts in filled.values())
        assert text == f"{count:,} ({100 * count / np.prod(manifest['shapes'][split]):.2f} %)"


def test_what_was_dropped_is_seen_from_the_release(nsd_tree, tmp_path):
    for policy in ("zero", "drop"):
        build_release(
            nsd_tree, tmp_path / policy, subjects=(1, 2), method=Method(nan_policy=policy), name=f"of_{policy}"
        )
    whole, kept = (measure(tmp_path / policy / f"of_{policy}_test.nc") for policy in ("zero", "drop"))
    dropped = whole[~whole.neuroid_id.isin(kept.neuroid_id)].groupby(["region", "subject"]).size()

    page = Page(write_report(tmp_path / "drop"))

    *rows, total = page.rows("invalid-table")
    assert {(row[0], row[1]): number(row[5]) for row in rows} == dropped.to_dict()
    assert number(total[5]) == len(whole) - len(kept) > 0
    assert {cell for row in rows for cell in row[2:5]} == {"0"}
    assert ["nan_policy", "drop", "vertices with any invalid needed trial are left out"] in page.rows("option-table")


def test_the_fact_sheet_and_the_figures_at_the_top_are_those_of_the_release(page, truth, reported):
    manifest = json.loads((reported / "release.json").read_text())
    table = pd.read_csv(reported / "train_test_split.csv")
    counts = truth.region.value_counts()
    sizes = [path.stat().st_size for path in reported.rglob("*") if path.is_file()]
    sizes_of_others = [(reported / name).stat().st_size for name in ("release.json", "report.html")]

    assert page.fact("Name") == manifest["name"] == "Allen2022_fmri_surface"
    assert page.fact("In Brain-Score") == "Allen2022_fmri_surface.train, Allen2022_fmri_surface.test"
    assert page.fact("Subjects") == ", ".join(sorted(truth.subject.unique()))
    assert page.fact("Images") == ", ".join(f"{(table.split == split).sum()} {split}" for split in SPLITS)
    assert page.fact("Neuroids") == ", ".join(f"{region} {counts[region]:,}" for region in REGION_NAMES)
    assert page.fact("Surface") == "fsaverage, 642 vertices per hemisphere"
    for split in SPLITS:
        with xr.open_dataarray(reported / f"Allen2022_fmri_surface_{split}.nc") as assembly:
            shape = " × ".join(f"{n:,}" for n in assembly.shape)
            assert page.fact(f"{split.capitalize()} assembly") == f"{shape} {assembly.dtype}"
            assert page.fact("Time bin").startswith(
                f"{assembly.time_bin_start.item()} to {assembly.time_bin_end.item()} ms"
            )
    assert page.fact("Size") == f"{bytes_of(sum(sizes) - sum(sizes_of_others))} in {len(sizes) - 2} files"
    tiles = re.search(
        r"(\S+)subjects\s+(\S+)images\s+(\S+)neuroids\s+(\S+) %median noise ceiling\s+(\S+)split-half", page.text
    ).groups()
    assert [number(tile) for tile in tiles[:3]] == [8, len(table), len(truth)]
    assert agrees(tiles[3], truth.nc_testset.median(), 1)
    assert agrees(tiles[4], ceiling(truth), 3)


def test_how_it_was_made_is_what_the_manifest_records(page, reported):
    manifest = json.loads((reported / "release.json").read_text())
    options = {row[0]: row[1] for row in page.rows("option-table")}
    *rows, total = page.rows("input-table")

    assert options == {
        **{name: str(value) for name, value in manifest["options"].items()},
        "from_region_assemblies": str(manifest["from_region_assemblies"]),
    }
    assert all(meaning for *_, meaning in page.rows("option-table"))
    assert dict(page.rows("version-table")) == manifest["versions"]
    for what, n, size in rows:
        pattern = re.escape(what).replace(r"\*h", "[lr]h").replace(r"\*", r"\d+")
        own = [size for path, size in manifest["inputs"].items() if re.fullmatch(pattern, path)]
        assert (number(n), size) == (len(own), bytes_of(sum(own)))
    assert sum(number(row[1]) for row in rows) == number(total[1]) == len(manifest["inputs"])
    assert total[2] == bytes_of(sum(manifest["inputs"].values()))
    files = page.rows("file-table")
    assert {row[0] for row in files} == {path.name for path in reported.iterdir() if path.is_file()} - {"report.html"}
    for name, size, digest in files:
        content = (reported / name).read_bytes()
        assert (size, digest) == (bytes_of(len(content)), sha1(content).hexdigest())


def test_pictures_say_in_words_what_they_show(page, truth):
    assert all(picture["alt"].strip() for picture in page.pictures)
    for region in REGION_NAMES:
        own = truth[truth.region == region].copy()
        own["split_half"] = own.filter(like="split_").median(axis=1)
        (alt,) = page.alts(f"noise ceilings in {region}, a row per subject")
        medians = dict(re.findall(r"(subj\d\d) (\S+) %", alt))
        assert set(medians) == set(own.subject)
        for subject, text in medians.items():
            assert agrees(text, own.nc_testset[own.subject == subject].median(), 1)
        valid = own[np.isfinite(own.nc_testset) & np.isfinite(own.split_half)]
        (alt,) = page.alts(f"neuroids in {region}, coloured")
        n, correlation = re.search(r"noise ceiling of (\S+) neuroids.*correlation (.+)\.$", alt).groups()
        assert number(n) == len(valid)
        assert agrees(correlation, valid.nc_testset.rank().corr(valid.split_half.rank()), 2)
        assert f"{region}: {n} neuroids, rank correlation {correlation}" in page.text


def test_contact_sheets_show_the_stimuli_of_each_split_in_order(page, reported):
    stimuli = [p for p in page.pictures if re.fullmatch(r"nsd_\d{5}", p["alt"])]
    tables = [pd.read_csv(reported / f"stimulus_metadata_{split}.csv") for split in SPLITS]

    assert [p["alt"] for p in stimuli] == [stimulus_id for table in tables for stimulus_id in table.stimulus_id]
    assert f"Train: all of {len(tables[0])} images" in page.text
    with Image.open(reported / "stimuli_train" / tables[0].image_file_name[7]) as image:
        expected = np.asarray(image.convert("RGB"), dtype=float)
    shown = decoded(stimuli[7]["src"])
    assert shown.shape[:2] == expected.shape[:2]  # 64 pixels, smaller than a thumbnail
    assert np.abs(shown[:, :, :3] - expected).mean() < 5


def test_a_contact_sheet_of_too_many_images_is_an_even_sample(own_release, monkeypatch):
    monkeypatch.setattr(report, "N_THUMBNAILS", 10)
    table = pd.read_csv(own_release / "stimulus_metadata_train.csv")

    page = Page(write_report(own_release))

    stimuli = page.alts(r"^nsd_\d{5}$")
    assert len(stimuli) == 20
    assert (stimuli[0], stimuli[9]) == (table.stimulus_id.iloc[0], table.stimulus_id.iloc[-1])
    assert f"Train: 10 evenly chosen of {len(table)} images" in page.text


def test_a_reduced_release_has_no_maps_and_says_why(page):
    assert not page.alts("Map of")
    assert "There are no maps: this release has 642 vertices per hemisphere" in page.text


def test_the_expected_curve_is_where_repetitions_with_independent_noise_lie(rng):
    ncsnr = np.array([0.2, 0.5, 1.0, 2.0])
    responses = rng.standard_normal((200_000, 1, 4)) * ncsnr + rng.standard_normal((200_000, 3, 4))
    r = [np.corrcoef(responses[:, 0, k], responses[:, 1:, k].mean(axis=1))[0, 1] for k in range(4)]
    noise_ceiling = 100 * ncsnr**2 / (ncsnr**2 + 1 / 3)

    np.testing.assert_allclose(expected_split_half(noise_ceiling), 2 * np.array(r) / (1 + np.array(r)), atol=0.01)


def test_the_same_release_gives_the_same_bytes_whatever_the_process(reported, tmp_path):
    copy = Path(shutil.copytree(reported, tmp_path / "elsewhere"))
    (copy / "report.html").unlink()
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nsavefig.dpi: 40\n")
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "MATPLOTLIBRC": str(tmp_path)}
    command = [sys.executable, "-m", "allen2022_surface_packaging", "report", str(copy)]

    subprocess.run(command, env=environment, check=True, capture_output=True)

    assert (copy / "report.html").read_bytes() == (reported / "report.html").read_bytes()


def test_a_release_with_a_report_is_still_sound(reported):
    assert verify_release(reported) == []


def test_the_command_line_tells_where_the_report_is(own_release, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["report", str(own_release)])

    assert leaving.value.code == 0
    assert capsys.readouterr().out == f"The report is in {own_release / 'report.html'}\n"


@pytest.mark.parametrize("package", ["jinja2", "matplotlib", "nilearn"])
def test_a_package_that_is_not_installed_is_named_with_what_installs_it(package, own_release, monkeypatch, capsys):
    for name in [
        name for name in sys.modules if name.startswith((package + ".", "allen2022_surface_packaging.report"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "allen2022_surface_packaging.figures")
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(SystemExit) as leaving:
        main(["report", str(own_release)])

    error = capsys.readouterr().err
    assert leaving.value.code == 1
    assert error.count("\n") == 1
    assert f"needs {package}" in error
    assert "pip install 'brainscore_allen2022_surface[report]'" in error


def test_regions_that_a_subject_lacks_and_ceilings_that_nobody_knows_are_dashes_and_no_error(own_release):
    path = own_release / "Allen2022_fmri_surface_test.nc"
    with netCDF4.Dataset(path, "a") as file:
        regions = xr.open_dataarray(path)["region"].values
        file["nc_testset"][regions == "V2"] = np.nan
        file["data"][:, regions == "V2"] = 0
    manifest = json.loads((own_release / "release.json").read_text())
    manifest["files"][path.name]["size"] = path.stat().st_size
    (own_release / "release.json").write_text(json.dumps(manifest))

    page = Page(write_report(own_release))

    assert {tuple(row[-2:]) for row in page.rows("region-table") if row[0] == "V2"} == {("–", "–")}
    assert "V2: 0 neuroids, rank correlation –" in page.text
    assert {row[-1] for row in page.rows("invalid-table") if row[0] == "V2"} == {"13"}


@pytest.mark.parametrize("n_neuroids", [0, 1, 2])
def test_a_few_neuroids_can_be_drawn(n_neuroids, recwarn):
    values = np.linspace(10, 60, n_neuroids)

    drawn = [
        split_half_against_noise_ceiling(values, values / 100, highest=80, alt=""),
        noise_ceiling_distributions({"subj01": values, "subj02": values * np.nan}, highest=80, alt=""),
    ]

    assert all(picture.source.startswith("data:image/svg+xml;base64,") for picture in drawn)
    assert not recwarn


def test_a_folder_that_is_no_release_is_refused(tmp_path):
    with pytest.raises(PackagingError, match="is not a release: it holds no release.json"):
        write_report(tmp_path)


@pytest.mark.parametrize("name", ["Allen2022_fmri_surface_test.nc", "stimulus_metadata_train.csv", "stimuli_test"])
def test_a_release_that_is_not_whole_is_refused(own_release, name):
    path = own_release / name
    path = min(path.iterdir()) if path.is_dir() else path

    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        PackagingError, match=rf"{path.name} has [\d,]+ bytes, but release.json says that it has [\d,]+ "
    ):
        write_report(own_release)

    path.unlink()
    with pytest.raises(PackagingError, match=rf"{path.name} is missing, but release.json says that it has"):
        write_report(own_release)
    assert not (own_release / "report.html").exists()


def test_a_damaged_release_is_refused_and_verify_is_named(own_release):
    path = own_release / "Allen2022_fmri_surface_test.nc"
    path.write_bytes(bytes(path.stat().st_size))

    with pytest.raises(PackagingError, match=r"cannot be reported on \(.*`allen2022-surface verify .*` tells what"):
        write_report(own_release)


# Maps: a release of fsaverage's size, but of few neuroids, whose place on the cortex is known.


@pytest.fixture(scope="module")
def full_size(tmp_path_factory, reported) -> Path:
    """A release on 163,842 vertices: V1 at the occipital pole, V4 and IT sharing vertices, the noise ceilings planted."""
    from nilearn.datasets import fetch_surf_fsaverage
    from nilearn.surface import load_surf_mesh

    path = tmp_path_factory.mktemp("full") / "release"
    shutil.copytree(reported, path, ignore=shutil.ignore_patterns("*.nc", "release.json", "report.html"))
    rng = np.random.default_rng(1)
    meshes = fetch_surf_fsaverage("fsaverage5")
    tables = []
    for hemisphere, side in (("lh", "left"), ("rh", "right")):
        from_pole = np.argsort(load_surf_mesh(meshes[f"infl_{side}"]).coordinates[:, 1])
        places = {"V1": (0, 200), "V2": (200, 300), "V4": (300, 400), "IT": (380, 600)}
        for region, (start, stop) in places.items():
            vertices = np.sort([*from_pole[start:stop], N_VERTICES - 1 - REGION_NAMES.index(region)])
            tables.append(pd.DataFrame({"region": region, "hemisphere": hemisphere, "vertex_index": vertices}))
    vertices = pd.concat(tables).sort_values("region", key=lambda names: names.map(REGION_NAMES.index), kind="stable")
    neuroids = pd.concat(
        [part.assign(subject=s) for _, part in vertices.groupby("region", sort=False) for s in ("subj01", "subj02")],
        ignore_index=True,
    )
    numbers = neuroids.groupby(["region", "subject"]).cumcount()
    neuroids["neuroid_id"] = [
        f"{n.subject}_{n.hemisphere}_{n.region}_v{k:05d}" for n, k in zip(neuroids.itertuples(), numbers, strict=True)
    ]
    neuroids["nc_testset"] = np.where(neuroids.subject == "subj01", 80.0, 20.0)
    ncsnr = np.sqrt(neuroids.nc_testset / (100 - neuroids.nc_testset) / 3).to_numpy()
    shapes = {}
    for split in SPLITS:
        nsd_ids = pd.read_csv(path / f"stimulus_metadata_{split}.csv").nsd_id.to_numpy()
        table = presentations(split, nsd_ids)
        signal = ncsnr * rng.standard_normal((len(nsd_ids), len(neuroids)))
        shapes[split] = [len(table), len(neuroids), 1]
        with create_assembly(
            path / f"planted_{split}.nc", identifier=f"planted.{split}", presentation=table, neuroids=neuroids
        ) as values:
            noise = rng.standard_normal((len(table), len(neuroids)))
            values[:] = (signal.repeat(len(table) // len(nsd_ids), axis=0) + noise)[:, :, None]
    counts = {region: {"train": 0, "test": 0, "neuroids": 0} for region in REGION_NAMES}
    facts = {
        "name": "planted",
        "subjects": [1, 2],
        "options": {"standardize_on": "all", "nan_policy": "zero", "image_format": "png"},
        "from_region_assemblies": False,
        "n_vertices": N_VERTICES,
        "n_trials_per_session": 300,
        "sessions": {"subj01": 4, "subj02": 4},
        "shapes": shapes,
        "nan_counts": {"subj01": counts, "subj02": counts},
        "inputs": {},
    }
    write_manifest(path, facts)
    write_report(path)
    return path


def decoded(source: str) -> np.ndarray:
    """Return the pixels of a data URI, red, green, blue and alpha."""
    content = base64.b64decode(source.partition("base64,")[2])
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGBA"), dtype=int)


def view(page: Page, pattern: str, number: int) -> np.ndarray:
    """Return one of the three views of the one map whose text fits."""
    (source,) = [picture["src"] for picture in page.pictures if re.search(pattern, picture["alt"])]
    pixels = decoded(source)
    width = pixels.shape[1] // 3
    return pixels[:, number * width : (number + 1) * width]


def has_colour(pixels: np.ndarray, colour: str) -> np.ndarray:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (np.abs(pixels[:, :, :3] - wanted).max(axis=2) < 12) & (pixels[:, :, 3] > 200)


@pytest.mark.parametrize(("side", "lateral_pole"), [("left", "right"), ("right", "left")])
def test_v1_is_drawn_at_the_occipital_pole_of_either_hemisphere(full_size, side, lateral_pole):
    page = Page(full_size / "report.html")

    for number, pole in ((0, lateral_pole), (1, side)):  # lateral, medial: the front is on the other side
        pixels = view(page, f"Map of the regions on the inflated {side} hemisphere", number)
        brain = np.flatnonzero((pixels[:, :, 3] > 200).any(axis=0))
        v1 = np.flatnonzero(has_colour(pixels, REGION_COLOURS[0]).any(axis=0))
        fraction = (v1 - brain[0]) / (brain[-1] - brain[0])
        assert len(v1) > 5
        assert fraction.min() > 0.8 if pole == "right" else fraction.max() < 0.2


def test_vertices_of_two_regions_have_a_colour_of_their_own_and_are_counted(full_size):
    page = Page(full_size / "report.html")

    (alt,) = page.alts("regions on the inflated left hemisphere")
    assert "V1 201, V2 101, V4 81, IT 201, more than one region 20." in alt
    assert "subj01 and subj02" in page.text  # one map, since their regions are the same
    assert has_colour(view(page, "regions on the inflated left hemisphere", 0), "#f0e442").sum() > 5


def test_every_subject_has_maps_of_both_ceilings_on_both_hemispheres_in_planted_colours(full_size):
    page = Page(full_size / "report.html")
    truth = measure(full_size / "planted_test.nc")
    truth["split_half"] = truth.filter(like="split_").median(axis=1)

    for subject, colour in (("subj01", "#fde725"), ("subj02", "#3b528b")):  # viridis at 80 and at 20 of 80 percent
        for hemisphere, side in (("lh", "left"), ("rh", "right")):
            own = truth[(truth.subject == subject) & (truth.hemisphere == hemisphere)]
            (alt,) = page.alts(f"noise ceiling of {subject} on the inflated {side} hemisphere, in lateral, medial and")
            assert alt.endswith(f"median over neuroids {own.nc_testset.median():.1f} %.")
            (alt,) = page.alts(f"split-half ceiling of {subject} on the inflated {side} hemisphere")
            assert agrees(re.search(r"neuroids (\S+)\.$", alt)[1], own.split_half.median(), 3)
            assert has_colour(view(page, f"noise ceiling of {subject} on the inflated {side}", 0), colour).sum() > 200
    assert len(page.alts("Map of")) == 2 + 2 * 2 * 2
    assert "≥" not in page.text  # no noise ceiling lies beyond the scale


def test_only_vertices_with_a_value_on_the_mesh_are_coloured():
    blank = cortical_map(np.array([np.nan, 50.0]), np.array([3, 10_242]), "lh", limits=(0, 80), alt="")
    one = cortical_map(np.array([50.0]), np.array([3]), "lh", limits=(0, 80), alt="")

    def n_coloured(picture):
        pixels = decoded(picture.source)
        return int(((np.ptp(pixels[:, :, :3], axis=2) > 30) & (pixels[:, :, 3] > 200)).sum())

    assert n_coloured(blank) == 0
    assert n_coloured(one) > 0


# The page in a browser, driven over the DevTools protocol.


class Tab:
    """A page of headless Chromium."""

    def __init__(self, address: str) -> None:
        self.socket = websocket.create_connection(address, timeout=60)
        self.events: list[dict] = []
        self.n_calls = 0

    def call(self, method: str, **parameters):
        self.n_calls += 1
        self.socket.send(json.dumps({"id": self.n_calls, "method": method, "params": parameters}))
        while (answer := json.loads(self.socket.recv())).get("id") != self.n_calls:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def wait_for(self, method: str) -> None:
        while not any(event["method"] == method for event in self.events):
            self.events.append(json.loads(self.socket.recv()))

    def evaluate(self, expression: str):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, path: Path, *, width: int, scheme: str = "light") -> None:
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=path.as_uri())
        self.wait_for("Page.loadEventFired")
        # A picture that cannot be decoded is reported as missing below.
        self.evaluate("Promise.allSettled([...document.images].map(image => image.decode())).then(() => 0)")

    def screenshot(self, clip: dict[str, float]) -> np.ndarray:
        result = self.call("Page.captureScreenshot", clip={**clip, "scale": 1}, captureBeyondViewport=True)
        return decoded("base64," + result["data"])

    def problems(self, width: int) -> list[str]:
        """List what a reader would miss or stumble over."""
        found = []
        for event in self.events:
            if event["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
                found.append(f"console: {json.dumps(event['params'])[:300]}")
            if event["method"] == "Network.requestWillBeSent":
                url = event["params"]["request"]["url"]
                if not url.startswith(("file:", "data:")):
                    found.append(f"network: {url}")
        missing = self.evaluate("[...document.images].filter(image => !image.naturalWidth).map(image => image.alt)")
        found += [f"picture: {alt}" for alt in missing]
        # Against the width asked for: a phone's innerWidth grows with what is too wide.
        widest = self.evaluate("document.documentElement.scrollWidth")
        if widest > width:
            found.append(f"scrolls sideways: {widest} > {width}")
        return found


@contextmanager
def chromium(profile: Path):
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((place for name in names if (place := shutil.which(name))), None)
    if program is None:
        message = "no Chromium is installed, so the report cannot be looked at (apt-get install chromium)"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    switches = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
        *("--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={profile}"),
    )
    with (profile.parent / "chromium.log").open("w") as log:
        process = subprocess.Popen([program, *switches, "about:blank"], stdout=log, stderr=log)
    try:
        port_path = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (port_path.exists() and port_path.read_text().count("\n")):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"Chromium did not start: {(profile.parent / 'chromium.log').read_text()[-2000:]}")
            time.sleep(0.05)
        port = port_path.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            (address,) = [tab["webSocketDebuggerUrl"] for tab in json.load(answer) if tab["type"] == "page"]
        tab = Tab(address)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        yield tab
        tab.socket.close()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium") / "profile") as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", WIDTHS)
def test_a_browser_shows_the_whole_page_without_errors_or_sideways_scrolling(tab, reported, full_size, device, scheme):
    for path in (reported, full_size):
        tab.open(path / "report.html", width=WIDTHS[device], scheme=scheme)

        assert tab.problems(WIDTHS[device]) == []
        assert tab.evaluate("document.images.length") == len(Page(path / "report.html").pictures) > 100


def test_a_wide_table_scrolls_within_itself_on_a_phone(tab, reported):
    tab.open(reported / "report.html", width=WIDTHS["phone"])

    frame = "document.querySelector('#region-table').parentElement"
    assert tab.evaluate(f"{frame}.scrollWidth > {frame}.clientWidth")
    assert tab.evaluate(f"getComputedStyle({frame}).overflowX") == "auto"


@pytest.mark.parametrize(
    ("flaw", "expected"),
    [
        ("<script>console.error('oh')</script>", "console: "),
        ("<script>nonsense()</script>", "console: "),
        ("<img src='data:image/png;base64,AAAA' alt='a broken picture'>", "picture: a broken picture"),
        ("<img src='gone.png' alt='a lost picture'>", "picture: a lost picture"),
        ("<div style='width: 1500px'>wide</div>", "scrolls sideways: "),
        ("<img src='http://127.0.0.1:9/picture.png' alt='from afar'>", "network: http://127.0.0.1:9/picture.png"),
    ],
)
def test_the_look_in_the_browser_would_notice(tab, reported, tmp_path, flaw, expected):
    text = (reported / "report.html").read_text(encoding="utf-8")
    policy = re.search(r'<meta http-equiv="Content-Security-Policy".*>\n', text)[0]
    (tmp_path / "flawed.html").write_text(
        text.replace(policy, "").replace("</main>", f"{flaw}</main>"), encoding="utf-8"
    )

    for width in WIDTHS.values():
        tab.open(tmp_path / "flawed.html", width=width)
        assert any(problem.startswith(expected) for problem in tab.problems(width))


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_page_and_pictures_follow_the_readers_colour_scheme(tab, reported, scheme, is_dark):
    tab.open(reported / "report.html", width=WIDTHS["desktop"], scheme=scheme)
    box = tab.evaluate(
        "(({x, y, width, height}) => ({x: x + scrollX, y: y + scrollY, width, height}))"
        "(document.querySelector('#noise-ceilings ~ .plots img').getBoundingClientRect())"
    )

    brightness = tab.screenshot(box)[:, :, :3].mean(axis=2)

    page, ink = np.median(brightness), brightness.min() if not is_dark else brightness.max()
    assert (page < 60 and ink > 200) if is_dark else (page > 230 and ink < 60)


def test_the_page_asks_for_nothing_from_elsewhere(reported, full_size):
    for path in (reported, full_size):
        text = (path / "report.html").read_text(encoding="utf-8")
        page = Page(path / "report.html")
        assert all(picture["src"].startswith("data:image/") for picture in page.pictures)
        assert set(page.links) - {link for link in page.links if link.startswith(("#", "data:"))} == {
            "https://doi.org/10.1038/s41593-021-00962-x",
            "https://naturalscenesdataset.org",
        }
        assert not re.search(r"@import|url\(|<script|<iframe", text)
        assert len(text.encode()) < 15e6
