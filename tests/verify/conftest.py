"""What the tests of `verify` share: a tree and a release as small as can be with all regions and with vertices that are NaN."""

import shutil
from pathlib import Path

import pytest

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd.simulation import simulate_tree
from allen2022_surface_packaging.nsd.size import TreeSize
from allen2022_surface_packaging.recipe import make_recipe
from verify.planted import NAME


@pytest.fixture(scope="session")
def tiny_tree(tmp_path_factory) -> Path:
    """A synthetic tree of two subjects."""
    root = tmp_path_factory.mktemp("tiny") / "nsd"
    simulate_tree(root, TreeSize(subjects=(1, 2), n_trials=60, image_size=8, betas=(DEFAULT_BETAS,)))
    return root


@pytest.fixture(scope="session")
def tiny_release(tiny_tree, tmp_path_factory) -> Path:
    """The release of the tiny tree. Tests only read it."""
    path = tmp_path_factory.mktemp("tiny_releases") / "release"
    build_release(tiny_tree, path, make_recipe((1, 2), name=NAME))
    return path


@pytest.fixture
def tiny_copy(tiny_release, tmp_path) -> Path:
    """A copy of the tiny release that a test may change."""
    return Path(shutil.copytree(tiny_release, tmp_path / "release"))
