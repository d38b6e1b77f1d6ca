"""The documentation site. `make docs` builds it; nothing is downloaded."""

import sys
from pathlib import Path

import brainscore_allen2022_surface  # noqa: F401  its warnings come now, and not while pages are read
from allen2022_surface_packaging import __version__

DOCS_PATH = Path(__file__).parent
sys.path.insert(0, str(DOCS_PATH / "_extensions"))

project = "brainscore_allen2022_surface"
author = "The brainscore_allen2022_surface developers"
version = release = __version__

extensions = [
    "formulas",
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
    "tour",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
nitpicky = True
nitpick_ignore_regex = [
    # Nothing is downloaded, so names of other packages have no target, and neither have types in plain words.
    ("py:.*", r"(?!(allen2022_surface_packaging|brainscore_allen2022_surface)\.).*"),
]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_dmath_allow_space = myst_dmath_allow_digits = False  # an amount of dollars is not mathematics
myst_heading_anchors = 3

nb_execution_mode = "force"  # in the tour; a fast check of the other pages sets "off"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 150
nb_output_stderr = "remove"  # warnings of libraries hold paths of this machine

autosummary_generate = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
add_module_names = False
maximum_signature_line_length = 60
autodoc_member_order = "bysource"
default_role = "literal"  # docstrings have names of all kinds in single backticks
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "pydata_sphinx_theme"
html_context = {"default_mode": "auto"}
html_sidebars = {"index": [], "tour": []}  # they have no pages below them
html_title = "NSD on the cortical surface"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "NSD on the cortical surface"},
    "show_prev_next": True,
    "navigation_with_keys": False,
    "navbar_align": "left",
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
copyright = "2026, the brainscore_allen2022_surface developers; MIT licence"
