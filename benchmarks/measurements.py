"""One measurement a process: ``python measurements.py NAME ARGUMENTS`` prints what it found as JSON."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")


def plain_read(*paths: str) -> dict[str, Any]:
    """Read files from first to last into one buffer, and do nothing with them."""
    buffer, n_bytes = memoryview(bytearray(2 * 2**20)), 0
    started, core_started = time.perf_counter(), time.process_time()
    for path in paths:
        with Path(path).open("rb", buffering=0) as file:
            while n := file.readinto(buffer):  # type: ignore[attr-defined]
                n_bytes += n
    core_seconds = time.process_time() - core_started
    return {"seconds": time.perf_counter() - started, "core seconds": core_seconds, "bytes": n_bytes}


def sessions(root: str, subject: str, n_workers: str, cache: str) -> dict[str, Any]:
    """Standardise every session of a subject: read, compute, and keep."""
    from allen2022_surface_packaging.build.pipeline import ResponseReader
    from allen2022_surface_packaging.build.sessions import prepare_sessions
    from allen2022_surface_packaging.verify.soundness import inspect_tree

    inspection, problems = inspect_tree(root, [int(subject)])
    assert inspection is not None and not problems, problems
    reader = ResponseReader(inspection, Path(cache), inspection.design.sharedix - 1)
    started = time.perf_counter()
    prepare_sessions(reader.sessions, inspection.region_map.vertices, Path(cache), n_workers=int(n_workers))
    return {"seconds": time.perf_counter() - started, "sessions": len(reader.sessions)}


def compute(root: str, subject: str, core: str, n_repeats: str) -> dict[str, Any]:
    """Standardise one hemisphere that is in memory already, again and again, on one core."""
    os.sched_setaffinity(0, {int(core)})
    import numpy as np

    from allen2022_surface_packaging.build.responses import standardise_session
    from allen2022_surface_packaging.nsd.files import MGH_DATA_OFFSET, open_tree, read_betas_shape
    from allen2022_surface_packaging.nsd.regions import read_regions

    tree = open_tree(root)
    path = tree.betas_path(int(subject), "lh", 1)
    n_vertices, n_trials = read_betas_shape(tree, path)
    betas = np.fromfile(Path(root) / path, ">f4", n_vertices * n_trials, offset=MGH_DATA_OFFSET)
    betas = betas.reshape(n_trials, n_vertices)
    vertices = read_regions(tree).vertices["lh"]
    print("ready", flush=True)
    sys.stdin.readline()
    started, core_started = time.time(), time.process_time()
    for _ in range(int(n_repeats)):
        standardise_session([betas], vertices=vertices, kept_trials=np.arange(0, n_trials, 8))
    return {"started": started, "ended": time.time(), "core seconds": time.process_time() - core_started}


def notebooks(root: str, subjects: str, n_sessions: str, n_vertices: str) -> dict[str, Any]:
    """Run the code of the published notebooks 02 and 03, their settings replaced as they are made."""
    import ast
    import contextlib
    import io
    from importlib.util import find_spec

    import nbformat

    os.environ["MPLBACKEND"] = "Agg"
    settings = {
        "NSD_ROOT": Path(root),
        "SUBJECT_LIST": [int(subject) for subject in subjects.split(",")],
        "ALL_SESSIONS": dict.fromkeys(range(1, 9), int(n_sessions)),
        "N_FSAVG_VERTICES": int(n_vertices),
    }

    class Settings(ast.NodeTransformer):
        def visit_Assign(self, node: ast.Assign) -> ast.Assign:
            target = node.targets[0]
            if isinstance(target, ast.Name) and target.id in settings:
                node.value = ast.Subscript(ast.Name("SETTINGS", ast.Load()), ast.Constant(target.id), ast.Load())
            return node

    spec = find_spec("brainscore_vision")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "data/allen2022_fmri/data_packaging/notebooks/surface"
    seconds = []
    for name in ("02_surface_data_preparation", "03_surface_packaging_prep"):
        started = time.perf_counter()
        namespace = {"__name__": "notebook", "SETTINGS": settings}
        for cell in nbformat.read(folder / f"{name}.ipynb", as_version=4).cells:
            if cell.cell_type == "code":
                code = ast.fix_missing_locations(Settings().visit(ast.parse(cell.source)))
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    exec(compile(code, name, "exec"), namespace)
        seconds.append(time.perf_counter() - started)
    return {"seconds": sum(seconds), "of each": seconds}


def write_own(root: str, target: str) -> dict[str, Any]:
    """Write the train assembly of eight subjects, and hash it."""
    from trees import neuroids_of, values_of, write_assembly

    from allen2022_surface_packaging.nsd.files import SUBJECTS, open_tree
    from allen2022_surface_packaging.release import sha1_of

    neuroids, blocks = neuroids_of(open_tree(root), list(SUBJECTS))
    values = values_of("train", len(neuroids))
    started = time.perf_counter()
    write_assembly(Path(target), "train", values, neuroids, blocks)
    sha1_of(Path(target))
    return {"seconds": time.perf_counter() - started, "bytes": Path(target).stat().st_size}


def write_core(root: str, home: str) -> dict[str, Any]:
    """Write the same with brainscore_core, which hashes it too, to where its loader keeps what it fetched."""
    from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly
    from brainscore_core.supported_data_standards.brainio.packaging import write_netcdf
    from trees import N_IMAGES_OF_SPLIT, neuroids_of, nsd_ids, values_of

    from allen2022_surface_packaging.build.assembly import NEUROID_COORDINATES, TIME_BIN, presentations
    from allen2022_surface_packaging.nsd.files import SUBJECTS, open_tree

    neuroids, _ = neuroids_of(open_tree(root), list(SUBJECTS))
    found: dict[str, Any] = {}
    for split in N_IMAGES_OF_SPLIT:
        table = presentations(split, nsd_ids(split))
        coordinates = {name: ("presentation", table[name].to_numpy()) for name in table}
        coordinates |= {name: ("neuroid", neuroids[name].to_numpy()) for name in NEUROID_COORDINATES}
        coordinates |= {name: ("time_bin", values) for name, values in TIME_BIN.items()}
        values = values_of(split, len(neuroids))[:, :, None]
        assembly = NeuroidAssembly(values, coords=coordinates, dims=["presentation", "neuroid", "time_bin"])
        partial = Path(home) / f"{split}.nc"
        started = time.perf_counter()
        sha1 = write_netcdf(assembly, str(partial))
        found[split] = {"seconds": time.perf_counter() - started, "bytes": partial.stat().st_size, "sha1": sha1}
        (Path(home) / sha1).mkdir()
        partial.rename(Path(home) / sha1 / f"assy_bench_{split}.nc")
    return found


def write_release(root: str, target: str) -> dict[str, Any]:
    """Write a release of eight subjects, for the loading."""
    from trees import neuroids_of, write_release

    from allen2022_surface_packaging.nsd.files import SUBJECTS, open_tree

    write_release(Path(target), *neuroids_of(open_tree(root), list(SUBJECTS)))
    return {}


def _resident() -> float:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


def load_own(identifier: str) -> dict[str, Any]:
    """Load an assembly of this plugin through Brain-Score's registry."""
    from brainscore_vision import data_registry

    import brainscore_allen2022_surface  # noqa: F401  registers

    # The registry's entry is what `load_dataset` calls, once it has found the plugin.
    before, started = _resident(), time.perf_counter()
    assembly = data_registry[identifier]().load()
    return _loaded(assembly, before, started)


def load_core(sha1: str, split: str, release: str, region: str = "") -> dict[str, Any]:
    """Load the published file format with brainscore_core from its cache, and a region by selecting it."""
    from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly
    from brainscore_core.supported_data_standards.brainio.s3 import load_assembly_from_s3
    from brainscore_vision import stimulus_set_registry

    import brainscore_allen2022_surface  # noqa: F401  registers the stimulus sets

    before, started = _resident(), time.perf_counter()
    assembly = load_assembly_from_s3(
        identifier=f"bench_{split}",
        version_id="",
        sha1=sha1,
        bucket="brainscore-storage",
        cls=NeuroidAssembly,
        stimulus_set_loader=stimulus_set_registry[f"Allen2022_fmri_surface.{split}"],
    )
    assembly = (assembly.sel(region=region) if region else assembly).load()
    return _loaded(assembly, before, started)


def _loaded(assembly: Any, before: float, started: float) -> dict[str, Any]:
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "more memory": _resident() - before,
        "shape": assembly.shape,
        "sum": float(assembly.values.sum(dtype=float)),
    }


if __name__ == "__main__":
    result = globals()[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(result))
