"""Releases compared with the published procedure: notebooks 02 and 03 of brainscore_vision, run on the same tree."""

import ast
import contextlib
import io
import shutil
from importlib.util import find_spec
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest
import scipy.io
import xarray

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.facts import SUBJECTS
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.recipe import make_recipe

matplotlib.use("Agg")

NOTEBOOKS = "data/allen2022_fmri/data_packaging/notebooks/surface"
N_SHARED = 1000  # a literal number in the notebooks
N_SESSIONS, N_TRIALS = 5, 801  # 1335 images, of which three quarters, 1001, are shared: one is dropped below


def run_notebook(name: str, **settings) -> None:
    """Run the code of a notebook. Every assignment to a name in `settings` gets the value from there."""
    path = Path(find_spec("brainscore_vision").origin).parent / NOTEBOOKS / f"{name}.ipynb"
    namespace: dict = {"__name__": "notebook"}

    class Settings(ast.NodeTransformer):
        def visit_Assign(self, node):
            target = node.targets[0]
            if isinstance(target, ast.Name) and target.id in settings:
                node.value = ast.Subscript(ast.Name("SETTINGS", ast.Load()), ast.Constant(target.id), ast.Load())
            return node

    namespace["SETTINGS"] = settings
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            code = ast.fix_missing_locations(Settings().visit(ast.parse(cell.source)))
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                exec(compile(code, f"{name}.ipynb", "exec"), namespace)


@pytest.fixture(scope="module")
def flat_tree(tmp_path_factory) -> Path:
    """A flat tree with 1000 shared images, which the notebooks assume."""
    root = tmp_path_factory.mktemp("flat") / "nsd"
    size = TreeSize(n_sessions=N_SESSIONS, n_trials=N_TRIALS, n_vertices=120, image_size=8, layout="flat")
    simulate_tree(root, size)
    path = root / "metadata/nsd_expdesign.mat"
    design = {name: value for name, value in scipy.io.loadmat(path).items() if not name.startswith("__")}
    design["sharedix"] = design["sharedix"][:, :N_SHARED]
    assert design["sharedix"].size == N_SHARED
    scipy.io.savemat(path, design)
    return root


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the notebooks take means of nothing but NaN
@pytest.mark.parametrize("subjects", [SUBJECTS, (1, 2, 5, 7)])
def test_every_value_equals_the_published_procedure(flat_tree, tmp_path, subjects):
    sessions = {s: len(list((flat_tree / f"subj{s:02d}/betas").glob("lh.betas_session*.mgh"))) for s in SUBJECTS}
    root = tmp_path / "nsd"
    root.mkdir()
    for entry in flat_tree.iterdir():
        (root / entry.name).symlink_to(entry)
    settings = {
        "NSD_ROOT": root,
        "SUBJECT_LIST": list(subjects),
        "ALL_SESSIONS": sessions,
        "TRIALS_PER_SESSION": N_TRIALS,
        "N_FSAVG_VERTICES": 120,
    }
    run_notebook("02_surface_data_preparation", **settings)
    run_notebook("03_surface_packaging_prep", **settings)
    build_release(flat_tree, tmp_path / "release", make_recipe(subjects))
    build_release(root, tmp_path / "prepared", make_recipe(subjects), from_region_assemblies=True)

    published = root / "brainscore_surface"
    for release in (tmp_path / "release", tmp_path / "prepared"):
        assert_equals_published(release, published)
    shutil.rmtree(published)


def assert_equals_published(release: Path, published: Path) -> None:
    for split in ("train", "test"):
        expected = xarray.open_dataarray(published / f"Allen2022_fmri_surface_{split}.nc")
        (path,) = release.glob(f"*_{split}.nc")
        actual = xarray.open_dataarray(path)
        assert actual.dims == expected.dims
        assert set(actual.coords) == set(expected.coords)
        for name, values in expected.coords.items():
            np.testing.assert_array_equal(actual[name].values, values.values, err_msg=name)
        np.testing.assert_allclose(actual.values, expected.values, rtol=0, atol=1e-5)
    actual_split, expected_split = (pd.read_csv(folder / "train_test_split.csv") for folder in (release, published))
    pd.testing.assert_frame_equal(actual_split, expected_split)
