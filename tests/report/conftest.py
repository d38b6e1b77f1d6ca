"""Releases with a report: the small one of all tests, and one of which the noise ceilings and the places are planted."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import pytest
from nilearn.datasets import fetch_surf_fsaverage
from nilearn.surface import load_surf_mesh

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.recipe import make_recipe
from allen2022_surface_packaging.report.page import write_report
from report.browser import Tab, open_chromium
from report.reading import Page, change_manifest, measure
from support import accept

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
def planted(tmp_path_factory) -> Path:
    """A release of two subjects with planted noise ceilings, on the first vertices of fsaverage. Tests only read it."""
    folder = tmp_path_factory.mktemp("planted")
    size = TreeSize((1, 2), n_sessions=1, n_trials=600, n_vertices=10_242, image_size=24, betas=(DEFAULT_BETAS,))
    simulate_tree(folder / "nsd", size)
    build_release(folder / "nsd", folder / "release", make_recipe((1, 2), name="planted"))
    plant_ceilings(folder / "release", PLANTED_CEILINGS)
    return folder / "release"


@pytest.fixture(scope="session")
def full_size(planted, tmp_path_factory) -> Path:
    """The planted release as if it were of 163,842 vertices, with its report. Its V1 is at the occipital pole."""
    path = Path(shutil.copytree(planted, tmp_path_factory.mktemp("full") / "release"))
    change_manifest(path, n_vertices=163_842)
    with netCDF4.Dataset(path / "planted_test.nc", "a") as file:
        vertices = file["vertex_index"][:]
        for hemisphere, side in (("lh", "left"), ("rh", "right")):
            from_pole = np.argsort(load_surf_mesh(fetch_surf_fsaverage("fsaverage5")[f"infl_{side}"]).coordinates[:, 1])
            is_here = file["hemisphere"][:] == hemisphere
            vertices[is_here] = from_pole[pd.factorize(vertices[is_here])[0]]
        vertices[vertices % 200 == 0] += 100_000  # not on the fsaverage5 mesh
        file["vertex_index"][:] = vertices
    accept(path, "planted_test.nc")
    write_report(path)
    return path


def plant_ceilings(path: Path, noise_ceilings: dict[str, float], *, shared_noise: float = 0.0) -> None:
    """Give the subjects of a release noise ceilings, and test responses that have them, as if nothing had been filled.

    `shared_noise` is the share of the variance of the noise that all repetitions of an image have in common.
    """
    manifest = json.loads((path / "release.json").read_text())
    nothing = {"train": 0, "test": 0, "neuroids": 0}
    counts = {subject: dict.fromkeys(regions, nothing) for subject, regions in manifest["nan_counts"].items()}
    change_manifest(path, nan_counts=counts, simulated=False)
    rng = np.random.default_rng(0)
    with netCDF4.Dataset(path / f"{manifest['name']}_test.nc", "a") as file:
        ceilings = np.array([noise_ceilings[subject] for subject in file["subject"][:]])
        shape = (len(file["nsd_id"]) // 3, len(ceilings))
        images = np.sqrt(ceilings / (100 - ceilings) / 3) * rng.standard_normal(shape)
        images += np.sqrt(shared_noise) * rng.standard_normal(shape)
        values = images.repeat(3, axis=0) + np.sqrt(1 - shared_noise) * rng.standard_normal((3 * shape[0], shape[1]))
        file["nc_testset"][:], file["data"][:] = ceilings, values[:, :, None]
    accept(path, f"{manifest['name']}_test.nc")


@pytest.fixture(scope="session")
def tab(tmp_path_factory) -> Iterator[Tab]:
    """The tab of a headless Chromium."""
    with open_chromium(tmp_path_factory.mktemp("chromium") / "profile") as opened:
        yield opened
