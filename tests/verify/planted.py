"""Every kind of error that a release can hold, one at a time. Hashes agree with the changed files, as a wrong builder's would.

An error is a function that changes one thing in a release. `FOUND_BY` says which form of `verify` finds it at the latest.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import xarray
from PIL import Image

from support import accept
from verify.damages import change_values

NAME = "planted"
TRAIN, TEST = f"{NAME}_train.nc", f"{NAME}_test.nc"
SPLIT, ORIGINS = "train_test_split.csv", "stimulus_origin.csv"
TRAIN_TABLE, TEST_TABLE = "stimulus_metadata_train.csv", "stimulus_metadata_test.csv"
DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"
STIMULUS_INFO = "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
IMAGES = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
BETAS = "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR/{}.betas_session01.mgh"
RELEASE, RAW_FILES, ALL, NOTHING = "verify", "verify --nsd-root", "verify --nsd-root --all", "nothing"

Error = Callable[[Path], object]
FOUND_BY: dict[str, tuple[Error, str]] = {}


def plant(error_name: str, found_by: str, error: Error) -> None:
    assert error_name not in FOUND_BY
    FOUND_BY[error_name] = (error, found_by)


def manifest(change: Callable[[dict], object]) -> Error:
    """Return an error in release.json."""

    def error(release):
        path = release / "release.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return error


def put(value, *keys) -> Error:
    """Return an error that puts a value under a key of release.json; a function changes the value that is there."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value(content[keys[-1]]) if callable(value) else value

    return manifest(change)


def drop(*keys) -> Error:
    """Return an error that removes a key of release.json."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return manifest(change)


def swap_region(content) -> None:
    for regions in (content["regions"], content["recipe"]["regions"]):
        regions[0], regions[1] = regions[1], regions[0]


def move_counts(content) -> None:
    counts = content["nan_counts"]["subj01"]
    counts["V2"], counts["IT"] = counts["IT"], counts["V2"]


def lose_session(content) -> None:
    for hemisphere in ("lh", "rh"):
        del content["inputs"][BETAS.format(hemisphere)]


def write_twice(release) -> None:
    path = release / "release.json"
    path.write_text(path.read_text().replace('"n_vertices": 642', '"n_vertices": 642, "n_vertices": 642'))


def add(number) -> Callable[[int], int]:
    return lambda value: value + number


plant("name", RELEASE, put("other", "name"))
plant("recipe: name", RELEASE, put("other", "recipe", "name"))
plant("recipe: one subject less", RELEASE, put([1], "recipe", "subjects"))
plant("recipe: another subject", RELEASE, put([1, 3], "recipe", "subjects"))
plant("recipe: name of a region", RELEASE, put("V9", "recipe", "regions", 0, "name"))
plant("recipe: atlas of a region", RELEASE, put("streams", "recipe", "regions", 0, "atlas"))
plant("recipe: labels of a region", RELEASE, put([1, 3], "recipe", "regions", 0, "labels"))
plant("recipe: each", RELEASE, put(True, "recipe", "regions", 0, "each"))
plant("recipe: a region less", RELEASE, put(lambda regions: regions[:-1], "recipe", "regions"))
plant("recipe: order of regions", RELEASE, manifest(swap_region))
plant("recipe: standardize_on", RELEASE, put("train", "recipe", "standardize_on"))
plant("recipe: nan_policy", RELEASE, put("drop", "recipe", "nan_policy"))
plant("recipe: betas", RELEASE, put("betas_fithrf", "recipe", "betas"))
plant("recipe: pool", RELEASE, put("own", "recipe", "pool"))
plant("recipe: train_fraction", RELEASE, put(0.7, "recipe", "train_fraction"))
plant("recipe: split_seed", RELEASE, put(43, "recipe", "split_seed"))
plant("recipe: a key less", RELEASE, drop("recipe", "pool"))
plant("recipe: an unknown key", RELEASE, put(1, "recipe", "smoothing"))
plant("name of a region", RELEASE, put("V9", "regions", 0, "name"))
plant("atlas of a region", RELEASE, put("streams", "regions", 0, "atlas"))
plant("labels of a region", RELEASE, put([1], "regions", 0, "labels"))
plant("labels of a region and its recipe", RAW_FILES, manifest(
    lambda m: [r[0].update(labels=[1, 3]) for r in (m["regions"], m["recipe"]["regions"])]
))  # fmt: skip
plant("n_vertices of a region", RELEASE, put(add(1), "regions", 0, "n_vertices"))
plant("order of regions", RELEASE, put(lambda regions: regions[::-1], "regions"))
plant("image_format", RELEASE, put("jpg", "image_format"))
plant("from_region_assemblies", RELEASE, put(True, "from_region_assemblies"))
plant("n_vertices too large", RELEASE, put(add(1), "n_vertices"))
plant("n_vertices too small", RELEASE, put(add(-1), "n_vertices"))
plant("n_trials_per_session too large", RELEASE, put(add(1), "n_trials_per_session"))
plant("n_trials_per_session too small", RAW_FILES, put(add(-1), "n_trials_per_session"))
plant("a session more", RAW_FILES, put(add(1), "sessions", "subj02"))
plant("a session less", RELEASE, put(add(-1), "sessions", "subj02"))
plant("sessions of another subject", RELEASE, put(4, "sessions", "subj03"))
plant("shape: presentations", RELEASE, put(add(3), "shapes", "test", 0))
plant("shape: neuroids", RELEASE, manifest(lambda m: [m["shapes"][s].__setitem__(1, 229) for s in ("train", "test")]))
plant("shape: time bins", RELEASE, put(2, "shapes", "train", 2))


def count_zeros(release) -> pd.DataFrame:
    """Count the zeros of each subject's region: all, and those of neuroids that also have other values, by split."""
    parts = []
    for split in ("train", "test"):
        with xarray.open_dataarray(release / f"{NAME}_{split}.nc") as assembly:
            zeros = (assembly.values == 0).sum(axis=(0, 2))
            beside = np.where(zeros < len(assembly), zeros, 0)
            columns = {"subject": assembly["subject"].values, "region": assembly["region"].values}
            table = pd.DataFrame({**columns, split: zeros, f"{split} beside": beside})
            parts.append(table.groupby(["subject", "region"]).sum())
    return pd.concat(parts, axis=1)


