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
from html.parser import HTMLParser
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


@pytest.mark.parametrize("page", PAGE_NAMES)
def test_every_block_names_its_language(page):
    languages = {language for language, _, _ in read_blocks(page) if not language.startswith("{")}

    assert languages <= LANGUAGES
    assert len(re.findall(r"^ *```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)) == 2 * len(
        read_blocks(page)
    )


def test_only_the_listed_blocks_are_not_run():
    marked = {(page, text.splitlines()[0]) for page in PAGE_NAMES for _, text, reason in read_blocks(page) if reason}

    assert marked == NOT_RUN


@pytest.fixture(scope="module")
def measured_tree(nsd_tree, tmp_path_factory):
    """The small tree without its mark of simulation."""
    path = tmp_path_factory.mktemp("measured") / "nsd"
    shutil.copytree(nsd_tree, path, copy_function=os.link)
    (path / "SIMULATED.txt").unlink()
    return path


@pytest.fixture
def linked():
    """The plugin is linked into brainscore_vision, which is a copy that only this process uses."""
    link()
    yield
    unlink()


@pytest.fixture
def bucket(empty_s3):
    """A versioned bucket of the local S3 server, to which boto3 is directed."""
    create_versioned_bucket(empty_s3, "bucket")


@pytest.fixture
def folder(measured_tree, release, tmp_path):
    """The folder in which the blocks of a page run."""
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
    return folder


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
        if language == "python":
            command = [sys.executable, "-c", text]
        else:
            command = ["bash", "-euo", "pipefail", "-c", f"{text}\nenv -0 > environment"]
        run = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, f"{text}\n\n{run.stdout}\n{run.stderr}"
        exported = self.folder / "environment"
        if exported.is_file():
            self.environment = dict(line.split("=", 1) for line in exported.read_text().split("\0") if line)
        return run.stdout


def runnable_blocks(page):
    blocks = [(language, text) for language, text, reason in read_blocks(page) if not reason]
    return [
        (language, text) for language, text in blocks if language == SHELL or (language == "python" and page != TOUR)
    ]


@pytest.mark.slow
@pytest.mark.needs("bash")
@pytest.mark.parametrize("page", [page for page in PAGE_NAMES if runnable_blocks(page)])
def test_every_block_of_a_page_runs_in_order(page, folder, bucket, linked):
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
    places = [
        ROOT / "packaging",
        ROOT / "brainscore_allen2022_surface",
        Path(find_spec("brainscore_core").origin).parent / "plugin_management" / "import_plugin.py",
    ]
    texts = {
        text
        for place in places
        for path in ([place] if place.is_file() else place.rglob("*.py"))
        for text in list_texts(path)
    }
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
    build = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "sphinx", *options, root / "docs", root / "html"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    return root / "html"


class Loaded(HTMLParser):
    """Lists what a page loads by itself, and the elements in it."""

    def __init__(self):
        super().__init__()
        self.addresses, self.tags = [], set()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.add(tag)
        if tag in ("script", "img", "iframe"):
            self.addresses.append(attributes.get("src") or "")
        if tag == "link" and attributes.get("rel") in ("stylesheet", "preload", "icon"):
            self.addresses.append(attributes.get("href") or "")


def test_site_builds_without_warnings_and_loads_nothing_from_elsewhere(site):
    pages = {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}

    for name, text in pages.items():
        loaded = Loaded()
        loaded.feed(text)
        assert not [address for address in loaded.addresses if re.match(r"(https?:)?//", address)], name
        if name == "methods.html":
            assert "math" in loaded.tags  # MathML, which needs no script
    assert {f"{Path(page).stem}.html" for page in PAGE_NAMES if page.startswith("docs/")} <= set(pages)


CUT_OR_UNMARKED = """(() => {
    const article = document.querySelector(".bd-article");
    const edge = article.getBoundingClientRect().right + 1;
    const isScrolled = (e) => getComputedStyle(e).overflowX === "auto";
    const isClear = (e) => getComputedStyle(e).backgroundColor === "rgba(0, 0, 0, 0)";
    const hasShadow = (e) =>
        getComputedStyle(e).backgroundImage !== "none" && [...e.querySelectorAll("table, tr, th, td")].every(isClear);
    const ancestors = (e) => (e === article ? [] : [e, ...ancestors(e.parentElement)]);
    return [...article.querySelectorAll("*")].filter((e) =>
        isScrolled(e)
            ? e.scrollWidth > e.clientWidth + 1 && (e.tagName === "PRE" || !hasShadow(e))
            : e.checkVisibility() && e.getBoundingClientRect().right > edge && !ancestors(e).some(isScrolled)
    ).map((e) => e.outerHTML.slice(0, 200));
})()"""


@pytest.mark.parametrize("width", [390, 1280])
def test_site_shows_everything_without_errors_or_sideways_scrolling(site, width, tmp_path):
    """Code is never cut, and a table or a formula that is wider than the text has a shadow where there is more."""
    api_page = "api/brainscore_allen2022_surface.analysis.noise_ceilings"
    with open_chromium(tmp_path / "profile") as tab:
        for name in (*(Path(page).stem for page in PAGE_NAMES if page.startswith("docs/")), "genindex", api_page):
            tab.open(site / f"{name}.html", width=width, scheme="dark" if name in ("tour", "methods") else "light")
            # The theme logs its mode.
            assert [line for line in tab.problems(width) if '"type": "log"' not in line] == [], name
            assert tab.evaluate(CUT_OR_UNMARKED) == [], name


def test_site_describes_every_public_function(site):
    for folder in (ROOT / "packaging" / "allen2022_surface_packaging", ROOT / "brainscore_allen2022_surface"):
        for path in folder.rglob("*.py"):
            module = ".".join((folder.name, *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__")
            if path.stem in ("__main__", "test", "rebuild"):  # programs
                continue
            page = (site / "api" / f"{module}.html").read_text(encoding="utf-8")
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                    assert f'id="{module}.{node.name}"' in page, f"{module}.{node.name}"
