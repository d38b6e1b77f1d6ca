"""Tables of a release are read strictly: whatever `build` does not write is refused, with the file and the row."""

import os
import re

import pytest

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.verify.comparison import compare_release
from allen2022_surface_packaging.verify.recomputation import recompute_release
from allen2022_surface_packaging.verify.soundness import verify_release
from allen2022_surface_packaging.verify.tables import read_stimulus_table, read_table
from support import accept

HEADER = "stimulus_id,nsd_id,image_file_name"
ROWS = "nsd_00001,1,a.png\nnsd_00002,2,b.png\n"


@pytest.fixture
def write(tmp_path):
    path = tmp_path / "table.csv"

    def write(text: str | bytes):
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def test_table_is_read_with_the_types_of_its_columns(write):
    table = read_table(write(f"{HEADER},coco_id,crop_top\nnsd_00001,1,007.png,9,1e-05\nNA,20,nan,0,0.25\n"))

    assert table.to_dict("list") == {
        "stimulus_id": ["nsd_00001", "NA"],
        "nsd_id": [1, 20],
        "image_file_name": ["007.png", "nan"],
        "coco_id": [9, 0],
        "crop_top": [1e-05, 0.25],
    }
    assert table["nsd_id"].dtype == "int64"


@pytest.mark.parametrize("header", ["nsd_id,split", "split,nsd_id,stimulus_id", "a,b,c", "nsd_id,stimulus_id,split,x"])
def test_split_with_other_columns_is_refused(tiny_copy, header):
    path = tiny_copy / "train_test_split.csv"
    path.write_text(f"{header}\n{','.join('1' * len(header.split(',')))}\n")
    accept(tiny_copy, path.name)

    problems = verify_release(tiny_copy)

    assert any(f"{path} has the columns {header.split(',')}, expected ['nsd_id', " in problem for problem in problems)


def test_table_without_rows_has_its_columns(write):
    assert list(read_stimulus_table(write(f"{HEADER}\n"))) == HEADER.split(",")


@pytest.mark.parametrize("name", ["", ".", "..", "../a.png", "/a.png", "a/b.png", "a\\b.png", "a\tb.png", "a\0b.png"])
def test_file_name_that_leads_elsewhere_is_refused(write, name):
    path = write(f"{HEADER}\nnsd_00000,0,a.png\nnsd_00001,1,{name}\n")

    with pytest.raises(
        PackagingError, match=re.escape(f"{path}: image_file_name of row 1 is ") + ".* expected the name of"
    ):
        read_stimulus_table(path)


@pytest.mark.parametrize("number", ["", "1.0", " 1", "01", "-1", "+1", "1e3", "x", "١", "9" * 19])
def test_number_that_build_would_not_write_is_refused(write, number):
    path = write(f"{HEADER}\nnsd_00001,{number},a.png\n")

    with pytest.raises(
        PackagingError, match=re.escape(f"{path}: nsd_id of row 0 is {number!r}, expected a whole number")
    ):
        read_table(path)


