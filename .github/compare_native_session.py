"""Compare the betas of one session on a subject's own surface, in NSD's bucket, with those that NSD copied to fsaverage.

    python .github/compare_native_session.py [NSD_ROOT] [--subject N]

At the vertices of the published regions, the two may differ by the rounding of the native ones, and the same vertices must lack
data. The files on fsaverage are read whole, 1 GB. The exit status is 1 if something differs.
"""

import argparse
import sys

import numpy as np

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.facts import HEMISPHERES, NATIVE, SUBJECTS, subject_name
from allen2022_surface_packaging.nsd.files import read_betas, read_betas_shape, read_labels, read_native_index
from allen2022_surface_packaging.nsd.native import UNITS_PER_PERCENT, read_native_betas, read_native_shape
from allen2022_surface_packaging.nsd.regions import find_regions
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.recipe import make_recipe

ALLOWED = 0.51 / UNITS_PER_PERCENT  # percent signal change: half a unit, and the steps of single precision


def main() -> None:
    """Read, compare, and exit."""
    parser = argparse.ArgumentParser(description="Compare a session of nativesurface with the one of fsaverage.")
    parser.add_argument("nsd_root", metavar="NSD_ROOT", nargs="?", default="s3://natural-scenes-dataset")
    parser.add_argument("--subject", type=int, choices=SUBJECTS, default=1)
    options = parser.parse_args()
    try:
        for hemisphere in HEMISPHERES:
            print(compare(open_tree(options.nsd_root), options.subject, hemisphere))
    except (PackagingError, ValueError) as error:
        sys.exit(f"compare_native_session: {error}")


def compare(tree, subject, hemisphere):
    """Say how well the first session of a hemisphere agrees; raise a ValueError if it does not."""
    labels = {(a, 0, h): read_labels(tree.labels(a, h)) for a in make_recipe().atlases for h in HEMISPHERES}
    vertices = find_regions(make_recipe(), labels, {}, len(labels["streams", 0, "lh"])).vertices[subject][hemisphere]
    file, native_file = (tree.betas(subject, hemisphere, 1, files=files) for files in ("fsaverage", NATIVE))
    shape, native_shape = read_betas_shape(file), read_native_shape(native_file)
    if native_shape.n_trials != shape.n_trials:
        raise ValueError(f"{native_file} holds {native_shape.n_trials} trials, expected {shape.n_trials}.")
    index = read_native_index(tree.native_index(subject, hemisphere))
    native = np.concatenate(list(read_native_betas(native_file, shape.n_trials, index[vertices])))
    copied = np.concatenate([block[:, vertices] for block in read_betas(file, shape)])
    is_invalid, is_invalid_native = (np.isnan(betas).any(axis=0) for betas in (copied, native))
    if (is_invalid != is_invalid_native).any():
        raise ValueError(f"{(is_invalid != is_invalid_native).sum()} vertices lack data in one of the two files only.")
    largest = np.abs(native - copied)[:, ~is_invalid].max()
    if largest > ALLOWED:
        raise ValueError(f"betas of {native_file} differ by up to {largest:.2g} %, expected at most {ALLOWED:.2g} %.")
    return (
        f"{subject_name(subject)} {hemisphere}: {shape.n_trials} trials of {len(vertices):,} vertices agree; the largest difference "
        f"is {largest:.2g} %, and {is_invalid.sum()} vertices lack data"
    )


if __name__ == "__main__":
    main()
