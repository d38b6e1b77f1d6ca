"""Errors in a release, one at a time. Hashes agree with the changed files, as a wrong build's would.

`PLANTED` says for each error which form of `verify` finds it first.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import xarray
from PIL import Image

from support import accept

NAME = "planted"
TRAIN, TEST = f"{NAME}_train.nc", f"{NAME}_test.nc"
SPLIT, ORIGINS = "train_test_split.csv", "stimulus_origin.csv"
TRAIN_TABLE, TEST_TABLE = "stimulus_metadata_train.csv", "stimulus_metadata_test.csv"
LH_BETAS = "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR/lh.betas_session01.mgh"
PLAIN, SAMPLE, ALL, NOTHING = "verify", "verify --nsd-root", "verify --nsd-root --all", "nothing"

Error = Callable[[Path], object]


def manifest(change: Callable[[dict], object]) -> Error:
    """Return an error in release.json."""

    def error(release):
        content = json.loads((release / "release.json").read_text())
        change(content)
        (release / "release.json").write_text(json.dumps(content))

    return error


def put(value, *keys) -> Error:
    """Return an error that puts a value under a key of release.json; a function changes the value that is there."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value(content[keys[-1]]) if callable(value) else value

    return manifest(change)


def add(number) -> Callable[[int], int]:
    return lambda value: value + number


def table(change: Callable[[pd.DataFrame], pd.DataFrame], *names: str) -> Error:
    """Return an error in the tables of these names."""

    def error(release):
        for name in names:
            change(pd.read_csv(release / name, dtype=str)).to_csv(release / name, index=False, lineterminator="\n")
            accept(release, name)

    return error


def cell(row: int, column: str, value) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(cells):
        old = cells.loc[row, column]
        return cells.assign(
            **{column: cells[column].where(cells.index != row, value(old) if callable(value) else value)}
        )

    return change


