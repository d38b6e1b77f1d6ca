"""Imports point one way: nsd -> assemble -> verify -> publish, with report beside them, and one bridge to the plugin."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGING = "allen2022_surface_packaging"
PLUGIN = "brainscore_allen2022_surface"
FOLDERS = {PACKAGING: ROOT / "packaging" / PACKAGING, PLUGIN: ROOT / PLUGIN}
LEAVES = ("arrays", "errors", "facts", "files", "images", "progress", "s3_errors")
# What each stage or module may import beside the leaves and itself.
ALLOWED = {
    **dict.fromkeys(LEAVES, set()),
    "nsd": {"recipe"},
    "recipe": set(),
    "release": {"__init__", "recipe"},
    "plugin": set(),
    "assemble": {"nsd", "recipe", "release"},
    "verify": {"nsd", "plugin", "recipe", "release"},
    "publish": {"__init__", "assemble.assembly", "plugin", "recipe", "release", "verify.soundness"},
    "report": {"plugin", "recipe", "release"},
}


def list_modules() -> dict[str, Path]:
    """Return the path of every module of both packages, by its full name; a package is called `...__init__`."""
    return {
        ".".join((package, *path.relative_to(folder).with_suffix("").parts)): path
        for package, folder in FOLDERS.items()
        for path in folder.rglob("*.py")
    }


MODULES = list_modules()


def list_imports(module: str) -> list[tuple[str, bool]]:
    """Return the full names that a module imports anywhere, such as ``os.path.join``, and whether each is relative."""
    imports = []
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imports += [(alias.name, False) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            imports += [(f"{base}.{alias.name}", node.level > 0) for alias in node.names]
    return imports


def list_imported_modules(module: str) -> set[str]:
    """Return which of `MODULES` a module imports."""
    imported = set()
    for name, _ in list_imports(module):
        parent = name.rpartition(".")[0]
        candidates = (name, f"{name}.__init__", parent, f"{parent}.__init__")
        imported |= {candidate for candidate in candidates if candidate in MODULES and candidate != module}
    return imported


def is_within(module: str, allowed: set[str]) -> bool:
    return any(f"{module}.".startswith(f"{PACKAGING}.{name}.") for name in allowed)


@pytest.mark.parametrize("part", ALLOWED)
def test_stage_imports_only_what_comes_before_it(part):
    modules = [module for module in MODULES if is_within(module, {part})]
    allowed = ALLOWED[part] | {*LEAVES, part}

    assert modules
    forbidden = {
        (module, imported)
        for module in modules
        for imported in list_imported_modules(module)
        if not is_within(imported, allowed)
    }
    assert not forbidden


def test_no_modules_import_each_other_in_a_circle():
    graphlib.TopologicalSorter({module: list_imported_modules(module) for module in MODULES}).prepare()


def test_only_the_bridge_imports_the_plugin():
    """An import by a string counts as well, so only the bridge may call `import_module`."""
    for module, path in MODULES.items():
        if module.startswith(f"{PACKAGING}.") and module != f"{PACKAGING}.plugin":
            assert not [name for name, _ in list_imports(module) if name.split(".")[0] == PLUGIN], module
            assert not re.search(r"\b(import_module|__import__)\b", path.read_text(encoding="utf-8")), module


def test_plugin_imports_itself_relatively_and_never_the_packaging():
    for module in MODULES:
        if module.startswith(f"{PLUGIN}."):
            absolute = {name.split(".")[0] for name, is_relative in list_imports(module) if not is_relative}
            assert not absolute & {PLUGIN, PACKAGING}, module


def test_packaging_folder_is_not_a_package():
    assert not (ROOT / "packaging" / "__init__.py").exists()  # it would hide the package `packaging` of PyPI
