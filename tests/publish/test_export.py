"""The pull request, in a fresh copy of the installed brainscore_vision."""

import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from allen2022_surface_packaging import __version__
from allen2022_surface_packaging.build.pipeline import build_release
from allen2022_surface_packaging.cli import main
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.plugin import plugin_path
from allen2022_surface_packaging.publish.artifacts import ObjectRecord
from allen2022_surface_packaging.publish.export import export_plugin
from allen2022_surface_packaging.publish.shapes import find_shape
from allen2022_surface_packaging.publish.upload import publish_release
from allen2022_surface_packaging.recipe import make_recipe

IDENTIFIERS = [
    f"Allen2022_fmri_surface{subjects}{region}.{split}"
    for subjects in ("", "_4subj")
    for region in ("", ".V1", ".V2", ".V4", ".IT")
    for split in ("train", "test")
]
TARGET_PATH = Path("brainscore_vision/data/allen2022_surface")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the installed library without the plugin.

    Its models, benchmarks and metrics are thousands of files that the tests do not change. They are links.
    """
    checkout = tmp_path_factory.mktemp("vision") / "my vision"
    library = checkout / "brainscore_vision"
    installed = Path(find_spec("brainscore_vision").origin).parent
    left_out = shutil.ignore_patterns("__pycache__", "allen2022_surface")
    shutil.copytree(installed / "data", library / "data", ignore=left_out)
    for path in installed.iterdir():
        if path.is_file():
            shutil.copy(path, library)
        elif path.name not in ("data", "__pycache__"):
            (library / path.name).symlink_to(path)
    return checkout


@pytest.fixture
def another_checkout(checkout, tmp_path):
    """A checkout of its own for a test that exports other objects."""
    copy = tmp_path / "another"
    shutil.copytree(checkout, copy, symlinks=True, ignore=shutil.ignore_patterns("allen2022_surface"))
    return copy


@pytest.fixture(scope="module")
def release(nsd_tree, tmp_path_factory):
    """The release of the same tree as `four_subject_release`."""
    path = tmp_path_factory.mktemp("exported") / "eight"
    build_release(nsd_tree, path, make_recipe())
    return path


@pytest.fixture(scope="module")
def exported(checkout):
    """The checkout with the plugin in it, and what the command printed."""
    return checkout, export_plugin(checkout)


@pytest.fixture
def small_checkout(tmp_path):
    """The smallest folder that counts as a checkout."""
    data_path = tmp_path / "vision" / "brainscore_vision" / "data"
    (data_path / "other").mkdir(parents=True)
    (data_path.parent / "__init__.py").write_text("data_registry = {}\nstimulus_set_registry = {}\n")
    (data_path / "other" / "__init__.py").write_text("data_registry['Other2000'] = lambda: None\n")
    return tmp_path / "vision"


def run_python(checkout, *arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | environment,
        capture_output=True,
        text=True,
    )


def test_exported_plugin_is_unchanged(exported):
    checkout, _ = exported
    source_path = plugin_path()
    names = sorted(path.name for path in source_path.iterdir() if path.is_file() and not path.name.startswith("."))

    assert sorted(path.name for path in (checkout / TARGET_PATH).iterdir()) == sorted(
        [*names, "README.md", "data_packaging"]
    )
    assert filecmp.cmpfiles(source_path, checkout / TARGET_PATH, names, shallow=False) == (names, [], [])


def test_export_holds_no_other_tests_or_requirements(exported):
    """Brain-Score runs every test*.py of a plugin, and pip-installs its requirements at every load."""
    checkout, _ = exported
    files = [path for path in (checkout / TARGET_PATH).rglob("*") if path.is_file()]

    assert [path.name for path in files if path.name.startswith("test") or path.stem.endswith("_test")] == ["test.py"]
    assert not {"setup.py", "requirements.txt", "environment.yml", "conftest.py"} & {path.name for path in files}
    assert not [path for path in files if "__pycache__" in path.parts or path.suffix == ".pyc"]


FIND = """
import json
import sys
import brainscore_vision
from brainscore_core.plugin_management.import_plugin import ImportPlugin, import_plugin
from brainscore_core.plugin_management.parse_plugin_changes import get_plugin_ids, get_test_file_paths
from pathlib import Path

