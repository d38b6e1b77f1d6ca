"""Facts of the Natural Scenes Dataset (NSD): its numbers, its names, and its noise ceiling.

References
----------
Allen et al. (2022), Nature Neuroscience 25, 116-126, doi:10.1038/s41593-021-00962-x, and the NSD Data Manual.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .arrays import DoubleArray

SUBJECTS = (1, 2, 3, 4, 5, 6, 7, 8)
HEMISPHERES = ("lh", "rh")
N_REPETITIONS = 3  # each image was shown up to three times
N_TRIALS = 30_000  # of a subject, as planned: 40 sessions of 750 trials
N_TRIALS_PER_SESSION = 750
N_IMAGES = 73_000  # in nsd_stimuli.hdf5
N_SESSIONS = dict(zip(SUBJECTS, (40, 40, 32, 30, 40, 32, 40, 30), strict=True))  # acquired, NSD Data Manual
N_VERTICES_OF_FSAVERAGE = 163_842  # of one hemisphere
N_VERTICES_OF_FSAVERAGE5 = 10_242  # the first of fsaverage
N_NATIVE_VERTICES = {  # of the surfaces of each subject, lh and rh; NSD Data Manual, "Technical notes"
    1: (227_021, 226_601),
    2: (239_633, 239_309),
    3: (240_830, 243_023),
    4: (228_495, 227_262),
    5: (197_594, 198_908),
    6: (253_634, 259_406),
    7: (198_770, 200_392),
    8: (224_364, 224_398),
}
# Atlases that NSD drew on each subject's own surface: NSD Data Manual, "ROIs"
NATIVE_ATLASES = ("floc-bodies", "floc-faces", "floc-places", "floc-words", "prf-eccrois", "prf-visualrois")
# Versions of the single-trial responses, NSD Data Manual: with GLMdenoise and ridge regression ("b3"), with a
# hemodynamic response function fitted to each voxel ("b2"), and with an assumed one ("b1").
BETAS_VERSIONS = ("betas_fithrf_GLMdenoise_RR", "betas_fithrf", "betas_assumehrf")
DEFAULT_BETAS = BETAS_VERSIONS[0]
# Folders of NSD's betas: copied to fsaverage, and on the subject's own surface, where they are rounded to 1/300 percent.
FSAVERAGE, NATIVE = "fsaverage", "nativesurface"
TERMS_URL = "https://cvnlab.slite.page/p/IB6BSeW_7o/Terms-and-Conditions"


def subject_name(subject: int) -> str:
    """Return NSD's name of a subject, such as ``subj01``."""
    return f"subj{subject:02d}"


def subject_names(subjects: Sequence[int]) -> str:
    """Return the names of subjects for people, such as ``subj01-subj08`` or ``subj01, subj02, subj05``."""
    names = [subject_name(subject) for subject in subjects]
    if len(names) > 2 and list(subjects) == list(range(subjects[0], subjects[-1] + 1)):
        return f"{names[0]}-{names[-1]}"
    return ", ".join(names)


def stimulus_name(nsd_id: int) -> str:
    """Return the stimulus id of an image, such as ``nsd_03049``."""
    return f"nsd_{nsd_id:05d}"


def noise_ceiling(ncsnr: ArrayLike, n_repetitions: int = N_REPETITIONS) -> DoubleArray:
    """Compute the noise ceiling of responses that are averaged over repetitions.

    Parameters
    ----------
    ncsnr : array of any shape
        Noise-ceiling signal-to-noise ratio, unitless: standard deviation of the signal over that of the noise.

    Returns
    -------
    array of the same shape
        Percent of the variance that is signal. NaN stays NaN.

    Raises
    ------
    ValueError
        If there is less than one repetition.

    References
    ----------
    Allen et al. (2022), Methods, "Noise ceiling estimation"; NSD Data Manual, "ncsnr".
    """
    if n_repetitions < 1:
        raise ValueError(f"n_repetitions must be at least 1, but got {n_repetitions}.")
    import numpy as np  # not by `doctor`, which runs where NumPy is broken

    signal = np.asarray(ncsnr, dtype=np.float64) ** 2
    ceiling: DoubleArray = 100 * signal / (signal + 1 / n_repetitions)
    return ceiling
