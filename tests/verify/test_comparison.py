"""A release is compared with another release, and with a published object."""

import json
import re
import shutil
from collections import Counter

import boto3
import h5py
import numpy as np
import pandas as pd
import pytest
import xarray
from PIL import Image

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.verify.comparison import compare_release
from allen2022_surface_packaging.verify.recomputation import recompute_release
from allen2022_surface_packaging.verify.soundness import verify_release
from support import accept, list_open_files
from verify.damages import NAME, TEST, TRAIN, change_values, flip_bit, read_coordinates, rewrite_assembly
from verify.planted import TEST as PLANTED_TEST

REGIONS = ("V1", "V2", "V4", "IT")


def compare_by_kind(release, other) -> dict:
    return {difference.kind: difference for difference in compare_release(release, str(other)).differences}


def test_two_builds_are_identical(release_copy, release):
    comparison = compare_release(release_copy, str(release))

    assert comparison.verdict == "identical"
    assert comparison.differences == []
    assert comparison.filled["test"]["both"] > 0


def test_difference_in_the_last_bit_is_named_but_within_tolerance(release_copy, release, run_verify):
    def change(values):
        values.view(np.uint32)[40, 333, 0] ^= 1

    change_values(release_copy, TEST, change)
    coordinates = read_coordinates(release)

    result = run_verify(release_copy, "--against", release)

    assert result.status == 0
    assert "are the same within tolerance" in result.out
    findings = json.loads((release_copy / "verify.json").read_text())["against"][str(release)]
    assert findings["verdict"] == "the same within tolerance"
    (row,) = findings["differences"]
    assert (row["differ"], row["beyond tolerance"]) == (1, 0)
    assert coordinates["stimulus_id"][40] in row["where"]
    assert coordinates["neuroid_id"][333] in row["where"]
    assert 0 < row["largest"] < 1e-6


def test_real_differences_are_separated_from_rounding(release_copy, release):
    def change(values):
        values *= 1 + 1e-7
        values[[30, 31], 500:501] = values[[31, 30], 500:501]

    change_values(release_copy, TEST, change)
    coordinates = read_coordinates(release)

    comparison = compare_release(release_copy, str(release))

    (problem,) = comparison.problems
    assert f"{coordinates['subject'][500]} {coordinates['region'][500]}: 2 of " in problem
    assert f"in 1 neuroid ({coordinates['neuroid_id'][500]}) and 2 presentations" in problem
    assert len(comparison.differences) == 32  # the last bits of each region of each subject


CELLS = (  # here, there, and how the pair counts
    *((0, np.nan, "zero here, NaN there"), (np.nan, 0, "NaN here, zero there")),
    *((0, 0, "both"), (np.nan, np.nan, "both")),
    *((0, 1, "here only"), (0, -1, "here only"), (np.nan, 1, "here only"), (np.nan, -1, "here only")),
    *((1, 0, "there only"), (-1, 0, "there only"), (1, np.nan, "there only"), (-1, np.nan, "there only")),
    *((1, 1, "equal"), (-1, -1, "equal"), (0, 1e-6, "rounded"), (1e-6, 0, "rounded"), (1, 1 + 1e-6, "rounded")),
    *((1, -1, "different"), (-1, 1, "different"), (0.5, 0.6, "different")),
)


def test_every_pair_of_values_counts_as_equal_different_or_filled(tiny_copy, tiny_release, tmp_path):
    other = shutil.copytree(tiny_release, tmp_path / "other")
    coordinates = read_coordinates(tiny_release, PLANTED_TEST)
    is_first_region = (coordinates["subject"] == "subj01") & (coordinates["region"] == "V1")
    filled_before = compare_release(tiny_copy, str(tiny_release)).filled["test"]

    for path, side in ((tiny_copy, 0), (other, 1)):
        change_values(
            path,
            PLANTED_TEST,
            lambda values, side=side: values.__setitem__(
                (slice(0, len(CELLS)), find_columns_without_zero(values, is_first_region)[0], 0),
                [cell[side] for cell in CELLS],
            ),
        )
    comparison = compare_release(tiny_copy, str(other))

    counts = Counter(kind for _, _, kind in CELLS)
    counts["both"] += counts["zero here, NaN there"] + counts["NaN here, zero there"]
    filled = {kind: n - filled_before[kind] for kind, n in comparison.filled["test"].items()}
    assert filled == {kind: counts[kind] for kind in filled}
    n_cells = is_first_region.sum() * len(coordinates["stimulus_id"])
    n_all_cells = len(is_first_region) * len(coordinates["stimulus_id"])
    assert [
        (difference.kind, difference.n_differing, difference.n_beyond, difference.n_compared)
        for difference in comparison.differences
    ] == [
        ("values of subj01 V1", counts["rounded"] + counts["different"], counts["different"], n_cells),
        ("cells filled in one only of subj01 V1", 8, 8, n_cells),
        ("cells filled with zero here, NaN there", 1, 0, n_all_cells),
        ("cells filled with NaN here, zero there", 1, 0, n_all_cells),
    ]
    assert "1 here, -1 there" in comparison.differences[0].description


