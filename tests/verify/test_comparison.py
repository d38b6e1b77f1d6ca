"""Releases with one thing wrong, held against the raw files and against the release as it was built.

The manifest is made to agree with each damaged file, so that it is never only the hash that notices.
"""

import json
import shutil
from pathlib import Path

import boto3
import netCDF4
import nibabel
import numpy as np
import pandas as pd
import pytest
import xarray
from moto.server import ThreadedMotoServer
from PIL import Image

import reference
from allen2022_surface_packaging.build.pipeline import Method, build_release
from allen2022_surface_packaging.cli import main
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.files import SUBJECTS
from allen2022_surface_packaging.nsd.simulation import Recipe, simulate_tree
from allen2022_surface_packaging.release import sha1_of
from allen2022_surface_packaging.verify.comparison import compare_release
from allen2022_surface_packaging.verify.recomputation import recompute_release
from allen2022_surface_packaging.verify.soundness import verify_release

NAME = "Allen2022_fmri_surface"
TRAIN, TEST = f"{NAME}_train.nc", f"{NAME}_test.nc"
SUBJECT_NAMES = [f"subj{subject:02d}" for subject in SUBJECTS]


def accept(release, *names) -> None:
    """Make the manifest agree with files, so that something else than their hashes must notice."""
    manifest = json.loads((release / "release.json").read_text())
    for name in names:
        manifest["files"][name] = {"size": (release / name).stat().st_size, "sha1": sha1_of(release / name)}
    (release / "release.json").write_text(json.dumps(manifest))


def change_values(release, name, change) -> None:
    with netCDF4.Dataset(release / name, "r+") as file:
        values = file["data"][:].data
        change(values)
        file["data"][:] = values
    accept(release, name)


def coordinates(release, name=TEST) -> dict[str, np.ndarray]:
    with xarray.open_dataarray(release / name) as assembly:
        return {coordinate: values.values for coordinate, values in assembly.coords.items()}


def flip_bit(release):
    """Flip one bit in the middle of the mantissa of one value."""

    def change(values):
        values.view(np.uint32)[40, 333, 0] ^= 1 << 15

    change_values(release, TEST, change)
    own = coordinates(release)
    return [f"{own['stimulus_id'][40]} repetition {own['repetition'][40]}", own["neuroid_id"][333]]


def swap_repetitions(release):
    def change(values):
        values[[30, 31]] = values[[31, 30]]

    change_values(release, TEST, change)
    name = coordinates(release)["stimulus_id"][30]
    return [f"{name} repetition 0", f"{name} repetition 1"]


def swap_neuroids(release):
    def change(values):
        values[:, [700, 703]] = values[:, [703, 700]]

    change_values(release, TRAIN, change)
    return list(coordinates(release)["neuroid_id"][[700, 703]])


def lose_value(release):
    def change(values):
        values[17, 250] = np.nan

    change_values(release, TRAIN, change)
    own = coordinates(release, TRAIN)
    return [own["stimulus_id"][17], own["neuroid_id"][250]]


def swap_images(release):
    first, second = sorted((release / "stimuli_test").iterdir())[:2]
    pixels = [np.asarray(Image.open(path)) for path in (first, second)]
    for path, own in zip((second, first), pixels, strict=True):
        Image.fromarray(own).save(path)
        accept(release, f"stimuli_test/{path.name}")
    return [first.stem]


def change_pixel(release):
    path = sorted((release / "stimuli_train").iterdir())[3]
    pixels = np.asarray(Image.open(path)).copy()
    pixels[20, 31, 1] += 1
    Image.fromarray(pixels).save(path)
    accept(release, f"stimuli_train/{path.name}")
    return [path.stem, "pixel (row 20, column 31)", str(pixels[20, 31].tolist())]


def move_vertex(release):
    """Count one vertex one too high, in both splits, where that keeps their order."""
    vertices = coordinates(release)["vertex_index"]
    place = int(np.flatnonzero(np.diff(vertices) > 1)[10])
    for name in (TRAIN, TEST):
        with netCDF4.Dataset(release / name, "r+") as file:
            file["vertex_index"][place] += 1
    accept(release, TRAIN, TEST)
    return ["vertex_index", f"{vertices[place]}", f"{vertices[place] + 1}"]


