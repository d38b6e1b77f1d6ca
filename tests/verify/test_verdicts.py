"""What `verify` prints and keeps: a verdict for each question, each problem once, and what was not checked."""

import errno
import json
import shutil

import numpy as np
import pytest

from allen2022_surface_packaging.verify import verdicts
from allen2022_surface_packaging.verify.verdicts import verify
from support import accept
from verify.damages import change_values, read_coordinates
from verify.planted import FOUND_BY, TEST, TRAIN

UNCHECKED_WITHOUT_TREE = "not checked: values, pixels, noise ceilings"


def read_kept(release) -> dict:
    return json.loads((release / "verify.json").read_text())


def add_to(values) -> None:
    values[4, 30] += 1


def test_verdicts_come_first_and_what_was_not_checked_last(tiny_copy, tiny_release, tiny_tree, run_verify):
    result = run_verify(tiny_copy, "--nsd-root", tiny_tree, "--all", "--against", tiny_release)

    lines = result.out.splitlines()
    assert result.status == 0
    assert lines[0].startswith(f"{tiny_copy} is sound: its ")
    assert lines[1].startswith(f"{tiny_copy} is what {tiny_tree} gives: ")
    assert " values of all neuroids were recomputed, the largest difference is " in lines[1]
    assert lines[2] == f"{tiny_copy} and {tiny_release} are identical"
    assert "(unitless; 1e-05 is allowed)" in result.out
    assert lines[-1] == "not checked: versions of packages, because nothing else tells which were installed."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], UNCHECKED_WITHOUT_TREE),
        (["--nsd-root", "TREE"], "not checked: values of neuroids outside the sample (--all checks them); versions"),
        (["--nsd-root", "/nowhere"], UNCHECKED_WITHOUT_TREE),
    ],
)
def test_last_line_says_what_was_not_checked(tiny_copy, tiny_tree, run_verify, options, message):
    result = run_verify(tiny_copy, *(tiny_tree if option == "TREE" else option for option in options))

    assert result.out.splitlines()[-1].startswith(message)


def test_table_shows_the_largest_difference_of_each_region_and_subject(tiny_copy, tiny_tree, run_verify):
    result = run_verify(tiny_copy, "--nsd-root", tiny_tree)

    rows = [line.split() for line in result.out.splitlines()]
    start = rows.index(["region", "subj01", "subj02"])
    assert [row[0] for row in rows[start + 1 : start + 5]] == ["V1", "V2", "V4", "IT"]
    kept = {
        (row["region"], row["subject"]): row["largest difference"]
        for row in read_kept(tiny_copy)["nsd_root"]["differences"]
    }
    assert float(rows[start + 4][2]) == pytest.approx(kept["IT", "subj02"], rel=0.05)


def test_problems_of_every_question_are_listed_once(tiny_copy, tiny_release, tiny_tree, run_verify):
    change_values(tiny_copy, TEST, add_to)
    change_values(tiny_copy, TRAIN, lambda values: values.__setitem__((2, 3, 0), np.nan))

    result = run_verify(tiny_copy, "--nsd-root", tiny_tree, "--all", "--against", tiny_release)

    assert result.status == 1
    assert len(result.problems) == len(set(result.problems))
    verdicts = result.out.splitlines()[:3]
    assert verdicts[0] == f"{tiny_copy} is not sound: 1 problem"
    assert verdicts[1].startswith(f"{tiny_copy} is not what {tiny_tree} gives: ")
    assert verdicts[2].startswith(f"{tiny_copy} and {tiny_release} are different: ")
    assert sum("test values of subj" in line for line in result.out.splitlines()) == 1
    assert result.err.splitlines()[-1].endswith("ways. The problems are listed above.")


@pytest.mark.parametrize("character", ["\0", "\n", "\x1b[2J", "\u2028"])
def test_cells_that_cannot_be_printed_are_escaped(tiny_copy, tiny_tree, run_verify, character):
    name = "train_test_split.csv"
    text = (tiny_copy / name).read_text()
    (tiny_copy / name).write_text(text.replace(",train\n", f',"{character}train"\n', 1))
    accept(tiny_copy, name)

    result = run_verify(tiny_copy, "--nsd-root", tiny_tree)

    assert result.status == 1
    assert all(line.isprintable() for line in result.out.split("\n"))
    assert sum(name in problem and ascii(character)[1:-1] in problem for problem in result.problems) > 0