def find_columns_without_zero(values, is_chosen) -> np.ndarray:
    return np.flatnonzero((values != 0).all(axis=(0, 2)) & is_chosen)


def test_regions_are_compared_in_the_order_of_the_release(tiny_copy, tiny_release):
    change_values(tiny_copy, PLANTED_TEST, lambda values: values.__iadd__(1))

    kinds = [
        difference.kind
        for difference in compare_release(tiny_copy, str(tiny_release)).differences
        if difference.kind.startswith("values of")
    ]

    assert kinds == [f"values of {subject} {region}" for region in REGIONS for subject in ("subj01", "subj02")]


def test_another_way_to_fill_is_counted_separately(release_copy, release):
    n_filled = 0

    def change(values):
        nonlocal n_filled
        n_filled = int((values == 0).sum())
        values[values == 0] = np.nan

    change_values(release_copy, TRAIN, change)

    comparison = compare_release(release_copy, str(release))

    assert comparison.verdict == "the same within tolerance"
    assert comparison.filled["train"]["NaN here, zero there"] == n_filled > 0
    assert comparison.filled["train"]["both"] == n_filled
    assert [difference.kind for difference in comparison.differences] == ["cells filled with NaN here, zero there"]


def test_value_that_is_filled_in_one_release_only_is_a_separate_difference(release_copy, release):
    def change(values):
        values[9, 100] = 0

    change_values(release_copy, TRAIN, change)
    coordinates = read_coordinates(release, TRAIN)

    comparison = compare_release(release_copy, str(release))

    (difference,) = comparison.differences
    assert comparison.verdict == "different"
    assert difference.kind == f"cells filled in one only of {coordinates['subject'][100]} {coordinates['region'][100]}"
    assert f"{coordinates['stimulus_id'][9]}, {coordinates['neuroid_id'][100]}: 0 here" in difference.description
    assert comparison.filled["train"]["here only"] == 1


def test_values_are_compared_in_pairs_when_the_order_differs(release_copy, release):
    neuroids, presentations = np.arange(920), np.arange(78)
    neuroids[[4, 800]], presentations[[6, 60]] = neuroids[[800, 4]], presentations[[60, 6]]
    rewrite_assembly(release_copy, TEST, lambda assembly: assembly[presentations][:, neuroids])
    coordinates = read_coordinates(release)

    differences = compare_by_kind(release_copy, release)

    assert set(differences) == {"order of presentations", "order of neuroids"}
    description = differences["order of neuroids"].description
    assert f"{coordinates['neuroid_id'][800]} is number 4 here, 800 there" in description


def test_missing_neuroids_presentations_and_coordinates_are_named(release_copy, release):
    rewrite_assembly(release_copy, TEST, lambda assembly: assembly[:-1, 1:].drop_vars("nsd_id"))
    coordinates = read_coordinates(release)

    differences = compare_by_kind(release_copy, release)

    assert differences["presentations only there"].description == f"{coordinates['stimulus_id'][-1]} repetition 2"
    assert differences["neuroids only there"].description == coordinates["neuroid_id"][0]
    assert differences["coordinate nsd_id"].description == "only there"
    assert not any(kind.startswith("values") for kind in differences)


def test_releases_of_other_subjects_are_compared_in_common_cells(release, four_subject_release):
    differences = {
        (difference.split, difference.kind): difference
        for difference in compare_release(four_subject_release, str(release)).differences
    }

    assert differences["test", "neuroids only there"].n_differing == 460
    assert ("test", "neuroids only here") not in differences
    assert differences["test", "presentations only here"].n_differing > 0  # more images are complete
    # They are standardised over other images, so that no value agrees.
    assert differences["test", "values of subj01 V1"].largest > 1e-5


