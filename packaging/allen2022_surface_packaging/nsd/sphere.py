"""The sphere of fsaverage: where its vertices are, in the order in which they are numbered.

FreeSurfer's fsaverage is an icosahedron that was subdivided seven times. Each step keeps the vertices that there are and
adds the middle of every edge behind them, so the coarser surfaces are the first vertices of the finer ones: 10,242
vertices are fsaverage5, 40,962 are fsaverage6, and 163,842 are fsaverage.
"""

from __future__ import annotations

import numpy as np

from ..arrays import DoubleArray, IntArray

# The corners of each triangle of the icosahedron. Their order, and that of the smaller triangles below, gives every vertex
# the number that it has in FreeSurfer; a test compares them with fsaverage5.
TRIANGLES = (
    *((0, 4, 3), (0, 5, 4), (0, 1, 5), (0, 2, 1), (0, 3, 2), (3, 8, 2), (3, 9, 8), (3, 4, 9), (4, 10, 9), (4, 5, 10)),
    *(
        (5, 6, 10),
        (5, 1, 6),
        (1, 7, 6),
        (1, 2, 7),
        (2, 8, 7),
        (8, 9, 11),
        (9, 10, 11),
        (10, 6, 11),
        (6, 7, 11),
        (7, 8, 11),
    ),
)


def sphere_vertices(n_vertices: int) -> DoubleArray:
    """Return the first vertices of fsaverage on the unit sphere, the same for both hemispheres.

    Returns
    -------
    array of shape (n_vertices, 3)
        Unitless: to the right, to the front, upwards, as in the brain.
    """
    vertices, triangles = _icosahedron(), np.array(TRIANGLES)
    while len(vertices) < n_vertices:
        vertices, triangles = _subdivide(vertices, triangles)
    return vertices[:n_vertices]


def _icosahedron() -> DoubleArray:
    """Return the twelve corners: the top, two rings of five, and the bottom."""
    upper = np.radians([-72, 0, 72, 144, 216])
    lower = upper - np.radians(36)
    rings = [
        np.stack([2 * np.cos(angles), 2 * np.sin(angles), np.full(5, height)], axis=1) / np.sqrt(5)
        for angles, height in ((upper, 1), (lower, -1))
    ]
    return np.concatenate([[(0, 0, 1)], *rings, [(0, 0, -1)]])


def _subdivide(vertices: DoubleArray, triangles: IntArray) -> tuple[DoubleArray, IntArray]:
    """Divide each triangle into four. A new vertex is the middle of an edge; edges count where they occur first."""
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    _, firsts, numbers = np.unique(edges @ (len(vertices), 1), return_index=True, return_inverse=True)
    order = np.argsort(firsts)
    middles = vertices[edges[firsts[order]]].sum(axis=1)
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    a, b, c = triangles.T
    ab, bc, ca = len(vertices) + np.argsort(order)[numbers].reshape(-1, 3).T
    firsts_of_four = np.stack([a, ab, ca], axis=1)
    others = np.stack([ab, b, bc, ca, ab, bc, ca, bc, c], axis=1).reshape(-1, 3)
    return np.concatenate([vertices, middles]), np.concatenate([firsts_of_four, others])
