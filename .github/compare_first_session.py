"""Stream the first session of one subject from NSD's bucket, and compare it with the published test split.

    python .github/compare_first_session.py [NSD_ROOT] [--subject N] [--region NAME]

A session alone does not give the mean and deviation of the second standardisation. But for each vertex the published
responses must be a linear function of the session's, with a positive slope. The published objects may need credentials: if
there are none, and the bucket refuses, the session is read and checked, but not compared. The exit status is 1 if something
differs.
"""

import argparse
import sys
from dataclasses import replace

import boto3
import numpy as np

from allen2022_surface_packaging.assemble.responses import standardise_session
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.facts import HEMISPHERES, SUBJECTS, subject_name
from allen2022_surface_packaging.nsd.files import read_betas, read_betas_shape, read_design, read_labels
from allen2022_surface_packaging.nsd.regions import find_regions
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.nsd.trials import list_trials
from allen2022_surface_packaging.recipe import PUBLISHED_REGIONS, make_recipe
from brainscore_allen2022_surface.loaders import load_assembly

NAME = "Allen2022_fmri_surface"
TOLERANCE = 1e-4  # of values whose standard deviation is about 1; published values agree within 1e-5
FEWEST_TRIALS = 3  # any two points lie on a line


def main() -> None:
    """Read, compare, and exit."""
    parser = argparse.ArgumentParser(
        description="Compare the first session of a subject with the published test split."
    )
    parser.add_argument("nsd_root", metavar="NSD_ROOT", nargs="?", default="s3://natural-scenes-dataset")
    parser.add_argument("--subject", type=int, choices=SUBJECTS, default=1)
    parser.add_argument("--region", choices=[region.name for region in PUBLISHED_REGIONS], default="V4")
    options = parser.parse_args()
    try:
        trials, responses = read_first_session(options.nsd_root, options.subject, options.region)
        n_trials, n_vertices = responses.shape
        print(f"{options.nsd_root}: {n_trials} trials, {n_vertices:,} vertices of {options.region}")
        require_standardised(responses)
        published = load_published(options.subject, options.region)
        if published is not None:
            print(compare(trials, responses, published))
    except (PackagingError, ConnectionError, ValueError) as error:
        sys.exit(f"compare_first_session: {error}")


def read_first_session(nsd_root, subject, region_name):
    """Return the trials of the session, and the standardised responses of a region, of shape (n_trials, n_vertices)."""
    tree, recipe = open_tree(nsd_root), make_recipe()
    (asked,) = [region for region in recipe.regions if region.name == region_name]
    labels = {(asked.atlas, 0, h): read_labels(tree.labels(asked.atlas, h)) for h in HEMISPHERES}
    one_region = replace(recipe, name="one", regions=(asked,))
    (region,) = find_regions(one_region, labels, {}, len(labels[asked.atlas, 0, "lh"])).regions
    responses = []
    for hemisphere in HEMISPHERES:
        file = tree.betas(subject, hemisphere, 1, recipe.betas)
        shape = read_betas_shape(file)
        kept = np.arange(shape.n_trials)
        blocks = read_betas(file, shape)
        responses.append(standardise_session(blocks, vertices=region.vertices[subject][hemisphere], kept_trials=kept))
    trials = list_trials(read_design(tree.design), {subject: 1}, shape.n_trials)[subject]
    return trials, np.concatenate(responses, axis=1)


def require_standardised(responses):
    """Raise a ValueError unless each vertex has mean 0 and deviation 1, or is constant or NaN."""
    valid = responses[:, ~np.isnan(responses).any(axis=0)].astype(np.float64)
    deviation = valid.std(axis=0)
    if not valid.size or not (deviation > 0).any():
        raise ValueError("no vertex of the session varies, expected responses.")
    if np.abs(valid.mean(axis=0)).max() > TOLERANCE or np.abs(deviation[deviation > 0] - 1).max() > TOLERANCE:
        raise ValueError("the session is not standardised, expected mean 0 and standard deviation 1 of each vertex.")


def load_published(subject, region_name):
    """Return the published test split of a subject's region, or None if there are no credentials and it is private."""
    try:
        assembly = load_assembly(NAME, "test", region=region_name)
    except ConnectionError as error:
        if boto3.Session().get_credentials() is not None:
            raise
        print(f"not compared: {error}")
        return None
    return assembly.isel(neuroid=assembly["subject"].values == subject_name(subject), time_bin=0)


def compare(trials, responses, published):
    """Say how well the published values follow from those of the session; raise a ValueError if they do not."""
    if published.sizes["neuroid"] != responses.shape[1]:
        raise ValueError(f"{published.sizes['neuroid']} neuroids are published, expected {responses.shape[1]}.")
    row_of = {(int(row.nsd_id), int(row.repetition)): row.trial for row in trials.itertuples()}
    shown = [
        (row_of[key], presentation)
        for presentation, key in enumerate(
            zip(published["nsd_id"].values.tolist(), published["repetition"].values.tolist(), strict=True)
        )
        if key in row_of
    ]
    if len(shown) < FEWEST_TRIALS:
        raise ValueError(f"the session shows {len(shown)} test images, expected at least {FEWEST_TRIALS}.")
    rows, presentations = map(list, zip(*shown, strict=True))
    ours, theirs = responses[rows].astype(np.float64), published.values[presentations].astype(np.float64)
    is_filled = np.isnan(responses).any(axis=0)
    if theirs[:, is_filled].any():
        raise ValueError("a published response is not 0, but is NaN in the session.")
    ours, theirs = (values[:, ~is_filled] - values[:, ~is_filled].mean(axis=0) for values in (ours, theirs))
    with np.errstate(invalid="ignore"):
        slope = np.nan_to_num((ours * theirs).sum(axis=0) / (ours**2).sum(axis=0))
    largest = np.abs(theirs - slope * ours).max()
    if largest > TOLERANCE or (slope < 0).any():
        raise ValueError(
            f"published values differ by up to {largest:.2g} from a line through those of the session, expected at most "
            f"{TOLERANCE}."
        )
    return f"{len(rows)} test trials of {ours.shape[1]:,} vertices agree: the largest difference is {largest:.1g}"


if __name__ == "__main__":
    main()
