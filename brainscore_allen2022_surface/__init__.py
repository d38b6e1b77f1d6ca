"""The Natural Scenes Dataset on the cortical surface (Allen et al. 2022), for Brain-Score.

Responses of eight people to photographs, 7-Tesla fMRI betas on fsaverage in V1, V2, V4 and IT, z-scored, split into train
(averaged over repetitions) and test (three repetitions apart). With `BRAINSCORE_ALLEN2022_SURFACE_DIR` set, the data comes
from a release in that folder, else from the S3 objects in `artifacts.json`.
"""

try:
    from brainscore_vision import data_registry, stimulus_set_registry
except ModuleNotFoundError as error:
    if error.name != "brainscore_vision":
        raise
    # Where releases are built there need be no Brain-Score to register with; the loaders work without.
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

# Brain-Score finds a plugin by the text of these lines, so each identifier stands in one of its own.
# fmt: off
# Eight subjects, 515 images: 412 train, 103 test
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

# Subjects 1, 2, 5 and 7, who finished all 40 sessions, 1000 images: 800 train, 200 test
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
