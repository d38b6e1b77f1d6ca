"""Runs the tour when the site is built.

`tour.md` is plain Markdown, so that it reads well everywhere. Here each of its Python blocks becomes a cell of a notebook. Its data is
a small simulated release, which is written below the output folder.
"""

import os
import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.link import is_linked, link, unlink
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.recipe import make_recipe
from brainscore_allen2022_surface.loaders import RELEASE_VARIABLE

FRONT_MATTER = """---
file_format: mystnb
kernelspec: {name: python3}
language_info: {name: python, pygments_lexer: ipython3}
---
"""
SIZE = TreeSize(n_sessions=4, n_trials=180, n_vertices=10_242, betas=(DEFAULT_BETAS,))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the steps below to the build."""
    app.connect("builder-inited", _prepare)
    app.connect("source-read", _make_cells)
    app.connect("build-finished", _clean_up)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _prepare(app: Sphinx) -> None:
    """Write the release that the tour loads, and link the plugin into brainscore_vision."""
    if app.config.nb_execution_mode == "off":
        return
    tree_path, release_path = (Path(app.outdir).parent / name for name in ("tour_tree", "tour_release"))
    shutil.rmtree(tree_path, ignore_errors=True)
    simulate_tree(tree_path, SIZE)
    build_release(tree_path, release_path, make_recipe(), overwrite=True)
    shutil.rmtree(tree_path)
    os.environ[RELEASE_VARIABLE] = str(release_path)
    app.tour_link_is_new = not is_linked()
    link()


def _make_cells(app: Sphinx, name: str, source: list[str]) -> None:
    if name == "tour":
        cells = re.sub(r"^```python$", "```{code-cell} ipython3", source[0], flags=re.MULTILINE)
        source[0] = FRONT_MATTER + cells


def _clean_up(app: Sphinx, exception: Exception | None) -> None:
    if getattr(app, "tour_link_is_new", False):
        unlink()
