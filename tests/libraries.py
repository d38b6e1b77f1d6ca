"""Copies of the installed brainscore_vision, into which a test may put a plugin."""

import functools
import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

PLUGIN_NAME = "allen2022_surface"


@functools.cache
def use_own_library() -> tempfile.TemporaryDirectory:
    """Let this process and its children import a copy of brainscore_vision, in a folder that the caller removes.

    Tests link the plugin into it and remove the link. In the installed library, that would disturb the tests of other processes,
    and what its user has linked.
    """
    folder = tempfile.TemporaryDirectory(prefix="brainscore_vision_")
    copy_library(Path(folder.name))
    sys.path.insert(0, folder.name)
    os.environ["PYTHONPATH"] = os.pathsep.join([folder.name, *filter(None, [os.environ.get("PYTHONPATH")])])
    return folder


def copy_library(folder: Path) -> Path:
    """Make `brainscore_vision` in a folder, without the plugin, and return its path.

    Its folder of data plugins is a new one. Everything in there and beside it is a link to the installed library: these are
    thousands of files, which no test changes.
    """
    installed, library = installed_path(), folder / "brainscore_vision"
    library.mkdir(parents=True)
    shutil.copy(installed / "__init__.py", library)
    link_all(installed, library, without=("__init__.py", "__pycache__", "data"))
    (library / "data").mkdir()
    link_all(installed / "data", library / "data", without=("__pycache__", PLUGIN_NAME))
    return library


def installed_path() -> Path:
    """Return the folder of the installed library, also where a copy of it is found before it."""
    spec = find_spec("brainscore_vision")
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).parent
    return (path / "model_interface.py").resolve().parent


def link_all(source: Path, target: Path, without: tuple[str, ...]) -> None:
    for path in source.iterdir():
        if path.name not in without:
            (target / path.name).symlink_to(path)
