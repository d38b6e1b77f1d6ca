"""A paragraph of methods for a paper, with its references, from the recipe of a release."""

from __future__ import annotations

from ..facts import N_REPETITIONS, NATIVE, NATIVE_ATLASES, subject_names
from ..recipe import CORTEX
from ..release import Manifest
from .tables import BETAS_MEANINGS, join_words

PACKAGE = "brainscore_allen2022_surface"
NSD_DOI = "10.60489/roda.v8l0sr"
MOST_REGIONS = 8  # that are listed with their labels
ALLEN, WANG, GLASSER = "Allen et al., 2022", "Wang et al., 2015", "Glasser et al., 2016"
REFERENCES = {
    ALLEN: "Allen, E. J., St-Yves, G., Wu, Y., Breedlove, J. L., Prince, J. S., Dowdle, L. T., et al. (2022). A massive 7T fMRI "
    "dataset to bridge cognitive neuroscience and artificial intelligence. Nature Neuroscience, 25, 116–126. "
    "https://doi.org/10.1038/s41593-021-00962-x",
    WANG: "Wang, L., Mruczek, R. E. B., Arcaro, M. J., & Kastner, S. (2015). Probabilistic maps of visual topography in human "
    "cortex. Cerebral Cortex, 25(10), 3911–3931. https://doi.org/10.1093/cercor/bhu277",
    GLASSER: "Glasser, M. F., Coalson, T. S., Robinson, E. C., Hacker, C. D., Harwell, J., Yacoub, E., et al. (2016). A "
    "multi-modal parcellation of human cerebral cortex. Nature, 536, 171–178. https://doi.org/10.1038/nature18933",
}
SOURCES_OF_ATLASES = {"Kastner2015": WANG, "HCP_MMP1": GLASSER, "streams": ALLEN, "nsdgeneral": ALLEN}
SOURCES_OF_ATLASES |= dict.fromkeys(NATIVE_ATLASES, f"{ALLEN}; drawn for each subject and copied to fsaverage")


def describe_methods(manifest: Manifest, *, n_neuroids: int, percent_filled: float) -> tuple[str, list[str]]:
    """Describe in the words of a paper how the responses of a release were made.

    Returns
    -------
    the paragraph, and the references that it cites
    """
    recipe, subjects = manifest.recipe, subject_names(manifest.recipe.subjects)
    each = "each of these subjects" if len(recipe.subjects) > 1 else "this subject"
    n_train, n_test = manifest.shapes["train"][0], manifest.shapes["test"][0] // N_REPETITIONS
    images = {
        "shared": f"We used those {n_train + n_test:,} of NSD's shared images that {each} saw three times. A random split (seed "
        f"{recipe.split_seed}) made {n_train:,} training images and {n_test:,} test images.",
        "own": f"The {n_train:,} training images are those that only {subjects} saw. The {n_test:,} test images are those that "
        "all subjects of NSD share and that this subject saw three times.",
    }
    over = {"train": "the training images alone", "all": "all of these images"}[recipe.standardize_on]
    invalid = {
        "zero": f"Values that were not a number ({percent_filled:.2f} % of all) were set to 0.",
        "drop": "Vertices were left out if any of these responses was not a number.",
    }
    sentences = [
        "These data are simulated and are no measurements." if manifest.simulated else "",
        f"We analysed fMRI responses of {subjects} of the Natural Scenes Dataset ({ALLEN}; data: https://doi.org/{NSD_DOI}), "
        f"as single-trial betas ({recipe.betas}) with {BETAS_MEANINGS[recipe.betas].partition('.')[0]}, on the fsaverage surface "
        f"({manifest.n_vertices:,} vertices per hemisphere).",
        "They were read on each subject's own surface, in steps of 1/300 percent signal change, and each vertex of fsaverage "
        "received those of the nearest vertex."
        if recipe.files == NATIVE
        else "",
        images[recipe.pool],
        "The responses of each vertex were z-scored within each session over trials, and averaged over the repetitions of "
        "each training image; the three repetitions of each test image stayed separate.",
        f"Each vertex was then z-scored with the mean and standard deviation of its average responses to {over}.",
        invalid[recipe.nan_policy],
        "Of the vertices of a region with the same responses, the first was kept." if recipe.copies == "drop" else "",
        f"Regions were {_describe_regions(manifest)}, with {n_neuroids:,} neuroids: each vertex of a subject counts "
        "once in each of its regions.",
        f"The responses were packaged for Brain-Score with {PACKAGE} {manifest.versions.get(PACKAGE, '')} (recipe {manifest.name}).",
    ]
    text = " ".join(filter(None, sentences))
    return text, [reference for citation, reference in REFERENCES.items() if citation in text]


def _describe_regions(manifest: Manifest) -> str:
    """Name the regions with their labels, or count them, for each atlas with its source."""
    parts = []
    for atlas in dict.fromkeys(region.atlas for region in manifest.regions):
        regions = [region for region in manifest.regions if region.atlas == atlas]
        if atlas == CORTEX:
            parts.append("the whole cortical surface")
            continue
        listed = [f"{region.name} ({_count_labels(region.labels)})" for region in regions]
        names = join_words(listed) if len(manifest.regions) <= MOST_REGIONS else f"{len(regions)} regions"
        source = SOURCES_OF_ATLASES.get(atlas)
        parts.append(f"{names} of the atlas {atlas}" + (f" ({source})" if source else ""))
    return "; ".join(parts)


def _count_labels(labels: tuple[int, ...]) -> str:
    return f"label{'s' * (len(labels) > 1)} {', '.join(map(str, labels))}"
