"""The repetitions of the images of an assembly, and its values in blocks of neuroids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import scipy.stats
import xarray as xr
from brainscore_core.supported_data_standards.brainio.assemblies import walk_coords
from numpy.typing import NDArray

NEUROIDS_AT_A_TIME = 2048  # a block fits into the cache of a processor, and needs little memory
NEUROIDS_READ_AT_ONCE = 32_768  # of an assembly that is lazy

FloatArray: TypeAlias = NDArray[np.floating[Any]]
IntArray: TypeAlias = NDArray[np.int64]


def read_repetitions(assembly: xr.DataArray) -> tuple[xr.Variable, IntArray]:
    """Return the values, of shape (n_presentations, n_neuroids), and the row of each repetition, (n_images, n_repetitions)."""
    extra_sizes = {dim: size for dim, size in assembly.sizes.items() if dim not in ("presentation", "neuroid")}
    if len(assembly.dims) != len(extra_sizes) + 2 or any(size != 1 for size in extra_sizes.values()):
        raise ValueError(
            f"The assembly has the dimensions {dict(assembly.sizes)}, expected presentation, neuroid and at most one "
            "time_bin. Select one time_bin, as in assembly.isel(time_bin=0)."
        )
    columns = {name: values for name, dims, values in walk_coords(assembly) if dims == ("presentation",)}
    if "repetition" not in columns:
        raise ValueError(
            "The assembly has no coordinate repetition, so it has no repetitions to compare. Load the test split."
        )
    # As in Brain-Score: presentations show the same image if all their coordinates but the repetition are equal.
    table = pd.DataFrame(columns)
    images = table.groupby([name for name in columns if name != "repetition"], dropna=False).ngroup().to_numpy()
    counts = pd.crosstab(images, columns["repetition"])
    n_images, n_repetitions = counts.shape
    if n_repetitions < 2 or n_images < 2:
        raise ValueError(
            f"The assembly has {n_repetitions} repetitions of {n_images} images, expected 2 or more of each. "
            "Select more presentations."
        )
    if (counts != 1).any(axis=None):
        image, number = np.argwhere(counts.to_numpy() != 1)[0]
        raise ValueError(
            f"Image {table['stimulus_id'][images == image].iloc[0]} has {counts.iat[image, number]} presentations with repetition "
            f"{counts.columns[number]} and the same coordinates, expected 1. Select whole images."
        )
    matrix = assembly.variable.isel(dict.fromkeys(extra_sizes, 0)).transpose("presentation", "neuroid")
    return matrix, np.lexsort((columns["repetition"], images)).reshape(counts.shape)


def region_groups(assembly: xr.DataArray) -> Iterator[tuple[str, str, slice | IntArray]]:
    """Yield subject, region and neuroids of each region of each subject, in the order of the assembly."""
    subjects, regions = (neuroid_coordinate(assembly, name) for name in ("subject", "region"))
    groups = pd.DataFrame({"subject": subjects, "region": regions})
    for (subject, region), group in groups.groupby(["subject", "region"], sort=False):
        neuroids = group.index.to_numpy(dtype=np.int64)
        is_contiguous = neuroids[-1] - neuroids[0] == len(neuroids) - 1
        yield str(subject), str(region), slice(int(neuroids[0]), int(neuroids[-1]) + 1) if is_contiguous else neuroids


def neuroid_coordinate(assembly: xr.DataArray, name: str) -> NDArray[Any]:
    """Return a coordinate of the neuroids."""
    for coordinate, dims, values in walk_coords(assembly):
        if coordinate == name and dims == ("neuroid",):
            return np.asarray(values)
    raise ValueError(f"The assembly has no neuroid coordinate {name}. Load it from a release, or add the coordinate.")


def blocks(values: xr.Variable, rows: IntArray) -> Iterator[tuple[slice, FloatArray]]:
    """Yield blocks of neuroids: where they lie, and their values, of shape (n_repetitions, n_images, n_neuroids_in_block)."""
    for start in range(0, values.shape[1], NEUROIDS_READ_AT_ONCE):
        matrix = values[:, start : start + NEUROIDS_READ_AT_ONCE].values
        for first in range(0, matrix.shape[1], NEUROIDS_AT_A_TIME):
            block = matrix[:, first : first + NEUROIDS_AT_A_TIME]
            yield slice(start + first, start + first + block.shape[1]), block[rows.T]


def valid_images(responses: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return responses of shape (n_repetitions, n_images, n_neuroids), and 1 or 0 for images with and without all repetitions.

    The response to the first valid presentation is subtracted, so that constant neuroids are exactly 0. Invalid images are 0.
    """
    is_valid = np.isfinite(responses).all(axis=0)
    values = np.where(is_valid, responses, 0).astype(np.float64)
    values -= np.take_along_axis(values[0], is_valid.argmax(axis=0)[None], axis=0)
    values *= is_valid
    return values, is_valid.astype(np.float64)


def jackknife_moments(products: FloatArray, noise: FloatArray, is_valid: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the mean over images of products of deviations from their means (ddof=1), and of variances of noise.

    Both have the shape (..., n_images, n_neuroids), and are 0 for images that are not valid. The results have the shape
    (..., 1 + n_images, n_neuroids): from all images, and without each of them. NaN or infinite with fewer than two images.
    """

    def sum_images(terms: FloatArray, left_out: FloatArray) -> FloatArray:
        total = terms.sum(axis=-2, keepdims=True)
        return np.concatenate([total, total - left_out], axis=-2)

    n_images = is_valid.sum(axis=0)
    n_left = sum_images(is_valid, is_valid)
    with np.errstate(invalid="ignore", divide="ignore"):
        changed = products * (n_images / (n_images - 1))  # without an image, the means change, too
        return sum_images(products, changed) / (n_left - 1), sum_images(noise, noise) / n_left


def jackknife_interval(values: FloatArray, is_valid: FloatArray, *, confidence: float) -> FloatArray:
    """Return the value from all images, and the lower and upper end of its interval over images, by the t distribution.

    Parameters
    ----------
    values : array of shape (1 + n_images, n_columns)
        From all images, and without each of them.
    is_valid : array of shape (n_images, n_columns)
        1 for the images of a column, and 0 for others.

    Returns
    -------
    array of shape (3, n_columns)
    """
    n_images = is_valid.sum(axis=0)
    deviations = values[1:] - (values[1:] * is_valid).sum(axis=0) / n_images
    error = np.sqrt((n_images - 1) / n_images * (deviations**2 * is_valid).sum(axis=0))
    half_width = scipy.stats.t.ppf((1 + confidence) / 2, n_images - 1) * error
    return np.stack([values[0], values[0] - half_width, values[0] + half_width])
