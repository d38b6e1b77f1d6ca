"""Brain-Score's surface benchmarks with the data of a release on disk. By themselves they load from S3 only."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly

from ..loaders import N_MARKER_DIGITS, SEPARATOR, SPLITS, SimulatedDataWarning, Source, load_assembly
from .ceiling import internal_consistency

PLUGIN = "allen2022_fmri_surface"  # of Brain-Score, in its folders `data` and `benchmarks`
DATASET = "Allen2022_fmri_surface"  # registered there
IDENTIFIER = re.compile(rf"(?P<name>{DATASET}(_4subj)?)\.(?P<region>\w+)-(?P<metric>\w+)")
METRICS = ("ridge", "ridgecv", "rdm")


def local_benchmark(
    source: Source,
    region: str,
    metric: str = "ridge",
    *,
    name: str | None = None,
    layer: str | None = None,
    fast_ceilings: bool = True,
) -> Any:
    """Make a Brain-Score benchmark of any region of any release.

    It is Brain-Score's own surface benchmark with other data: the same class, metric and ceiling, and the neuroids whose
    `nc_testset` is above 30 %. So the score is the same if the release and the region are those of a registered benchmark.

    Parameters
    ----------
    source : a release, a folder of releases, or an artifacts file
    region : the name of a region of the release
    metric : "ridge" or "rdm" as in the registered benchmarks, or "ridgecv", which is Brain-Score's `dual_ridgecv_split`
    name : of the release; needed if the source is not itself a release
    layer : a layer of the models to score, or one of their regions, such as "V2", whose layer is then used
        By default, the layer in their `region_layer_map` for `region`.
    fast_ceilings : compute the ceiling of a regression with `internal_consistency` of this package
        It agrees with Brain-Score's to within 1e-6, takes seconds and not minutes, and is not cached on disk.

    Returns
    -------
    TrainTestNeuralBenchmark or RSABenchmark of Brain-Score
        Its identifier ends in a hash of the responses and images, such as ``NAME.V3-ridge--0a1b2c3d``, like those of its stimulus
        sets. Brain-Score caches ceilings and activations on disk by these identifiers, so those of other data never return. A
        regression leaves out neuroids that are constant over the train images, or over the test images in one repetition,
        such as vertices that were filled with zeros: one makes Brain-Score's score NaN. A warning says how many.

    Raises
    ------
    ModuleNotFoundError
        If brainscore_vision is not installed, or has no surface benchmarks.
    FileNotFoundError, ConnectionError, ValueError
        As `load_assembly`. ValueError also if there is no such metric or no neuroid, or a model lacks a layer for the region.
    """
    if metric not in METRICS:
        raise ValueError(f"The metric is {metric!r}, expected one of {', '.join(METRICS)}.")
    upstream = _import_upstream()
    from brainscore_vision import data_registry

    name = name or _name_of_release(source)
    threshold = upstream.NOISE_CEILING_THRESHOLD
    assemblies = {}
    with warnings.catch_warnings():
        for split in SPLITS:
            assemblies[split] = load_assembly(name, split, region, source=source)
            warnings.simplefilter("ignore", SimulatedDataWarning)  # once is enough
    if metric != "rdm":
        assemblies = _leave_out_constant(assemblies, threshold)
    if not (assemblies["test"]["nc_testset"].values > threshold).any():
        raise ValueError(
            f"No neuroid of {name}.{region} has a noise ceiling (nc_testset) above {threshold:.0f} % and responses that vary, so "
            "there is nothing to score. Choose another region."
        )
    _name_subjects_with_few(assemblies["test"], threshold, metric)
    dataset = name if f"{name}_train" in data_registry else DATASET  # Brain-Score loads only what is registered
    datasets = {f"{dataset}_{split}": functools.partial(assemblies.get, split) for split in SPLITS}
    with _replaced(data_registry, datasets):
        if metric == "rdm":
            benchmark = upstream.Allen2022fmriSurfaceRSA(region, dataset)
            images = benchmark._assembly.stimulus_set  # all images; this loads them, under a fixed identifier
            sets = [a.attrs["stimulus_set_identifier"].partition(SEPARATOR) for a in assemblies.values()]
            images.identifier = SEPARATOR.join([images.identifier, *(marker for _, _, marker in sets if marker)])
        else:
            benchmark = upstream.Allen2022fmriSurface(region, metric, dataset)
            if fast_ceilings:
                repetitions = upstream.load_assembly(region, "test", average_repetitions=False, dataset_prefix=dataset)
                benchmark._ceiling = functools.cache(lambda identifier: internal_consistency(repetitions))
    benchmark._identifier = f"{name}.{region}-{metric}{SEPARATOR}{_marker(assemblies)}"
    # The ceiling of a ridge benchmark loads the repetitions only when it is asked for.
    benchmark._ceiling_func = _replaced(data_registry, datasets)(benchmark._ceiling_func)

    class LocalBenchmark(type(benchmark)):  # type: ignore[misc]
        def __call__(self, candidate: Any) -> Any:
            with _layer_for(candidate, region, layer):
                return super().__call__(candidate)

    benchmark.__class__ = LocalBenchmark
    return benchmark


@contextmanager
def local_benchmarks(source: Source, *, fast_ceilings: bool = False) -> Iterator[None]:
    """Let the 16 surface benchmarks that Brain-Score registers load a release on disk, as long as the context lasts.

    Inside the context, ``brainscore_vision.load_benchmark("Allen2022_fmri_surface.V1-ridge")`` returns a `local_benchmark`, which
    stays usable after the context. It needs no credentials, and no network if the environment variable
    ``BS_INSTALL_DEPENDENCIES`` is "no": otherwise Brain-Score runs pip.

    Parameters
    ----------
    source, fast_ceilings
        As in `local_benchmark`.

    Raises
    ------
    ModuleNotFoundError, FileNotFoundError, ConnectionError, ValueError
        As `local_benchmark`, some of them when a benchmark is loaded.

    Notes
    -----
    Brain-Score's registries are changed, and restored also after an exception. Other threads must not load from them meanwhile.
    """
    _import_upstream()
    from brainscore_vision import benchmark_registry

    load = functools.partial(local_benchmark, source, fast_ceilings=fast_ceilings)
    matches = filter(None, map(IDENTIFIER.fullmatch, benchmark_registry))
    with _replaced(benchmark_registry, {match[0]: functools.partial(load, **match.groupdict()) for match in matches}):
        yield


def _import_upstream() -> Any:
    """Import Brain-Score's plugins for the surface data, and return the module of the benchmarks."""
    for module in (f"brainscore_vision.data.{PLUGIN}", f"brainscore_vision.benchmarks.{PLUGIN}.benchmark"):
        try:
            plugin = import_module(module)  # before entries are replaced, which the import would overwrite
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{module} cannot be imported ({error}). Install a version that has it: pip install 'brainscore_vision>=2.4'"
            ) from error
    return plugin


