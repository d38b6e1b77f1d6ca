"""The commands that fetch missing files, read as the AWS command line reads them, on a bucket with NSD's names."""

import fnmatch
import itertools
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from allen2022_surface_packaging.facts import BETAS_VERSIONS, N_SESSIONS, SUBJECTS
from allen2022_surface_packaging.nsd.fetching import list_sync_commands, shorten_names
from allen2022_surface_packaging.nsd.needs import describe_missing, join_needed, list_needed, number_ranges
from allen2022_surface_packaging.nsd.storage import Folder
from allen2022_surface_packaging.nsd.tree import FLAT, OFFICIAL, NSDTree
from allen2022_surface_packaging.recipe import list_recipes, make_recipe, read_recipe

BUCKET = "s3://natural-scenes-dataset/"
HEMISPHERES = ("lh", "rh")


def list_bucket() -> list[str]:
    """Return keys with NSD's names: all that any recipe needs, and many that none does."""
    keys = [
        f"nsddata/experiments/nsd/{name}" for name in ("nsd_expdesign.mat", "nsd_stim_info_merged.csv", "readme.txt")
    ]
    keys += ["nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", "nsddata_stimuli/stimuli/nsd/shared1000/shared0001.png"]
    atlases = ("Kastner2015", "streams", "nsdgeneral", "HCP_MMP1", "floc-faces", "prf-visualrois", "corticalsulc")
    labels = "nsddata/freesurfer/fsaverage/label"
    keys += [f"{labels}/{h}.{atlas}.mgz" for h in HEMISPHERES for atlas in atlases]
    keys += [f"{labels}/{atlas}.mgz.ctab" for atlas in atlases]
    for subject, space, version in itertools.product(SUBJECTS, ("fsaverage", "nativesurface"), BETAS_VERSIONS):
        folder = f"nsddata_betas/ppdata/subj{subject:02d}/{space}/{version}"
        sessions = [f"betas_session{session:02d}" for session in range(1, N_SESSIONS[subject] + 1)]
        names = [*sessions, "ncsnr", "ncsnr_split1", "meanbeta"]
        keys += [
            f"{folder}/{h}.{name}.{'mgh' if space == 'fsaverage' else 'hdf5'}" for h in HEMISPHERES for name in names
        ]
    return keys


KEYS = list_bucket()


@dataclass(frozen=True)
class Fetched:
    """A key of the bucket, and the path to which a command writes it."""

    key: str
    path: str


def run_sync(command: str) -> list[Fetched]:
    """Return what `aws s3 sync` fetches: every key below the source for which the last filter that matches says so."""
    words = shlex.split(command.replace("\\\n", ""))
    assert words[:4] == ["aws", "s3", "sync", "--no-sign-request"]
    source, target, filters = words[4], words[5], list(zip(words[6::2], words[7::2], strict=True))
    assert source.startswith(BUCKET)
    prefix, fetched = f"{source.removeprefix(BUCKET)}/", []
    # The patterns are relative to the source, and * matches slashes.
    patterns = [(option == "--include", re.compile(fnmatch.translate(pattern))) for option, pattern in filters]
    for key in KEYS:
        if key.startswith(prefix):
            name = key.removeprefix(prefix)
            decisions = [is_included for is_included, pattern in patterns if pattern.match(name)]
            if (decisions or [True])[-1]:
                fetched.append(Fetched(key, f"{target}/{name}"))
    return fetched


def fetch(root, needed) -> list[Fetched]:
    return [file for command in list_sync_commands(root, needed) for file in run_sync(command)]


def make_tree(root, layout) -> NSDTree:
    return NSDTree(Folder(root), layout)


def assert_fetches_exactly(root, needed) -> None:
    fetched = fetch(root, needed)

    assert len(fetched) == len(needed)
    assert {(file.key, file.path) for file in fetched} == {
        (one.file.official_path, str(root / one.file.path)) for one in needed
    }


def test_the_bucket_of_these_tests_holds_everything_and_more():
    needed = list_needed(make_tree(Path("nsd"), OFFICIAL), make_recipe(), N_SESSIONS)

    assert {one.file.official_path for one in needed} < set(KEYS)
    assert len(needed) == 1 + 1 + 4 + 1 + 16 + 568


