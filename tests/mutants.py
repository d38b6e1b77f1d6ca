"""Mutation testing: put small mistakes into a module, one at a time, and see whether its own tests notice.

    python tests/mutants.py assemble/responses --sample 50 --seed 1

`make mutants` installs cosmic-ray, whose operators make most of the mistakes, and runs this. `mutants.toml` lists the modules
and their tests. Without a module, a sample of each module is tried. The work is done on a copy of the repository in a
temporary folder. A test process is forked from one that has imported the libraries, which is several times faster than
starting Python for each mistake.
"""

import argparse
import ast
import difflib
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator
from parso.python.tree import Keyword, Name

ROOT = Path(__file__).parents[1]
MODULES = tomllib.loads((ROOT / "tests" / "mutants.toml").read_text())
NOT_COPIED = (".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "demo")
# Imported before the first fork, because every test process needs them. Never the packages that are tested.
LIBRARIES = (
    *("boto3", "brainscore_core", "dask", "distributed", "h5py", "hypothesis", "moto.server", "msgspec", "netCDF4"),
    *("nibabel", "numpy", "pandas", "PIL.Image", "pytest", "scipy.io", "tqdm", "xarray"),
)
# One or two replacements of each kind. Most of cosmic-ray's other ones, such as + by <<, give a TypeError in any test.
OPERATORS = (
    *("AddNot", "NumberReplacer", "RemoveDecorator", "ZeroIterationForLoop"),
    *("ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak"),
    *(f"ReplaceComparisonOperator_{pair}" for pair in ("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is")),
    *(f"ReplaceComparisonOperator_{pair}" for pair in ("Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt")),
    *(f"ReplaceComparisonOperator_{pair}" for pair in ("Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt")),
    *(f"ReplaceBinaryOperator_{pair}" for pair in ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "Mod_Mul", "Pow_Mul")),
    *(f"ReplaceBinaryOperator_{pair}" for pair in ("FloorDiv_Div", "FloorDiv_Mul", "BitOr_BitAnd", "BitAnd_BitOr")),
    *(f"ReplaceUnaryOperator_{pair}" for pair in ("USub_UAdd", "Delete_USub", "Delete_Not", "Delete_Invert")),
)
TIMEOUT_FACTOR = 5
TIMEOUT_SECONDS = 20  # at least

Position = tuple[int, int]  # line from 1, column from 0
Range = tuple[Position, Position]


class DeleteStatement(Operator):
    """Replaces a call, a raise, a `del`, or a change of an object by `pass`."""

    def mutation_positions(self, node):
        if node.type == "simple_stmt" and _has_effect(node.children[0]):
            yield node.children[0].start_pos, node.children[0].end_pos

    def mutate(self, node, index):
        statement = node.children[0]
        node.children[0] = Keyword("pass", statement.start_pos, statement.get_first_leaf().prefix)
        return node

    @classmethod
    def examples(cls):
        return ()


def _has_effect(statement: parso.tree.NodeOrLeaf) -> bool:
    if statement.type == "expr_stmt":  # a new variable would be missed at once
        target, operation = statement.children[0], statement.children[1]
        return target.type != "name" or (operation.type == "operator" and operation.value != "=")
    return statement.type in ("raise_stmt", "del_stmt", "atom_expr")


class DropKeyword(Operator):
    """Removes a keyword argument from a call, so that its default counts."""

    def mutation_positions(self, node):
        for child in self._arguments(node):
            yield child.start_pos, child.end_pos

    def mutate(self, node, index):
        argument = self._arguments(node)[index]
        position = node.children.index(argument)
        is_followed = position + 1 < len(node.children) and node.children[position + 1].type == "operator"
        is_followed = is_followed and node.children[position + 1].value == ","
        first = position if is_followed or node.type == "trailer" or position == 0 else position - 1
        del node.children[first : position + 1 + is_followed]
        return node

    @classmethod
    def examples(cls):
        return ()

    @staticmethod
    def _arguments(node):
        if node.type not in ("arglist", "trailer"):
            return []
        return [child for child in node.children if child.type == "argument" and child.children[1] == "="]