def test_swapped_coordinates_of_neuroids_are_reported(release_copy, release):
    def change(assembly):
        vertices = assembly["vertex_index"].values.copy()
        vertices[[20, 21]] = vertices[[21, 20]]
        return assembly.assign_coords(vertex_index=("neuroid", vertices))

    rewrite_assembly(release_copy, TEST, change)
    coordinates = read_coordinates(release)

    difference = compare_by_kind(release_copy, release)["coordinate vertex_index"]

    assert difference.n_differing == 2
    assert coordinates["neuroid_id"][20] in difference.description


def test_table_without_a_column_is_reported_in_one_line(release_copy, release, nsd_tree, run_verify):
    path = release_copy / "stimulus_metadata_test.csv"
    pd.read_csv(path).drop(columns="nsd_id").to_csv(path, index=False)
    accept(release_copy, path.name)

    problem = f"{path} lacks the column nsd_id. Build the release again."
    assert problem in verify_release(release_copy)
    with pytest.raises(PackagingError, match=re.escape(problem)):
        recompute_release(release_copy, nsd_tree)
    result = run_verify(release_copy, "--nsd-root", nsd_tree, "--against", release)
    assert result.problems == [f"problem: {problem}"]


def test_incomplete_release_is_not_compared(release_copy, release):
    (release_copy / TEST).unlink()

    with pytest.raises(PackagingError, match=f"{TEST} is missing. Build the release again"):
        compare_release(release_copy, str(release))


