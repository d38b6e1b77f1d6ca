"""Brain-Score's surface benchmarks with the data of a release on disk. By themselves they load from S3 only."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly

from ..loaders import N_MARKER_DIGITS, SEPARATOR, Source, load_assembly
from .ceiling import internal_consistency

PLUGIN = "allen2022_fmri_surface"  # of Brain-Score, in its folders `data` and `benchmarks`
DATASET = "Allen2022_fmri_surface"  # registered there
IDENTIFIER = re.compile(rf"(?P<name>{DATASET}(_4subj)?)\.(?P<region>\w+)-(?P<metric>\w+)")
METRICS = ("ridge", "ridgecv", "rdm")
SPLITS = ("train", "test")

Assemblies: TypeAlias = dict[str, NeuroidAssembly]  # by split
Registry: TypeAlias = dict[str, Callable[[], Any]]


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
    ``local_benchmark("RELEASE", "V3")(model)`` scores a model.

    Parameters
    ----------
    source : a release, a folder of releases, or an artifacts file
    region : the name of a region of the release
    metric : "ridge", "ridgecv" or "rdm"
        "ridge" and "rdm" are those of the registered benchmarks. "ridgecv" is Brain-Score's `dual_ridgecv_split`.
    name : of the release; needed if the source is not itself a release
    layer : a layer of the models, or one of their regions, such as "V2", whose layer is then used
        By default, the layer in their `region_layer_map` for `region`. Models without such a map have no layers to choose.
    fast_ceilings : compute the ceiling of a regression with `internal_consistency` of this package
        It agrees with Brain-Score's to within 1e-6, takes seconds in place of minutes, and is not cached on disk. "rdm" has a
        fast ceiling anyway.

    Returns
    -------
    TrainTestNeuralBenchmark or RSABenchmark of Brain-Score
        Its identifier ends in a marker, such as ``NAME.V3-ridge--0a1b2c3d``: a hash of the responses and images. So do those of
        its stimulus sets. Brain-Score caches ceilings, converted images and activations on disk by these identifiers, so it
        never returns those of other data. A regression leaves out neuroids without variance over the train images or over
        half of the test repetitions, such as vertices that were filled with zeros, because a single one makes
        Brain-Score's score NaN. A warning says how many.

    Raises
    ------
    ModuleNotFoundError
        If brainscore_vision is not installed, or has no surface benchmarks.
    FileNotFoundError, ConnectionError, ValueError
        As `load_assembly`. ValueError also if there is no such metric, if no neuroid is left, or, when a model is scored, if it
        has no layer for the region.
    """
    if metric not in METRICS:
        raise ValueError(f"The metric is {metric!r}, expected one of {', '.join(METRICS)}.")
    upstream = import_upstream("data", "benchmarks").benchmark
    from brainscore_vision import data_registry

    name = name or _name_of_release(source)
    assemblies = {split: load_assembly(name, split, region, source=source) for split in SPLITS}
    if metric != "rdm":
        assemblies = _leave_out_constant(assemblies, upstream.NOISE_CEILING_THRESHOLD)
    if not (assemblies["test"]["nc_testset"].values > upstream.NOISE_CEILING_THRESHOLD).any():
        raise ValueError(
            f"No neuroid of {name}.{region} has a noise ceiling (nc_testset) above {upstream.NOISE_CEILING_THRESHOLD:.0f} % "
            "and responses that vary, so there is nothing to score. Choose another region."
        )
    dataset = (
        name if f"{name}_train" in data_registry else DATASET
    )  # Brain-Score loads what is registered, and nothing else
    datasets: Registry = {f"{dataset}_{split}": functools.partial(assemblies.get, split) for split in SPLITS}
    with _replaced(data_registry, datasets):
        if metric == "rdm":
            benchmark = upstream.Allen2022fmriSurfaceRSA(region, dataset)
            images = benchmark._assembly.stimulus_set  # all images; this loads them, under a fixed identifier
            sets = [assembly.attrs["stimulus_set_identifier"] for assembly in assemblies.values()]
            markers = [identifier.partition(SEPARATOR)[2] for identifier in sets]
            images.identifier = SEPARATOR.join([images.identifier, *filter(None, markers)])
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
            with _layer_of(candidate, region, layer):
                return super().__call__(candidate)

    benchmark.__class__ = LocalBenchmark
    return benchmark


