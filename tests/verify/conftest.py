"""What the tests of `verify` share: the command line, run in this process."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from allen2022_surface_packaging.cli import main


@dataclass(frozen=True)
class Result:
    """The exit status and the output of a command."""

    status: int
    out: str
    err: str

    @property
    def problems(self) -> list[str]:
        return [line for line in self.out.splitlines() if line.startswith("problem: ")]


@pytest.fixture
def run_verify(capsys) -> Callable[..., Result]:
    """A function that runs `allen2022-surface verify` with some arguments."""

    def run(*arguments) -> Result:
        with pytest.raises(SystemExit) as exit:
            main(["verify", *map(str, arguments)])
        captured = capsys.readouterr()
        return Result(exit.value.code, captured.out, captured.err)

    return run
