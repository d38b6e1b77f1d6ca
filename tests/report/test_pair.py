"""A report of two releases side by side."""

import shutil

import pytest

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.report.page import write_report
from report.reading import REGION_NAMES, Page, agrees, measure, number, split_half_ceiling
from support import run_cli


@pytest.fixture(scope="module")
def pair(reported, four_subject_release, tmp_path_factory):
    """The report of the release of four subjects, beside that of eight."""
    path = shutil.copytree(four_subject_release, tmp_path_factory.mktemp("pair") / "four")
    return Page(write_report(path, reported))


def test_both_releases_have_their_own_numbers_and_the_difference(pair, truth, four_subject_release):
    truths = (measure(next(four_subject_release.glob("*_test.nc"))), truth)
    rows = pair.rows("pair-regions")

    subjects = [*(f"subj0{number}" for number in (1, 2, 5, 7)), "all", *(f"subj0{number}" for number in (3, 4, 6, 8))]
    assert {(row[0], row[1]) for row in rows} == {(region, subject) for region in REGION_NAMES for subject in subjects}
    for region, subject, *texts in rows:
        chosen = [
            table[(table.region == region) & ((table.subject == subject) | (subject == "all"))] for table in truths
        ]
        ceilings = [neuroids.nc_testset.median() for neuroids in chosen]
        split_halves = [split_half_ceiling(neuroids) if len(neuroids) else None for neuroids in chosen]
        if not len(chosen[0]):  # a subject that only the other release has
            assert (texts[0], texts[2], texts[4], texts[7]) == ("–",) * 4
            continue
        assert [number(text) for text in texts[:2]] == [len(neuroids) for neuroids in chosen]
        assert agrees(texts[2], ceilings[0], 1) and agrees(texts[3], ceilings[1], 1)
        assert agrees(texts[4], ceilings[1] - ceilings[0], 1)
        assert agrees(texts[5], split_halves[0], 3) and agrees(texts[6], split_halves[1], 3)
        assert agrees(texts[7], split_halves[1] - split_halves[0], 3)


def test_facts_and_options_say_whether_they_differ(pair):
    facts = {row[0]: row[1:] for row in pair.rows("pair-facts")}

    assert facts["Name"] == ["Allen2022_fmri_surface_4subj", "Allen2022_fmri_surface", "different"]
    assert facts["Subjects"][0] == "subj01, subj02, subj05, subj07"
    assert facts["nan_policy"] == ["zero", "zero", "equal"]
    assert {row[2] for row in facts.values()} == {"equal", "different"}


def test_rest_of_the_page_shows_the_release_alone(pair):
    assert pair.fact("Name") == "Allen2022_fmri_surface_4subj"
    assert pair.tables["heat"][0] == ["Region", "subj01", "subj02", "subj05", "subj07", "all"]
    assert "#pair" in pair.links


def test_page_of_one_release_has_no_second_one(page):
    assert "pair" not in page.ids
    assert "#pair" not in page.links


def test_command_line_takes_a_second_release(release_copy, four_subject_release):
    result = run_cli("report", release_copy, four_subject_release)

    assert result.returncode == 0
    assert "pair" in Page(release_copy / "report.html").ids
    assert not (four_subject_release / "report.html").exists()


def test_second_release_that_cannot_be_read_is_named(release_copy, tmp_path):
    with pytest.raises(PackagingError, match=f"{tmp_path / 'none'} is not a release"):
        write_report(release_copy, tmp_path / "none")
