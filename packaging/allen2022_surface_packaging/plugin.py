"""The bridge to the plugin: the only module of the packaging half that imports it, and only when a command needs it."""

from __future__ import annotations

import re
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from .errors import PackagingError, describe_missing
from .files import read_file

PLUGIN = "brainscore_allen2022_surface"
LIBRARY = "brainscore_vision"
RELEASE_VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_DIR"
ARTIFACTS_VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS"
LINK_NAME = "allen2022_surface"  # of the plugin's folder in the folder `data` of the library
REGISTRATION = re.compile(r"""(data_registry|stimulus_set_registry)\[['"]([^'"]+)['"]\]""")


def plugin_path() -> Path:
    """Return the folder of the installed plugin.

    Raises
    ------
    PackagingError
        If there is none.
    """
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
        with warnings.catch_warnings():
            # Brainscore_core defines subclasses in a way that xarray warns about.
            warnings.filterwarnings("ignore", "xarray subclass", FutureWarning)
            return import_module(f"{PLUGIN}.{module}")
    except ModuleNotFoundError as error:
        raise PackagingError(f"The plugin in {folder} needs a further package: {describe_missing(error)}") from error
