"""The bridge to the plugin: the only module of the packaging half that imports it, and only when a command needs it."""

from __future__ import annotations

import re
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from .errors import PackagingError, describe_missing
from .files import read_file

PLUGIN = "brainscore_allen2022_surface"
REGISTRATION = re.compile(r"""(data_registry|stimulus_set_registry)\[['"]([^'"]+)['"]\]""")
# Where `export` puts a copy of this package: PLUGIN_FOLDER/data_packaging/allen2022_surface_packaging
EXPORTED_PLUGIN_PATH = Path(__file__).resolve().parents[2]


def plugin_path() -> Path:
    """Return the folder of the plugin: the one that this package was exported with, or else the installed one.

    Raises
    ------
    PackagingError
        If there is neither.
    """
    if (EXPORTED_PLUGIN_PATH / "artifacts.json").is_file():
        return EXPORTED_PLUGIN_PATH
    spec = find_spec(PLUGIN)
    if spec is None or spec.origin is None:
        raise PackagingError(f"The plugin {PLUGIN} is not installed. Install it: pip install {PLUGIN}")
    return Path(spec.origin).parent


def registrations(folder: Path) -> list[tuple[str, str]]:
    """List the registry and the identifier of everything that a plugin registers, from its text as Brain-Score does."""
    path = folder / "__init__.py"
    return REGISTRATION.findall(read_file(path).decode(errors="replace")) if path.is_file() else []


def import_plugin(module: str) -> ModuleType:
    """Import a module of the plugin, such as ``ceiling``.

    Raises
    ------
    PackagingError
        If the plugin is not there, or a package that it needs is not installed.
    """
    folder = plugin_path()
    try:
        if PLUGIN not in sys.modules and folder == EXPORTED_PLUGIN_PATH:
            _import_from(folder)
        with warnings.catch_warnings():
            # Brainscore_core defines subclasses in a way that xarray warns about.
            warnings.filterwarnings("ignore", "xarray subclass", FutureWarning)
            return import_module(f"{PLUGIN}.{module}")
    except ModuleNotFoundError as error:
        raise PackagingError(f"The plugin in {folder} needs a further package: {describe_missing(error)}") from error


def _import_from(folder: Path) -> None:
    """Import the plugin from a folder of any name, under its usual name."""
    spec = spec_from_file_location(PLUGIN, folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert spec is not None and spec.loader is not None
    package = module_from_spec(spec)
    sys.modules[PLUGIN] = package
    try:
        spec.loader.exec_module(package)
    except BaseException:
        del sys.modules[PLUGIN]
        raise
