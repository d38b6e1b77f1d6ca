"""One measurement per process: ``python measurements.py NAME ARGUMENTS`` prints the result as JSON.

Each function imports what it needs itself, so that the peak memory of one measurement includes no library of another.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results import Computing, Loading, Reading, Writing

if TYPE_CHECKING:
    from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly

NAME = "Allen2022_fmri_surface"
NOTEBOOKS = ("02_surface_data_preparation", "03_surface_packaging_prep")
BUFFER_BYTES = 2 * 2**20


def plain_read(*paths: str) -> Reading:
    """Read files from first to last into one buffer, and do nothing with them."""
    buffer = memoryview(bytearray(BUFFER_BYTES))
    started, core_started = time.perf_counter(), time.process_time()
    for path in paths:
        with io.FileIO(path) as file:
            while file.readinto(buffer):
                pass
    core_seconds = time.process_time() - core_started
    return Reading(time.perf_counter() - started, core_seconds)


def prepare_sessions(nsd_root: str, subject: str, cache_path: str) -> Reading:
    """Read and standardise every session of a subject, and keep the results in a cache."""
    from allen2022_surface_packaging.assemble.sessions import SessionCache
    from allen2022_surface_packaging.nsd.inspection import inspect_tree
    from allen2022_surface_packaging.nsd.tree import open_tree
    from allen2022_surface_packaging.recipe import make_recipe

    plan = inspect_tree(open_tree(nsd_root), make_recipe([int(subject)], name="bench")).require_sound()
    started, core_started = time.perf_counter(), time.process_time()
    SessionCache([plan], Path(cache_path)).prepare(Path(cache_path))
    return Reading(time.perf_counter() - started, time.process_time() - core_started)


def assemble(nsd_root: str, subject: str, folder_path: str) -> Reading:
    """Average, standardise and write the assemblies of a subject whose sessions are in a cache."""
    from allen2022_surface_packaging.assemble.sessions import SessionCache
    from allen2022_surface_packaging.assemble.subjects import write_assemblies
    from allen2022_surface_packaging.nsd.inspection import inspect_tree
    from allen2022_surface_packaging.nsd.tree import open_tree
    from allen2022_surface_packaging.recipe import make_recipe
    from allen2022_surface_packaging.release import ReleaseFolder

    plan = inspect_tree(open_tree(nsd_root), make_recipe([int(subject)], name="bench")).require_sound()
    folder = Path(folder_path)
    folder.mkdir(exist_ok=True)
    cache = SessionCache([plan], folder / "cache")
    cache.prepare(cache.path)
    started, core_started = time.perf_counter(), time.process_time()
    write_assemblies(plan, cache, ReleaseFolder(folder))
    return Reading(time.perf_counter() - started, time.process_time() - core_started)


def compute(nsd_root: str, subject: str, core: str, n_computations: str) -> Computing:
    """Standardise one hemisphere of a session, which is in memory, many times on one core.

    It starts when a line arrives on the standard input, so that several processes can start together.
    """
    os.sched_setaffinity(0, {int(core)})
    import numpy as np
    from trees import read_published_regions

    from allen2022_surface_packaging.assemble.responses import standardise_session
    from allen2022_surface_packaging.nsd.files import MGH_DATA_OFFSET, read_betas_shape
    from allen2022_surface_packaging.nsd.tree import open_tree

    tree = open_tree(nsd_root)
    file = tree.betas(int(subject), "lh", 1)
    shape = read_betas_shape(file)
    betas = np.fromfile(str(file), ">f4", shape.n_vertices * shape.n_trials, offset=MGH_DATA_OFFSET)
    betas = betas.reshape(shape.n_trials, shape.n_vertices)
    vertices = read_published_regions(tree).vertices[int(subject)]["lh"]
    kept_trials = np.arange(0, shape.n_trials, 8)
    print("ready", flush=True)
    sys.stdin.readline()
    started, core_started = time.time(), time.process_time()
    for _ in range(int(n_computations)):
        standardise_session([betas], vertices=vertices, kept_trials=kept_trials)
    return Computing(started, time.time(), time.process_time() - core_started)


def notebooks(nsd_root: str, subject: str, n_sessions: str, n_vertices: str) -> None:
    """Run the code of the published notebooks 02 and 03 on a reduced tree."""
    import nbformat

    os.environ["MPLBACKEND"] = "Agg"
    settings = {
        "NSD_ROOT": Path(nsd_root),
        "SUBJECT_LIST": [int(subject)],
        "ALL_SESSIONS": dict.fromkeys(range(1, 9), int(n_sessions)),
        "N_FSAVG_VERTICES": int(n_vertices),
    }
    for name in NOTEBOOKS:
        namespace = {"__name__": "notebook", "SETTINGS": settings}
        for cell in nbformat.read(_notebook_path(name), as_version=4).cells:
            if cell.cell_type == "code":
                code = ast.fix_missing_locations(_Settings(settings).visit(ast.parse(cell.source)))
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    exec(compile(code, name, "exec"), namespace)


class _Settings(ast.NodeTransformer):
    """Replaces what the notebooks assign to a setting with ``SETTINGS[name]``."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        target = node.targets[0]
        if isinstance(target, ast.Name) and target.id in self.settings:
            node.value = ast.Subscript(ast.Name("SETTINGS", ast.Load()), ast.Constant(target.id), ast.Load())
        return node


