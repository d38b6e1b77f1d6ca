"""The printed commands, run by a small model of the AWS command line over keys with NSD's names."""

import fnmatch
import itertools
import re
import shlex

import pytest

from allen2022_surface_packaging.check import list_fetch_commands
from allen2022_surface_packaging.facts import BETAS_VERSIONS, N_SESSIONS, SUBJECTS
from allen2022_surface_packaging.nsd.inputs import list_inputs
from allen2022_surface_packaging.nsd.storage import Folder
from allen2022_surface_packaging.nsd.tree import FLAT, OFFICIAL, NSDTree
from allen2022_surface_packaging.recipe import list_recipes, read_recipe

BUCKET = "s3://natural-scenes-dataset/"
HEMISPHERES = ("lh", "rh")


def list_bucket() -> list[str]:
    """Return keys with NSD's names: all that any recipe needs, and many that none does."""
    keys = [
        f"nsddata/experiments/nsd/{name}" for name in ("nsd_expdesign.mat", "nsd_stim_info_merged.csv", "readme.txt")
    ]
    keys += ["nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", "nsddata_stimuli/stimuli/nsd/shared1000/shared0001.png"]
    for atlas in ("Kastner2015", "streams", "nsdgeneral", "HCP_MMP1", "floc-faces", "prf-visualrois"):
        names = [f"{atlas}.mgz.ctab", *(f"{h}.{atlas}.mgz" for h in HEMISPHERES)]
        keys += [f"nsddata/freesurfer/fsaverage/label/{name}" for name in names]
    for subject, version in itertools.product(SUBJECTS, BETAS_VERSIONS):
        names = [
            *(f"betas_session{session:02d}" for session in range(1, N_SESSIONS[subject] + 1)),
            "ncsnr",
            "ncsnr_split1",
            "meanbeta",
        ]
        folder = f"nsddata_betas/ppdata/subj{subject:02d}/fsaverage/{version}"
        keys += [f"{folder}/{h}.{name}.mgh" for h in HEMISPHERES for name in names]
    return keys


KEYS = list_bucket()


def run(command: str) -> dict[str, str]:
    """Return the keys that a command fetches, with the paths to which it writes them."""
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


OPTIONS = ("--no-sign-request", "--size-only")


@pytest.mark.parametrize("layout", [OFFICIAL, FLAT], ids=lambda layout: layout.name)
@pytest.mark.parametrize("name", list_recipes())
def test_commands_fetch_all_of_a_recipe_and_nothing_else(layout, name, tmp_path):
    root = tmp_path / "my brain's $HOME data"
    inputs = list_inputs(NSDTree(Folder(root), layout), read_recipe(name))
    commands = list_fetch_commands(root, inputs)

    fetched = [pair for command in commands for pair in run(command).items()]
    assert len(fetched) == len(inputs)
    assert dict(fetched) == {one.file.official_path: str(root / one.file.path) for one in inputs}
    for command in commands:  # a shell would replace a pattern by the files that it matches in the current folder
        unquoted = "".join(re.split(r"'[^']*'", command.replace(shlex.quote(str(root))[1:-1], "")))
        assert not set(unquoted) & set("*?[]$~"), command
