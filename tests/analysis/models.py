"""Models whose score is known beforehand. They need no torch."""

import numpy as np
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly
from brainscore_vision.model_interface import BrainModel
from PIL import Image

from allen2022_surface_packaging.nsd.simulation import image_latents

VISUAL_DEGREES = 8.4
N_FEATURES = 300


class PopulationModel(BrainModel):
    """A model whose neurons are fixed random mixtures of the features that `describe` computes from an image file."""

    def __init__(self, identifier, describe):
        self._identifier, self._describe = identifier, describe

    @property
    def identifier(self):
        return self._identifier

    def visual_degrees(self):
        return VISUAL_DEGREES

    def start_task(self, task, fitting_stimuli=None):
        raise NotImplementedError("this model only records")

    def start_recording(self, recording_target, time_bins):
        """Every recording is the same."""

    def look_at(self, stimuli, number_of_trials=1):
        described = np.array([self._describe(stimuli.get_stimulus(name)) for name in stimuli["stimulus_id"]])
        mixture = np.random.default_rng(7).standard_normal((described.shape[1], N_FEATURES))
        return NeuroidAssembly(
            (described @ mixture)[:, :, None],
            dims=("presentation", "neuroid", "time_bin"),
            coords={
                "stimulus_id": ("presentation", stimuli["stimulus_id"].to_numpy()),
                "nsd_id": ("presentation", stimuli["nsd_id"].to_numpy()),
                "neuroid_id": ("neuroid", [f"{self.identifier}_{i:03d}" for i in range(N_FEATURES)]),
                "layer": ("neuroid", ["only"] * N_FEATURES),
                "time_bin_start": ("time_bin", [70]),
                "time_bin_end": ("time_bin", [170]),
            },
        )


def signal_model() -> PopulationModel:
    """Make a model whose features are those that the simulated vertices respond to."""
    return PopulationModel("signal", lambda path: image_latents(np.asarray(Image.open(path))))


def random_model() -> PopulationModel:
    """Make a model whose features of an image are random."""
    return PopulationModel(
        "random", lambda path: np.random.default_rng(int(str(path)[-9:-4])).standard_normal(N_FEATURES)
    )