def move_noise_ceiling(release):
    for name in (TRAIN, TEST):
        with netCDF4.Dataset(release / name, "r+") as file:
            file["nc_testset"][200] += 0.01
    accept(release, TRAIN, TEST)
    return ["nc_testset"]


def move_coco_id(release):
    path = release / "stimulus_metadata_test.csv"
    table = pd.read_csv(path)
    table.loc[4, "coco_id"] += 1
    table.to_csv(path, index=False)
    accept(release, path.name)
    return ["coco_id", str(table.coco_id[4])]


DAMAGES = [
    flip_bit,
    swap_repetitions,
    swap_neuroids,
    lose_value,
    swap_images,
    change_pixel,
    move_vertex,
    move_noise_ceiling,
    move_coco_id,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_recomputing_from_the_raw_files_names_the_place_of_the_damage(own_release, nsd_tree, capsys, damage):
    places = damage(own_release)

    with pytest.raises(SystemExit) as exit:
        main(["verify", str(own_release), "--nsd-root", str(nsd_tree), "--all"])

    assert exit.value.code == 1
    problems = [line for line in capsys.readouterr().out.splitlines() if line.startswith("problem: ")]
    for place in places:
        assert any(place in problem for problem in problems), (place, problems)
    assert json.loads((own_release / "verify.json").read_text())["nsd_root"]["problems"]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_comparing_with_the_release_as_built_names_the_place_of_the_damage(own_release, release, capsys, damage):
    places = damage(own_release)

    with pytest.raises(SystemExit) as exit:
        main(["verify", str(own_release), "--against", str(release)])

    assert exit.value.code == 1
    problems = [line for line in capsys.readouterr().out.splitlines() if line.startswith("problem: ")]
    for place in places:
        assert any(place in problem for problem in problems), (place, problems)
    findings = json.loads((own_release / "verify.json").read_text())["against"]
    assert findings["verdict"] == "different"
    assert findings["differences"]


def test_a_release_as_built_is_what_the_raw_files_give(release, four_subject_release, nsd_tree, tmp_path, capsys):
    for path in (release, four_subject_release):
        own = Path(shutil.copytree(path, tmp_path / path.name))
        with pytest.raises(SystemExit) as exit:
            main(["verify", str(own), "--nsd-root", str(nsd_tree), "--all"])

        assert exit.value.code == 0
        findings = json.loads((own / "verify.json").read_text())["nsd_root"]
        assert findings["problems"] == []
        assert sum(row["values"] for row in findings["differences"]) == sum(
            np.prod(shape) for shape in json.loads((own / "release.json").read_text())["shapes"].values()
        )
        assert 0 < max(row["largest difference"] for row in findings["differences"]) < 1e-5
        assert "largest difference" in capsys.readouterr().out
        with pytest.raises(SystemExit) as exit:
            main(["verify", str(own)])  # verify.json is no part of the release
        assert exit.value.code == 0


def test_the_flat_layout_serves_as_well(tmp_path):
    simulate_tree(tmp_path / "nsd", Recipe(subjects=(7,), layout="flat", seed=3))
    build_release(tmp_path / "nsd", tmp_path / "r", subjects=(7,), name="flat")

    recomputation = recompute_release(tmp_path / "r", tmp_path / "nsd", every_vertex=True)

    assert recomputation.problems == []
    assert recomputation.differences["vertices"].sum() == 115


def test_the_sample_covers_every_subject_region_hemisphere_and_vertex_with_a_nan(release, nsd_tree):
    with xarray.open_dataarray(release / TEST) as test, xarray.open_dataarray(release / TRAIN) as train:
        has_zero = (test.values == 0).any(axis=(0, 2)) | (train.values == 0).any(axis=(0, 2))
    own = coordinates(release)

    sample = recompute_release(release, nsd_tree).differences

    assert sorted(zip(sample.subject, sample.region, strict=True)) == sorted(
        {(subject, region) for subject in SUBJECT_NAMES for region in ("V1", "V2", "V4", "IT")}
    )
    for row in sample.itertuples():
        n_with_zero = (has_zero & (own["subject"] == row.subject) & (own["region"] == row.region)).sum()
        assert row.vertices >= max(10, n_with_zero)
    assert sample["values"].sum() == 180 * sample.vertices.sum()  # all 102 + 78 presentations of each
    assert sample.vertices.sum() < 920


@pytest.mark.parametrize("hemisphere", ["lh", "rh"])
def test_the_sample_sees_a_group_that_is_wrong_in_one_repetition(own_release, nsd_tree, hemisphere):
    own = coordinates(own_release)
    group = (own["subject"] == "subj05") & (own["region"] == "V4") & (own["hemisphere"] == hemisphere)

    def change(values):
        values[47, group] += 1e-3

    change_values(own_release, TEST, change)

    (problem,) = recompute_release(own_release, nsd_tree).problems
    assert f"{own['stimulus_id'][47]} repetition {own['repetition'][47]}" in problem
    assert f"subj05_{hemisphere}_V4" in problem


def test_a_filled_value_that_is_not_zero_is_found_by_the_sample(own_release, nsd_tree):
    own = coordinates(own_release)
    places = []

    def change(values):
        row, column, _ = np.argwhere((values == 0) & (np.abs(values).max(axis=0) > 0))[0]
        values[row, column] = 0.5
        places.extend([row, column])

    change_values(own_release, TEST, change)
    row, column = places

    (problem,) = recompute_release(own_release, nsd_tree).problems
    assert own["neuroid_id"][column] in problem
    assert f"{own['stimulus_id'][row]} repetition {own['repetition'][row]}" in problem
    assert "is 0.5, but the raw files give 0:" in problem


def test_a_wrong_count_of_filled_values_is_found(own_release, nsd_tree):
    manifest = json.loads((own_release / "release.json").read_text())
    manifest["nan_counts"]["subj03"]["IT"]["test"] += 1
    (own_release / "release.json").write_text(json.dumps(manifest))

    (problem,) = recompute_release(own_release, nsd_tree).problems
    assert "filled values of subj03 IT" in problem


def wrong_split(monkeypatch):
    monkeypatch.setattr("allen2022_surface_packaging.nsd.trials.SPLIT_SEED", 41)
    return "stimulus_id of presentation"


def wrong_average(monkeypatch):
    from allen2022_surface_packaging.build import pipeline as build

    right = build.average_repetitions
    monkeypatch.setattr(build, "average_repetitions", lambda responses: right(responses[:, :2]))
    return "differ by more than 1e-05"


def wrong_noise_ceiling(monkeypatch):
    from allen2022_surface_packaging.nsd import regions

    right = regions.noise_ceiling
    monkeypatch.setattr(regions, "noise_ceiling", lambda ncsnr: right(ncsnr, 2))
    return "nc_testset of neuroid 0 is"


@pytest.mark.parametrize("fault", [wrong_split, wrong_average, wrong_noise_ceiling], ids=lambda fault: fault.__name__)
def test_a_fault_of_the_builder_is_not_repeated(nsd_tree, tmp_path, monkeypatch, fault):
    message = fault(monkeypatch)
    build_release(nsd_tree, tmp_path / "r", subjects=(1, 3), name="faulty")

    assert verify_release(tmp_path / "r") == []
    assert any(message in problem for problem in recompute_release(tmp_path / "r", nsd_tree).problems)


@pytest.mark.parametrize(("standardize_on", "nan_policy"), [("train", "zero"), ("all", "drop"), ("train", "drop")])
def test_other_methods_are_recomputed_as_their_release_says(nsd_tree, tmp_path, standardize_on, nan_policy):
    build_release(
        nsd_tree, tmp_path / "r", subjects=(1, 3), method=Method(standardize_on, nan_policy), name="of_another_method"
    )

    for every_vertex in (False, True):
        recomputation = recompute_release(tmp_path / "r", nsd_tree, every_vertex=every_vertex)

        assert recomputation.problems == []
        assert 0 < recomputation.differences["largest difference"].max() < 1e-5


def test_a_release_of_another_method_than_it_says_is_found(nsd_tree, tmp_path):
    build_release(nsd_tree, tmp_path / "r", subjects=(1, 3), method=Method("train"), name="of_another_method")
    manifest = json.loads((tmp_path / "r/release.json").read_text())
    manifest["options"]["standardize_on"] = "all"
    (tmp_path / "r/release.json").write_text(json.dumps(manifest))

    problems = recompute_release(tmp_path / "r", nsd_tree).problems

    assert len(problems) == 8  # each region of both subjects
    assert "differ by more than 1e-05" in problems[0]


def test_vertices_dropped_or_kept_against_the_raw_files_are_named(own_tree, tmp_path):
    build_release(own_tree, tmp_path / "r", subjects=(1, 3), method=Method(nan_policy="drop"), name="dropped")
    with xarray.open_dataarray(tmp_path / "r/dropped_test.nc") as assembly:
        kept = assembly["vertex_index"].values[(assembly["subject"] == "subj01") & (assembly["hemisphere"] == "rh")]
    for session in range(1, 5):
        path = (
            own_tree
            / f"nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR/rh.betas_session{session:02d}.mgh"
        )
        betas = np.nan_to_num(np.asarray(nibabel.load(path).dataobj), nan=1)
        betas[kept[0], 0, 0, 0] = np.nan
        nibabel.save(nibabel.freesurfer.MGHImage(betas.astype(np.float32), np.eye(4)), path)

    problems = recompute_release(tmp_path / "r", own_tree, every_vertex=True).problems

    assert any("was dropped, but all its needed trials are valid" in problem for problem in problems)
    assert any(
        "subj01_rh" in problem and "is in the release, but has a NaN among its needed trials" in problem
        for problem in problems
    )


def test_releases_from_prepared_averages_are_recomputed_from_them(own_tree, tmp_path):
    reference.prepare_regions(own_tree, (1, 3))
    build_release(own_tree, tmp_path / "r", subjects=(1, 3), name="prepared", from_region_assemblies=True)
    assert recompute_release(tmp_path / "r", own_tree, every_vertex=True).problems == []
    path = own_tree / "assemblies/Allen2022_surface.V2.nc"
    with netCDF4.Dataset(path, "r+") as file:
        name = next(name for name, variable in file.variables.items() if variable.ndim == 2 and variable.dtype == "f4")
        file[name][:, 5] = file[name][:, 5][::-1]

    problems = recompute_release(tmp_path / "r", own_tree, every_vertex=True).problems

    assert len(problems) == 1
    assert "subj01_lh_V2_v00005" in problems[0]


def test_jpeg_images_are_held_against_what_jpeg_makes_of_the_raw_ones(nsd_tree, tmp_path):
    build_release(nsd_tree, tmp_path / "r", subjects=(1, 3), name="jpeg", image_format="jpg")
    assert recompute_release(tmp_path / "r", nsd_tree).problems == []
    first, second = sorted((tmp_path / "r/stimuli_test").iterdir())[:2]
    shutil.copyfile(first, second)

    (problem,) = recompute_release(tmp_path / "r", nsd_tree).problems
    assert f"{second}: pixel" in problem


def test_images_that_an_earlier_packaging_extracted_are_held_against_those(own_tree, tmp_path):
    build_release(own_tree, tmp_path / "first", subjects=(1, 3), name="first", image_format="jpg")
    for split in ("train", "test"):
        shutil.copytree(tmp_path / f"first/stimuli_{split}", own_tree / f"brainscore/stimuli_{split}")
    (own_tree / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5").unlink()
    build_release(own_tree, tmp_path / "r", subjects=(1, 3), name="copied")
    assert recompute_release(tmp_path / "r", own_tree).problems == []
    path = min((tmp_path / "r/stimuli_train").iterdir())
    path.write_bytes(path.read_bytes() + b"x")

    (problem,) = recompute_release(tmp_path / "r", own_tree).problems
    assert f"{path} is not the image that" in problem


@pytest.mark.parametrize(
    "name",
    [
        "nsddata/freesurfer/fsaverage/label/lh.streams.mgz",
        "nsddata/experiments/nsd/nsd_expdesign.mat",
        "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR/lh.betas_session01.mgh",
        "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR/rh.ncsnr.mgh",
        "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5",
    ],
)
def test_a_damaged_raw_file_ends_in_one_line(release, own_tree, name):
    content = (own_tree / name).read_bytes()
    (own_tree / name).write_bytes(content[: len(content) // 3])

    with pytest.raises(
        PackagingError, match=r"cannot be recomputed from .*\. Do they belong together, and are both whole"
    ):
        recompute_release(release, own_tree)


def test_a_table_without_its_columns_ends_in_one_line(own_release, release, nsd_tree):
    path = own_release / "stimulus_metadata_test.csv"
    pd.read_csv(path).drop(columns="nsd_id").to_csv(path, index=False)
    accept(own_release, path.name)

    assert any("cannot be checked: AttributeError" in problem for problem in verify_release(own_release))
    with pytest.raises(PackagingError, match="cannot be recomputed from .*nsd_id"):
        recompute_release(own_release, nsd_tree)
    with pytest.raises(SystemExit) as exit:
        main(["verify", str(own_release), "--against", str(release)])
    assert exit.value.code == 1


def test_a_wrong_neuroid_id_is_found_where_some_were_dropped(nsd_tree, tmp_path):
    build_release(nsd_tree, tmp_path / "r", subjects=(1, 3), method=Method(nan_policy="drop"), name="dropped")
    assert verify_release(tmp_path / "r") == []
    for new in ("subj01_lh_V1_v00001", "subj01_rh_V1_v00000", "somebody"):
        for name in ("dropped_train.nc", "dropped_test.nc"):
            ids = list(coordinates(tmp_path / "r", name)["neuroid_id"])
            ids[4] = new
            rewrite(tmp_path / "r", name, lambda assembly, ids=ids: assembly.assign_coords(neuroid_id=("neuroid", ids)))

        assert any("neuroid 4 " in problem for problem in verify_release(tmp_path / "r")), new


def test_a_raw_file_that_is_gone_or_of_another_tree_is_named(release, own_tree):
    path = own_tree / "nsddata_betas/ppdata/subj02/fsaverage/betas_fithrf_GLMdenoise_RR/rh.betas_session02.mgh"
    path.unlink()

    with pytest.raises(PackagingError, match=r"rh.betas_session02.mgh is missing, but the release was made from it"):
        recompute_release(release, own_tree)


def test_a_tree_with_another_design_is_no_match(release, own_tree):
    import scipy.io

    path = own_tree / "nsddata/experiments/nsd/nsd_expdesign.mat"
    design = {name: value for name, value in scipy.io.loadmat(path).items() if not name.startswith("__")}
    design["masterordering"] = design["masterordering"][:, ::-1]
    scipy.io.savemat(path, design)

    problems = recompute_release(release, own_tree).problems

    assert any("stimulus_id of presentation" in problem for problem in problems)


def test_two_builds_are_identical(own_release, release):
    comparison = compare_release(own_release, str(release))

    assert comparison.verdict == "identical"
    assert comparison.differences == []
    assert comparison.filled["test"]["both"] > 0


def test_the_last_bit_of_one_value_is_within_tolerance_and_still_named(own_release, release, capsys):
    def change(values):
        values.view(np.uint32)[40, 333, 0] ^= 1

    change_values(own_release, TEST, change)
    own = coordinates(release)

    with pytest.raises(SystemExit) as exit:
        main(["verify", str(own_release), "--against", str(release)])

    assert exit.value.code == 0
    assert "are the same within tolerance" in capsys.readouterr().out
    findings = json.loads((own_release / "verify.json").read_text())["against"]
    assert findings["verdict"] == "the same within tolerance"
    (row,) = findings["differences"]
    assert (row["differ"], row["beyond tolerance"]) == (1, 0)
    assert own["stimulus_id"][40] in row["where"]
    assert own["neuroid_id"][333] in row["where"]
    assert 0 < row["largest"] < 1e-6


def test_what_differs_is_told_from_what_only_rounds_differently(own_release, release):
    def change(values):
        values *= 1 + 1e-7
        values[[30, 31], 500:501] = values[[31, 30], 500:501]

    change_values(own_release, TEST, change)
    own = coordinates(release)

    comparison = compare_release(own_release, str(release))

    (problem,) = comparison.problems
    assert f"{own['subject'][500]} {own['region'][500]}: 2 of " in problem
    assert f"in 1 neuroid ({own['neuroid_id'][500]}) and 2 presentations" in problem
    assert len(comparison.differences) == 32  # every subject's every region, in its last bits


def test_another_way_to_fill_is_counted_apart_from_values_that_differ(own_release, release):
    n_filled = 0

    def change(values):
        nonlocal n_filled
        n_filled = int((values == 0).sum())
        values[values == 0] = np.nan

    change_values(own_release, TRAIN, change)

    comparison = compare_release(own_release, str(release))

    assert comparison.verdict == "the same within tolerance"
    assert comparison.filled["train"]["NaN here, zero there"] == n_filled > 0
    assert comparison.filled["train"]["both"] == n_filled
    assert [row["what"] for row in comparison.differences] == ["cells filled with NaN here, zero there"]


def test_a_value_that_is_filled_in_one_only_is_a_difference_of_its_own_kind(own_release, release):
    def change(values):
        values[9, 100] = 0

    change_values(own_release, TRAIN, change)
    own = coordinates(release, TRAIN)

    comparison = compare_release(own_release, str(release))

    (row,) = comparison.differences
    assert comparison.verdict == "different"
    assert row["what"] == f"cells filled in one only of {own['subject'][100]} {own['region'][100]}"
    assert f"{own['stimulus_id'][9]}, {own['neuroid_id'][100]}: 0 here" in row["where"]
    assert comparison.filled["train"]["here only"] == 1


def rewrite(release, name, change) -> None:
    """Write an assembly anew, as another program might."""
    with xarray.open_dataarray(release / name) as assembly:
        changed = change(assembly.load())
    changed.encoding.pop("coordinates", None)  # which may be fewer now
    (release / name).unlink()
    changed.to_netcdf(release / name)
    accept(release, name)


def test_another_order_is_a_difference_and_the_values_are_still_compared_in_pairs(own_release, release, rng):
    neuroids, presentations = np.arange(920), np.arange(78)
    neuroids[[4, 800]], presentations[[6, 60]] = neuroids[[800, 4]], presentations[[60, 6]]
    rewrite(own_release, TEST, lambda assembly: assembly[presentations][:, neuroids])
    own = coordinates(release)

    comparison = compare_release(own_release, str(release))

    assert {row["what"] for row in comparison.differences} == {"order of presentations", "order of neuroids"}
    assert f"{own['neuroid_id'][800]} is number 4 here, 800 there" in str(comparison.differences)


def test_missing_neuroids_presentations_and_coordinates_are_named(own_release, release):
    rewrite(own_release, TEST, lambda assembly: assembly[:-1, 1:].drop_vars("nsd_id"))
    own = coordinates(release)

    differences = {row["what"]: row for row in compare_release(own_release, str(release)).differences}

    assert differences["presentations only there"]["where"] == f"{own['stimulus_id'][-1]} repetition 2"
    assert differences["neuroids only there"]["where"] == own["neuroid_id"][0]
    assert differences["coordinate nsd_id"]["where"] == "only there"
    assert not any(what.startswith("values") for what in differences)


def test_releases_of_other_subjects_share_what_they_share(release, four_subject_release):
    differences = {
        (row["split"], row["what"]): row for row in compare_release(four_subject_release, str(release)).differences
    }

    assert differences["test", "neuroids only there"]["differ"] == 460
    assert ("test", "neuroids only here") not in differences
    assert differences["test", "presentations only here"]["differ"] > 0  # more images are complete
    # standardised over other images, so no value agrees
    assert differences["test", "values of subj01 V1"]["largest"] > 1e-5


def test_swapped_coordinates_of_neuroids_are_found(own_release, release):
    def change(assembly):
        vertices = assembly["vertex_index"].values.copy()
        vertices[[20, 21]] = vertices[[21, 20]]
        return assembly.assign_coords(vertex_index=("neuroid", vertices))

    rewrite(own_release, TEST, change)
    own = coordinates(release)

    differences = {row["what"]: row for row in compare_release(own_release, str(release)).differences}

    assert differences["coordinate vertex_index"]["differ"] == 2
    assert own["neuroid_id"][20] in differences["coordinate vertex_index"]["where"]


@pytest.fixture(scope="module")
def bucket():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def client(bucket, monkeypatch):
    for name, value in {
        "AWS_ENDPOINT_URL": bucket,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return boto3.client("s3")


def test_a_tree_in_a_bucket_serves_as_well(client, nsd_tree, tmp_path):
    build_release(nsd_tree, tmp_path / "r", subjects=(3,), name="one")
    client.create_bucket(Bucket="raw")
    for path in nsd_tree.rglob("*"):
        if path.is_file() and ("ppdata" not in str(path) or "subj03" in str(path)):
            client.upload_file(str(path), "raw", f"some/where/{path.relative_to(nsd_tree)}")

    recomputation = recompute_release(tmp_path / "r", "s3://raw/some/where", every_vertex=True)

    assert recomputation.problems == []
    pd.testing.assert_frame_equal(
        recomputation.differences, recompute_release(tmp_path / "r", nsd_tree, every_vertex=True).differences
    )


@pytest.fixture
def published(client, release, tmp_path, monkeypatch):
    """The release, uploaded to a local S3 and listed in an artifacts.json of its own."""
    from allen2022_surface_packaging.publish.upload import publish_release

    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS", str(tmp_path / "artifacts.json"))
    client.create_bucket(Bucket="packaged")
    client.put_bucket_versioning(Bucket="packaged", VersioningConfiguration={"Status": "Enabled"})
    (tmp_path / "artifacts.json").write_text("{}")
    publish_release(release, "packaged/prefix", artifacts_path=tmp_path / "artifacts.json")


def test_a_release_is_compared_with_a_published_object_whole_or_by_region(published, own_release, monkeypatch, capsys):
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_DIR", str(own_release))  # or it would be compared with itself
    for identifier in (f"{NAME}.train", f"{NAME}.test", f"{NAME}.V4.test"):
        assert compare_release(own_release, identifier).verdict == "identical"

    places = flip_bit(own_release)
    with pytest.raises(SystemExit) as exit:
        main(["verify", str(own_release), "--against", f"{NAME}.test"])

    assert exit.value.code == 1
    output = capsys.readouterr().out
    assert all(place in output for place in places)
    assert compare_release(own_release, f"{NAME}.V4.test").verdict == "identical"  # the bit is in IT


@pytest.mark.parametrize("identifier", ["nowhere", f"{NAME}.V1.V2.train", f"{NAME}.sometimes"])
def test_what_is_no_release_and_no_identifier_is_refused(own_release, identifier):
    with pytest.raises(PackagingError, match="neither the folder of a release.*nor an identifier such as"):
        compare_release(own_release, identifier)


def test_an_object_that_cannot_be_had_is_an_error_that_says_why(own_release, tmp_path, monkeypatch):
    (tmp_path / "artifacts.json").write_text("{}")
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS", str(tmp_path / "artifacts.json"))

    with pytest.raises(PackagingError, match=f"{NAME}.train cannot be loaded: .*lists nothing"):
        compare_release(own_release, f"{NAME}.train")


def test_a_release_that_is_not_whole_is_refused(own_release, release, nsd_tree):
    (own_release / TEST).unlink()

    with pytest.raises(PackagingError, match="cannot be compared .*Is the release whole"):
        compare_release(own_release, str(release))
    with pytest.raises(PackagingError, match="cannot be recomputed from"):
        recompute_release(own_release, nsd_tree)


@pytest.mark.parametrize("option", [["--all"], ["--seed", "3"]])
def test_options_of_recomputation_need_raw_files(release, option, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["verify", str(release), *option])

    assert exit.value.code == 2
    assert "--all and --seed are of --nsd-root" in capsys.readouterr().err