def _notebook_path(name: str) -> Path:
    from importlib.util import find_spec

    spec = find_spec("brainscore_vision")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "data/allen2022_fmri/data_packaging/notebooks/surface"
    return folder / f"{name}.ipynb"


def make_tree(
    nsd_root: str, subjects: str, n_sessions: str, n_vertices: str, n_distinct: str, expdesign_path: str
) -> None:
    """Make a tree, most of whose betas files are links; see `trees`. Without a design, `expdesign_path` is empty."""
    import trees

    trees.make_tree(
        Path(nsd_root),
        subjects=[int(subject) for subject in subjects.split(",")],
        n_sessions=int(n_sessions),
        n_vertices=int(n_vertices),
        n_distinct=int(n_distinct),
        expdesign_path=Path(expdesign_path) if expdesign_path else None,
    )


def make_labels(nsd_root: str) -> None:
    """Make a tree of NSD's number of vertices, whose labels are all that is used."""
    from allen2022_surface_packaging.facts import N_VERTICES_OF_FSAVERAGE
    from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree

    size = TreeSize(subjects=(1,), n_sessions=1, n_trials=9, n_vertices=N_VERTICES_OF_FSAVERAGE, image_size=8)
    simulate_tree(Path(nsd_root), size)


def write_train(nsd_root: str, path: str) -> Writing:
    """Write the train assembly of eight subjects with this package, and hash it."""
    import trees

    from allen2022_surface_packaging.files import sha1_of
    from allen2022_surface_packaging.nsd.tree import open_tree

    neuroids = trees.list_all_neuroids(open_tree(nsd_root))
    values = trees.random_values("train", len(neuroids))
    started = time.perf_counter()
    trees.write_assembly(Path(path), "train", values, neuroids)
    sha1 = sha1_of(Path(path))
    return Writing(time.perf_counter() - started, Path(path).stat().st_size, sha1)


def write_with_core(nsd_root: str, home: str, split: str) -> Writing:
    """Write the same values with brainscore_core, which also hashes the file, into the cache that its loader reads."""
    import trees
    from brainscore_core.supported_data_standards.brainio.packaging import write_netcdf

    from allen2022_surface_packaging.nsd.tree import open_tree

    assembly = trees.make_core_assembly(split, trees.list_all_neuroids(open_tree(nsd_root)))
    path = Path(home) / f"{split}.nc"
    started = time.perf_counter()
    sha1 = write_netcdf(assembly, str(path))
    writing = Writing(time.perf_counter() - started, path.stat().st_size, sha1)
    (Path(home) / sha1).mkdir()
    path.rename(Path(home) / sha1 / f"assy_bench_{split}.nc")
    return writing


def write_release(nsd_root: str, release_path: str) -> None:
    """Write a release of eight subjects with random values, for the measurements of loading."""
    import trees

    from allen2022_surface_packaging.nsd.tree import open_tree

    trees.write_release(Path(release_path), trees.list_all_neuroids(open_tree(nsd_root)))


def load_identifier(identifier: str) -> Loading:
    """Load an assembly of this plugin through Brain-Score's registry."""
    from brainscore_vision import data_registry

    import brainscore_allen2022_surface  # noqa: F401  registers the identifiers

    # `load_dataset` finds the plugin and then calls the entry of the registry.
    memory, started = _peak_memory(), time.perf_counter()
    assembly = data_registry[identifier]().load()
    return _describe_loading(assembly, memory, started)


def load_with_core(sha1: str, split: str, region: str) -> Loading:
    """Load an assembly with brainscore_core from its cache, and select a region of it unless `region` is empty."""
    from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly
    from brainscore_core.supported_data_standards.brainio.s3 import load_assembly_from_s3
    from brainscore_vision import stimulus_set_registry

    import brainscore_allen2022_surface  # noqa: F401  registers the stimulus sets

    memory, started = _peak_memory(), time.perf_counter()
    assembly = load_assembly_from_s3(
        identifier=f"bench_{split}",
        version_id="",
        sha1=sha1,
        bucket="brainscore-storage",
        cls=NeuroidAssembly,
        stimulus_set_loader=stimulus_set_registry[f"{NAME}.{split}"],
    )
    assembly = (assembly.sel(region=region) if region else assembly).load()
    return _describe_loading(assembly, memory, started)


def _describe_loading(assembly: NeuroidAssembly, memory_before: float, started: float) -> Loading:
    seconds = time.perf_counter() - started
    total = float(assembly.values.sum(dtype=float))
    return Loading(seconds, _peak_memory() - memory_before, list(assembly.shape), total)


def _peak_memory() -> float:
    """Return the most memory that this process has had so far, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["VmHWM"].split()[0]) * 1024


MEASUREMENTS = {
    function.__name__: function
    for function in (
        plain_read,
        prepare_sessions,
        assemble,
        compute,
        notebooks,
        make_tree,
        make_labels,
        write_train,
        write_with_core,
        write_release,
        load_identifier,
        load_with_core,
    )
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    result = MEASUREMENTS[sys.argv[1]](*sys.argv[2:])
    if result is not None:
        print(json.dumps(asdict(result)))
