"""The Natural Scenes Dataset on the cortical surface (Allen et al. 2022), for Brain-Score.

The data are responses of eight subjects to photographs: 7-Tesla fMRI betas on fsaverage in V1, V2, V4 and IT, z-scored. The
train split is averaged over repetitions; the test split holds three repetitions of each image. If the environment variable
`BRAINSCORE_ALLEN2022_SURFACE_DIR` is set, the data is loaded from a release in that folder, or else from the S3 objects that
`artifacts.json` lists.
"""

import warnings

try:
    with warnings.catch_warnings():
        # xarray warns about a class of brainscore_core, which no user can change.
        warnings.filterwarnings("ignore", category=FutureWarning, module="brainscore_core")
        from brainscore_vision import data_registry, stimulus_set_registry
except ModuleNotFoundError as error:
    if error.name != "brainscore_vision":
        raise
    # A machine that only builds releases may lack brainscore_vision. The loaders work without it.
    data_registry, stimulus_set_registry = {}, {}

from .loaders import load_assembly, load_stimulus_set

BIBTEX = """@article{allen_massive_2022,
    title = {A massive {7T} {fMRI} dataset to bridge cognitive neuroscience and artificial intelligence},
    author = {Allen, Emily J. and St-Yves, Ghislain and Wu, Yihan and Breedlove, Jesse L. and Prince, Jacob S. and
              Dowdle, Logan T. and Nau, Matthias and Caron, Brad and Pestilli, Franco and Charest, Ian and
              Hutchinson, J. Benjamin and Naselaris, Thomas and Kay, Kendrick},
    journal = {Nature Neuroscience},
    volume = {25},
    pages = {116--126},
    year = {2022},
    doi = {10.1038/s41593-021-00962-x},
}"""

# Brain-Score finds a plugin by searching the text of this file, so each identifier has one line.
# fmt: off
# Eight subjects, 515 images: 412 for train, 103 for test
data_registry['Allen2022_fmri_surface.train'] = lambda: load_assembly('Allen2022_fmri_surface', 'train')
data_registry['Allen2022_fmri_surface.test'] = lambda: load_assembly('Allen2022_fmri_surface', 'test')
data_registry['Allen2022_fmri_surface.V1.train'] = lambda: load_assembly('Allen2022_fmri_surface', 'train', region='V1')
data_registry['Allen2022_fmri_surface.V1.test'] = lambda: load_assembly('Allen2022_fmri_surface', 'test', region='V1')
data_registry['Allen2022_fmri_surface.V2.train'] = lambda: load_assembly('Allen2022_fmri_surface', 'train', region='V2')
data_registry['Allen2022_fmri_surface.V2.test'] = lambda: load_assembly('Allen2022_fmri_surface', 'test', region='V2')
data_registry['Allen2022_fmri_surface.V4.train'] = lambda: load_assembly('Allen2022_fmri_surface', 'train', region='V4')
data_registry['Allen2022_fmri_surface.V4.test'] = lambda: load_assembly('Allen2022_fmri_surface', 'test', region='V4')
data_registry['Allen2022_fmri_surface.IT.train'] = lambda: load_assembly('Allen2022_fmri_surface', 'train', region='IT')
data_registry['Allen2022_fmri_surface.IT.test'] = lambda: load_assembly('Allen2022_fmri_surface', 'test', region='IT')
stimulus_set_registry['Allen2022_fmri_surface.train'] = lambda: load_stimulus_set('Allen2022_fmri_surface', 'train')
stimulus_set_registry['Allen2022_fmri_surface.test'] = lambda: load_stimulus_set('Allen2022_fmri_surface', 'test')

# Subjects 1, 2, 5 and 7, who completed all 40 sessions, 1000 images: 800 for train, 200 for test
data_registry['Allen2022_fmri_surface_4subj.train'] = lambda: load_assembly('Allen2022_fmri_surface_4subj', 'train')
data_registry['Allen2022_fmri_surface_4subj.test'] = lambda: load_assembly('Allen2022_fmri_surface_4subj', 'test')
data_registry['Allen2022_fmri_surface_4subj.V1.train'] = lambda: load_assembly('Allen2022_fmri_surface_4subj', 'train', region='V1')
data_registry['Allen2022_fmri_surface_4subj.V1.test'] = lambda: load_assembly('Allen2022_fmri_surface_4subj', 'test', region='V1')
data_registry['Allen2022_fmri_surface_4subj.V2.train'] = lambda: load_assembly('Allen2022_fmri_surface_4subj', 'train', region='V2')
data_registry['Allen2022_fmri_surface_4subj.V2.test'] = lambda: load_assembly('Allen2022_fmri_surface_4subj', 'test', region='V2')
data_registry['Allen2022_fmri_surface_4subj.V4.train'] = lambda: load_assembly('Allen2022_fmri_surface_4subj', 'train', region='V4')
data_registry['Allen2022_fmri_surface_4subj.V4.test'] = lambda: load_assembly('Allen2022_fmri_surface_4subj', 'test', region='V4')
data_registry['Allen2022_fmri_surface_4subj.IT.train'] = lambda: load_assembly('Allen2022_fmri_surface_4subj', 'train', region='IT')
data_registry['Allen2022_fmri_surface_4subj.IT.test'] = lambda: load_assembly('Allen2022_fmri_surface_4subj', 'test', region='IT')
stimulus_set_registry['Allen2022_fmri_surface_4subj.train'] = lambda: load_stimulus_set('Allen2022_fmri_surface_4subj', 'train')
stimulus_set_registry['Allen2022_fmri_surface_4subj.test'] = lambda: load_stimulus_set('Allen2022_fmri_surface_4subj', 'test')
# fmt: on
