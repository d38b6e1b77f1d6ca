"""The text of the pull request: what maintainers ask, with the numbers of the objects."""

import json
import re

import numpy as np
import pytest
import xarray as xr

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.publish.artifacts import ObjectRecord
from allen2022_surface_packaging.publish.export import export_plugin
from allen2022_surface_packaging.publish.shapes import find_shape
from allen2022_surface_packaging.publish.upload import publish_release
from publish.checkouts import TARGET_PATH


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
def uploaded(eight_subject_release, four_subject_release, s3, tmp_path):
    """An artifacts file of both releases, as of measurements. The data is that of the small tree."""
    path = tmp_path / "artifacts.json"
    for folder in (eight_subject_release, four_subject_release):
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
