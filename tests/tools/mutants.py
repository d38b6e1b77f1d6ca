"""Mutation testing: put small mistakes into a module, one at a time, and see whether its tests notice.

    python tests/tools/mutants.py assemble/responses --sample 50 --seed 1

The tests are `tests/assemble/test_responses.py`, or all of `tests/assemble` if there is no such file. The work is done on a copy
of the repository in a temporary folder. Without a module, every module is tried. A mistake that survives is no fault by itself:
it may change nothing, or nothing that matters. Read what is printed, and ask which test should have failed.
"""

import argparse
import ast
import difflib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path("packaging/allen2022_surface_packaging")
NOT_COPIED = (".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "demo")
OPERATORS = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
    **{ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr},
}
MOST_SECONDS = 600


def list_mutants(tree: ast.Module) -> list[str]:
    """Return the module with every possible mistake, one at a time, without comments."""
    mutants = []
    for node in list(walk(tree)):
        for field, value in list_changes(node):
            before = getattr(node, field)
            setattr(node, field, value)
            mutants.append(ast.unparse(tree))
            setattr(node, field, before)
    return mutants


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes but those that change nothing that a test could see: annotations, decorators, log messages, texts."""
    yield node
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            match child:
                case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="logger")))):
                    continue
                case ast.JoinedStr() | ast.keyword(arg="strict") | ast.If(test=ast.Name(id="TYPE_CHECKING")):
                    continue
                case ast.AST() if field not in ("annotation", "returns", "decorator_list"):
                    yield from walk(child)


def list_changes(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a node that a mistake may change, with their new values."""
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in OPERATORS:
            yield "ops", [OPERATORS[type(operator)]()]
        case ast.BinOp(op=operator) | ast.BoolOp(op=operator) if type(operator) in OPERATORS:
            yield "op", OPERATORS[type(operator)]()
        case ast.Constant(value=bool() as value):
            yield "value", not value
        case ast.Constant(value=(int() | float()) as value):
            yield "value", value + 1
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield "test", ast.UnaryOp(ast.Not(), test)
        case ast.Call(keywords=keywords):
            for i in range(len(keywords)):
                yield "keywords", keywords[:i] + keywords[i + 1 :]
        case ast.Attribute(attr="float64"):
            yield "attr", "float32"
    body = getattr(node, "body", None)
    for i, statement in enumerate(body if isinstance(body, list) else []):
        match statement:
            case ast.Raise() | ast.AugAssign() | ast.Expr(value=ast.Call()):
                yield "body", [*body[:i], ast.Pass(), *body[i + 1 :]]


def passes(root: Path, tests: str) -> bool:
    """Return whether tests pass in the copy of the repository."""
    paths = os.pathsep.join([str(root / "packaging"), str(root)])  # before the installed packages
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", tests]
    try:
        return not subprocess.run(
            command, cwd=root, env=environment, capture_output=True, timeout=MOST_SECONDS
        ).returncode
    except subprocess.TimeoutExpired:
        return False


def try_module(root: Path, module: str, n_sample: int, seed: int) -> tuple[int, int]:
    """Try mutants of a module, print the survivors, and return how many were noticed, and how many there were."""
    path, test_path = root / PACKAGE / f"{module}.py", Path("tests", module).parent / f"test_{Path(module).name}.py"
    tests = str(test_path if (root / test_path).is_file() else test_path.parent)
    original = path.read_text()
    source, mutants = ast.unparse(ast.parse(original)), list_mutants(ast.parse(original))
    chosen, n_survivors = random.Random(seed).sample(mutants, min(n_sample, len(mutants))), 0
    if not passes(root, tests):
        sys.exit(f"{tests} fails without any mistake in {module}.")
    for mutant in chosen:
        path.write_text(mutant)
        if passes(root, tests):
            n_survivors += 1
            changes = difflib.unified_diff(source.splitlines(), mutant.splitlines(), n=0, lineterm="")
            print(f"{module}:", *[line for line in changes if line[:3] not in ("---", "+++")], sep="\n  ", flush=True)
    path.write_text(original)
    print(f"{module}: {len(chosen) - n_survivors} of {len(chosen)} noticed, of {len(mutants)} in all", flush=True)
    return len(chosen) - n_survivors, len(chosen)


def main() -> None:
    """Try the mutants that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="such as assemble/responses; every module if none")
    parser.add_argument("--sample", type=int, default=20, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    options = parser.parse_args()
    paths = sorted(path.relative_to(ROOT / PACKAGE) for path in (ROOT / PACKAGE).rglob("*.py"))
    modules = options.modules or [str(path.with_suffix("")) for path in paths if "__" not in path.name]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = shutil.copytree(ROOT, Path(folder, "repository"), ignore=shutil.ignore_patterns(*NOT_COPIED))
        counts = [try_module(copy, module, options.sample, options.seed) for module in modules]
    n_noticed, n_tried = (sum(column) for column in zip(*counts, strict=True))
    print(f"{n_noticed} of {n_tried} noticed ({100 * n_noticed / max(1, n_tried):.0f} %)")


if __name__ == "__main__":
    main()
