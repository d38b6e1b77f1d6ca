"""The neuroids of an assembly, as a table."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..arrays import DoubleArray
from ..facts import HEMISPHERES, noise_ceiling, subject_name
from ..nsd.regions import RegionMap
from .sessions import both_hemispheres


def list_neuroids(region_map: RegionMap, ncsnr: Mapping[int, DoubleArray]) -> pd.DataFrame:
    """List the neuroids of all subjects in the order of the assembly: by region, subject, hemisphere and vertex.

    Parameters
    ----------
    ncsnr : arrays of shape (n_read_vertices of lh + rh,)
        Noise-ceiling signal-to-noise ratio by subject, unitless.

    Returns
    -------
    table with the neuroid coordinates of an assembly as columns, and two more
        ``vertex`` numbers the vertices through both hemispheres, and ``number`` those of the region through lh, then rh.
    """
    parts = []
    read_vertices = both_hemispheres(region_map.vertices, region_map.n_vertices)
    for region in region_map.regions:
        vertices = both_hemispheres(region.vertices, region_map.n_vertices)
        columns = np.searchsorted(read_vertices, vertices)
        hemispheres = np.repeat(HEMISPHERES, [len(region.vertices[h]) for h in HEMISPHERES]).tolist()
        for subject, values in ncsnr.items():
            start = subject_name(subject)
            ids = [f"{start}_{hemisphere}_{region.name}_v{n:05d}" for n, hemisphere in enumerate(hemispheres)]
            part = {
                "neuroid_id": ids,
                "subject": start,
                "hemisphere": hemispheres,
                "vertex_index": vertices % region_map.n_vertices,
                "region": region.name,
                "nc_testset": noise_ceiling(values[columns]),
                "vertex": vertices,
                "number": np.arange(len(vertices)),
            }
            parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)
