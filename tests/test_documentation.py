"""README, CONTRIBUTING and the pages of docs/: their blocks run, their links lead somewhere, what they quote is in the code.

The blocks of a page run in order, in a folder where the placeholders are real names::

    pages/NSD_ROOT/     a small NSD tree without the mark of simulation, so that it stands for measurements
    pages/RELEASE/      its release, until a block builds it
    pages/brainscore_allen2022_surface/     as in a checkout of this repository
    vision/             a checkout of brain-score/vision

`BUCKET` is a versioned bucket of a local S3 server. A block that cannot run has a comment before it that says why.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from allen2022_surface_packaging.link import link, unlink
from brainscore_allen2022_surface.analysis.ceiling import expected_consistency
from libraries import copy_library
from report.browser import open_chromium
from support import create_versioned_bucket, install_fitting_torch

pytestmark = pytest.mark.timeout(900)  # the site and some pages take 40 s of computing, and longer on a busy machine

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
PAGE_NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
SCORE = "docs/score.md"  # its blocks print scores of the models of tests/analysis/models.py
TOUR = "docs/tour.md"  # tests/analysis/test_tour.py runs its Python blocks
BLOCK = re.compile(
    r"^(?:<!-- not run by the tests: (?P<reason>.+) -->\n)?```(?P<language>.*)\n(?P<text>[\s\S]*?)^```$", re.MULTILINE
)
NOT_RUN = {
    ("CONTRIBUTING.md", "python tests/tools/fuzz.py --cases 500 --seed 1           # damaged input of every kind"),
    ("README.md", "pip install --constraint constraints.txt -e '.[brainscore,report]'"),
    ("docs/cluster.md", "from dask_jobqueue import SLURMCluster"),
    ("docs/cluster.md", "allen2022-surface build NSD_ROOT RELEASE --scheduler tcp://ADDRESS"),
}
# What a reader has done before a block that holds these words.
BEFORE = {
    r"build +NSD_ROOT RELEASE": "rm -rf RELEASE",
    r"record RELEASE": "python fill_in.py",
    r"score = benchmark\(model\)": "from models import signal_model; model = signal_model()",
    r"load_model\(": "import brainscore_vision, models; brainscore_vision.load_model = models.load_model",
}
FILL_IN = """
import csv

with open("FOLDER/version_ids.csv", newline="") as file:
    rows = [row | {"bucket": "BUCKET/PREFIX", "version_id": f"version{n}"} for n, row in enumerate(csv.DictReader(file))]
with open("FOLDER/version_ids.csv", "w", newline="") as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
"""
SHELL = "sh"
LANGUAGES = {SHELL, "python", "text", "diff", "toml"}


def read_blocks(page):
    """Return the code blocks of a page: language, text, and why it is not run."""
    matches = BLOCK.finditer((ROOT / page).read_text(encoding="utf-8"))
    return [(match["language"], match["text"], match["reason"]) for match in matches]


def test_only_the_listed_blocks_are_not_run():
    marked = {(page, text.splitlines()[0]) for page in PAGE_NAMES for _, text, reason in read_blocks(page) if reason}

    assert marked == NOT_RUN
    for page in PAGE_NAMES:
        assert {language for language, _, _ in read_blocks(page) if not language.startswith("{")} <= LANGUAGES, page
        fences = re.findall(r"^ *```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(read_blocks(page)), page


@pytest.fixture(scope="module")
def measured_tree(nsd_tree, tmp_path_factory):
    """The small tree without its mark of simulation."""
    path = tmp_path_factory.mktemp("measured") / "nsd"
    shutil.copytree(nsd_tree, path, copy_function=os.link)
    (path / "SIMULATED.txt").unlink()
    return path


@pytest.fixture
def folder(measured_tree, release, empty_s3, tmp_path):
    """The folder in which the blocks of a page run. There is a versioned bucket, and the plugin is linked."""
    create_versioned_bucket(empty_s3, "bucket")
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "NSD_ROOT").symlink_to(measured_tree)
    shutil.copytree(release, folder / "RELEASE")
    manifest_path = folder / "RELEASE" / "release.json"
    manifest_path.write_text(json.dumps(json.loads(manifest_path.read_text()) | {"simulated": False}))
    (folder / "brainscore_allen2022_surface").symlink_to(ROOT / "brainscore_allen2022_surface")
    (folder / "fill_in.py").write_text(FILL_IN)
    install_fitting_torch(folder / "site")
    copy_library(tmp_path / "vision")
    link()
    yield folder
    unlink()


class Shell:
    """Runs blocks in a folder. What one block exports is there in the next."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{folder / 'site'}:{ROOT / 'tests' / 'analysis'}:{os.environ['PYTHONPATH']}",  # for models.py
            "PYTHONWARNINGS": "ignore",
            "BRAINSCORE_ALLEN2022_SURFACE_DIR": str(folder / "RELEASE"),
        }

    def run(self, language, text):
        before = [command for words, command in BEFORE.items() if re.search(words, text)]
        text = "\n".join([*before, text.replace("BUCKET/", "bucket/")])
        command = ["bash", "-euo", "pipefail", "-c", f"{text}\nenv -0 > environment"]
        if language == "python":
            command = [sys.executable, "-c", text]
        run = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert run.returncode == 0, f"{text}\n\n{run.stdout}\n{run.stderr}"
        exported = self.folder / "environment"
        if exported.is_file():
            self.environment = dict(line.split("=", 1) for line in exported.read_text().split("\0") if line)
        return run.stdout


