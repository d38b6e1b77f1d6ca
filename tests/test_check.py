"""`check`: on trees from empty to sound it says what is missing, how to fetch it, and what a build takes."""

import fnmatch
import itertools
import os
import re
import shlex
from pathlib import Path

import nibabel
import pytest
import scipy.io

from allen2022_surface_packaging.assemble import estimates
from allen2022_surface_packaging.assemble.pipeline import build_releases
from allen2022_surface_packaging.check import list_fetch_commands
from allen2022_surface_packaging.facts import (
    BETAS_VERSIONS,
    DEFAULT_BETAS,
    HEMISPHERES,
    N_SESSIONS,
    NATIVE_ATLASES,
    SUBJECTS,
    subject_name,
)
from allen2022_surface_packaging.nsd.inputs import list_inputs
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.nsd.storage import Folder
from allen2022_surface_packaging.nsd.tree import FLAT, OFFICIAL, NSDTree, open_tree
from allen2022_surface_packaging.recipe import make_recipe, read_recipe
from allen2022_surface_packaging.verify.reference import read_reference
from support import RECIPES, run_cli

TWO = make_recipe((1, 2), name="two")
BETAS = {
    "official": "nsddata_betas/ppdata/subj02/fsaverage/betas_fithrf_GLMdenoise_RR",
    "flat": "subj02/betas",
}


@pytest.fixture(params=["official", "flat"])
def tree(request, tmp_path) -> Path:
    """A tree that a test may change, of two subjects, without the mark that it is simulated."""
    size = TreeSize((1, 2), n_sessions=2, n_vertices=162, image_size=8, layout=request.param, betas=(DEFAULT_BETAS,))
    simulate_tree(tmp_path / "nsd", size)
    (tmp_path / "nsd" / "SIMULATED.txt").unlink()
    return tmp_path / "nsd"


def check(*arguments: object) -> str:
    """Run `check` on a tree with problems, and return what it prints."""
    result = run_cli("check", *arguments)
    assert result.returncode == 1, result.stdout
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stdout


def test_folder_without_files_is_answered_with_all_files_and_commands(tmp_path):
    root = tmp_path / "nsd"
    root.mkdir()
    output = check(root, "--recipe", "fithrf", "--recipe", "hcp_mmp1", "--subjects", "subj04,subj08")

    assert output.splitlines()[0].endswith("official layout, but no file is there. Is it the right folder?")
    assert re.search(r"experiment design +1 of 1 +nsd_expdesign.mat$", output, re.MULTILINE)
    assert re.search(r"labels +6 of 6 +lh.Kastner2015.mgz, .*rh.HCP_MMP1.mgz$", output, re.MULTILINE)
    for version in ("betas_fithrf", "betas_fithrf_GLMdenoise_RR"):
        for subject in ("subj04", "subj08"):
            row = rf"{subject} {version} +62 of 62 +30 sessions from 1 to 30, lh.ncsnr.mgh, rh.ncsnr.mgh$"
            assert re.search(row, output, re.MULTILINE)
            assert f"ppdata/{subject}/fsaverage/{version} {root}/nsddata_betas/" in output
    assert "subj01" not in output
    assert "allen2022-surface build s3://natural-scenes-dataset RELEASE" in output


