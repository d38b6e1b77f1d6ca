"""Releases with a report: the small one of all tests, and planted ones on all vertices of fsaverage."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from nilearn.datasets import fetch_surf_fsaverage
from nilearn.surface import load_surf_mesh

from allen2022_surface_packaging.report.page import write_report
from report.browser import Tab, open_chromium
from report.reading import SPLITS, Page, measure

N_VERTICES = 163_842
# The vertices of each region, sorted by their distance from the occipital pole. V4 and IT share 20.
VERTEX_RANGES = {"V1": (0, 200), "V2": (200, 300), "V4": (300, 400), "IT": (380, 600)}
PLANTED_CEILINGS = {"subj01": 80.0, "subj02": 20.0}


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
    plant_release(path, reported)
    write_report(path)
    return path


def plant_release(
    path: Path, reported: Path, noise_ceilings: dict[str, float] = PLANTED_CEILINGS, *, shared_noise: float = 0.0
) -> None:
    """Write a release of subjects with given noise ceilings, and the stimuli of another release.

    `shared_noise` is the share of the variance of the noise that all repetitions of an image have in common.
    """
    shutil.copytree(reported, path, ignore=shutil.ignore_patterns("*.nc", "report.html"))
    neuroids = plant_neuroids(noise_ceilings)
    shapes = {split: write_planted_assembly(path, split, neuroids, shared_noise) for split in SPLITS}
    manifest = json.loads((path / "release.json").read_text())
    subjects, region = list(noise_ceilings), {"atlas": "Kastner2015", "labels": [1]}
    manifest |= {"name": "planted", "n_vertices": N_VERTICES, "shapes": shapes, "simulated": False}
    manifest["recipe"] |= {"name": "planted", "subjects": [int(subject[-1]) for subject in subjects]}
    manifest["recipe"]["regions"] = [{"name": name, **region, "each": False} for name in VERTEX_RANGES]
    manifest["regions"] = [{"name": name, **region, "n_vertices": 402} for name in VERTEX_RANGES]
    manifest["sessions"] = dict.fromkeys(subjects, 4)
    nothing = {"train": 0, "test": 0, "neuroids": 0}
    manifest["nan_counts"] = {subject: dict.fromkeys(VERTEX_RANGES, nothing) for subject in subjects}
    for split in SPLITS:
        record = manifest["files"].pop(f"Allen2022_fmri_surface_{split}.nc")
        size = (path / f"planted_{split}.nc").stat().st_size
        manifest["files"][f"planted_{split}.nc"] = record | {"size": size}
    (path / "release.json").write_text(json.dumps(manifest))


def plant_neuroids(noise_ceilings: dict[str, float]) -> pd.DataFrame:
    """Return neuroids of subjects with the same regions. V1 is at the occipital pole."""
    vertices = pd.concat([plant_vertices("lh", "left"), plant_vertices("rh", "right")])
    tables = [
        vertices[vertices["region"] == region].assign(subject=subject, nc_testset=noise_ceiling)
        for region in VERTEX_RANGES
        for subject, noise_ceiling in noise_ceilings.items()
    ]
    neuroids = pd.concat(tables, ignore_index=True)
    numbers = neuroids.groupby(["region", "subject"]).cumcount().map("{:05d}".format)
    prefixes = neuroids["subject"] + "_" + neuroids["hemisphere"] + "_" + neuroids["region"]
    return neuroids.assign(neuroid_id=prefixes + "_v" + numbers)


def plant_vertices(hemisphere: str, side: str) -> pd.DataFrame:
    """Return the vertices of the regions of a hemisphere. One vertex of each region is not on the fsaverage5 mesh."""
    mesh = load_surf_mesh(fetch_surf_fsaverage("fsaverage5")[f"infl_{side}"])
    from_pole = np.argsort(mesh.coordinates[:, 1])
    tables = []
    for number, (region, (start, stop)) in enumerate(VERTEX_RANGES.items()):
        vertices = np.sort([*from_pole[start:stop], N_VERTICES - 1 - number])
        tables.append(pd.DataFrame({"region": region, "hemisphere": hemisphere, "vertex_index": vertices}))
    return pd.concat(tables)


def write_planted_assembly(path: Path, split: str, neuroids: pd.DataFrame, shared_noise: float) -> tuple[int, int, int]:
    """Write responses with the noise ceilings of the neuroids, and return their shape."""
    rng = np.random.default_rng(SPLITS.index(split))
    stimuli = pd.read_csv(path / f"stimulus_metadata_{split}.csv")
    n_repetitions = {"train": 1, "test": 3}[split]
    ncsnr = np.sqrt(neuroids["nc_testset"].to_numpy() / (100 - neuroids["nc_testset"].to_numpy()) / 3)
    shape = (len(stimuli), len(neuroids))
    images = ncsnr * rng.standard_normal(shape) + np.sqrt(shared_noise) * rng.standard_normal(shape)
    values = images.repeat(n_repetitions, axis=0)
    values += np.sqrt(1 - shared_noise) * rng.standard_normal(values.shape)
    coordinates = {name: ("presentation", stimuli[name].repeat(n_repetitions)) for name in ("stimulus_id", "nsd_id")}
    if split == "test":
        coordinates["repetition"] = ("presentation", np.tile(range(3), len(stimuli)))
    coordinates |= {name: ("neuroid", neuroids[name]) for name in neuroids}
    assembly = xr.DataArray(
        values[:, :, None].astype(np.float32), dims=("presentation", "neuroid", "time_bin"), coords=coordinates
    )
    texts = {name: {"dtype": "S1"} for name in assembly.coords if assembly[name].dtype == object}
    assembly.to_dataset(name="data").to_netcdf(path / f"planted_{split}.nc", encoding=texts)
    return assembly.shape


@pytest.fixture(scope="session")
def tab(tmp_path_factory) -> Iterator[Tab]:
    """The tab of a headless Chromium."""
    with open_chromium(tmp_path_factory.mktemp("chromium") / "profile") as opened:
        yield opened