root = Path(brainscore_vision.__file__).parent
assert str(root).startswith(sys.argv[1]), root
for identifier in sys.argv[2:]:
    assert ImportPlugin("brainscore_vision", "data", identifier).plugin_dirname == "allen2022_surface"
    import_plugin("brainscore_vision", "data", identifier)
    assert identifier in brainscore_vision.data_registry
    if identifier.count(".") == 1:
        import_plugin("brainscore_vision", "data", identifier, registry_prefix="stimulus_set")
        assert identifier in brainscore_vision.stimulus_set_registry
print(json.dumps(sorted(get_plugin_ids("data", ["allen2022_surface"], str(root)))))
print(json.dumps([Path(path).name for path in get_test_file_paths(root / "data" / "allen2022_surface")]))
"""


def test_brainscore_finds_every_identifier_and_the_tests(exported):
    checkout, _ = exported

    run = run_python(checkout, "-c", FIND, str(checkout), *IDENTIFIERS)

    assert run.returncode == 0, run.stderr
    identifiers, tests = run.stdout.splitlines()[-2:]
    assert json.loads(identifiers) == sorted(IDENTIFIERS)
    assert json.loads(tests) == ["test.py"]


# The sizes of the small tree, instead of those of NSD, before the tests of the plugin run
SMALL = """
import json, os
from pathlib import Path
import xarray