def test_problems_of_a_damaged_release_are_listed_beside_what_could_not_be_compared(
    tiny_copy, tiny_release, tiny_tree, run_verify
):
    for name in (TEST, "stimulus_metadata_train.csv"):
        (tiny_copy / name).unlink()

    result = run_verify(tiny_copy, "--nsd-root", tiny_tree, "--against", tiny_release)

    assert result.out.splitlines()[:3] == [
        f"{tiny_copy} is not sound: 2 problems",
        f"{tiny_copy} was not compared with {tiny_tree}",
        f"{tiny_copy} was not compared with {tiny_release}",
    ]
    for name in (TEST, "stimulus_metadata_train.csv"):
        assert f"problem: {tiny_copy / name} is missing, but release.json lists it." in result.problems
    assert "not checked: tables, images and assemblies, because a file is not the one that was written; " in result.out
    assert not (tiny_copy / "verify.json").exists() or "nsd_root" not in read_kept(tiny_copy)


def test_answers_to_other_questions_are_kept(tiny_copy, tiny_release, tiny_tree, tmp_path, run_verify):
    other = shutil.copytree(tiny_release, tmp_path / "other")
    run_verify(tiny_copy, "--nsd-root", tiny_tree)
    run_verify(tiny_copy, "--against", tiny_release)
    run_verify(tiny_copy, "--against", other)
    run_verify(tiny_copy)

    kept = read_kept(tiny_copy)
    assert kept["release"] == {"problems": []}
    assert kept["nsd_root"]["problems"] == []
    assert kept["nsd_root"]["tolerance"] == 1e-5
    assert {name: findings["verdict"] for name, findings in kept["against"].items()} == {
        str(tiny_release): "identical",
        str(other): "identical",
    }


def test_question_that_cannot_be_answered_keeps_its_earlier_answer(tiny_copy, tiny_tree, run_verify):
    run_verify(tiny_copy, "--nsd-root", tiny_tree)
    before = read_kept(tiny_copy)

    assert run_verify(tiny_copy, "--nsd-root", "/nowhere").status == 1

    assert read_kept(tiny_copy) == before


def test_answers_are_kept_when_they_cannot_be_read_now(tiny_copy, tiny_tree, run_verify, monkeypatch):
    """Such as while a network disk is away for a moment."""
    run_verify(tiny_copy, "--nsd-root", tiny_tree)
    path = tiny_copy / "verify.json"
    before = path.read_bytes()

    def fail(_):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(verdicts, "read_file", fail)
    result = run_verify(tiny_copy, "--against", tiny_copy)

    assert result.status == 1
    assert result.err.startswith(f"allen2022-surface: {path}: Input/output error.")
    assert path.read_bytes() == before


@pytest.mark.parametrize("is_accepted", [True, False])
def test_answers_are_dropped_when_a_file_has_changed(tiny_copy, tiny_tree, run_verify, is_accepted):
    run_verify(tiny_copy, "--nsd-root", tiny_tree)
    path = tiny_copy / "stimulus_metadata_test.csv"
    text = path.read_text()
    path.write_text(text.replace(".png", ".jpg", 1))
    if is_accepted:
        accept(tiny_copy, path.name)

    run_verify(tiny_copy)
    first = read_kept(tiny_copy)
    path.write_text(text.replace(".png", ".jpx", 1))  # of the same size
    run_verify(tiny_copy)

    assert "nsd_root" not in first
    assert len(first["release"]["problems"]) >= 1
    assert read_kept(tiny_copy)["files_sha1"] != first["files_sha1"]


def test_plain_verification_writes_nothing(tiny_copy, run_verify):
    assert run_verify(tiny_copy).status == 0
    assert not (tiny_copy / "verify.json").exists()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"against": 3}', "[" * 100_000])
def test_damaged_answers_are_replaced(tiny_copy, tiny_release, run_verify, content):
    (tiny_copy / "verify.json").write_text(content)

    assert run_verify(tiny_copy, "--against", tiny_release).status == 0

    assert read_kept(tiny_copy)["against"][str(tiny_release)]["verdict"] == "identical"


def test_answers_that_cannot_be_written_are_printed_and_the_file_is_named(tiny_copy, tiny_release, run_verify):
    (tiny_copy / "verify.json").mkdir()

    result = run_verify(tiny_copy, "--against", tiny_release)

    assert result.status == 1
    assert f"{tiny_copy} and {tiny_release} are identical" in result.out
    assert f"{tiny_copy / 'verify.json'} cannot be written (Is a directory)" in result.err


