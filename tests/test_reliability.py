"""The page about reliability names tests that exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"


def test_every_row_of_the_page_names_a_test_that_exists():
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [line for line in lines if not line.startswith("| what goes wrong")]
    names = [re.fullmatch(r"\|.*\| `(tests/\S+\.py)::(test_\w+)` \|", row) for row in rows]

    assert len(rows) > 10
    assert [row for row, name in zip(rows, names, strict=True) if not name] == []
    assert [name.groups() for name in names if name and name[2] not in read_functions(ROOT / name[1])] == []


def read_functions(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    return {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}