class MissException(Operator):
    """Replaces an exception that is caught by one that does not occur. (cosmic-ray's operator fails for dotted names.)"""

    def mutation_positions(self, node):
        for caught in self._caught(node):
            yield caught.start_pos, caught.end_pos

    def mutate(self, node, index):
        caught = self._caught(node)[index]
        siblings = caught.parent.children
        replacement = Name("GeneratorExit", caught.start_pos, caught.get_first_leaf().prefix)
        siblings[siblings.index(caught)] = replacement
        return node

    @classmethod
    def examples(cls):
        return ()

    @staticmethod
    def _caught(node):
        if node.type != "except_clause":
            return []
        exceptions = node.children[1]
        if exceptions.type == "atom" and exceptions.children[1].type == "testlist_comp":
            return exceptions.children[1].children[::2]
        return [exceptions]


class SinglePrecision(Operator):
    """Computes in single instead of double precision."""

    def mutation_positions(self, node):
        if node.type == "name" and node.value == "float64":
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        return Name("float32", node.start_pos, node.prefix)

    @classmethod
    def examples(cls):
        return ()


@dataclass(frozen=True)
class Mutant:
    """A mistake in a module: which, where, and the source with it."""

    operator: str
    line: int
    source: str


def list_mutants(source: str) -> list[Mutant]:
    """Return all mutants of a module that can change how it behaves, in the order of their lines."""
    operators = {name: get_operator(f"core/{name}")() for name in OPERATORS}
    operators |= {
        operator.__name__: operator() for operator in (DeleteStatement, DropKeyword, MissException, SinglePrecision)
    }
    inert = list(_inert_ranges(ast.parse(source)))
    mutants = []
    for name, operator in operators.items():
        positions = [p for node in ast_nodes(get_ast(source)) for p in operator.mutation_positions(node)]
        for occurrence, (start, end) in enumerate(positions):
            if any(first <= start and end <= last for first, last in inert):
                continue
            mutated = mutate_code(source, operator, occurrence)
            if _is_other_code(source, mutated):
                mutants.append(Mutant(name, start[0], mutated))
    return sorted(mutants, key=lambda mutant: (mutant.line, mutant.operator))


def _is_other_code(source: str, mutated: str) -> bool:
    try:
        return ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


def _inert_ranges(tree: ast.Module) -> Iterator[Range]:
    """Yield the parts of a module that change nothing that a test could see.

    These are annotations, the mark of keyword-only arguments, arguments of decorators (``frozen=True``), log messages,
    imports for types alone, and ``strict=True``, which only guards against mistakes.
    """
    for node in ast.walk(tree):
        match node:
            case ast.arg(annotation=ast.expr() as annotation):
                yield _range(annotation)
            case ast.AnnAssign(annotation=annotation, value=value):
                yield _range(annotation)
                if value and ast.unparse(annotation) == "TypeAlias":
                    yield _range(value)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="logger"))):
                yield _range(node)
            case ast.Call(func=ast.Name(id="TypeVar" | "cast")):
                yield _range(node)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield _range(node)
            case ast.keyword(arg="strict"):
                yield _range(node)
        if isinstance(node, ast.FunctionDef) and node.returns:
            yield _range(node.returns)
        if isinstance(node, ast.FunctionDef) and node.args.kwonlyargs:  # the star before them
            before = [_range(part)[1] for part in (*node.args.posonlyargs, *node.args.args, *node.args.defaults)]
            yield max(before, default=_range(node)[0]), _range(node.args.kwonlyargs[0])[0]
        for decorator in getattr(node, "decorator_list", []):
            yield _range(decorator)


def _range(node: ast.AST) -> Range:
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