def change_count(choose: Callable[[pd.DataFrame], pd.Series], part: str, change: Callable[[int], int]) -> Error:
    """Return an error in the counts of the first region for which the zeros are as chosen."""

    def error(release):
        zeros = count_zeros(release)
        subject, region = zeros.index[choose(zeros).to_numpy()][0]
        put(change, "nan_counts", subject, region, part)(release)

    return error


def has_no_zero(zeros):
    return (zeros["train"] + zeros["test"]) == 0


def has_zeros_beside_values(zeros):
    return (zeros["train beside"] > 0) & (zeros["test beside"] > 0)


for part in ("train", "test", "neuroids"):
    plant(f"nan_counts: {part} of a region without zeros", RELEASE, change_count(has_no_zero, part, add(1)))
    plant(
        f"nan_counts: {part} below the zeros beside other values",
        RELEASE,
        change_count(has_zeros_beside_values, part, lambda n: 0),
    )
    # A constant vertex is zero as well, so that one more or one less may be true.
    plant(f"nan_counts: {part}, one more", RAW_FILES, put(add(1), "nan_counts", "subj01", "IT", part))
    plant(f"nan_counts: {part}, one less", RAW_FILES, put(add(-1), "nan_counts", "subj01", "IT", part))
plant("nan_counts: regions swapped", RELEASE, manifest(move_counts))
plant("nan_counts: a region less", RELEASE, drop("nan_counts", "subj01", "V1"))
plant("inputs: size of betas", RAW_FILES, put(add(1), "inputs", BETAS.format("lh")))
plant("inputs: size of the images", RAW_FILES, put(add(1), "inputs", IMAGES))
plant("inputs: betas that are too short", RELEASE, put(1000, "inputs", BETAS.format("lh")))
plant("inputs: no design", RELEASE, drop("inputs", DESIGN))
plant("inputs: no table of images", RELEASE, drop("inputs", STIMULUS_INFO))
plant("inputs: no images", RELEASE, drop("inputs", IMAGES))
plant("inputs: one hemisphere of a session less", RELEASE, drop("inputs", BETAS.format("rh")))
plant("inputs: a session less", RAW_FILES, manifest(lose_session))
plant("inputs: another file", RELEASE, put(5, "inputs", "nsddata/other.mat"))
plant("inputs: absolute path", RELEASE, put(5, "inputs", "/etc/passwd"))
plant("versions: another one", NOTHING, put("0.0.1", "versions", "numpy"))
plant("versions: a package less", RELEASE, drop("versions", "numpy"))
plant("versions: an empty one", RELEASE, put("", "versions", "numpy"))
plant("files: size", RELEASE, put(add(1), "files", SPLIT, "size"))
plant("files: SHA-1", RELEASE, put("0" * 40, "files", SPLIT, "sha1"))
plant("files: a file less", RELEASE, drop("files", ORIGINS))
plant("files: path that leaves the release", RELEASE, put({"size": 1, "sha1": "0" * 40}, "files", "../x"))
plant("simulated: false", RAW_FILES, put(False, "simulated"))
plant("simulated: missing", RAW_FILES, drop("simulated"))
plant("an unknown key", RELEASE, put(1, "comment"))
plant("a key twice", RELEASE, write_twice)


