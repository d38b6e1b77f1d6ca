"""How well the ceilings are known, and whether the noise of repetitions is independent."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from ..arrays import FloatArray, IntArray
from ..plugin import import_plugin
from ..release import Manifest, ReleaseFolder
from .statistics import (
    ALL_REGIONS,
    N_NEUROIDS_READ_AT_ONCE,
    Neuroids,
    open_assembly,
    subject_names,
)

SAMPLE_OF_SUBJECT = 2000  # neuroids: more hardly add to what a hundred images tell about shared noise
ERROR_RATE = 0.05  # of all subjects together


def estimate_ceilings(folder: ReleaseFolder, manifest: Manifest, neuroids: Neuroids) -> pd.DataFrame:
    """Estimate the noise ceiling of each region of each subject, from the test repetitions alone.

    Returns
    -------
    table with the index `region` and `subject`
        As `ceiling_intervals` of the plugin: `ceiling` and its 95 % interval from `lower` to `upper`, in percent.
    """
    columns = ("subject", "region", "nc_testset")
    coordinates = {name: ("neuroid", np.asarray(neuroids.values(name))) for name in columns}
    with open_assembly(folder, manifest) as assembly:
        labelled = assembly.assign_coords(coordinates)
        estimates: pd.DataFrame = import_plugin("analysis.noise_ceilings").ceiling_intervals(labelled)
    return estimates.set_index(["region", "subject"])[["ceiling", "lower", "upper"]]


def measure_shared_noise(folder: ReleaseFolder, manifest: Manifest, neuroids: Neuroids) -> pd.DataFrame:
    """Look for noise that the test repetitions of a subject share, in an even sample of its neuroids.

    Returns
    -------
    table with a row per subject
        As `ceiling_intervals` and `repetition_correlations` of the plugin, over all regions. With independent noise, each
        of `is_above_nc_testset` and `is_unequal` is true for some subject in at most 5 % of all releases.
    """
    error_rate = ERROR_RATE / len(subject_names(manifest))
    groups = [neuroids.rows(ALL_REGIONS, subject) for subject in subject_names(manifest)]
    samples = [
        rows[np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE_OF_SUBJECT)).round().astype(np.int64)]
        for rows in groups
    ]
    rows = np.sort(np.concatenate(samples))
    coordinates = {name: ("neuroid", np.asarray(neuroids.values(name, rows))) for name in ("subject", "nc_testset")}
    coordinates["region"] = ("neuroid", np.full(len(rows), ALL_REGIONS))
    with open_assembly(folder, manifest) as assembly:
        sample = assembly.isel(neuroid=rows).copy(data=_read_neuroids_at(assembly, rows)).assign_coords(coordinates)
    ceilings = import_plugin("analysis.noise_ceilings").ceiling_intervals(sample, confidence=1 - error_rate)
    pairs = import_plugin("analysis.correlations").repetition_correlations(sample, false_alarms=error_rate)
    table: pd.DataFrame = ceilings.merge(pairs, on="subject")
    return table


def _read_neuroids_at(assembly: xr.DataArray, rows: IntArray) -> FloatArray:
    """Read neuroids in ascending order, block by block: reading them one at a time is slow."""
    values = np.empty((assembly.sizes["presentation"], len(rows)), dtype=np.float32)
    for start in range(int(rows[0]), int(rows[-1]) + 1, N_NEUROIDS_READ_AT_ONCE):
        first, last = np.searchsorted(rows, (start, start + N_NEUROIDS_READ_AT_ONCE))
        if first < last:
            block = assembly.variable[:, start : int(rows[last - 1]) + 1].values
            values[:, first:last] = block[:, rows[first:last] - start]
    return values