class Copy:
    """A copy of the repository, in which tests run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(*NOT_COPIED))
        sys.dont_write_bytecode = True
        os.environ |= {
            "PYTHONDONTWRITEBYTECODE": "1",  # else a mistake of the same size and second would be missed
            "PYTHONPATH": os.pathsep.join([str(root / "packaging"), str(root)]),  # before the installed packages
        }
        sys.path[:0] = [str(root / "packaging"), str(root)]
        os.chdir(root)
        for library in LIBRARIES:
            importlib.import_module(library)

    def passes(self, tests: list[str], timeout: float) -> bool:
        """Return whether tests pass within some seconds."""
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.setsid()
            with (self.root / "output.txt").open("w") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            os._exit(self._run(tests))
        deadline = time.monotonic() + timeout
        finished, status = 0, 1
        try:
            while not finished and time.monotonic() < deadline:
                time.sleep(0.02)
                finished, status = os.waitpid(pid, os.WNOHANG)
        finally:
            if not finished:  # too slow, or this process is interrupted
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        return finished != 0 and status == 0

    def _run(self, tests: list[str]) -> int:
        import pytest

        try:
            scratch = f"--basetemp={self.root / 'scratch'}"
            paths = [str(self.root / "tests" / test) for test in tests]
            status = pytest.main(["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", scratch, *paths])
            import allen2022_surface_packaging

            is_copy = Path(allen2022_surface_packaging.__file__).is_relative_to(self.root)
            return int(status) if is_copy else 99
        except BaseException:
            return 1

    def output(self) -> str:
        """Return what the last tests printed."""
        return (self.root / "output.txt").read_text(errors="replace")


def try_module(copy: Copy, module: str, n_sample: int, seed: int, lines: range | None) -> tuple[int, int]:
    """Try mutants of a module, print the survivors, and return how many were killed, and how many there were."""
    path = next(
        path
        for path in (copy.root / f"packaging/allen2022_surface_packaging/{module}.py", copy.root / f"{module}.py")
        if path.is_file()
    )
    source = path.read_text()
    mutants = list_mutants(source)
    n_all = len(mutants)
    if lines:
        mutants = [mutant for mutant in mutants if mutant.line in lines]
    if n_sample < len(mutants):
        chosen = sorted(random.Random(seed).sample(range(len(mutants)), n_sample))
        mutants = [mutants[i] for i in chosen]
    start = time.monotonic()
    if not copy.passes(MODULES[module], 600):
        sys.exit(f"{copy.output()}\nThe tests of {module} fail without any mistake.")
    timeout = max(TIMEOUT_SECONDS, TIMEOUT_FACTOR * (time.monotonic() - start))
    n_killed = 0
    for number, mutant in enumerate(mutants, start=1):
        path.write_text(mutant.source)
        try:
            is_killed = not copy.passes(MODULES[module], timeout)
        finally:
            path.write_text(source)
        n_killed += is_killed
        if not is_killed:
            print(
                f"{module}.py:{mutant.line} {mutant.operator} survived\n{_describe(source, mutant.source)}", flush=True
            )
        if sys.stderr.isatty():
            print(f"{module} {number}/{len(mutants)}", end="\r", file=sys.stderr, flush=True)
    seconds = time.monotonic() - start
    print(f"{module}: {n_killed} of {len(mutants)} killed ({n_all} mutants in all, {seconds:.0f} s)", flush=True)
    return n_killed, len(mutants)


def _describe(source: str, mutated: str) -> str:
    changes = difflib.unified_diff(source.splitlines(), mutated.splitlines(), n=0, lineterm="")
    return "\n".join(f"    {line}" for line in changes if line[0] in "+-" and line[:3] not in ("+++", "---"))


def main() -> None:
    """Try the mutants that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="such as assemble/responses; every module if none")
    parser.add_argument("--sample", type=int, default=sys.maxsize, help="mutants of each module; all if not given")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--lines", type=int, nargs=2, metavar=("FIRST", "LAST"), help="only mutants of these lines")
    arguments = parser.parse_args()
    unknown = [module for module in arguments.modules if module not in MODULES]
    if unknown:
        parser.error(f"{', '.join(unknown)} is not in tests/mutants.toml, which lists {', '.join(MODULES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the copy is removed
    lines = range(arguments.lines[0], arguments.lines[1] + 1) if arguments.lines else None
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Copy(Path(folder) / "repository")
        counts = [
            try_module(copy, module, arguments.sample, arguments.seed, lines) for module in arguments.modules or MODULES
        ]
    n_killed, n_tried = (sum(column) for column in zip(*counts, strict=True))
    print(f"{n_killed} of {n_tried} killed ({100 * n_killed / max(1, n_tried):.0f} %)")


if __name__ == "__main__":
    main()
