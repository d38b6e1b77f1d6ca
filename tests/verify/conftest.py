"""What the tests of `verify` share: the command line, run in this process."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.cli import main
from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd.simulation import simulate_tree
from allen2022_surface_packaging.nsd.size import TreeSize
from allen2022_surface_packaging.recipe import make_recipe
from verify.planted import NAME


@dataclass(frozen=True)
class Result:
    """The exit status and the output of a command."""

    status: int
    out: str
    err: str

    @property
    def problems(self) -> list[str]:
        return [line for line in self.out.splitlines() if line.startswith("problem: ")]


@pytest.fixture(scope="session")
def tiny_tree(tmp_path_factory) -> Path:
    """A synthetic tree of two subjects, as small as can be with all regions and with vertices that are NaN."""
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
def tiny_copy_of_tree(tiny_tree, tmp_path) -> Path:
    """A copy of the tiny tree that a test may change."""
    return Path(shutil.copytree(tiny_tree, tmp_path / "nsd"))


@pytest.fixture
def tiny_copy(tiny_release, tmp_path) -> Path:
    """A copy of the tiny release that a test may change."""
    return Path(shutil.copytree(tiny_release, tmp_path / "release"))


@pytest.fixture
def run_verify(capsys) -> Callable[..., Result]:
    """A function that runs `allen2022-surface verify` with some arguments."""

    def run(*arguments) -> Result:
        with pytest.raises(SystemExit) as exit:
            main(["verify", *map(str, arguments)])
        captured = capsys.readouterr()
        return Result(exit.value.code, captured.out, captured.err)

    return run