def test_few_files_that_are_missing_or_cut_short_are_listed_and_fetched_into_the_layout(tree):
    layout = "flat" if (tree / "metadata").exists() else "official"
    for hemisphere in ("lh", "rh"):
        (tree / BETAS[layout] / f"{hemisphere}.betas_session01.mgh").unlink()
    short_path = tree / BETAS[layout] / "lh.betas_session02.mgh"
    os.truncate(short_path, short_path.stat().st_size // 2)
    output = check(tree, "--subjects", "1,2")

    for hemisphere in ("lh", "rh"):
        path = f"{tree / BETAS[layout] / hemisphere}.betas_session01.mgh"
        assert f"problem: {path} is missing\n" in output
        assert re.search(rf"aws s3 cp --no-sign-request s3://\S+/{hemisphere}.betas_session01.mgh {path}\n", output)
    assert re.search(rf"problem: {short_path} .*it ends early", output)
    assert re.search(rf"aws s3 cp --no-sign-request \S+ {short_path}\n", output)
    assert output.count("aws s3") == 3
    assert "about 1.5 GB" in output  # three files of NSD's size


def test_tree_without_a_design_is_answered_in_its_layout(tree):
    is_flat = (tree / "metadata").exists()
    design = next(tree.rglob("nsd_expdesign.mat"))
    design.unlink()
    output = check(tree, "--subjects", "1,2")

    assert f"{tree}: {'flat' if is_flat else 'official'} layout" in output
    assert re.search(r"experiment design +1 of 1", output)
    assert re.search(r"subj02 \S+ +76 of 82 +38 sessions from 3 to 40$", output, re.MULTILINE)
    assert f"s3://natural-scenes-dataset/nsddata/experiments/nsd/nsd_expdesign.mat {design}\n" in output


def test_missing_optional_file_is_no_problem(tree):
    next(tree.rglob("nsd_stim_info_merged.csv")).unlink()
    result = run_cli("check", tree, "--subjects", "1,2")

    assert result.returncode == 0
    assert re.search("^optional: .*nsd_stim_info_merged.csv is missing", result.stdout, re.MULTILINE)
    assert (
        "aws s3 cp --no-sign-request s3://natural-scenes-dataset/nsddata/experiments/nsd/nsd_stim_info" in result.stdout
    )
    assert "Fetch them: some megabytes at most, " in result.stdout
    assert "no problems found" in result.stdout


def test_simulated_tree_is_not_filled_with_files_of_nsd(tree):
    (tree / "SIMULATED.txt").write_text("simulated")
    next(tree.rglob("lh.ncsnr.mgh")).unlink()
    output = check(tree, "--subjects", "1,2")

    assert "aws s3" not in output
    assert "allen2022-surface simulate" in output


@pytest.mark.parametrize(
    "folder",
    ["..", "nsddata", "nsddata_betas/ppdata/subj01", "nsddata_stimuli/stimuli/nsd", "metadata", "subj01/betas"],
)
def test_folder_above_or_inside_a_tree_is_answered_with_the_tree(tree, folder):
    (tree / folder).mkdir(parents=True, exist_ok=True)  # in the other layout it is an empty folder
    has_files = any((tree / folder).iterdir())
    result = run_cli("check", tree / folder)

    assert result.returncode == 1
    line = f"allen2022-surface: {tree / folder} is no NSD tree, but {tree} is. Name that one.\n"
    assert result.stderr == line if has_files else "listed above" in result.stderr


def test_release_or_file_in_place_of_a_tree_is_refused(release, tmp_path):
    (tmp_path / "nsd").write_text("no tree")
    for root, reason in (
        (release, "is a release, expected an NSD tree, from which a release is made."),
        (tmp_path / "nsd", "is not a folder. Expected an NSD tree: a folder in the official or flat layout."),
    ):
        result = run_cli("check", root)
        assert (result.returncode, result.stderr) == (1, f"allen2022-surface: {root} {reason}\n")


def test_sound_tree_gets_an_estimate(tree):
    result = run_cli("check", tree, "--subjects", "1,2")

    assert result.returncode == 0
    assert re.search(r"reads +1.6 MB, 8 betas files$", result.stdout, re.MULTILINE)
    assert re.search(r"takes +about \d+ s with one worker \(computed from the sizes", result.stdout)
    assert result.stdout.rstrip().endswith("no problems found")


@pytest.mark.parametrize("has_names", [True, False])
def test_labels_of_an_atlas_are_listed_with_their_names_and_sizes(tree, has_names):
    if not has_names:
        next(tree.rglob("streams.mgz.ctab")).unlink()
    result = run_cli("recipes", "labels", "streams", tree)
    rows = [line.split() for line in result.stdout.splitlines()]

    assert result.returncode == 0
    assert rows[0] == ["label", "name", "lh", "rh"]
    assert [row[0] for row in rows[1:]] == [str(label) for label in range(1, 8)]
    ventral = [nibabel.load(next(tree.rglob(f"{h}.streams.mgz"))).get_fdata() == 5 for h in HEMISPHERES]
    assert rows[5] == ["5", *["ventral"] * has_names, *(str(is_ventral.sum()) for is_ventral in ventral)]


def test_atlas_that_is_not_there_is_answered_with_those_that_are(tree):
    result = run_cli("recipes", "labels", "stream", tree)

    line = rf"{tree} has no atlas stream\. Its atlases: HCP_MMP1, Kastner2015, floc-bodies, .*, streams\."
    assert result.returncode == 1
    assert re.fullmatch(f"allen2022-surface: {line}\n", result.stderr)


def read_estimate(tree, *names: str) -> dict[str, float]:
    """Return the numbers of bytes, files and seconds that `check` estimates for some recipes."""
    text = run_cli("check", tree, *(word for name in names for word in ("--recipe", name))).stdout
    line = r"reads +(.+), ([\d,]+) betas files\s+takes +about (.+) with one .*\s+needs +(.+) for the release at most, (.+) for"
    bytes_read, n_files, seconds, *sizes = re.search(line, text).groups()
    estimate = {"files": int(n_files.replace(",", ""))}
    for name, size in zip(("read", "release", "cache"), (bytes_read, *sizes), strict=True):
        number, unit = size.split()
        estimate[name] = float(number.replace(",", "")) * {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
    units = {"s": 1, "min": 60, "h": 3600}
    return estimate | {"seconds": sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+) (s|min|h)\b", seconds))}


def test_misspelt_atlas_of_a_recipe_is_answered_with_the_nearest_one(tree, tmp_path):
    recipe = tmp_path / "own.toml"
    recipe.write_text('name = "own"\nsubjects = [1]\n[[region]]\nname = "early"\natlas = "Kastner2105"\nlabels = [1]\n')

    result = run_cli("check", tree, "--recipe", recipe)

    assert "the tree has no atlas Kastner2105. Did you mean Kastner2015?" in result.stdout


@pytest.mark.parametrize("names", [["Allen2022_fmri_surface", "kastner", "streams"], ["nsdgeneral"]])
def test_estimated_sizes_are_those_of_a_build(nsd_tree, tmp_path, names):
    recipes = {tmp_path / "out" / name: read_recipe(name) for name in names}
    estimate = read_estimate(nsd_tree, *names)
    manifests = build_releases(nsd_tree, recipes, cache_path=tmp_path / "cache")

    betas = {path: n for one in manifests.values() for path, n in one.inputs.items() if "betas_session" in path}
    assert estimate["files"] == len(betas)
    assert estimate["read"] == pytest.approx(sum(betas.values()), rel=0.05)
    assemblies = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.nc"))
    image_bytes = sum(len(list(path.rglob("stimuli_*/*"))) for path in recipes) * 64 * 64 * 3
    assert estimate["release"] == pytest.approx(assemblies + image_bytes, rel=0.1)
    cache_bytes = sum(path.stat().st_size for path in (tmp_path / "cache").iterdir())
    assert estimate["cache"] == pytest.approx(cache_bytes, rel=0.05)


def test_row_per_subject_says_what_is_there(nsd_tree):
    result = run_cli("check", nsd_tree)
    shared = scipy.io.loadmat(next(nsd_tree.rglob("nsd_expdesign.mat")))["sharedix"].ravel() - 1
    shown = read_reference(open_tree(nsd_tree), make_recipe()).shown

    assert result.returncode == 0
    for subject, n in zip(range(1, 9), (4, 4, 3, 3, 4, 3, 4, 3), strict=True):
        counts = [min(3, (shown[subject] == image).sum()) for image in shared]
        seen = "/".join(str(counts.count(n_times)) for n_times in range(4))
        assert re.search(rf"subj{subject:02d} +{n} +{2 * n}/{2 * n} +{seen}\n", result.stdout)


def test_time_grows_with_the_betas_and_falls_with_the_speed(nsd_tree, monkeypatch):
    monkeypatch.setattr(estimates, "SMALL_TREE_BYTES", 0)
    estimate = r"reading at [\d.]+ [MG]B/s, as measured just now on one session"
    assert re.search(estimate, run_cli("check", nsd_tree, "--recipe", "streams").stdout)
    seconds = {}
    for speed in (1e5, 2e5, 1e15):
        monkeypatch.setattr(estimates, "measure_reading", lambda session, speed=speed: speed)
        seconds[speed] = read_estimate(nsd_tree, "streams")["seconds"]

    n_bytes = read_estimate(nsd_tree, "streams")["read"]
    assert seconds[1e5] - seconds[2e5] == pytest.approx(n_bytes / 2e5, rel=0.05)
    assert seconds[1e15] == pytest.approx(estimates.START_SECONDS, abs=1)  # and the images


BUCKET = "s3://natural-scenes-dataset/"
OPTIONS = ("--no-sign-request", "--size-only")


def list_bucket() -> list[str]:
    """Return keys with NSD's names: all that any recipe needs, and many that none does."""
    keys = [
        f"nsddata/experiments/nsd/{name}" for name in ("nsd_expdesign.mat", "nsd_stim_info_merged.csv", "readme.txt")
    ]
    keys += ["nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", "nsddata_stimuli/stimuli/nsd/shared1000/shared0001.png"]
    for atlas in ("Kastner2015", "streams", "nsdgeneral", "HCP_MMP1", *NATIVE_ATLASES):
        names = [f"{atlas}.mgz.ctab", *(f"{h}.{atlas}.mgz" for h in HEMISPHERES)]
        for owner in ("fsaverage", *map(subject_name, SUBJECTS)):
            keys += [f"nsddata/freesurfer/{owner}/label/{name}" for name in names]
    for subject, h, target in itertools.product(SUBJECTS, HEMISPHERES, ("fsaverage", "MNI")):
        keys.append(f"nsddata/ppdata/{subject_name(subject)}/transforms/{h}.white-to-{target}.mgz")
    for subject, version in itertools.product(SUBJECTS, BETAS_VERSIONS):
        names = [
            *(f"betas_session{session:02d}" for session in range(1, N_SESSIONS[subject] + 1)),
            "ncsnr",
            "ncsnr_split1",
            "meanbeta",
        ]
        folder = f"nsddata_betas/ppdata/subj{subject:02d}/fsaverage/{version}"
        keys += [f"{folder}/{h}.{name}.mgh" for h in HEMISPHERES for name in names]
        native = folder.replace("fsaverage", "nativesurface")
        keys += [f"{native}/{h}.{name}.{'hdf5' if '_s' in name else 'mgh'}" for h in HEMISPHERES for name in names]
    for subject, h in itertools.product(SUBJECTS, HEMISPHERES):
        folder = f"nsddata/ppdata/subj{subject:02d}/transforms"
        keys += [f"{folder}/{h}.{name}.mgz" for name in ("white-to-fsaverage", "fsaverage-to-white")]
    return keys


KEYS = list_bucket()


def fetch(command: str) -> dict[str, str]:
    """Return the keys that a command of the AWS command line fetches, with the paths to which it writes them."""
    words = shlex.split(command.replace("\\\n", ""))
    action, (source, target, *filters) = words[2], [word for word in words[3:] if word not in OPTIONS]
    assert source.startswith(BUCKET)
    key = source.removeprefix(BUCKET)
    if action == "cp":
        assert key in KEYS
        return {key: target}
    fetched = {}
    # The patterns are relative to the source, and the last one that matches decides.
    patterns = [
        (option == "--include", re.compile(fnmatch.translate(pattern)))
        for option, pattern in zip(filters[::2], filters[1::2], strict=True)
    ]
    for name in (other.removeprefix(f"{key}/") for other in KEYS if other.startswith(f"{key}/")):
        if [is_included for is_included, pattern in patterns if pattern.match(name)][-1]:
            fetched[f"{key}/{name}"] = f"{target}/{name}"
    return fetched


@pytest.mark.parametrize("layout", [OFFICIAL, FLAT], ids=lambda layout: layout.name)
@pytest.mark.parametrize("name", RECIPES)
def test_commands_fetch_all_of_a_recipe_and_nothing_else(layout, name, tmp_path):
    root = tmp_path / "my brain's $HOME data"
    inputs = list_inputs(NSDTree(Folder(root), layout), read_recipe(name))
    commands = list_fetch_commands(root, inputs)

    fetched = [pair for command in commands for pair in fetch(command).items()]
    assert len(fetched) == len(inputs)
    assert dict(fetched) == {one.file.official_path: str(root / one.file.path) for one in inputs}
    for command in commands:  # a shell would replace a pattern by the files that it matches in the current folder
        unquoted = "".join(re.split(r"'[^']*'", command.replace(shlex.quote(str(root))[1:-1], "")))
        assert not set(unquoted) & set("*?[]$~"), command
