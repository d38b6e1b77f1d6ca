"""Models whose score is known beforehand. They need no torch."""

from types import SimpleNamespace

import numpy as np
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly
from brainscore_vision.model_helpers.brain_transformation import ModelCommitment
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
                "layer": ("neuroid", [self.identifier] * N_FEATURES),
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


def random_network() -> PopulationModel:
    """Make a model with a layer of 64 random filters of 7 x 7 pixels, rectified, and averaged over 25 parts of the image."""
    filters = np.random.default_rng(1).standard_normal((3 * 7 * 7, 64))

    def describe(path):
        pixels = np.asarray(Image.open(path).convert("RGB").resize((64, 64)), dtype=float) / 255 - 0.5
        windows = np.lib.stride_tricks.sliding_window_view(pixels, (7, 7), axis=(0, 1))[::4, ::4]
        responses = np.maximum(windows.reshape(15, 15, -1) @ filters, 0)
        return responses.reshape(5, 3, 5, 3, -1).mean(axis=(1, 3)).ravel()

    return PopulationModel("random_network", describe)


LAYERS = {"random": random_model, "random_network": random_network, "signal": signal_model}


def load_model(identifier="layered") -> ModelCommitment:
    """Make a model with several layers and Brain-Score's own mapping of regions to them, as brainscore_vision's `load_model`."""

    def record(stimuli, layers, number_of_trials, require_variance):
        return LAYERS[layers[0]]().look_at(stimuli).isel(time_bin=0, drop=True)

    record._extractor = SimpleNamespace(set_visual_degrees=lambda degrees: None)
    region_layer_map = {"V1": "random_network", "V2": "random_network", "V4": "signal", "IT": "signal"}
    return ModelCommitment(
        identifier, record, [*LAYERS], region_layer_map=region_layer_map, visual_degrees=VISUAL_DEGREES
    )
