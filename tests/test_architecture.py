"""Imports point one way: nsd -> assemble -> verify -> publish, with report beside them, and one bridge to the plugin."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGING = "allen2022_surface_packaging"
PLUGIN = "brainscore_allen2022_surface"
LEAVES = ("arrays", "errors", "facts", "files", "images", "progress", "s3_errors")
# What each stage or module may import beside the leaves and itself.
ALLOWED = {
    **dict.fromkeys(LEAVES, set()),
    "nsd": {"recipe"},
    "recipe": set(),
    "release": {"__version__", "recipe"},
    "plugin": set(),
    "assemble": {"nsd", "recipe", "release"},
    "verify": {"nsd", "plugin", "recipe", "release"},
    "publish": {"__version__", "assemble.assembly", "plugin", "recipe", "release", "verify.soundness"},
    "report": {"plugin", "recipe", "release"},
}


def read_imports(path: Path) -> set[str]:
    """Return the full names that a module imports anywhere, such as ``os.path.join``; a relative one begins with a dot."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
    return names


PATHS = {
    ".".join(path.relative_to(ROOT / "packaging").with_suffix("").parts): path
    for path in (ROOT / "packaging" / PACKAGING).rglob("*.py")
}
IMPORTS = {module: read_imports(path) for module, path in PATHS.items()}


@pytest.mark.parametrize("part", ALLOWED)
def test_stage_imports_only_what_comes_before_it(part):
    allowed = tuple(f"{PACKAGING}.{name}." for name in {*LEAVES, *ALLOWED[part], part})
    modules = [module for module in IMPORTS if f"{module}.".startswith(f"{PACKAGING}.{part}.")]

    assert modules
    for module in modules:
        imported = {name for name in IMPORTS[module] if name.startswith(PACKAGING)}
        assert not {name for name in imported if not f"{name}.".startswith(allowed)}, module


def test_no_modules_import_each_other_in_a_circle():
    graph = {
        module: {name if name in IMPORTS else name.rpartition(".")[0] for name in names} & IMPORTS.keys()
        for module, names in IMPORTS.items()
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_only_the_bridge_imports_the_plugin():
    """An import by a string counts as well, so only the bridge may call `import_module`."""
    for module in IMPORTS.keys() - {f"{PACKAGING}.plugin"}:
        assert not [name for name in IMPORTS[module] if name.startswith(PLUGIN)], module
        assert not re.search(r"\b(import_module|__import__)\b", PATHS[module].read_text(encoding="utf-8")), module


def test_plugin_imports_itself_relatively_and_never_the_packaging():
    for path in (ROOT / PLUGIN).rglob("*.py"):
        assert not [name for name in read_imports(path) if name.startswith((PLUGIN, PACKAGING))], path


def test_packaging_folder_is_not_a_package():
    assert not (ROOT / "packaging" / "__init__.py").exists()  # it would hide the package `packaging` of PyPI