@contextmanager
def local_benchmarks(source: Source, *, fast_ceilings: bool = False) -> Iterator[None]:
    """Let the 16 surface benchmarks that Brain-Score registers load a release on disk, as long as the context lasts.

    Inside the context, ``brainscore_vision.load_benchmark("Allen2022_fmri_surface.V1-ridge")`` returns a `local_benchmark` of
    the release. It needs no credentials, and no network if the environment variable ``BS_INSTALL_DEPENDENCIES`` is "no":
    otherwise Brain-Score runs pip. The benchmark stays usable after the context, when ``load_benchmark`` loads from S3 again.

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
    The context replaces entries of ``benchmark_registry``, and `local_benchmark` those of ``data_registry`` while it loads. Both
    restore them, also after an exception. The registries belong to the process, so threads must not load other benchmarks
    meanwhile.
    """
    import_upstream("data", "benchmarks")
    from brainscore_vision import benchmark_registry

    load = functools.partial(local_benchmark, source, fast_ceilings=fast_ceilings)
    matches = {identifier: IDENTIFIER.fullmatch(identifier) for identifier in benchmark_registry}
    replacements: Registry = {
        identifier: functools.partial(load, **match.groupdict()) for identifier, match in matches.items() if match
    }
    with _replaced(benchmark_registry, replacements):
        yield


def import_upstream(*kinds: str) -> Any:
    """Import Brain-Score's plugins for the surface data, each "data" or "benchmarks", and return the last one.

    Raises
    ------
    ModuleNotFoundError
        If there is no such plugin.
    """
    for kind in kinds:
        module = f"brainscore_vision.{kind}.{PLUGIN}"
        try:
            plugin = import_module(module)  # which would overwrite entries of a registry that were replaced before
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{module} cannot be imported ({error}). Install a version that has it: pip install 'brainscore_vision>=2.4'"
            ) from error
    return plugin


def _name_of_release(source: Source) -> str:
    path = Path(source).expanduser() / "release.json"
    if not path.is_file():
        raise ValueError(f"{source} is not a release, so the name of one is needed, as in name={DATASET!r}.")
    return str(json.loads(path.read_bytes())["name"])


def _leave_out_constant(assemblies: Assemblies, threshold: float) -> Assemblies:
    """Leave out neuroids that a benchmark would use, and whose correlation or ceiling is NaN, with a warning."""
    train, test = assemblies.values()
    is_used = test["nc_testset"].values > threshold
    varies = np.empty(len(is_used), dtype=bool)
    in_order = np.argsort(test["neuroid_id"].values, kind="stable")  # as ceilings are
    varies[in_order] = np.isfinite(internal_consistency(test).raw.values).all(axis=0)
    is_left_out = is_used & ~(varies & (np.ptp(train.values, axis=0) > 0).all(axis=-1))
    if is_left_out.any():
        dataset = test.attrs["identifier"].rpartition(".")[0]
        warnings.warn(
            f"{is_left_out.sum()} of {is_used.sum()} neuroids of {dataset} are left out, because their responses are constant. "
            "Vertices without valid responses are filled with zeros.",
            stacklevel=3,
        )
    return {split: assembly[{"neuroid": ~is_left_out}] for split, assembly in assemblies.items()}


@contextmanager
def _layer_of(candidate: Any, region: str, layer: str | None) -> Iterator[None]:
    """Let a model record a region at a layer, as long as the context lasts."""
    layers = getattr(getattr(candidate, "layer_model", candidate), "region_layer_map", None)
    if layers is None:
        if layer is not None:
            raise ValueError(
                f"The model {candidate.identifier} has no region_layer_map, so it cannot use layer={layer!r}."
            )
        yield
        return
    known = {
        *layers,
        *getattr(layers, "region_benchmarks", ()),
    }  # Brain-Score chooses the layers of the latter when needed
    if layer is None and region not in known:
        raise ValueError(
            f"The model {candidate.identifier} has no layer for {region}. Name one of its layers, or a region whose layer to use: "
            f"layer={next(iter(known), 'LAYER')!r} in local_benchmark. It has layers for {', '.join(sorted(known)) or 'no region'}."
        )
    original = dict(layers)
    if layer is not None:
        layers[region] = layers[layer] if layer in known else layer
    try:
        yield
    finally:
        layers.clear()
        layers.update(original)


@contextmanager
def _replaced(registry: Registry, replacements: Registry) -> Iterator[None]:
    originals = {identifier: registry[identifier] for identifier in replacements}
    registry.update(replacements)
    try:
        yield
    finally:
        registry.update(originals)


def _marker(assemblies: Assemblies) -> str:
    """Return a hash of all that scores depend on: responses, noise ceilings, and the names of images and neuroids."""
    digest = hashlib.sha1()
    for assembly in assemblies.values():
        digest.update(np.ascontiguousarray(assembly.values).data)
        digest.update(assembly["nc_testset"].values.astype(np.float64).tobytes())
        digest.update(assembly.attrs["stimulus_set_identifier"].encode())
        digest.update("\n".join([*assembly["stimulus_id"].values, *assembly["neuroid_id"].values]).encode())
    return digest.hexdigest()[:N_MARKER_DIGITS]