def runnable_blocks(page):
    languages = {SHELL, *(["python"] if page != TOUR else [])}
    return [(language, text) for language, text, reason in read_blocks(page) if language in languages and not reason]


@pytest.mark.slow
@pytest.mark.needs("bash")
@pytest.mark.parametrize("page", [page for page in PAGE_NAMES if runnable_blocks(page)])
def test_every_block_of_a_page_runs_in_order(page, folder):
    shell = Shell(folder)
    for language, text in runnable_blocks(page):
        targets = re.findall(r"^make (\w+)", text, re.MULTILINE)
        if targets:  # this test is one of `make test`
            subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, check=True, capture_output=True)
        else:
            output = shell.run(language, text)
            if page == SCORE and language == "python":
                assert re.findall(r"\b[01]\.\d", output) and "nan" not in output.lower(), output


def list_anchors(path):
    """Return the anchors of the headings of a page, as GitHub and Sphinx make them."""
    text = BLOCK.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGE_NAMES)
def test_every_link_leads_to_a_file_and_an_anchor(page):
    path = ROOT / page
    text = BLOCK.sub("", path.read_text(encoding="utf-8"))
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not target.startswith("https://")]

    for target in targets:
        file_name, _, anchor = target.partition("#")
        target_path = (path.parent / file_name).resolve() if file_name else path
        assert target_path.exists(), target
        if anchor:
            assert anchor in list_anchors(target_path), target


def list_texts(path):
    """Yield every text in a Python file; what an f-string inserts is written …"""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_quoted_message_is_in_the_code():
    paths = [path for name in ("packaging", "brainscore_allen2022_surface") for path in (ROOT / name).rglob("*.py")]
    paths.append(Path(find_spec("brainscore_core").origin).parent / "plugin_management" / "import_plugin.py")
    texts = {text for path in paths for text in list_texts(path)}
    messages = [text.strip() for language, text, _ in read_blocks("docs/troubleshooting.md") if language == "text"]

    assert len(messages) > 20
    assert [message for message in messages if not any(message in text for text in texts)] == []


def test_expected_consistencies_in_the_methods_are_those_of_the_function():
    rows = re.findall(r"^\| (\d+) % \| (0\.\d{3}) \|$", (DOCS / "methods.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert len(rows) == 5
    for nc_testset, consistency in rows:
        assert f"{float(expected_consistency(float(nc_testset))):.3f}" == consistency


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site without the outputs of the tour. Every warning is an error."""
    root = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, root / "docs", ignore=shutil.ignore_patterns("_build", "api"))
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, root)
    options = ["-W", "--keep-going", "-q", "-D", "nb_execution_mode=off", "-b", "html"]
    command = [sys.executable, "-W", "ignore", "-m", "sphinx", *options, root / "docs", root / "html"]
    build = subprocess.run(command, capture_output=True, text=True)
    assert build.returncode == 0, build.stderr
    return root / "html"


def test_site_shows_everything_without_errors_or_sideways_scrolling(site, tmp_path):
    """It loads nothing from elsewhere, and no code is cut."""
    api_page = "api/brainscore_allen2022_surface.analysis.noise_ceilings"
    cut = '[...document.querySelectorAll(".bd-article pre")].filter((e) => e.scrollWidth > e.clientWidth + 1)'
    with open_chromium(tmp_path / "profile") as tab:
        for name in (*(path.stem for path in PAGES if path.parent == DOCS), "genindex", api_page):
            for width, scheme in ((390, "dark"), (1280, "light")):
                tab.open(site / f"{name}.html", width=width, scheme=scheme)
                # The theme logs its mode.
                assert [line for line in tab.problems(width) if '"type": "log"' not in line] == [], (name, width)
                assert tab.evaluate(f"{cut}.map((e) => e.outerHTML.slice(0, 200))") == [], (name, width)


def test_every_row_about_reliability_names_a_test_that_exists():
    lines = (DOCS / "reliability.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| what goes wrong")]

    assert len(rows) > 10
    for row in rows:
        path, name = re.fullmatch(r"\|.*\| `(tests/\S+\.py)::(test_\w+)` \|", row).groups()
        assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8"), row