@pytest.mark.parametrize("layout", [OFFICIAL, FLAT], ids=lambda layout: layout.name)
@pytest.mark.parametrize("name", list_recipes())
def test_commands_fetch_all_of_a_recipe_and_nothing_else(layout, name, tmp_path):
    needed = list_needed(make_tree(tmp_path, layout), read_recipe(name), N_SESSIONS)

    assert_fetches_exactly(tmp_path, needed)
    assert len(list_sync_commands(tmp_path, needed)) <= (4 if layout is OFFICIAL else 11)


@pytest.mark.parametrize("layout", [OFFICIAL, FLAT], ids=lambda layout: layout.name)
@pytest.mark.parametrize("share", [0.002, 0.05, 0.5, 0.95])
def test_commands_fetch_any_missing_files_and_nothing_else(layout, share, rng, tmp_path):
    recipes = [make_recipe(), read_recipe("fithrf"), read_recipe("hcp_mmp1")]
    tree = make_tree(tmp_path, layout)
    needed = join_needed(list_needed(tree, recipe, N_SESSIONS) for recipe in recipes)
    missing = [one for one in needed if rng.random() < share]

    assert missing
    assert_fetches_exactly(tmp_path, missing)


def test_commands_fetch_one_hemisphere_of_one_subject(tmp_path):
    needed = list_needed(make_tree(tmp_path, OFFICIAL), make_recipe((4,), name="four"), N_SESSIONS)
    missing = [one for one in needed if one.hemisphere == "rh" and one.kind == "betas"]

    assert len(missing) == 30
    assert_fetches_exactly(tmp_path, missing)


def test_commands_understand_a_folder_with_spaces_and_quotes(tmp_path):
    root = tmp_path / "my brain's $HOME data"
    needed = list_needed(make_tree(root, OFFICIAL), make_recipe(), N_SESSIONS)

    assert_fetches_exactly(root, needed)


def test_no_pattern_is_left_to_the_shell(tmp_path):
    """Without quotes a shell replaces a pattern by the files that it matches in the current folder."""
    needed = list_needed(make_tree(tmp_path, OFFICIAL), make_recipe(), N_SESSIONS)
    for command in list_sync_commands(tmp_path, needed):
        unquoted = "".join(command.split("'")[::2])
        assert not set(unquoted) & set("*?[]$~"), command


def test_all_of_nsd_is_missing_in_few_lines(tmp_path):
    needed = list_needed(make_tree(tmp_path, OFFICIAL), make_recipe(), N_SESSIONS)

    assert sum(len(command.splitlines()) for command in list_sync_commands(tmp_path, needed)) < 20
    assert describe_missing(needed, needed)[-1] == ("betas_fithrf_GLMdenoise_RR", "568 of 568", "subj01-subj08")


def test_missing_sessions_are_said_by_subject(tmp_path):
    needed = list_needed(make_tree(tmp_path, OFFICIAL), make_recipe(), N_SESSIONS)
    gone = {(1, 3), (1, 4), (1, 5), (1, 9), (2, 3), (2, 4), (2, 5), (2, 9)}
    missing = [one for one in needed if (one.subject, one.session) in gone]
    missing += [one for one in needed if (one.subject, one.session, one.hemisphere) == (7, 40, "rh")]
    missing += [one for one in needed if one.subject == 4 and one.kind == "betas"]
    missing += [one for one in needed if one.subject == 4 and one.kind == "noise ceilings" and one.hemisphere == "lh"]

    assert describe_missing(needed, missing) == [
        ("noise ceilings", "1 of 16", "subj04 (lh)"),
        (
            "betas_fithrf_GLMdenoise_RR",
            "77 of 568",
            "subj01, subj02: sessions 3-5, 9; subj07: sessions 40 (rh only); subj04",
        ),
    ]


def test_names_are_shortened_to_patterns_that_match_no_other_name():
    names = [f"{h}.betas_session{session:02d}.mgh" for h in HEMISPHERES for session in (1, 2, 3, 8, 11)]

    assert shorten_names([*names, "lh.ncsnr.mgh"], 1) == [
        "[lr]h.betas_session0[1238].mgh",
        "[lr]h.betas_session11.mgh",
        "lh.ncsnr.mgh",
    ]


def test_numbers_are_written_as_ranges():
    assert number_ranges([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"
