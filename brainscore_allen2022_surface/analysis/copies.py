"""Copies: neuroids of fsaverage whose responses are those of one vertex of the subject's own surface."""

from __future__ import annotations

import hashlib

import numpy as np
import xarray as xr

from .repetitions import NEUROIDS_READ_AT_ONCE, IntArray, neuroid_coordinate


def find_copies(assembly: xr.DataArray) -> IntArray:
    """Find the neuroids that have exactly the responses of an earlier neuroid of the same subject.

    NSD gives each vertex of fsaverage the responses of the nearest vertex of the subject's own surface, which can be the nearest
    of several. A vertex that is in two regions also is a copy.

    Parameters
    ----------
    assembly : NeuroidAssembly or DataArray of shape (n_presentations, n_neuroids) or (n_presentations, n_neuroids, 1)
        Either split, with the neuroid coordinate `subject`. To find the copies within a region, select the region first.

    Returns
    -------
    array of shape (n_neuroids,)
        For each neuroid the position of the first one with its responses, which is its own position if it is no copy. Values
        are compared bit by bit. Neuroids that do not vary over presentations, such as those filled with zeros, are no copies.

    Raises
    ------
    ValueError
        If the coordinate is missing.

    References
    ----------
    `main/analysis_transformfsaverage.m` in github.com/cvnlab/nsddatapaper, for the nearest vertex.
    """
    subjects = neuroid_coordinate(assembly, "subject")
    responses = assembly.variable.transpose("neuroid", ...)
    firsts = np.arange(len(subjects))
    seen: dict[tuple[str, bytes], int] = {}
    for start in range(0, len(subjects), NEUROIDS_READ_AT_ONCE):
        block = responses[start : start + NEUROIDS_READ_AT_ONCE].values
        block = np.ascontiguousarray(block).reshape(len(block), -1)
        varies = np.fmax.reduce(block, axis=1) > np.fmin.reduce(block, axis=1)
        for row in np.flatnonzero(varies):
            key = str(subjects[start + row]), hashlib.sha1(block[row]).digest()
            firsts[start + row] = seen.setdefault(key, start + row)
    return firsts