def test_seed_chooses_the_sample(tiny_copy, tiny_tree, run_verify):
    found = []
    for seed in ("3", "3", "4"):
        assert run_verify(tiny_copy, "--nsd-root", tiny_tree, "--seed", seed).status == 0
        kept = read_kept(tiny_copy)["nsd_root"]
        assert kept["seed"] == int(seed)
        found.append(kept["differences"])

    assert found[0] == found[1]
    assert [row["where"] for row in found[0]] != [row["where"] for row in found[2]]


def test_sample_is_the_one_of_seed_0_unless_another_is_asked_for(tiny_release, tiny_tree):
    findings = verify(tiny_release, nsd_root=str(tiny_tree)).raw_files.findings
    all_findings = verify(tiny_release, nsd_root=str(tiny_tree), every_vertex=True).raw_files.findings

    assert (findings["seed"], findings["every_vertex"], all_findings["every_vertex"]) == (0, False, True)
    assert findings["differences"]["values"].sum() < all_findings["differences"]["values"].sum()


def test_verdict_counts_no_value_when_a_coordinate_is_wrong(tiny_copy, tiny_tree, run_verify):
    FOUND_BY["vertex_index of all subjects"][0](tiny_copy)

    result = run_verify(tiny_copy, "--nsd-root", tiny_tree)

    lines = result.out.splitlines()
    assert lines[1] == f"{tiny_copy} is not what {tiny_tree} gives: 2 problems; 0 values of a sample of neuroids"
    assert lines[-1].startswith("not checked: values, because the manifest or a coordinate is wrong; versions")


@pytest.mark.parametrize(("is_different", "title"), [(False, "differences:"), (True, "differences within 1e-05:")])
def test_table_of_differences_holds_those_within_the_tolerance(
    tiny_copy, tiny_release, run_verify, is_different, title
):
    def change(values):
        values[1, 3] += 1e-6
        values[2, -1] += is_different  # in another region

    change_values(tiny_copy, TEST, change)

    lines = run_verify(tiny_copy, "--against", tiny_release).out.splitlines()

    header, row = lines[lines.index(title) + 2 :][:2]
    assert header.split()[:4] == ["split", "what", "differ", "beyond"]
    assert row.split()[:5] == ["test", "values", "of", "subj01", "V1"]


def test_long_cells_of_a_table_are_cut_to_the_width(tiny_copy, tiny_release):
    change_values(tiny_copy, TEST, lambda values: values.__setitem__((1, 3), values[1, 3] + 1e-6))
    verification = verify(tiny_copy, against=str(tiny_release))

    narrow, wide = ("\n".join(verification.lines(width)) for width in (30, 300))

    name = read_coordinates(tiny_copy, TEST)["neuroid_id"][3]
    assert name in wide
    assert name not in narrow
    assert "..." in narrow


def test_infinite_difference_is_kept_as_text(tiny_copy, tiny_release, run_verify):
    change_values(tiny_copy, TEST, lambda values: values.__setitem__((1, 3), np.nan))

    run_verify(tiny_copy, "--against", tiny_release)

    (row,) = read_kept(tiny_copy)["against"][str(tiny_release)]["differences"]
    assert row["largest"] == "inf"


def test_answer_about_another_release_is_kept_under_its_full_path(tiny_copy, tiny_release, run_verify, monkeypatch):
    monkeypatch.chdir(tiny_release.parent)

    run_verify(tiny_copy, "--against", tiny_release.name)

    assert list(read_kept(tiny_copy)["against"]) == [str(tiny_release)]


def test_same_answers_are_not_written_again(tiny_copy, tiny_release, run_verify):
    run_verify(tiny_copy, "--against", tiny_release)
    before = (tiny_copy / "verify.json").stat()
    run_verify(tiny_copy, "--against", tiny_release)
    after = (tiny_copy / "verify.json").stat()

    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("name", ["report.html", "verify.json"])
def test_half_written_page_of_a_killed_command_does_not_belong_to_the_release(tiny_copy, run_verify, name):
    (tiny_copy / f".{name}.{'0' * 32}.partial").touch()

    assert run_verify(tiny_copy).status == 0