def _name_of_release(source: Source) -> str:
    path = Path(source).expanduser() / "release.json"
    if not path.parent.exists():
        raise FileNotFoundError(f"{source} does not exist, expected a release. Is the path right?")
    if not path.is_file():
        raise ValueError(f"{source} is not a release, so the name of one is needed, as in name={DATASET!r}.")
    return str(json.loads(path.read_bytes())["name"])


def _leave_out_constant(assemblies: dict[str, NeuroidAssembly], threshold: float) -> dict[str, NeuroidAssembly]:
    """Leave out neuroids that a benchmark would use, and whose correlation or ceiling would be NaN, with a warning."""
    train, test = assemblies.values()
    is_used = test["nc_testset"].values > threshold
    repetitions = [test.values[test["repetition"].values == number] for number in set(test["repetition"].values)]
    varies = np.all([np.ptp(values, axis=0)[:, 0] > 0 for values in (train.values, *repetitions)], axis=0)
    is_left_out = is_used & ~varies
    if not is_left_out.any():
        return assemblies
    warnings.warn(
        f"{is_left_out.sum()} of {is_used.sum()} neuroids of {test.attrs['identifier'].rpartition('.')[0]} are left out, because "
        "their responses are constant. Vertices without valid responses are filled with zeros.",
        stacklevel=3,
    )
    return {split: assembly[{"neuroid": ~is_left_out}] for split, assembly in assemblies.items()}


def _name_subjects_with_few(test: NeuroidAssembly, threshold: float, metric: str) -> None:
    """Warn of subjects with one neuroid or none that a benchmark would use. Between images, one gives no dissimilarity."""
    is_used = test["nc_testset"].values > threshold
    counts = {s: int(is_used[test["subject"].values == s].sum()) for s in sorted(set(test["subject"].values))}
    few = ", ".join(f"{n} of {subject}" for subject, n in counts.items() if n < 2)
    line = f"{test.attrs['identifier'].rpartition('.')[0]} has few neuroids with a noise ceiling above {threshold:.0f} %: {few}."
    if metric == "rdm" and 1 in counts.values():
        raise ValueError(f"{line} The metric 'rdm' needs two of a subject. Choose another region or metric.")
    if few:
        warnings.warn(f"{line} A subject without any is not in the score, and one alone says little.", stacklevel=3)


def _layer_for(candidate: Any, region: str, layer: str | None) -> AbstractContextManager[None]:
    """Return a context in which a model records a region at a layer."""
    layers = getattr(getattr(candidate, "layer_model", candidate), "region_layer_map", None)
    if layers is None:
        if layer is not None:
            raise ValueError(
                f"The model {candidate.identifier} has no region_layer_map, so layer={layer!r} has no use."
            )
        return nullcontext()
    # Brain-Score chooses the layers of `region_benchmarks` when they are needed.
    known = {*layers, *getattr(layers, "region_benchmarks", ())}
    if layer is None and region not in known:
        raise ValueError(
            f"The model {candidate.identifier} has no layer for {region}. Name one of its layers, or a region whose layer to use, "
            f"as in local_benchmark(..., layer='V4'). It has layers for {', '.join(sorted(known)) or 'no region'}."
        )
    return _replaced(layers, {} if layer is None else {region: layers[layer] if layer in known else layer})


@contextmanager
def _replaced(mapping: dict[str, Any], replacements: dict[str, Any]) -> Iterator[None]:
    """Replace entries of a mapping, or add them, as long as the context lasts."""
    originals = {key: mapping[key] for key in replacements if key in mapping}
    mapping.update(replacements)
    try:
        yield
    finally:
        for key in replacements:
            del mapping[key]
        mapping.update(originals)


def _marker(assemblies: dict[str, NeuroidAssembly]) -> str:
    """Return a hash of all that scores depend on: responses, noise ceilings, and the names of images and neuroids."""
    digest = hashlib.sha1()
    for assembly in assemblies.values():
        digest.update(np.ascontiguousarray(assembly.values).data)
        digest.update(assembly["nc_testset"].values.astype(np.float64).tobytes())
        digest.update(assembly.attrs["stimulus_set_identifier"].encode())
        digest.update("\n".join([*assembly["stimulus_id"].values, *assembly["neuroid_id"].values]).encode())
    return digest.hexdigest()[:N_MARKER_DIGITS]
