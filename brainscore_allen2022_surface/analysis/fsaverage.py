"""Values of neuroids on the whole of fsaverage, for plotting."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from .repetitions import FloatArray, neuroid_coordinate

N_VERTICES = 163_842  # of each hemisphere of fsaverage
HEMISPHERES = ("lh", "rh")
TOLERANCE = 1e-5  # of the values of a vertex in two regions, relative: they differ by rounding at most


def to_fsaverage(
    values: xr.DataArray | ArrayLike, neuroids: xr.DataArray | None = None, *, n_vertices: int = N_VERTICES
) -> dict[str, FloatArray]:
    """Put the values of the neuroids of one subject at their vertices of fsaverage.

    nilearn's plotting functions take one of the arrays. pycortex takes both in one, the left one first:
    ``np.concatenate([maps["lh"], maps["rh"]], axis=-1)``. The first 10,242 vertices are fsaverage5.

    Parameters
    ----------
    values : NeuroidAssembly or DataArray with the dimension neuroid, or array of shape (..., n_neuroids)
        Of one subject, in any unit, with the coordinates `subject`, `hemisphere`, `vertex_index` and `region`.
    neuroids : NeuroidAssembly or DataArray, optional
        Needed if `values` is an array without coordinates: its neuroids are those of the values, in the same order.
    n_vertices : int
        Of each hemisphere. Smaller only for data on a reduced surface.

    Returns
    -------
    dict of two arrays of shape (..., n_vertices)
        `lh` and `rh`, in the unit of the values, NaN at vertices without a neuroid. Integers and truth values become float64.

    Raises
    ------
    ValueError
        If the values are not those of each neuroid of one subject, a coordinate is missing or invalid, or a vertex that is in
        two regions, such as V4 and IT, has different values in them.
    """
    if neuroids is None:
        if not isinstance(values, xr.DataArray):
            raise ValueError("The values have no coordinates. Name the assembly of their neuroids, too.")
        neuroids = values
    array = _neuroids_last(values, neuroids)
    subjects = sorted(set(neuroid_coordinate(neuroids, "subject").tolist()))
    if len(subjects) != 1:
        raise ValueError(
            f"The neuroids are those of {', '.join(subjects) or 'no subject'}, expected one subject, because a map shows one. "
            "Select it, as in assembly.isel(neuroid=assembly['subject'].values == 'subj01')."
        )
    hemispheres = neuroid_coordinate(neuroids, "hemisphere")
    unknown = sorted(set(hemispheres.tolist()) - set(HEMISPHERES))
    if unknown:
        raise ValueError(f"The coordinate hemisphere holds {', '.join(map(str, unknown))}, expected lh and rh.")
    vertices = neuroid_coordinate(neuroids, "vertex_index").astype(np.int64)
    outside = vertices[(vertices < 0) | (vertices >= n_vertices)]
    if len(outside):
        raise ValueError(
            f"The coordinate vertex_index holds {outside[0]}, expected 0 to {n_vertices - 1}. Set n_vertices to the number of "
            "vertices in a hemisphere of the data."
        )
    maps = {}
    for hemisphere in HEMISPHERES:
        rows = np.flatnonzero(hemispheres == hemisphere)
        surface = np.full((*array.shape[:-1], n_vertices), np.nan, dtype=array.dtype)
        surface[..., vertices[rows]] = array[..., rows]
        is_kept = np.isclose(array[..., rows], surface[..., vertices[rows]], rtol=TOLERANCE, atol=0, equal_nan=True)
        lost = rows[~is_kept.reshape(-1, len(rows)).all(axis=0)]  # to another neuroid of the vertex
        if len(lost):
            at_vertex = rows[vertices[rows] == vertices[lost[0]]]
            regions = neuroid_coordinate(neuroids, "region")[at_vertex]
            raise ValueError(
                f"Vertex {vertices[lost[0]]} is in {' and in '.join(regions)} with different values, and a map has room for "
                f"one. Select one region, as in assembly.isel(neuroid=assembly['region'].values == '{regions[0]}')."
            )
        maps[hemisphere] = surface
    return maps


def _neuroids_last(values: xr.DataArray | ArrayLike, neuroids: xr.DataArray) -> NDArray[Any]:
    """Return the values with the neuroids as last dimension, as floating-point numbers."""
    for assembly in (values, neuroids):
        if isinstance(assembly, xr.DataArray) and "neuroid" not in assembly.dims:
            raise ValueError(f"The assembly has the dimensions {assembly.dims}, expected neuroid among them.")
    array = np.asarray(values.transpose(..., "neuroid") if isinstance(values, xr.DataArray) else values)
    n_neuroids = neuroids.sizes["neuroid"]
    if array.shape[-1:] != (n_neuroids,) or array.dtype.kind not in "fiub":
        raise ValueError(
            f"The values have the shape {array.shape} and the type {array.dtype}, expected {n_neuroids} neuroids as the last "
            "dimension, and numbers."
        )
    return array if array.dtype.kind == "f" else array.astype(np.float64)
