"""Brain-Score's own surface benchmarks, scored on a release on disk. By themselves they load from S3 only."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly

from ..loaders import N_MARKER_DIGITS, SEPARATOR, Source, load_assembly
from .ceiling import internal_consistency

PLUGIN = "allen2022_fmri_surface"  # of Brain-Score, in its folders `data` and `benchmarks`
IDENTIFIER = re.compile(r"(?P<name>Allen2022_fmri_surface(_4subj)?)\.(?P<region>\w+)-\w+")
SPLITS = ("train", "test")

Registry: TypeAlias = dict[str, Callable[[], Any]]


@contextmanager
def local_benchmarks(source: Source, *, fast_ceilings: bool = False) -> Iterator[None]:
    """Let Brain-Score's own surface benchmarks load a release on disk, as long as the context lasts.

    Inside the context, ``brainscore_vision.load_benchmark("Allen2022_fmri_surface.V1-ridge")``, and likewise each of the 16
    surface benchmarks, returns an object of Brain-Score's own class with the data of the release. It needs no credentials, and
    no network if the environment variable ``BS_INSTALL_DEPENDENCIES`` is "no": otherwise Brain-Score runs pip. The object
    stays usable after the context, when ``load_benchmark`` loads from S3 again.

    The identifier of the benchmark ends in a marker, such as ``Allen2022_fmri_surface.V1-ridge--0a1b2c3d``: a hash of the
    responses and images. So do the identifiers of its stimulus sets. Whatever Brain-Score caches on disk by these
    identifiers (ceilings, converted images, activations) is never returned for the published data, or for another release.

    Parameters
    ----------
    source : a release, a folder of releases, or an artifacts file
    fast_ceilings : compute the ceiling of a ridge benchmark with `internal_consistency` of this package
        It gives the same value in a fraction of the time, and is not cached on disk. The benchmarks that compare
        representational dissimilarities have a fast ceiling anyway.

    Raises
    ------
    ModuleNotFoundError
        If brainscore_vision is not installed, or has no surface benchmarks.
    FileNotFoundError, ConnectionError, ValueError
        As `load_assembly`, when a benchmark is loaded.

    Notes
    -----
    The context replaces entries of ``benchmark_registry``, and of ``data_registry`` while a benchmark loads. It restores
    them, also after an exception. The registries belong to the process, so threads must not load other benchmarks meanwhile.
    """
    import_upstream("data")  # its import would overwrite entries that are replaced later
    import_upstream("benchmarks")
    from brainscore_vision import benchmark_registry

    load = functools.partial(_load_benchmark, source=source, fast_ceilings=fast_ceilings)
    replacements: Registry = {
        identifier: functools.partial(load, make_benchmark, match["name"], match["region"])
        for identifier, make_benchmark in benchmark_registry.items()
        if (match := IDENTIFIER.fullmatch(identifier))
    }
    with _replaced(benchmark_registry, replacements):
        yield


def import_upstream(kind: str) -> Any:
    """Import Brain-Score's plugin of a kind, "data" or "benchmarks", for the surface data.

    Raises
    ------
    ModuleNotFoundError
        If there is no such plugin.
    """
    module = f"brainscore_vision.{kind}.{PLUGIN}"
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{module} cannot be imported ({error}). Install a version that has it: pip install 'brainscore_vision>=2.4'"
        ) from error


def _load_benchmark(
    make_benchmark: Callable[[], Any], name: str, region: str, *, source: Source, fast_ceilings: bool
) -> Any:
    """Make a benchmark whose data come from a source, all of them loaded."""
    from brainscore_vision import data_registry
    from brainscore_vision.benchmark_helpers.neural_common import RSABenchmark

    assemblies = {split: load_assembly(name, split, region, source=source) for split in SPLITS}
    datasets: Registry = {f"{name}_{s}": functools.partial(assemblies.__getitem__, s) for s in SPLITS}
    with _replaced(data_registry, datasets):
        benchmark = make_benchmark()
        if isinstance(benchmark, RSABenchmark):
            images = benchmark._assembly.stimulus_set  # all images; this loads them, under a fixed identifier
            markers = [
                assembly.attrs["stimulus_set_identifier"].partition(SEPARATOR)[2] for assembly in assemblies.values()
            ]
            images.identifier = SEPARATOR.join([images.identifier, *filter(None, markers)])
        elif fast_ceilings:
            repetitions = import_upstream("benchmarks").benchmark.load_assembly(
                region, "test", average_repetitions=False, dataset_prefix=name
            )
            benchmark._ceiling = functools.cache(lambda identifier: internal_consistency(repetitions))
    benchmark._identifier += f"{SEPARATOR}{_marker_of_assemblies(assemblies)}"
    # The ceiling of a ridge benchmark loads the repetitions only when it is asked for.
    benchmark._ceiling_func = _replaced(data_registry, datasets)(benchmark._ceiling_func)
    return benchmark


@contextmanager
def _replaced(registry: Registry, replacements: Registry) -> Iterator[None]:
    originals = {identifier: registry[identifier] for identifier in replacements}
    registry.update(replacements)
    try:
        yield
    finally:
        registry.update(originals)


def _marker_of_assemblies(assemblies: Mapping[str, NeuroidAssembly]) -> str:
    """Return a hash of all that scores depend on: responses, noise ceilings, and the names of images and neuroids."""
    digest = hashlib.sha1()
    for assembly in assemblies.values():
        digest.update(np.ascontiguousarray(assembly.values).data)
        digest.update(assembly["nc_testset"].values.astype(np.float64).tobytes())
        names = [
            assembly.attrs["stimulus_set_identifier"],
            *assembly["stimulus_id"].values,
            *assembly["neuroid_id"].values,
        ]
        digest.update("\n".join(names).encode())
    return digest.hexdigest()[:N_MARKER_DIGITS]
