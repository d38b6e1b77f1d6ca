"""Releases with one thing wrong. The manifest agrees with each changed file, so that its hash cannot show the damage.

A damage is a function that changes one thing in a release, and returns texts that a report of the damage must hold.
"""

import netCDF4
import numpy as np
import pandas as pd
import xarray
from PIL import Image

from support import accept

NAME = "Allen2022_fmri_surface"
TRAIN, TEST = f"{NAME}_train.nc", f"{NAME}_test.nc"


def change_values(release, name, change) -> None:
    """Change the values of an assembly, of shape (n_presentations, n_neuroids, 1), in place."""
    with netCDF4.Dataset(release / name, "r+") as file:
        values = file["data"][:].data
        change(values)
        file["data"][:] = values
    accept(release, name)


def rewrite_assembly(release, name, change) -> None:
    """Write a changed assembly with xarray, as another program might write it."""
    with xarray.open_dataarray(release / name) as assembly:
        changed = change(assembly.load())
    changed.encoding.pop("coordinates", None)  # there may be fewer now
    (release / name).unlink()
    changed.to_netcdf(release / name)
    accept(release, name)


def read_coordinates(release, name=TEST) -> dict[str, np.ndarray]:
    with xarray.open_dataarray(release / name) as assembly:
        return {str(coordinate): values.values for coordinate, values in assembly.coords.items()}


def flip_bit(release):
    """Flip one bit in the middle of the mantissa of one value."""

    def change(values):
        values.view(np.uint32)[40, 333, 0] ^= 1 << 15

    change_values(release, TEST, change)
    coordinates = read_coordinates(release)
    presentation = f"{coordinates['stimulus_id'][40]} repetition {coordinates['repetition'][40]}"
    return [presentation, coordinates["neuroid_id"][333]]


def swap_repetitions(release):
    def change(values):
        values[[30, 31]] = values[[31, 30]]

    change_values(release, TEST, change)
    stimulus_id = read_coordinates(release)["stimulus_id"][30]
    return [f"{stimulus_id} repetition 0", f"{stimulus_id} repetition 1"]


def swap_neuroids(release):
    def change(values):
        values[:, [700, 703]] = values[:, [703, 700]]

    change_values(release, TRAIN, change)
    return list(read_coordinates(release)["neuroid_id"][[700, 703]])


def lose_value(release):
    def change(values):
        values[17, 250] = np.nan

    change_values(release, TRAIN, change)
    coordinates = read_coordinates(release, TRAIN)
    return [coordinates["stimulus_id"][17], coordinates["neuroid_id"][250]]


def swap_images(release):
    first, second = sorted((release / "stimuli_test").iterdir())[:2]
    first_pixels, second_pixels = (np.asarray(Image.open(path)) for path in (first, second))
    for path, pixels in ((first, second_pixels), (second, first_pixels)):
        Image.fromarray(pixels).save(path)
        accept(release, f"stimuli_test/{path.name}")
    return [first.stem]


def change_pixel(release):
    path = sorted((release / "stimuli_train").iterdir())[3]
    pixels = np.asarray(Image.open(path)).copy()
    pixels[20, 31, 1] += 1
    Image.fromarray(pixels).save(path)
    accept(release, f"stimuli_train/{path.name}")
    return [path.stem, "pixel (row 20, column 31)", str(pixels[20, 31].tolist())]


def increase_vertex(release):
    """Increase one vertex index by one in both splits; the vertices stay in order."""
    vertices = read_coordinates(release)["vertex_index"]
    neuroid = int(np.flatnonzero(np.diff(vertices) > 1)[10])
    for name in (TRAIN, TEST):
        with netCDF4.Dataset(release / name, "r+") as file:
            file["vertex_index"][neuroid] += 1
        accept(release, name)
    return ["vertex_index", f"{vertices[neuroid]}", f"{vertices[neuroid] + 1}"]


def increase_noise_ceiling(release):
    for name in (TRAIN, TEST):
        with netCDF4.Dataset(release / name, "r+") as file:
            file["nc_testset"][200] += 0.01
        accept(release, name)
    return ["nc_testset"]


def increase_coco_id(release):
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
    increase_vertex,
    increase_noise_ceiling,
    increase_coco_id,
]