def table(*names: str) -> Callable[[Callable[[pd.DataFrame], pd.DataFrame]], Error]:
    """Return a function that turns a change of tables into an error in the tables of these names."""

    def make(change):
        def error(release):
            for name in names:
                changed = change(pd.read_csv(release / name, dtype=str))
                changed.to_csv(release / name, index=False, lineterminator="\n")
                accept(release, name)

        return error

    return make


def set_cell(row: int, column: str, value) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(cells):
        old = cells.loc[row, column]
        cells.loc[row, column] = value(old) if callable(value) else value
        return cells

    return change


def swap_rows(*columns: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(cells):
        chosen = list(columns or cells)
        cells.loc[[0, 1], chosen] = cells.loc[[1, 0], chosen].to_numpy()
        return cells

    return change


def change_coco_id_everywhere(release) -> None:
    for name in (TEST_TABLE, ORIGINS):
        cells = pd.read_csv(release / name, dtype=str)
        cells.loc[cells.nsd_id == pd.read_csv(release / TEST_TABLE, dtype=str).nsd_id[0], "coco_id"] = "1"
        cells.to_csv(release / name, index=False, lineterminator="\n")
        accept(release, name)


def remove_listed(*names: str) -> Error:
    def error(release):
        for name in names:
            (release / name).unlink()
            manifest(lambda content, name=name: content["files"].pop(name))(release)

    return error


def without_coco_ids(cells: pd.DataFrame) -> pd.DataFrame:
    return cells.drop(columns="coco_id")


def forget_coco_ids(release) -> None:
    remove_listed(ORIGINS)(release)
    table(TRAIN_TABLE, TEST_TABLE)(without_coco_ids)(release)


next_number = lambda text: str(int(text) + 1)  # noqa: E731
plant("coco_id", RELEASE, table(TEST_TABLE)(set_cell(0, "coco_id", next_number)))
plant("coco_id in every table", RAW_FILES, change_coco_id_everywhere)
plant("no column coco_id in one table", RELEASE, table(TEST_TABLE)(without_coco_ids))
plant("no COCO ids at all", RAW_FILES, forget_coco_ids)
plant("no table of origins", RAW_FILES, remove_listed(ORIGINS))
plant("stimuli: an extra column", RELEASE, table(TRAIN_TABLE, TEST_TABLE)(lambda cells: cells.assign(luminance="1")))
plant("stimuli: order of columns", RELEASE, table(TEST_TABLE)(lambda cells: cells[cells.columns[::-1]]))
plant("stimuli: stimulus_id", RELEASE, table(TEST_TABLE)(set_cell(0, "stimulus_id", "nsd_72999")))
plant("stimuli: file names swapped", RELEASE, table(TEST_TABLE)(swap_rows("image_file_name")))
plant("stimuli: file name", RELEASE, table(TEST_TABLE)(set_cell(0, "image_file_name", "../release.json")))
plant("stimuli: rows swapped", RELEASE, table(TEST_TABLE)(swap_rows()))
plant("stimuli: a row less", RELEASE, table(TEST_TABLE)(lambda cells: cells[1:]))
plant("stimuli: a row twice", RELEASE, table(TEST_TABLE)(lambda cells: pd.concat([cells, cells[-1:]])))
plant("stimuli: empty cell", RELEASE, table(TEST_TABLE)(set_cell(1, "coco_id", "")))
plant(
    "stimuli: number with a decimal point", RELEASE, table(TEST_TABLE)(set_cell(1, "nsd_id", lambda text: f"{text}.0"))
)
plant(
    "split: one image moved",
    RELEASE,
    table(SPLIT)(set_cell(1, "split", lambda old: {"train": "test"}.get(old, "train"))),
)
plant("split: unknown", RELEASE, table(SPLIT)(set_cell(1, "split", "validation")))
plant("split: an extra column", RELEASE, table(SPLIT)(lambda cells: cells.assign(fold="1")))
plant("split: stimulus_id", RELEASE, table(SPLIT)(set_cell(1, "stimulus_id", "nsd_72999")))
plant("split: a row less", RELEASE, table(SPLIT)(lambda cells: cells[:-1]))
plant("split: rows swapped", RELEASE, table(SPLIT)(swap_rows()))
plant("origins: an extra column", RELEASE, table(ORIGINS)(lambda cells: cells.assign(licence="1")))
plant("origins: a row less", RELEASE, table(ORIGINS)(lambda cells: cells[:-1]))
plant("origins: stimulus_id", RELEASE, table(ORIGINS)(set_cell(1, "stimulus_id", "nsd_72999")))
plant("origins: crop", RAW_FILES, table(ORIGINS)(set_cell(1, "crop_top", "0.25")))
plant("origins: impossible crop", RELEASE, table(ORIGINS)(set_cell(1, "crop_top", "1.5")))
plant("origins: COCO split", RAW_FILES, table(ORIGINS)(
    set_cell(1, "coco_split", lambda old: {"train2017": "val2017"}.get(old, "train2017"))
))  # fmt: skip
plant("origins: unknown COCO split", RELEASE, table(ORIGINS)(set_cell(1, "coco_split", "test2014")))


def image(change: Callable[[Image.Image], Image.Image], **options) -> Error:
    """Return an error in the first test image."""

    def error(release):
        path = min((release / "stimuli_test").iterdir())
        with Image.open(path) as opened:
            changed = change(opened.copy())
        changed.save(path, **options)
        accept(release, f"stimuli_test/{path.name}")

    return error


def swap_images(release) -> None:
    first, second = sorted((release / "stimuli_test").iterdir())[:2]
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    accept(release, f"stimuli_test/{first.name}")
    accept(release, f"stimuli_test/{second.name}")


def add_file(name: str) -> Error:
    def error(release):
        path = release / name
        path.write_bytes(min((release / "stimuli_test").iterdir()).read_bytes())
        accept(release, name)

    return error


def remove_image(release) -> None:
    path = min((release / "stimuli_test").iterdir())
    remove_listed(f"stimuli_test/{path.name}")(release)


plant("image: colours", RAW_FILES, image(lambda opened: opened.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
plant("images: two swapped", RAW_FILES, swap_images)
plant("image: grey", RELEASE, image(lambda opened: opened.convert("L")))
plant("image: JPEG under a name of PNG", RELEASE, image(lambda opened: opened, format="JPEG"))
plant("image: size", RELEASE, image(lambda opened: opened.resize((4, 4))))
plant("image: missing and not listed", RELEASE, remove_image)
plant("image: one more", RELEASE, add_file("stimuli_test/nsd_72999.png"))
plant("another file that the manifest lists", RELEASE, add_file("notes.txt"))
plant("an empty folder", RELEASE, lambda release: (release / "notes").mkdir())
plant("a named pipe", RELEASE, lambda release: os.mkfifo(release / "pipe"))
plant("a named pipe in place of an image", RELEASE, lambda release: [
    path := min((release / "stimuli_test").iterdir()), path.unlink(), os.mkfifo(path)
])  # fmt: skip


def netcdf(change: Callable[[netCDF4.Dataset], object], *names: str) -> Error:
    """Return an error in one or both assemblies."""

    def error(release):
        for name in names or (TEST,):
            with netCDF4.Dataset(release / name, "r+") as file:
                for variable in file.variables.values():
                    variable.set_auto_chartostring(False)
                change(file)
            accept(release, name)

    return error


def rewritten(change: Callable[[xarray.DataArray], xarray.DataArray], **encoding) -> Error:
    """Return an error that another program would make, which writes the test assembly again."""

    def error(release):
        with xarray.open_dataarray(release / TEST) as assembly:
            changed = change(assembly.load())
        changed.encoding.pop("coordinates", None)
        (release / TEST).unlink()
        changed.to_netcdf(release / TEST, encoding={"data": encoding} if encoding else None)
        accept(release, TEST)

    return error


def values(change: Callable[[np.ndarray], object], name: str = TEST) -> Error:
    return lambda release: change_values(release, name, change)


def assign(variable: str, index, value) -> Callable[[netCDF4.Dataset], None]:
    def change(file):
        old = file[variable][index]
        file[variable][index] = value(old) if callable(value) else value

    return change


def shift_vertex(subjects) -> Error:
    """Return an error that moves one vertex of IT to the next number, in some subjects."""

    def change(file):
        ids = netCDF4.chartostring(file["neuroid_id"][:])
        vertices = file["vertex_index"][:]
        for subject in subjects:
            neuroids = [i for i, name in enumerate(ids) if name.startswith(f"{subject}_lh_IT")]
            row = next(i for i in neuroids[:-1] if vertices[i + 1] > vertices[i] + 1)
            file["vertex_index"][row] += 1

    return netcdf(change, TRAIN, TEST)


def find_unsampled(assembly: np.ndarray) -> list[int]:
    """Return neuroids of IT that hold no zero, of which a sample holds a few."""
    return np.flatnonzero((assembly != 0).all(axis=(0, 2)))[-3:].tolist()


def flip_bit(array) -> None:
    array.view(np.uint32)[1, find_unsampled(array)[0], 0] ^= 1 << 18


def swap_neuroids(array) -> None:
    first, second = find_unsampled(array)[:2]
    array[:, [first, second]] = array[:, [second, first]]


def swap_repetitions(array) -> None:
    array[[0, 1]] = array[[1, 0]]


def unfill(release) -> None:
    """Put another number in place of a filled one of IT, where a constant vertex hides it from the counts."""
    with xarray.open_dataarray(release / TEST) as assembly:
        is_chosen = ((assembly["subject"] == "subj01") & (assembly["region"] == "IT")).values

    def change(array):
        is_filled = (array == 0) & (np.abs(array).max(axis=0) > 0) & is_chosen[:, None]
        row, column, _ = np.argwhere(is_filled)[0]
        array[row, column] = 0.5

    change_values(release, TEST, change)


def fill(release) -> None:
    """Put a zero into a region that has none."""
    zeros = count_zeros(release)
    subject, region = zeros.index[has_no_zero(zeros).to_numpy()][0]
    with xarray.open_dataarray(release / TEST) as assembly:
        column = np.flatnonzero(((assembly["subject"] == subject) & (assembly["region"] == region)).values)[0]
    change_values(release, TEST, lambda array: array.__setitem__((1, column), 0))


def scale(array) -> None:
    array *= 1.01


plant("attribute identifier", RELEASE, netcdf(lambda file: file["data"].setncattr("identifier", "other.test")))
plant("attribute stimulus_set_identifier", RELEASE, netcdf(
    lambda file: file["data"].setncattr("stimulus_set_identifier", "planted.train")
))  # fmt: skip
plant(
    "attribute coordinates", RELEASE, netcdf(lambda file: file["data"].setncattr("coordinates", "stimulus_id nsd_id"))
)
plant("no attribute identifier", RELEASE, netcdf(lambda file: file["data"].delncattr("identifier")))
plant("an extra attribute", RELEASE, netcdf(lambda file: file["data"].setncattr("author", "somebody")))
plant("an attribute of the file", RELEASE, netcdf(lambda file: file.setncattr("history", "changed")))
plant(
    "an attribute of a coordinate",
    RELEASE,
    netcdf(lambda file: file["nsd_id"].setncattr("units", "days since 2000-1-1")),
)
plant("attribute scale_factor", RELEASE, netcdf(lambda file: file["data"].setncattr("scale_factor", 2.0), TRAIN))
plant("name of the variable", RELEASE, netcdf(lambda file: file.renameVariable("data", "responses")))
plant("an extra variable", RELEASE, netcdf(lambda file: file.createVariable("noise", "f4", ("neuroid",))))
plant("an extra coordinate", RELEASE, rewritten(
    lambda assembly: assembly.assign_coords(session=("presentation", np.ones(assembly.sizes["presentation"], int)))
))  # fmt: skip
plant("a coordinate less", RELEASE, rewritten(lambda assembly: assembly.drop_vars("nsd_id")))
plant("a group", RELEASE, netcdf(lambda file: file.createGroup("notes")))
plant(
    "order of dimensions",
    RELEASE,
    rewritten(lambda assembly: assembly.transpose("neuroid", "presentation", "time_bin")),
)
plant("dtype of values", RELEASE, rewritten(lambda assembly: assembly.astype(np.float64)))
plant("dtype of a coordinate", RELEASE, rewritten(
    lambda assembly: assembly.assign_coords(nsd_id=("presentation", assembly["nsd_id"].values.astype(float)))
))  # fmt: skip
plant("values in chunks", RELEASE, rewritten(lambda assembly: assembly, chunksizes=(3, 20, 1), zlib=True))
plant("a neuroid less", RELEASE, rewritten(lambda assembly: assembly[:, 1:]))
plant("presentations in another order", RELEASE, rewritten(lambda assembly: assembly[::-1]))
plant("two time bins", RELEASE, rewritten(lambda assembly: xarray.concat([assembly, assembly], "time_bin")))
plant("stimulus_id of a presentation", RELEASE, netcdf(assign("stimulus_id", (0, 8), b"x")))
plant("nsd_id of a presentation", RELEASE, netcdf(assign("nsd_id", 0, add(1))))
plant("repetition of a presentation", RELEASE, netcdf(assign("repetition", 0, 1)))
plant("time_bin_start", RELEASE, netcdf(assign("time_bin_start", 0, 0)))
plant("time_bin_end", RELEASE, netcdf(assign("time_bin_end", 0, 0)))
plant("neuroid_id", RELEASE, netcdf(assign("neuroid_id", (3, 18), b"9"), TRAIN, TEST))
plant("subject of a neuroid", RELEASE, netcdf(assign("subject", (0, 5), b"2"), TRAIN, TEST))
plant("hemisphere of a neuroid", RELEASE, netcdf(assign("hemisphere", (0, 0), b"r"), TRAIN, TEST))
plant("region of a neuroid", RELEASE, netcdf(assign("region", (0, 1), b"2"), TRAIN, TEST))
plant("vertex_index of one subject", RELEASE, shift_vertex(["subj01"]))
plant("vertex_index of all subjects", RAW_FILES, shift_vertex(["subj01", "subj02"]))
plant("vertex_index outside the surface", RELEASE, netcdf(assign("vertex_index", -1, 642), TRAIN, TEST))
plant("nc_testset of one split", RELEASE, netcdf(assign("nc_testset", 0, 50.0)))
plant("nc_testset of both splits", RAW_FILES, netcdf(assign("nc_testset", 0, 50.0), TRAIN, TEST))
plant("nc_testset above 100", RELEASE, netcdf(assign("nc_testset", 0, 101.0), TRAIN, TEST))
plant("value: NaN", RELEASE, values(lambda array: array.__setitem__((1, 3, 0), np.nan)))
plant("value: infinite", RELEASE, values(lambda array: array.__setitem__((1, 3, 0), np.inf)))
plant("value: one bit", ALL, values(flip_bit))
plant("values: two neuroids swapped", ALL, values(swap_neuroids))
plant("values: two repetitions swapped", RAW_FILES, values(swap_repetitions))
plant("values: all larger by 1 %", RAW_FILES, values(scale, TRAIN))
plant("value: filled with another number", RAW_FILES, unfill)
plant("value: zero without a reason", RELEASE, fill)