@pytest.mark.parametrize("number", ["", "nan", "inf", "1,5", "0x1", "1.", "."])
def test_fraction_that_is_no_number_is_refused(write, number):
    with pytest.raises(PackagingError, match="crop_top of row 0 is .*, expected a number"):
        read_table(write(f'nsd_id,crop_top\n1,"{number}"\n'))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has the columns [], expected names, each once"),
        ("\n1,2\n", "has the columns [], expected names, each once"),
        ("nsd_id,nsd_id\n1,1\n", "has the columns ['nsd_id', 'nsd_id'], expected names, each once"),
        (f"{HEADER}\nnsd_00001,1\n", "row 0 has 2 cells, expected 3"),
        (f"{HEADER}\nnsd_00001,1,a.png,5\n", "row 0 has 4 cells, expected 3"),
        (f"{HEADER}\n\n{ROWS}", "row 0 has 0 cells, expected 3"),
        (f'{HEADER}\n"nsd_00001,1,a.png\n', "is not a CSV table in UTF-8"),
        (f'{HEADER}\n"nsd_00001"x,1,a.png\n', "is not a CSV table in UTF-8"),
        (b"\xff\xfe\0", "is not a CSV table in UTF-8"),
        (f"{HEADER}\n{'x' * 200_000},1,a.png\n", "is not a CSV table in UTF-8"),
        (f"{HEADER}\n ,1,a.png\n", "stimulus_id of row 0 is ' ', expected a text"),
        (f"\ufeff{HEADER}\n{ROWS}", "lacks the column stimulus_id"),
        (f"{HEADER.replace(',', ';')}\n{ROWS.replace(',', ';')}", "lacks the column stimulus_id, nsd_id, image_file_name"),
        ("stimulus_id,nsd_id\nnsd_00001,1\n", "lacks the column image_file_name"),
        (f"{HEADER}\n{ROWS}nsd_00001,3,c.png\n", "stimulus_id 'nsd_00001' stands in two rows"),
        (f"{HEADER}\n{ROWS}nsd_00003,2,c.png\n", "nsd_id 2 stands in two rows"),
        (f"{HEADER}\n{ROWS}nsd_00003,3,a.png\n", "image_file_name 'a.png' stands in two rows"),
    ],
)  # fmt: skip
def test_damaged_table_is_refused_in_one_line_that_names_it(write, text, message):
    path = write(text)

    with pytest.raises(PackagingError, match=re.escape(message)) as raised:
        read_stimulus_table(path)
    assert str(raised.value).startswith(str(path))
    assert str(raised.value).endswith("Build the release again.")
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("cell", "shown"), [("x" * 58, f"'{'x' * 58}'"), ("x" * 59, f"'{'x' * 59}..."), ("x" * 500, f"'{'x' * 59}...")]
)
def test_only_the_beginning_of_a_long_cell_is_shown(write, cell, shown):
    with pytest.raises(PackagingError, match=re.escape(f"nsd_id of row 0 is {shown}, expected")):
        read_table(write(f"{HEADER}\nnsd_00001,{cell},a.png\n"))


def test_first_of_several_repeated_cells_is_named(write):
    rows = "nsd_00003,3,b.png\nnsd_00004,4,a.png\nnsd_00005,5,c.png\nnsd_00006,6,c.png\n"

    with pytest.raises(PackagingError, match="image_file_name 'b.png' stands in two rows"):
        read_stimulus_table(write(f"{HEADER}\n{ROWS}{rows}"))


@pytest.mark.parametrize("cell", ["", "..", "../release.json", "5"])
def test_wrong_file_name_is_refused_by_every_form_of_verify(tiny_copy, tiny_release, tiny_tree, cell):
    path = tiny_copy / "stimulus_metadata_test.csv"
    lines = path.read_text().splitlines()
    fields = lines[1].split(",")
    lines[1] = ",".join([*fields[:2], cell, *fields[3:]])
    path.write_text("\n".join(lines) + "\n")
    accept(tiny_copy, path.name)

    assert any("image_file_name of row 0 is" in problem for problem in verify_release(tiny_copy))
    if cell == "5":  # a name like any other, of a file that is not there
        assert f"{tiny_copy}/stimuli_test/5 is missing" in compare_release(tiny_copy, str(tiny_release)).problems[0]
        return
    for here, there in ((tiny_copy, tiny_release), (tiny_release, tiny_copy)):
        with pytest.raises(PackagingError, match="image_file_name of row 0 is"):
            compare_release(here, str(there))
    with pytest.raises(PackagingError, match="image_file_name of row 0 is"):
        recompute_release(tiny_copy, tiny_tree)


def pipe(path) -> None:
    os.mkfifo(path)


NAMES = (
    "planted_test.nc",
    "stimulus_metadata_train.csv",
    "train_test_split.csv",
    "stimulus_origin.csv",
    "image",
)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("name", "make"),
    [
        *((name, pipe) for name in NAMES),
        ("planted_test.nc", lambda path: path.mkdir()),
        ("image", lambda path: path.symlink_to("/dev/zero")),
    ],
)
def test_what_is_not_a_regular_file_is_never_opened(tiny_copy, tiny_release, tiny_tree, run_verify, name, make):
    path = tiny_copy / name if name != "image" else min((tiny_copy / "stimuli_test").iterdir())
    path.unlink()
    make(path)

    result = run_verify(tiny_copy, "--nsd-root", tiny_tree, "--against", tiny_release)

    assert result.status == 1
    assert f"{path} is not a regular file" in result.out + result.err
    reverse = run_verify(tiny_release, "--against", tiny_copy)
    is_compared = name not in ("train_test_split.csv", "stimulus_origin.csv")  # of no interest to a comparison
    assert reverse.status == int(is_compared)
    assert (str(path) in reverse.out) is is_compared
    (tiny_release / "verify.json").unlink()
