"""Releases with a report: the small one of all tests, and one on all vertices of fsaverage with planted neuroids."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nilearn.datasets import fetch_surf_fsaverage
from nilearn.surface import load_surf_mesh

from allen2022_surface_packaging.assemble.assembly import create_assembly
from allen2022_surface_packaging.recipe import Recipe, Region
from allen2022_surface_packaging.release import (
    NEUROID_COORDINATES,
    FilledCounts,
    Manifest,
    ReleasedRegion,
    ReleaseFolder,
    list_presentations,
    record_files,
)
from allen2022_surface_packaging.report.page import write_report
from report.browser import Tab, open_chromium
from report.reading import SPLITS, Page, measure

N_VERTICES = 163_842
# The vertices of each region, sorted by their distance from the occipital pole. V4 and IT share 20.
VERTEX_RANGES = {"V1": (0, 200), "V2": (200, 300), "V4": (300, 400), "IT": (380, 600)}


@pytest.fixture(scope="session")
def reported(release, tmp_path_factory) -> Path:
    """The release of the small tree, with its report. Tests only read it."""
    path = Path(shutil.copytree(release, tmp_path_factory.mktemp("reported") / "release"))
    write_report(path)
    return path


@pytest.fixture(scope="session")
def page(reported) -> Page:
    """The report of the small release."""
    return Page(reported / "report.html")


@pytest.fixture(scope="session")
def truth(reported) -> pd.DataFrame:
    """The neuroids of the small release, with ceilings and correlations that are computed independently."""
    return measure(reported / "Allen2022_fmri_surface_test.nc")


@pytest.fixture(scope="session")
def full_size(reported, tmp_path_factory) -> Path:
    """A release on 163,842 vertices, with its report: few neuroids, at known positions and with planted noise ceilings."""
    path = tmp_path_factory.mktemp("full") / "release"
    plant_release(path, reported, plant_neuroids())
    write_report(path)
    return path


def plant_release(path: Path, reported: Path, neuroids: pd.DataFrame, shared_noise: float = 0.0) -> None:
    """Write a release of subjects 1 and 2 with given neuroids, and the stimuli of another release."""
    shutil.copytree(reported, path, ignore=shutil.ignore_patterns("*.nc", "release.json", "report.html"))
    folder = ReleaseFolder(path)
    shapes = {split: write_planted_assembly(folder, split, neuroids, shared_noise) for split in SPLITS}
    names = list(dict.fromkeys(neuroids["region"]))
    manifest = Manifest(
        name="planted",
        recipe=Recipe("planted", (1, 2), tuple(Region(name, "Kastner2015", (1,)) for name in names)),
        regions=tuple(ReleasedRegion(name, "Kastner2015", (1,), 402) for name in names),
        image_format="png",
        from_region_assemblies=False,
        n_vertices=N_VERTICES,
        n_trials_per_session=300,
        sessions={"subj01": 4, "subj02": 4},
        shapes=shapes,
        nan_counts={name: dict.fromkeys(names, FilledCounts(0, 0, 0)) for name in ("subj01", "subj02")},
        inputs={},
        versions={},
        files=record_files(folder, [file for file in path.rglob("*") if file.is_file()]),
    )
    manifest.write(folder)


def plant_neuroids() -> pd.DataFrame:
    """Return neuroids of two subjects with the same regions. V1 is at the occipital pole."""
    vertices = pd.concat([plant_vertices("lh", "left"), plant_vertices("rh", "right")])
    vertices = vertices.sort_values("region", key=lambda names: names.map([*VERTEX_RANGES].index), kind="stable")
    neuroids = pd.concat(
        [
            table.assign(subject=subject)
            for _, table in vertices.groupby("region", sort=False)
            for subject in ("subj01", "subj02")
        ],
        ignore_index=True,
    )
    numbers = neuroids.groupby(["region", "subject"]).cumcount()
    prefixes = neuroids["subject"] + "_" + neuroids["hemisphere"] + "_" + neuroids["region"]
    neuroids["neuroid_id"] = [f"{prefix}_v{number:05d}" for prefix, number in zip(prefixes, numbers, strict=True)]
    neuroids["nc_testset"] = np.where(neuroids["subject"] == "subj01", 80.0, 20.0)
    return neuroids


def plant_vertices(hemisphere: str, side: str) -> pd.DataFrame:
    """Return the vertices of the regions of a hemisphere. One vertex of each region is not on the fsaverage5 mesh."""
    mesh = load_surf_mesh(fetch_surf_fsaverage("fsaverage5")[f"infl_{side}"])
    from_pole = np.argsort(mesh.coordinates[:, 1])
    tables = []
    for number, (region, (start, stop)) in enumerate(VERTEX_RANGES.items()):
        vertices = np.sort([*from_pole[start:stop], N_VERTICES - 1 - number])
        tables.append(pd.DataFrame({"region": region, "hemisphere": hemisphere, "vertex_index": vertices}))
    return pd.concat(tables)


def write_planted_assembly(
    folder: ReleaseFolder, split: str, neuroids: pd.DataFrame, shared_noise: float
) -> tuple[int, int, int]:
    """Write responses with the noise ceilings of the neuroids, and return their shape.

    `shared_noise` is the share of the variance of the noise that all repetitions of an image have in common.
    """
    rng = np.random.default_rng(SPLITS.index(split))
    nsd_ids = pd.read_csv(folder.stimulus_table_path(split))["nsd_id"].to_numpy()
    presentations = list_presentations(split, nsd_ids)
    noise_ceilings = neuroids["nc_testset"].to_numpy()
    ncsnr = np.sqrt(noise_ceilings / (100 - noise_ceilings) / 3)
    of_images = (len(nsd_ids), len(neuroids))
    images = ncsnr * rng.standard_normal(of_images) + np.sqrt(shared_noise) * rng.standard_normal(of_images)
    n_repetitions = len(presentations) // len(nsd_ids)
    noise = np.sqrt(1 - shared_noise) * rng.standard_normal((len(presentations), len(neuroids)))
    with create_assembly(
        folder.assembly_path("planted", split),
        identifier=f"planted.{split}",
        presentations=presentations,
        neuroids=[(name, as_stored(neuroids[name])) for name in NEUROID_COORDINATES],
    ) as file:
        file.write(0, 0, images.repeat(n_repetitions, axis=0) + noise)
    return len(presentations), len(neuroids), 1


def as_stored(column: pd.Series) -> np.ndarray:
    return column.to_numpy().astype("S") if column.dtype == object else column.to_numpy()


@pytest.fixture(scope="session")
def tab(tmp_path_factory) -> Iterator[Tab]:
    """The tab of a headless Chromium."""
    with open_chromium(tmp_path_factory.mktemp("chromium") / "profile") as opened:
        yield opened
