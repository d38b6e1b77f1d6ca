"""The command `verify`: what it prints, what it keeps, and how it ends."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from contextlib import ExitStack

import pytest

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.recipe import make_recipe
from allen2022_surface_packaging.verify import verdicts
from support import run_cli, verify
from verify.planted import NAME, TRAIN, put, values

VERSIONS = "    versions of packages, because nothing else tells which were installed"


def test_sound_release(tiny_copy):
    result = run_cli("verify", tiny_copy)

    n_files = len(json.loads((tiny_copy / "release.json").read_text())["files"])
    first, _, *checks = result.stdout.splitlines()
    assert (result.returncode, result.stderr) == (0, "")
    assert first == f"{tiny_copy} is sound: its {n_files} files agree with the manifest and with each other"
    assert checks[:2] == ["checked:", "    size and SHA-1 of every file"]
    assert checks[3] == "not checked:"
    assert checks[4].startswith("    values, pixels, noise ceilings, COCO ids, ")
    assert checks[4].endswith(" (--nsd-root NSD_ROOT checks them)")
    assert checks[5:] == [VERSIONS]


def test_every_question_has_an_answer_and_verify_json_keeps_the_last_ones(tiny_copy, tiny_release, tiny_tree):
    values(lambda array: array.__setitem__(slice(None), array * 1.01), TRAIN)(tiny_copy)

    result = run_cli("verify", tiny_copy, "--nsd-root", tiny_tree, "--seed", 3, "--against", tiny_release)

    lines = result.stdout.splitlines()
    assert result.returncode == 1
    assert lines[0].startswith(f"{tiny_copy} is sound: ")
    assert lines[1].startswith(f"{tiny_copy} is not what {tiny_tree} gives: 8 problems; ")
    difference = (
        f"{tiny_copy} differs from {tiny_release}: 8 differences, 8 of them by more than 1e-05; values differ by 8"
    )
    assert lines[2].startswith(difference)
    assert lines[2].endswith("e-02 at most, and all else is the same")
    problems = [line for line in lines if line.startswith("problem: ")]
    assert len(problems) == 16
    assert problems[0].startswith("problem: train values of subj01 V1: ")
    assert problems[0].endswith(" from the raw files.")
    sample = "    values of neuroids outside the sample (--all checks them)"
    assert lines[-3:] == ["not checked:", sample, VERSIONS]
    line = result.stderr.splitlines()[-1]
    assert (
        f"{tiny_copy} is not what {tiny_tree} gives, and differs from {tiny_release}. The problems are listed above."
        in line
    )
    kept = json.loads((tiny_copy / "verify.json").read_text())
    assert kept["release"] == {"problems": []}
    assert (kept["nsd_root"]["every_vertex"], kept["nsd_root"]["seed"]) == (False, 3)
    assert len(kept["nsd_root"]["problems"]) == 8
    assert [row["split"] for row in kept["nsd_root"]["differences"]].count("train") == 8
    assert kept["against"][str(tiny_release)]["verdict"] == "different"

    assert run_cli("verify", tiny_copy).returncode == 0
    assert set(json.loads((tiny_copy / "verify.json").read_text())) == {"manifest_sha1", "last_written", "release"}


def test_recomputed_release_has_a_table_of_the_largest_differences(tiny_copy, tiny_tree):
    result = run_cli("verify", tiny_copy, "--nsd-root", tiny_tree, "--all")

    lines = result.stdout.splitlines()
    assert result.returncode == 0
    assert f"{tiny_copy} is what {tiny_tree} gives: " in lines[1]
    assert "values of all neuroids were recomputed, the largest difference is " in lines[1]
    assert "largest difference from the raw files (unitless; 1e-05 is allowed):" in lines
    assert [line.split()[0] for line in lines[5:10]] == ["region", "V1", "V2", "V4", "IT"]
    assert lines[-2:] == ["not checked:", VERSIONS]
    assert "vertices recomputed: 4 in" in result.stderr


SYSTEM_FILES = ("._release.json", "stimuli_test/._nsd_00001.png", "stimuli_test/Thumbs.db", "desktop.ini")
SYSTEM_FOLDERS = (".Spotlight-V100", "@eaDir", "$RECYCLE.BIN", "lost+found")


def test_files_that_do_not_belong_to_the_release_are_named_and_no_problem(tiny_copy):
    image_path = min((tiny_copy / "stimuli_test").iterdir())
    names = ("notes.txt", "notes/more.txt", f"stimuli_test/{image_path.stem} copy.png", "stimuli_train/report.html")
    for name in (*SYSTEM_FILES, ".DS_Store", "report.html", *(f"{folder}/x" for folder in SYSTEM_FOLDERS), *names):
        (tiny_copy / name).parent.mkdir(exist_ok=True)
        (tiny_copy / name).write_bytes(b"x")

    result = run_cli("verify", tiny_copy)

    assert result.returncode == 0
    notes = [line for line in result.stdout.splitlines() if line.startswith("note: ")]
    assert notes == [
        f"note: {tiny_copy / name} does not belong to the release, and nothing reads it."
        for name in ("notes", "notes.txt", *names[2:])
    ]
    image_path.unlink()
    assert run_cli("verify", tiny_copy).returncode == 1


def test_report_that_was_written_before_a_problem_is_named(tiny_copy):
    report_path = tiny_copy / "report.html"
    report_path.write_text("as of a sound release")
    assert str(report_path) not in run_cli("verify", tiny_copy).stdout

    min((tiny_copy / "stimuli_test").iterdir()).unlink()

    assert f"note: {report_path} was written earlier, and does not show" in run_cli("verify", tiny_copy).stdout


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_verdict_that_cannot_be_recorded_is_one_line(tiny_copy, tiny_tree, monkeypatch, number):
    def fail(path, _):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(verdicts, "write_whole", fail)

    result = run_cli("verify", tiny_copy, "--nsd-root", tiny_tree)

    assert result.returncode == 0
    line = f"The verdict is not recorded, so a report will not show it: {tiny_copy}/verify.json: {os.strerror(number)}."
    assert result.stderr.splitlines()[-1] == line


def test_release_on_a_disk_that_refuses_locks_is_verified(tiny_copy, tiny_tree):
    """As HDF5 asks for them: here, another process could hold one."""
    with ExitStack() as files:
        for path in (*tiny_copy.glob("*.nc"), *tiny_tree.rglob("*.hdf5")):
            fcntl.flock(files.enter_context(path.open()), fcntl.LOCK_EX)

        assert run_cli("verify", tiny_copy, "--nsd-root", tiny_tree, "--against", tiny_copy).returncode == 0


def test_lack_of_descriptors_is_no_damage_of_the_release(tiny_copy):
    code = "from allen2022_surface_packaging.cli import main; import resource, sys, numpy, xarray, netCDF4, h5py, scipy.io\n"
    code += "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); main(['verify', sys.argv[1]])"

    result = subprocess.run([sys.executable, "-c", code, tiny_copy], capture_output=True, text=True)

    assert result.returncode == 1
    assert "Too many open files" in result.stderr.splitlines()[-1]
    assert "sound" not in result.stdout


@pytest.mark.parametrize("option", [["--all"], ["--seed", "3"]])
def test_options_of_recomputation_need_raw_files(tiny_release, option):
    result = run_cli("verify", tiny_release, *option)

    assert result.returncode == 2
    assert "--all and --seed choose the values to recompute, so they need --nsd-root" in result.stderr


def test_release_of_full_size_has_the_published_numbers_of_vertices_and_images(release_copy):
    """The manifest of a small release says that it is of the whole surface."""
    for key, value in {"n_vertices": 163_842, "n_trials_per_session": 750}.items():
        put(value, key)(release_copy)
    for subject, n_sessions in enumerate((40, 40, 32, 30, 40, 32, 40, 30), start=1):
        put(n_sessions, "sessions", f"subj{subject:02d}")(release_copy)

    problems = verify(release_copy)["release"]["problems"]

    for name, n in {"V1": "4,276", "V2": "3,391", "V4": "914", "IT": "19,065"}.items():
        assert any(f"gives {name} " in problem and f"NSD's atlas has {n}." in problem for problem in problems)
    for n in (412, 103):
        assert any(f"but {n} were published" in problem for problem in problems)


def test_values_without_mean_0_and_deviation_1_are_found_without_the_raw_files(tiny_tree, tmp_path):
    build_release(tiny_tree, tmp_path / "r", make_recipe((1, 2), name=NAME, standardize_on="train"))
    values(lambda array: array.__setitem__((slice(None), 4), array[:, 4] * 1.01 + 0.5), TRAIN)(tmp_path / "r")

    (problem,) = verify(tmp_path / "r")["release"]["problems"]
    assert "has mean 0.5 and deviation 1.01 over the train images, expected 0 and 1 (1 such neuroids)" in problem