@pytest.fixture
def published(moto_port, release, tmp_path, monkeypatch) -> None:
    """The release on a local S3 server; an artifacts file lists its objects."""
    from allen2022_surface_packaging.publish.upload import publish_release

    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{moto_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS", str(tmp_path / "artifacts.json"))
    client = boto3.client("s3")
    client.create_bucket(Bucket="compared")
    client.put_bucket_versioning(Bucket="compared", VersioningConfiguration={"Status": "Enabled"})
    (tmp_path / "artifacts.json").write_text("{}")
    publish_release(release, "compared/prefix", artifacts_path=tmp_path / "artifacts.json", allow_simulated=True)


def test_release_is_compared_with_a_published_object_or_its_region(published, release_copy, monkeypatch, run_verify):
    # Without its own source the plugin would load the release itself from here.
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_DIR", str(release_copy))
    for identifier in (f"{NAME}.train", f"{NAME}.test", f"{NAME}.V4.test"):
        assert compare_release(release_copy, identifier).verdict == "identical"

    texts = flip_bit(release_copy)
    result = run_verify(release_copy, "--against", f"{NAME}.test")

    assert result.status == 1
    assert all(text in result.out for text in texts)
    assert compare_release(release_copy, f"{NAME}.V4.test").verdict == "identical"  # the bit is in IT


@pytest.mark.parametrize("identifier", ["nowhere", f"{NAME}.V1.V2.train", f"{NAME}.sometimes"])
def test_text_that_names_neither_release_nor_object_is_refused(release_copy, identifier):
    with pytest.raises(PackagingError, match="neither the folder of a release.*nor an identifier such as"):
        compare_release(release_copy, identifier)


def test_object_that_cannot_be_loaded_is_an_error_with_its_reason(release_copy, tmp_path, monkeypatch):
    (tmp_path / "artifacts.json").write_text("{}")
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS", str(tmp_path / "artifacts.json"))

    with pytest.raises(PackagingError, match=f"{NAME}.train cannot be loaded: .*lists nothing"):
        compare_release(release_copy, f"{NAME}.train")


def change_image(release, change) -> str:
    """Change the first test image, and return its name."""
    path = min((release / "stimuli_test").iterdir())
    with Image.open(path) as image:
        changed = change(image.copy())
    changed.save(path)
    return path.name


def test_image_of_another_shape_or_kind_is_a_difference(tiny_copy, tiny_release):
    for change, text in (
        (lambda image: image.resize((4, 8)), "shape (8, 4, 3) here, (8, 8, 3) there"),
        (lambda image: image.convert("L"), "is L, expected RGB"),
    ):
        change_image(tiny_copy, change)

        difference = compare_by_kind(tiny_copy, tiny_release)["images (0 to 255)"]

        assert text in difference.description
        assert (difference.n_differing, difference.n_beyond, difference.largest) == (1, 1, np.inf)


def test_missing_image_is_a_difference_on_either_side(tiny_copy, tiny_release):
    path = min((tiny_copy / "stimuli_train").iterdir())
    path.unlink()

    for here, there in ((tiny_copy, tiny_release), (tiny_release, tiny_copy)):
        comparison = compare_release(here, str(there))
        assert comparison.verdict == "different"
        assert f"{path} is missing" in comparison.problems[0]


def test_file_names_may_differ_if_the_images_are_equal(tiny_copy, tiny_release):
    path = min((tiny_copy / "stimuli_test").iterdir())
    path.rename(path.with_name("first.png"))
    table_path = tiny_copy / "stimulus_metadata_test.csv"
    table_path.write_text(table_path.read_text().replace(path.name, "first.png"))

    assert compare_release(tiny_copy, str(tiny_release)).verdict == "identical"


def test_other_type_of_values_is_a_difference(tiny_copy, tiny_release):
    rewrite_assembly(tiny_copy, "planted_test.nc", lambda assembly: assembly.astype(np.float64))

    comparison = compare_release(tiny_copy, str(tiny_release))

    (difference,) = comparison.differences
    assert difference.kind == "kind of assembly"
    assert (difference.n_differing, difference.n_beyond, difference.n_compared) == (1, 1, 1)
    assert "float64 of presentation, neuroid, time_bin (1 time bins) here, float32" in comparison.problems[0]


def test_values_that_are_no_numbers_are_not_compared(tiny_copy, tiny_release):
    rewrite_assembly(tiny_copy, "planted_test.nc", lambda assembly: assembly.astype("U8"))

    assert "kind of assembly" in compare_by_kind(tiny_copy, tiny_release)
    with pytest.raises(PackagingError, match="The values of test cannot be compared: both assemblies hold"):
        compare_release(tiny_copy, str(tiny_copy))


def test_second_time_bin_is_not_overlooked(tiny_copy, tiny_release):
    def change(assembly):
        return xarray.concat([assembly, assembly + 1], "time_bin")

    rewrite_assembly(tiny_copy, "planted_test.nc", change)

    assert "kind of assembly" in compare_by_kind(tiny_copy, tiny_release)
    with pytest.raises(
        PackagingError, match="both assemblies hold .*2 time bins.*, expected numbers of .*one time bin"
    ):
        compare_release(tiny_copy, str(tiny_copy))


def test_assembly_without_time_bins_is_not_compared(tiny_copy, tiny_release):
    rewrite_assembly(tiny_copy, PLANTED_TEST, lambda assembly: assembly[:, :, 0])

    for here, there in ((tiny_copy, tiny_release), (tiny_release, tiny_copy)):
        comparison = compare_release(here, str(there))
        assert "float32 of presentation, neuroid (0 time bins)" in comparison.problems[0]
        assert set(comparison.filled["test"].values()) == {0}


def test_values_that_cannot_be_read_are_one_line_and_no_file_stays_open(tiny_copy, tiny_release):
    with xarray.open_dataarray(tiny_copy / PLANTED_TEST) as opened:
        assembly = opened.load()
    (tiny_copy / PLANTED_TEST).unlink()
    assembly.encoding.clear()
    assembly.to_netcdf(tiny_copy / PLANTED_TEST, encoding={"data": {"zlib": True}})
    with h5py.File(tiny_copy / PLANTED_TEST) as file:
        chunk = file["data"].id.get_chunk_info(0)
    with (tiny_copy / PLANTED_TEST).open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"x" * chunk.size)

    for here, there, message in (
        (tiny_copy, tiny_release, f"^{tiny_copy / PLANTED_TEST} cannot be read .* Is the disk sound"),
        (tiny_release, tiny_copy, f"^{tiny_release} and {tiny_copy} cannot be compared .* says what is wrong"),
    ):
        with pytest.raises(PackagingError, match=message) as raised:
            compare_release(here, str(there))
        assert "\n" not in str(raised.value)
        assert not any(path.endswith(".nc") for path in list_open_files())


def test_neuroids_without_region_and_subject_are_compared_as_one_group(tiny_copy, tiny_release):
    rewrite_assembly(tiny_copy, "planted_test.nc", lambda assembly: (assembly + 1).drop_vars(["region", "subject"]))

    differences = compare_by_kind(tiny_copy, tiny_release)

    assert differences["coordinate region"].description == "only there"
    assert differences["values of all neuroids"].largest == pytest.approx(1)


def test_file_that_is_no_assembly_is_named(tiny_copy, tiny_release):
    path = tiny_copy / "planted_test.nc"
    path.write_bytes(b"not NetCDF")

    for here, there in ((tiny_copy, tiny_release), (tiny_release, tiny_copy)):
        with pytest.raises(PackagingError, match=f"{path} cannot be read as a NetCDF file with one assembly"):
            compare_release(here, str(there))