def pytest_collection_modifyitems(items):
    module = items[0].module
    folder = Path(os.environ["BRAINSCORE_ALLEN2022_SURFACE_DIR"])
    manifests = [json.loads(path.read_text()) for path in folder.glob("*/release.json")]
    module.N_IMAGES = {
        m["name"]: {"train": m["shapes"]["train"][0], "test": m["shapes"]["test"][0] // 3} for m in manifests
    }
    with xarray.open_dataarray(next(folder.glob("*/Allen2022_fmri_surface_test.nc"))) as assembly:
        regions = assembly["region"].values
        module.N_NEUROIDS_PER_SUBJECT = {name: int((regions == name).sum()) // 8 for name in module.REGIONS}
"""


@pytest.fixture
def run_plugin_tests(exported, release, four_subject_release, tmp_path):
    """Run the exported tests on the data of the small releases, and return pytest's last line."""
    checkout, _ = exported
    (tmp_path / "small_sizes.py").write_text(SMALL)
    releases = tmp_path / "releases"
    releases.mkdir()
    for folder in (release, four_subject_release):
        (releases / folder.name).symlink_to(folder)

    def run(*options):
        run = run_python(
            checkout,
            *("-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(TARGET_PATH / "test.py")),
            BRAINSCORE_ALLEN2022_SURFACE_DIR=str(releases),
            PYTHONPATH=str(tmp_path),
        )
        return run.stdout

    return run


@pytest.mark.slow
def test_the_plugins_own_tests_pass_on_data_of_the_right_size_and_only_on_such(run_plugin_tests):
    output = run_plugin_tests("-p", "small_sizes")
    assert re.search(r"^77 passed", output.splitlines()[-1].strip("= ")), output

    output = run_plugin_tests("-k", "test_shape or test_images")
    assert re.search(r"^8 failed", output.splitlines()[-1].strip("= ")), output


def test_the_pull_request_lists_identifiers_shapes_sha1s_and_checks(exported):
    checkout, text = exported
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]

    assert len(rows) == 12
    assert [cell.strip() for cell in rows[0][1:4]] == ["`Allen2022_fmri_surface.train`", "assembly", "412 x 221168 x 1"]
    assert [c.strip() for c in rows[-1][1:4]] == ["`Allen2022_fmri_surface_4subj.test`", "stimulus_zip", "200 images"]
    assert "`67241ed5a84d8e7ae77f8c8d72e7219508fb9d7e`" in rows[0][4]
    assert "* no other plugin registers any of the 24 identifiers" in text
    assert re.search(r"^\* `python -m pytest .*`: 32 passed, 45 deselected", text, re.MULTILINE)
    commands = text.partition("\n\n")[0].splitlines()
    assert commands[0] == f"cd '{checkout}'"
    assert commands[2] == f"git add {TARGET_PATH}"


def test_the_pull_request_answers_what_maintainers_ask(exported):
    _, text = exported

    for statement in (
        "## Relation to `data/allen2022_fmri_surface`",
        "It loads the very objects of that plugin and the images of `data/allen2022_fmri`",
        "adds one folder and changes no other file",
        "registers no benchmark and no model, so no score changes",
        "doi:10.1038/s41593-021-00962-x",
        "the objects must stay in private storage",
        "was not run for this text. Result: (paste",
        "Not measured for this text: `export --release RELEASE`",
    ):
        assert statement in text


@pytest.fixture
def uploaded(release, four_subject_release, s3, tmp_path):
    """An artifacts file of both releases, as of measurements. The data is that of the small tree."""
    path = tmp_path / "artifacts.json"
    for folder in (release, four_subject_release):
        publish_release(folder, "brain/surface", artifacts_path=path, allow_simulated=True)
    path.write_text(re.sub(r',\s*"simulated": true', "", path.read_text()))
    return path


def list_rows(text):
    """Return identifier, kind and shape of each row of the table of objects."""
    return [
        tuple(cell.strip(" `") for cell in line.split("|")[1:4]) for line in text.splitlines() if line.startswith("| `")
    ]


def test_shapes_in_the_pull_request_are_those_of_the_objects(uploaded, four_subject_release, another_checkout):
    text = export_plugin(another_checkout, artifacts_path=uploaded)

    rows = list_rows(text)
    with xr.open_dataarray(four_subject_release / "Allen2022_fmri_surface_4subj_train.nc") as train:
        v4_shape = f"{train.sizes['presentation']} x {(train['region'].values == 'V4').sum()} x 1"
    assert ("Allen2022_fmri_surface.test", "assembly", "78 x 920 x 1") in rows
    assert ("Allen2022_fmri_surface.test", "stimulus_zip", "26 images") in rows
    assert ("Allen2022_fmri_surface_4subj.V4.train", "assembly", v4_shape) in rows
    assert len(rows) == 2 * 2 * (3 + 4)
    assert "221168" not in text
    assert "Each region has an object, so that its identifier fetches only that." in text
    assert "very objects" not in text
    target_path = another_checkout / TARGET_PATH
    assert (target_path / "artifacts.json").read_bytes() == uploaded.read_bytes()
    assert "| `Allen2022_fmri_surface.test` | three repetitions of each image | 78 x 920 x 1 |" in (
        target_path / "README.md"
    ).read_text(encoding="utf-8")


def test_shape_that_is_not_recorded_is_read_from_the_header_of_the_object(uploaded, small_checkout, proxy):
    artifacts = json.loads(uploaded.read_text())
    whole = artifacts["Allen2022_fmri_surface.test"]["assembly"]
    shape, size = tuple(whole.pop("shape")), whole["size"]
    record = ObjectRecord(**whole)
    proxy.clear()

    assert find_shape(record) == shape
    ranges = [
        [int(n) for n in re.findall(r"\d+", request.headers["Range"])]
        for request in proxy.requests
        if request.method == "GET"
    ]
    assert 0 < sum(stop - start + 1 for start, stop in ranges) < size / 2


def test_object_without_shape_that_cannot_be_read_is_refused(uploaded, small_checkout, s3):
    artifacts = json.loads(uploaded.read_text())
    del artifacts["Allen2022_fmri_surface.test"]["assembly"]["shape"]
    uploaded.write_text(json.dumps(artifacts))
    s3.delete_object(
        **{
            "Bucket": "brain",
            "Key": artifacts["Allen2022_fmri_surface.test"]["assembly"]["key"],
            "VersionId": artifacts["Allen2022_fmri_surface.test"]["assembly"]["version_id"],
        }
    )

    with pytest.raises(PackagingError, match="assy_.*test.nc: failed to read the shape of the assembly"):
        export_plugin(small_checkout, artifacts_path=uploaded)
    assert not (small_checkout / TARGET_PATH).exists()


def test_object_that_is_no_assembly_has_no_shape(s3):
    version = s3.put_object(Bucket="brain", Key="x.nc", Body=b"no NetCDF file" * 1000)["VersionId"]

    with pytest.raises(PackagingError, match="s3://brain/x.nc: failed to read the shape of the assembly"):
        find_shape(ObjectRecord("brain", "x.nc", version, "0" * 40))


def test_artifacts_file_must_be_there(small_checkout, tmp_path):
    with pytest.raises(PackagingError, match="none.json is missing, expected an artifacts file"):
        export_plugin(small_checkout, artifacts_path=tmp_path / "none.json")
    (tmp_path / "empty.json").write_text("{}")
    with pytest.raises(PackagingError, match="lists no objects for Allen2022_fmri_surface.train. Upload"):
        export_plugin(small_checkout, artifacts_path=tmp_path / "empty.json")
    assert not (small_checkout / TARGET_PATH).exists()


@pytest.fixture
def measured_copy(release, tmp_path):
    """A copy of the release of eight subjects without the mark of simulation."""
    copy = Path(shutil.copytree(release, tmp_path / "measured"))
    manifest = json.loads((copy / "release.json").read_text())
    (copy / "release.json").write_text(json.dumps(manifest | {"simulated": False}))
    return copy


def test_ceilings_in_the_pull_request_are_those_of_the_release(uploaded, another_checkout, measured_copy):
    text = export_plugin(another_checkout, artifacts_path=uploaded, release_paths=[measured_copy])

    table = text.partition("## Ceilings")[2].partition("## Privacy")[0]
    rows = re.findall(r"^\| (V1|V2|V4|IT) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", table, re.MULTILINE)
    assert [row[0] for row in rows] == ["V1", "V2", "V4", "IT"]
    assert "`Allen2022_fmri_surface.test`, computed from the object above:" in table
    with xr.open_dataarray(measured_copy / "Allen2022_fmri_surface_test.nc") as assembly:
        regions, noise_ceilings = assembly["region"].values, assembly["nc_testset"].values
        responses = assembly.values[:, :, 0].reshape(26, 3, -1)
    for region, n_neuroids, noise_ceiling, split_half in rows:
        members = regions == region
        assert int(n_neuroids) == members.sum()
        assert float(noise_ceiling) == pytest.approx(np.median(noise_ceilings[members]), abs=0.05)
        assert float(split_half) == pytest.approx(split_half_of(responses[:, :, members]), abs=0.03)


def split_half_of(responses):
    """Correlate one repetition with the mean of the other two, corrected for length; the median over neuroids."""
    with np.errstate(invalid="ignore"):
        values = []
        for repetition in range(3):
            one = responses[:, repetition]
            two = np.delete(responses, repetition, axis=1).mean(axis=1)
            one, two = one - one.mean(axis=0), two - two.mean(axis=0)
            r = (one * two).sum(axis=0) / np.sqrt((one**2).sum(axis=0) * (two**2).sum(axis=0))
            values.append(np.nanmedian(2 * r / (1 + r)))
    return np.mean(values)


def test_ceilings_of_a_release_that_is_not_listed_are_refused(measured_copy, small_checkout):
    """The shipped objects have the shapes of NSD."""
    with pytest.raises(
        PackagingError, match="has the shape 78 x 920 x 1, but artifacts.json lists .* 309 x 221168 x 1"
    ):
        export_plugin(small_checkout, release_paths=[measured_copy])
    assert not (small_checkout / TARGET_PATH).exists()


def test_exported_folder_says_what_it_is_and_how_to_load_without_credentials(exported):
    checkout, _ = exported
    readme = (checkout / TARGET_PATH / "README.md").read_text(encoding="utf-8")

    assert "## Load without credentials" in readme
    assert "export BRAINSCORE_ALLEN2022_SURFACE_DIR=$PWD/RELEASE" in readme
    assert "| `Allen2022_fmri_surface.test` | three repetitions of each image | 309 x 221168 x 1 |" in readme
    commands = re.findall(r"^python -m (.*)$", readme, re.MULTILINE)
    assert commands == ["allen2022_surface_packaging build s3://natural-scenes-dataset RELEASE"]
    for name in re.findall(r"`(\w+\.py|data_packaging/)`", readme):
        assert (checkout / TARGET_PATH / name).exists()


def test_git_commands_commit_only_the_plugin(exported, tmp_path):
    checkout, text = exported
    repository = tmp_path / "clone"
    (repository / "brainscore_vision" / "data").mkdir(parents=True)
    shutil.copytree(checkout / TARGET_PATH, repository / TARGET_PATH)
    commands = text.partition("\n\n")[0].splitlines()[1:4]
    identity = ["git", "-c", "user.name=A", "-c", "user.email=a@b.c"]
    script = "\n".join(["set -e", "git init -q .", *commands]).replace("git commit", f"{' '.join(identity)} commit -q")

    subprocess.run(["bash", "-c", script], cwd=repository, check=True, capture_output=True)

    listed = subprocess.run(["git", "ls-files"], cwd=repository, check=True, capture_output=True, text=True)
    files = {str(path.relative_to(repository)) for path in (repository / TARGET_PATH).rglob("*") if path.is_file()}
    assert set(listed.stdout.splitlines()) == files


def test_exported_packaging_runs_from_its_folder(exported):
    checkout, _ = exported

    run = run_python(checkout / TARGET_PATH / "data_packaging", "-m", "allen2022_surface_packaging", "build", "--help")

    assert run.returncode == 0, run.stderr
    readme = (checkout / TARGET_PATH / "data_packaging" / "README.md").read_text()
    assert "'nibabel>=5.2'" in readme
    assert "extra ==" not in readme


def test_exported_packaging_runs_without_being_installed(exported):
    checkout, _ = exported
    script = (
        "from importlib import metadata\n"
        "installed = metadata.version\n"
        "def version(name):\n"
        "    if name.startswith('brainscore_allen'):\n"
        "        raise metadata.PackageNotFoundError(name)\n"
        "    return installed(name)\n"
        "metadata.version = version\n"
        "from allen2022_surface_packaging.release import __file__, installed_versions\n"
        "print(installed_versions()['brainscore_allen2022_surface'], __file__)\n"
    )

    run = run_python(checkout / TARGET_PATH / "data_packaging", "-c", script)

    assert run.returncode == 0, run.stderr
    version, path = run.stdout.split(maxsplit=1)
    assert version == __version__
    assert Path(path.strip()).is_relative_to(checkout)


HIDE_PLUGIN = """
import sys

class Hidden:
    \"\"\"Lets Python find no installed copy of the plugin.\"\"\"

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] == "brainscore_allen2022_surface" and path is None
        return None if hidden else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Hidden(finder) for finder in sys.meta_path]

from importlib import metadata

def hide(function):
    def hidden(name):
        if name.startswith("brainscore_allen2022"):
            raise metadata.PackageNotFoundError(name)
        return function(name)
    return hidden

metadata.version, metadata.requires = hide(metadata.version), hide(metadata.requires)
"""
RUN = f"{HIDE_PLUGIN}\nsys.modules.update(dict.fromkeys(HIDDEN))\nfrom allen2022_surface_packaging.__main__ import main"


def run_exported(folder, *arguments, hidden=()):
    """Run a command of an exported copy from its folder, without the installed plugin and without hidden packages."""
    return run_python(folder, "-c", f"HIDDEN = {hidden!r}\n{RUN}", *map(str, arguments))


@pytest.mark.slow
def test_commands_of_the_exported_packaging_run_there(another_checkout, measured_copy, tmp_path):
    export_plugin(another_checkout)
    folder = another_checkout / TARGET_PATH / "data_packaging"
    nsd, built = tmp_path / "nsd", tmp_path / "built"
    readme = (another_checkout / TARGET_PATH / "README.md").read_text()

    for arguments in (
        ["simulate", nsd, "--subjects", 1, 2, "--trials", 60, "--vertices", 160, "--image-size", 8],
        ["check", nsd, "--subjects", 1, 2],
        ["build", nsd, built, "--subjects", 1, 2, "--name", "Two", "--workers", 2, "--cache", "none"],
        ["verify", built, "--nsd-root", nsd],
        ["pack", measured_copy, tmp_path / "packed"],
        ["upload", "--help"],
        ["record", "--help"],
        ["export", another_checkout, "--overwrite"],
    ):
        run = run_exported(folder, *arguments)
        assert run.returncode == 0, run.stderr

    assert (tmp_path / "packed" / "version_ids.csv").is_file()
    assert (another_checkout / TARGET_PATH / "README.md").read_text() == readme


@pytest.mark.parametrize(
    ("hidden", "arguments", "message"),
    [
        ("h5py", ["check", "NSD"], "h5py is not installed. Install it: pip install h5py"),
        ("PIL", ["check", "NSD"], "PIL is not installed. Install it: pip install Pillow"),
        (
            "boto3",
            ["upload", "R", "--bucket", "b", "--dry-run"],
            "boto3 is not installed. Install it: pip install boto3",
        ),
        ("nilearn", ["report", "R"], "A report needs nilearn.* Install: pip install jinja2 matplotlib nilearn"),
        ("moto", ["demo"], r"moto not installed: .* Install: pip install brainscore_vision 'moto\[server\]'"),
    ],
)
def test_exported_packaging_says_in_one_line_what_to_install(exported, hidden, arguments, message):
    checkout, _ = exported

    run = run_exported(checkout / TARGET_PATH / "data_packaging", *arguments, hidden=(hidden,))

    assert run.returncode == 1
    line = run.stderr.splitlines()[-1]
    assert re.fullmatch(f"allen2022-surface: {message}", line), run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_exported_packaging_reports_without_the_installed_plugin(exported, release_copy, tmp_path):
    checkout, _ = exported
    script = f"""{HIDE_PLUGIN}
from importlib.util import find_spec
assert find_spec("brainscore_allen2022_surface") is None
from allen2022_surface_packaging.cli import main
try:
    main(["report", sys.argv[1]])
finally:
    print(sys.modules["brainscore_allen2022_surface"].__file__)
"""

    run = run_python(checkout / TARGET_PATH / "data_packaging", "-c", script, str(release_copy))

    assert run.returncode == 0, run.stderr
    assert (release_copy / "report.html").stat().st_size > 100_000
    assert Path(run.stdout.splitlines()[-1]) == checkout / TARGET_PATH / "__init__.py"


def test_exported_plugin_does_not_unlink_itself(exported):
    checkout, _ = exported

    run = run_python(checkout, "-m", "brainscore_vision.data.allen2022_surface", "unlink")

    assert run.returncode == 1
    assert "allen2022_surface is the plugin itself, so it stays." in run.stderr
    assert (checkout / TARGET_PATH / "artifacts.json").is_file()


def test_second_export_needs_overwrite(exported, capsys):
    checkout, _ = exported
    (checkout / TARGET_PATH / "loaders.py").write_text("changed")

    with pytest.raises(PackagingError, match="allen2022_surface is there already. Add --overwrite"):
        export_plugin(checkout)
    with pytest.raises(SystemExit) as exit:
        main(["export", str(checkout), "--overwrite"])

    assert exit.value.code == 0
    assert "gh pr create" in capsys.readouterr().out
    assert "changed" not in (checkout / TARGET_PATH / "loaders.py").read_text()


@pytest.mark.parametrize("content", [{}, {"brainscore_vision/__init__.py": ""}, {"README.md": "vision"}])
def test_folder_that_is_not_a_checkout_is_refused(tmp_path, content):
    for name, text in content.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    with pytest.raises(PackagingError, match="is not a checkout of brain-score/vision: expected"):
        export_plugin(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "data_registry['Allen2022_fmri_surface.V1.test'] = lambda: None",
        'stimulus_set_registry["Allen2022_fmri_surface.test"] = lambda: None',
    ],
)
def test_identifier_of_another_plugin_is_refused(small_checkout, line):
    (small_checkout / "brainscore_vision" / "data" / "other" / "__init__.py").write_text(line)

    with pytest.raises(PackagingError, match=r"data/other registers .*\['Allen2022_fmri_surface\..*test'\] already"):
        export_plugin(small_checkout)
    assert not (small_checkout / TARGET_PATH).exists()


def test_another_plugin_is_never_overwritten(small_checkout):
    (small_checkout / TARGET_PATH).mkdir()
    (small_checkout / TARGET_PATH / "__init__.py").write_text("data_registry['Else'] = lambda: None")

    with pytest.raises(PackagingError, match="is another plugin. Move it away"):
        export_plugin(small_checkout, overwrite=True)


def test_link_in_the_checkout_is_refused(small_checkout, tmp_path):
    (tmp_path / "linked").mkdir()
    (small_checkout / TARGET_PATH).symlink_to(tmp_path / "linked")

    with pytest.raises(PackagingError, match="is a link to .*unlink"):
        export_plugin(small_checkout, overwrite=True)
    assert not list((tmp_path / "linked").iterdir())


def test_failing_test_in_the_checkout_is_reported(small_checkout):
    """This checkout has no code of Brain-Score, so the tests cannot be imported there."""
    with pytest.raises(PackagingError, match="is written, but its tests fail there .*See: cd"):
        export_plugin(small_checkout)
