"""Releases of NSD's experiment design, whose path is in `NSD_EXPDESIGN`, with betas of 642 vertices: 1.1 GB."""

import os
from pathlib import Path

import pandas as pd
import pytest

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.facts import SUBJECTS
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.recipe import make_recipe
from allen2022_surface_packaging.release import Manifest, ReleaseFolder
from support import find_differences


@pytest.fixture(scope="module")
def full_design_tree(tmp_path_factory):
    path = os.environ.get("NSD_EXPDESIGN")
    if not path:
        pytest.skip("set NSD_EXPDESIGN to NSD's nsd_expdesign.mat, which may not be shared")
    root = tmp_path_factory.mktemp("design") / "nsd"
    size = TreeSize(n_sessions=40, n_trials=750, n_vertices=642, image_size=16)
    simulate_tree(root, size, expdesign_path=Path(path))
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("subjects", "n_train", "n_test", "n_betas_files", "first_and_last"),
    [(SUBJECTS, 412, 103, 480, (3049, 72719)), ((1, 2, 5, 7), 800, 200, 320, None)],
)
def test_release_of_the_nsd_design_holds_the_published_images(
    full_design_tree, tmp_path, subjects, n_train, n_test, n_betas_files, first_and_last
):
    build_release(full_design_tree, tmp_path / "r", make_recipe(subjects))

    assert find_differences(tmp_path / "r", full_design_tree) == []
    folder = ReleaseFolder(tmp_path / "r")
    manifest = Manifest.read(folder)
    assert [manifest.shapes[split][0] for split in ("train", "test")] == [n_train, 3 * n_test]
    assert sum("betas_session" in path for path in manifest.inputs) == n_betas_files
    train_ids = pd.read_csv(tmp_path / "r/stimulus_metadata_train.csv").nsd_id
    if first_and_last:
        assert (train_ids.iloc[0], train_ids.iloc[-1]) == first_and_last