def swap_rows(*columns: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(cells):
        chosen = list(columns or cells)
        cells.loc[[0, 1], chosen] = cells.loc[[1, 0], chosen].to_numpy()
        return cells

    return change


def other_split(split: str) -> str:
    return {"train": "test", "test": "train"}[split]


def change_coco_id_everywhere(release) -> None:
    nsd_id = pd.read_csv(release / TEST_TABLE, dtype=str).nsd_id[0]
    change = lambda cells: cells.assign(coco_id=cells.coco_id.where(cells.nsd_id != nsd_id, "1"))  # noqa: E731
    table(change, TEST_TABLE, ORIGINS)(release)


def forget_coco_ids(release) -> None:
    table(lambda cells: cells.drop(columns="coco_id"), TRAIN_TABLE, TEST_TABLE)(release)
    (release / ORIGINS).unlink()
    manifest(lambda content: content["files"].pop(ORIGINS))(release)


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
    shutil.move(first, release / "x")
    shutil.move(second, first)
    shutil.move(release / "x", second)
    accept(release, f"stimuli_test/{first.name}")
    accept(release, f"stimuli_test/{second.name}")


def forget_image(release) -> None:
    path = min((release / "stimuli_test").iterdir())
    path.unlink()
    manifest(lambda content: content["files"].pop(f"stimuli_test/{path.name}"))(release)


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


def assign(variable: str, index, value, *names: str) -> Error:
    def change(file):
        file[variable][index] = value(file[variable][index]) if callable(value) else value

    return netcdf(change, *names)


def values(change: Callable[[np.ndarray], object], name: str = TEST) -> Error:
    """Return an error in the values of an assembly, of shape (n_presentations, n_neuroids, 1), that are changed in place."""

    def change_file(file):
        array = file["data"][:].data
        change(array)
        file["data"][:] = array

    return netcdf(change_file, name)


def rewritten(change: Callable[[xarray.DataArray], xarray.DataArray]) -> Error:
    """Return an error that another program would make, which writes the test assembly again."""

    def error(release):
        with xarray.open_dataarray(release / TEST) as assembly:
            changed = change(assembly.load())
        changed.encoding.pop("coordinates", None)
        (release / TEST).unlink()
        changed.to_netcdf(release / TEST)
        accept(release, TEST)

    return error


def shift_vertex(*subjects: str) -> Error:
    """Return an error that moves one vertex of IT to the next number, in some subjects."""

    def change(file):
        ids, vertices = netCDF4.chartostring(file["neuroid_id"][:]), file["vertex_index"][:]
        for subject in subjects:
            neuroids = [i for i, name in enumerate(ids) if name.startswith(f"{subject}_lh_IT")]
            file["vertex_index"][next(i for i in neuroids[:-1] if vertices[i + 1] > vertices[i] + 1)] += 1

    return netcdf(change, TRAIN, TEST)


def find_unsampled(array: np.ndarray) -> list[int]:
    """Return two neuroids of IT that hold no zero, of which a sample holds few."""
    return np.flatnonzero((array != 0).all(axis=(0, 2)))[-2:].tolist()


def swap_neuroids(array) -> None:
    first, second = find_unsampled(array)
    array[:, [first, second]] = array[:, [second, first]]


def put_in_place_of_a_filled_value(array) -> None:
    row, column, _ = np.argwhere((array == 0) & (np.abs(array).max(axis=0) > 0))[0]
    array[row, column] = 0.5


CHANGE_ONE_BIT = values(lambda a: a.view(np.uint32).__setitem__((1, find_unsampled(a)[0], 0), a.view(np.uint32)[1, find_unsampled(a)[0], 0] ^ 1 << 18))  # fmt: skip
JPEG_NAMED_PNG = image(lambda opened: opened, format="JPEG")
OF_MANIFEST_AND_TABLES = {
    "name": (PLAIN, put("other", "name")),
    "recipe: one subject less": (PLAIN, put([1], "recipe", "subjects")),
    "recipe: labels of a region": (PLAIN, put([1, 3], "recipe", "regions", 0, "labels")),
    "recipe: standardize_on": (PLAIN, put("train", "recipe", "standardize_on")),
    "recipe: nan_policy": (SAMPLE, put("drop", "recipe", "nan_policy")),
    "recipe: betas": (SAMPLE, put("betas_fithrf", "recipe", "betas")),
    "recipe: train_fraction": (PLAIN, put(0.7, "recipe", "train_fraction")),
    "recipe: split_seed": (PLAIN, put(43, "recipe", "split_seed")),
    "labels of a region and its recipe": (
        SAMPLE,
        manifest(lambda m: [r[0].update(labels=[1, 3]) for r in (m["regions"], m["recipe"]["regions"])]),
    ),
    "n_vertices of a region": (PLAIN, put(add(1), "regions", 0, "n_vertices", "subj01")),
    "order of regions": (PLAIN, put(lambda regions: regions[::-1], "regions")),
    "image_format": (PLAIN, put("jpg", "image_format")),
    "n_vertices": (SAMPLE, put(add(1), "n_vertices")),
    "n_trials_per_session": (SAMPLE, put(add(-1), "n_trials_per_session")),
    "a session less": (SAMPLE, put(add(-1), "sessions", "subj02")),
    "shape": (PLAIN, put(add(3), "shapes", "test", 0)),
    "count of filled values": (SAMPLE, put(add(1), "nan_counts", "subj01", "IT", "test")),
    "size of an input": (SAMPLE, put(add(1), "inputs", LH_BETAS)),
    "an input less": (SAMPLE, manifest(lambda m: m["inputs"].pop(LH_BETAS))),
    "another input": (SAMPLE, put(5, "inputs", "nsddata/other.mat")),
    "simulated": (SAMPLE, put(False, "simulated")),
    "version of a package": (NOTHING, put("0.0.1", "versions", "numpy")),
    "size of a file": (PLAIN, put(add(1), "files", SPLIT, "size")),
    "SHA-1 of a file": (PLAIN, put("0" * 40, "files", SPLIT, "sha1")),
    "a file that is not there": (PLAIN, put({"size": 1, "sha1": "0" * 40}, "files", "stimuli_test/x.png")),
    "identifier": (PLAIN, netcdf(lambda file: file["data"].setncattr("identifier", "other.test"))),
    "coco_id": (PLAIN, table(cell(0, "coco_id", "1"), TEST_TABLE)),
    "coco_id in every table": (SAMPLE, change_coco_id_everywhere),
    "no column coco_id in one table": (PLAIN, table(lambda cells: cells.drop(columns="coco_id"), TEST_TABLE)),
    "no COCO ids at all": (SAMPLE, forget_coco_ids),
    "a column more": (PLAIN, table(lambda cells: cells.assign(luminance="1"), TRAIN_TABLE, TEST_TABLE)),
    "stimulus_id": (PLAIN, table(cell(0, "stimulus_id", "nsd_72999"), TEST_TABLE)),
    "names of images exchanged": (PLAIN, table(swap_rows("image_file_name"), TEST_TABLE)),
    "name of an image": (PLAIN, table(cell(0, "image_file_name", "../release.json"), TEST_TABLE)),
    "stimuli exchanged": (PLAIN, table(swap_rows(), TEST_TABLE)),
    "a stimulus less": (PLAIN, table(lambda cells: cells[1:], TEST_TABLE)),
    "a stimulus twice": (PLAIN, table(lambda cells: pd.concat([cells, cells[-1:]]), TEST_TABLE)),
    "an empty cell": (PLAIN, table(cell(1, "image_file_name", ""), TEST_TABLE)),
    "a number that is not whole": (PLAIN, table(cell(1, "nsd_id", "7.5"), TEST_TABLE)),
    "split: an image moved": (PLAIN, table(cell(1, "split", other_split), SPLIT)),
    "split: images exchanged": (PLAIN, table(swap_rows(), SPLIT)),
    "origins: crop": (SAMPLE, table(cell(1, "crop_top", "0.25"), ORIGINS)),
    "origins: an image less": (PLAIN, table(lambda cells: cells[:-1], ORIGINS)),
}
OF_ASSEMBLIES_AND_IMAGES = {
    "image black": (PLAIN, image(lambda opened: Image.new("RGB", opened.size))),
    "image mirrored": (SAMPLE, image(lambda opened: opened.transpose(Image.Transpose.FLIP_LEFT_RIGHT))),
    "images exchanged": (SAMPLE, swap_images),
    "image in grey": (PLAIN, image(lambda opened: opened.convert("L"))),
    "image all black": (PLAIN, image(lambda opened: opened.point(lambda value: 0))),
    "image of another size": (SAMPLE, image(lambda opened: opened.resize((4, 4)))),
    "JPEG under a name of PNG": (PLAIN, JPEG_NAMED_PNG),
    "image missing and not listed": (PLAIN, forget_image),
    "scale_factor": (SAMPLE, netcdf(lambda file: file["data"].setncattr("scale_factor", 2.0), TRAIN)),
    "a second variable": (PLAIN, netcdf(lambda file: file.createVariable("noise", "f4", ("neuroid",)))),
    "a coordinate more": (PLAIN, rewritten(lambda a: a.assign_coords(session=("presentation", np.arange(len(a)))))),
    "a coordinate less": (PLAIN, rewritten(lambda a: a.drop_vars("nsd_id"))),
    "order of dimensions": (PLAIN, rewritten(lambda a: a.transpose("neuroid", "presentation", "time_bin"))),
    "dtype": (PLAIN, rewritten(lambda a: a.astype(np.float64))),
    "a neuroid less": (PLAIN, rewritten(lambda a: a[:, 1:])),
    "presentations in reverse": (PLAIN, rewritten(lambda a: a[::-1])),
    "nsd_id of a presentation": (PLAIN, assign("nsd_id", 0, add(1))),
    "repetition": (PLAIN, assign("repetition", 0, 1)),
    "time_bin_start": (PLAIN, assign("time_bin_start", 0, 0)),
    "neuroid_id": (PLAIN, assign("neuroid_id", (3, 18), b"9", TRAIN, TEST)),
    "subject of a neuroid": (PLAIN, assign("subject", (0, 5), b"2", TRAIN, TEST)),
    "hemisphere of a neuroid": (PLAIN, assign("hemisphere", (0, 0), b"r", TRAIN, TEST)),
    "region of a neuroid": (PLAIN, assign("region", (0, 1), b"9", TRAIN, TEST)),
    "vertex of one subject": (PLAIN, shift_vertex("subj01")),
    "vertex of all subjects": (SAMPLE, shift_vertex("subj01", "subj02")),
    "vertex outside the surface": (PLAIN, assign("vertex_index", -1, 642, TRAIN, TEST)),
    "noise ceiling of one split": (PLAIN, assign("nc_testset", 0, 50.0)),
    "noise ceiling of both splits": (SAMPLE, assign("nc_testset", 0, 50.0, TRAIN, TEST)),
    "noise ceiling above 100 %": (PLAIN, assign("nc_testset", 0, 101.0, TRAIN, TEST)),
    "value: NaN": (PLAIN, values(lambda array: array.__setitem__((1, 3, 0), np.nan))),
    "value: infinite": (PLAIN, values(lambda array: array.__setitem__((1, 3, 0), np.inf))),
    "value: one bit": (ALL, CHANGE_ONE_BIT),
    "value: another one in place of a filled one": (SAMPLE, values(put_in_place_of_a_filled_value)),
    "values: two neuroids exchanged": (ALL, values(swap_neuroids)),
    "values: two repetitions exchanged": (SAMPLE, values(lambda array: array.__setitem__([0, 1], array[[1, 0]]))),
    "values: all 1 % larger": (SAMPLE, values(lambda array: np.multiply(array, 1.01, out=array), TRAIN)),
}
PLANTED = OF_MANIFEST_AND_TABLES | OF_ASSEMBLIES_AND_IMAGES
