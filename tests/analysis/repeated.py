"""Assemblies of repeated images."""

import numpy as np
import xarray as xr


def make_assembly(values, *, n_repetitions=3, nc_testset=50.0, region="V1", subject="subj01") -> xr.DataArray:
    """Make a plain DataArray; the repetitions of an image follow each other.

    The values have the shape (n_images x n_repetitions, n_neuroids) or (n_images, n_repetitions, n_neuroids).
    """
    if values.ndim == 3:
        n_repetitions, values = values.shape[1], values.reshape(-1, values.shape[2])
    n_presentations, n_neuroids = values.shape
    image, repetition = np.divmod(np.arange(n_presentations), n_repetitions)
    return xr.DataArray(
        values,
        dims=("presentation", "neuroid"),
        coords={
            "stimulus_id": ("presentation", [f"nsd_{number:05d}" for number in image]),
            "repetition": ("presentation", repetition),
            "neuroid_id": ("neuroid", [f"subj01_lh_V1_v{number:05d}" for number in range(n_neuroids)]),
            "subject": ("neuroid", np.broadcast_to(subject, n_neuroids)),
            "region": ("neuroid", np.broadcast_to(region, n_neuroids)),
            "nc_testset": ("neuroid", np.broadcast_to(nc_testset, n_neuroids)),
        },
    )
