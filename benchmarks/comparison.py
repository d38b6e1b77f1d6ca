"""Compare the plugin with Brain-Score's own for the same data, for the pull request: ``python benchmarks/comparison.py FOLDER``.

The release of `upstream.py`, which has the size of NSD, and the objects of its regions are written into FOLDER unless they are there
(1.5 GB). A server on this machine answers as S3 does, and counts the bytes that it sends. Each load runs in a process of its own,
with an empty cache, and is timed without the imports. The table is written to ``publish/templates/comparison.md`` of the packaging,
which `export` puts into the text of a pull request. ``--output FILE`` writes it elsewhere. ``--small`` makes a small release and loads it
once, to try this program.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import upstream
from server import Server
from table import describe_machine

from allen2022_surface_packaging.publish.objects import write_objects
from allen2022_surface_packaging.release import ReleaseFolder

Result: TypeAlias = tuple[float, float]  # seconds, and the number of values or the score

NAME, BUCKET = upstream.NAME, "brainscore-storage"
N_TIMES = 3  # of each load
OUTPUT_PATH = Path(__file__).parents[1] / "packaging/allen2022_surface_packaging/publish/templates/comparison.md"

# Brain-Score's plugin as it is, but for the SHA-1s: these objects have other bytes than the published ones.
EXISTING = f"""
from brainscore_core.supported_data_standards.brainio import s3
get_path, sha1s = s3.get_path, json.loads(os.environ["SHA1S"])
def find_path(identifier, file_type, bucket, version_id, sha1, **options):
    return get_path(identifier, file_type, bucket, version_id, sha1s[f"{{identifier}}.{{file_type}}"], **options)
s3.get_path = find_path
import brainscore_vision.data.allen2022_fmri, brainscore_vision.data.allen2022_fmri_surface
load = lambda: brainscore_vision.data_registry["{NAME}_test"]().sel(region="V4").load()
score = lambda: brainscore_vision.load_benchmark("{NAME}.V4-rdm")(make_model())
"""
PROPOSED = f"""
import brainscore_allen2022_surface
from brainscore_allen2022_surface.analysis.benchmarks import local_benchmarks
def score():
    with local_benchmarks(os.environ["BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS"]):
        benchmark = brainscore_vision.load_benchmark("{NAME}.V4-rdm")
    return benchmark(make_model())
load = lambda: brainscore_vision.data_registry["{NAME}.V4.test"]()
"""
RUN = """
import json, os, sys, time, warnings; warnings.simplefilter("ignore")
import brainscore_vision
from upstream import make_model
{plugin}
start = time.perf_counter()
value = {function}()
print(json.dumps([time.perf_counter() - start, float(value) if "{function}" == "score" else value.size]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=OUTPUT_PATH)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    n_times = N_TIMES
    if options.small:
        upstream.N_NEUROIDS, upstream.N_IMAGES, n_times = (
            dict.fromkeys(upstream.N_NEUROIDS, 40),
            {"train": 20, "test": 10},
            1,
        )
    release_path = options.folder / "full_size_release"
    if not release_path.exists():
        upstream.write_release(release_path)
    lines = compare(release_path, options.folder, n_times)
    options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(*lines, sep="\n")


def take_bytes(server: Server) -> tuple[int, int]:
    """Return how many bytes of assemblies and of stimuli a server sent since the last call."""
    assemblies = sum(n for key, n in server.n_bytes.items() if key.endswith(".nc"))
    stimuli = sum(server.n_bytes.values()) - assemblies
    server.n_bytes.clear()
    return assemblies, stimuli


def compare(release_path: Path, folder: Path, n_times: int) -> list[str]:
    """Load V4 of the test split, and score it, by both plugins, and return the lines of the table."""
    n_neuroids = upstream.N_SUBJECTS * sum(upstream.N_NEUROIDS.values())
    shapes = {split: (n * upstream.N_REPETITIONS[split], n_neuroids, 1) for split, n in upstream.N_IMAGES.items()}
    paths, existing = write_served_objects(release_path, folder, shapes)
    artifacts, on_disk = (
        "BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS",
        {"BRAINSCORE_ALLEN2022_SURFACE_DIR": str(release_path)},
    )
    cases = {
        "existing": (EXISTING, existing),
        "own": (PROPOSED, {artifacts: str(folder / "regions.json")}),
        "whole": (PROPOSED, {artifacts: str(folder / "whole.json")}),
    }
    first, again, scores, moved, on_disk_seconds = {}, {}, {}, {}, {}
    with Server(paths).running() as s3, Server({}).running() as refusing, tempfile.TemporaryDirectory() as cache:
        for name, (plugin, settings) in cases.items():
            caches = [f"{cache}/{name}{number}" for number in range(n_times)]
            first[name] = fastest(run(plugin, "load", s3.url, path, settings) for path in caches)
            moved[name] = [n_bytes / n_times / 1e6 for n_bytes in take_bytes(s3)]
            if name == "whole":  # of which only the bytes are shown
                continue
            again[name] = fastest(run(plugin, "load", s3.url, path, settings) for path in caches)
            scores[name] = run(plugin, "score", s3.url, caches[0], settings)
            take_bytes(s3)
            settings = {key: value for key, value in settings.items() if key != artifacts} | on_disk
            on_disk_seconds[name] = fastest(
                run(plugin, "load", refusing.url, f"{cache}/none", settings) for _ in caches
            )
    if None in (*first.values(), *again.values(), *scores.values(), on_disk_seconds["own"]):
        raise RuntimeError("a load or a score failed")
    rows = {
        "loads `V4.test` by": (f"`load_dataset('{NAME}_test').sel(region='V4')`", f"`load_dataset('{NAME}.V4.test')`"),
        "responses moved": (
            f"{moved['existing'][0]:.1f} MB",
            f"{moved['own'][0]:.1f} MB ({moved['whole'][0]:.1f} MB where the regions have no objects of their own)",
        ),
        "images and their table moved": (f"{moved['existing'][1]:.1f} MB", f"{moved['own'][1]:.1f} MB"),
        "seconds, into an empty cache": (shown(first["existing"]), shown(first["own"])),
        "seconds, from the cache": (shown(again["existing"]), shown(again["own"])),
        "seconds, from a release on disk, where S3 refuses": (
            shown(on_disk_seconds["existing"]),
            shown(on_disk_seconds["own"]),
        ),
        f"score of one model on `{NAME}.V4-rdm`": tuple(
            f"{one[1]:.12f}" for name in ("existing", "own") if (one := scores[name])
        ),
    }
    return [
        "| | `data/allen2022_fmri_surface` | this plugin |",
        "|---|---|---|",
        *(f"| {title} | {' | '.join(cells)} |" for title, cells in rows.items()),
        "",
        f"Measured by `python benchmarks/comparison.py FOLDER` in a checkout of that package, on a simulated release of NSD's "
        f"size: test has {' x '.join(f'{n:,}' for n in shapes['test'])} values. An S3 server on the same machine counted the "
        f"bytes; seconds are the fastest of {n_times}. {describe_machine()}.",
    ]


def write_served_objects(
    release_path: Path, folder: Path, shapes: dict[str, tuple[int, int, int]]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Write the objects of a release, and an artifacts file with the objects of regions and one without.

    Returns
    -------
    the file of each key, under the names of this package and under Brain-Score's own
    what `EXISTING` reads in the environment: the SHA-1 of each object
    """
    (folder / "objects").mkdir(exist_ok=True)
    manifest: Any = SimpleNamespace(name=NAME, shapes=shapes, simulated=True)
    paths: dict[str, Path] = {}
    sha1s: dict[str, str] = {}
    artifacts: dict[str, dict[str, object]] = {}
    for file in write_objects(ReleaseFolder(release_path), manifest, folder / "objects"):
        paths[file.path.name] = file.path
        record = {"bucket": BUCKET, "key": file.path.name, "version_id": "1", "sha1": file.sha1, "size": file.size}
        artifacts.setdefault(file.item.identifier, {})[file.item.kind] = record
        if file.item.neuroids is None:
            is_assembly, suffix = file.item.kind == "assembly", file.path.suffix
            folder_name = "Allen2022_fmri_surface" if is_assembly else "Allen2022_fmri"
            kind = ("surface_{}_Assembly" if is_assembly else "{}_Stimuli").format(file.item.split)
            name = f"{'assy' if is_assembly else 'stimulus'}_Allen2022_fMRI_{kind}{suffix}"
            paths[f"brainscore-vision/benchmarks/Allen2022/{folder_name}/{name}"] = file.path
            sha1s[f"Allen2022_fMRI_{kind}{suffix}"] = file.sha1
    whole = {identifier: entry for identifier, entry in artifacts.items() if identifier.count(".") == 1}
    (folder / "regions.json").write_text(json.dumps(artifacts))
    (folder / "whole.json").write_text(json.dumps(whole))
    return paths, {"SHA1S": json.dumps(sha1s)}


def run(plugin: str, function: str, url: str, cache: str, settings: dict[str, str]) -> Result | None:
    """Run a function of a plugin in a new process, and return its seconds and its value, or None if it fails."""
    environment = os.environ | {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
        "BRAINIO_HOME": cache,
        "RESULTCACHING_HOME": f"{cache}/results",
        "BS_INSTALL_DEPENDENCIES": "no",
    }
    code = RUN.format(plugin=plugin, function=function)
    child = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | settings,
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    if child.returncode:
        print(child.stderr.splitlines()[-1], file=sys.stderr)
        return None
    seconds, value = json.loads(child.stdout.splitlines()[-1])
    return seconds, value


def fastest(results: Iterator[Result | None]) -> Result | None:
    return min((result for result in results if result), default=None)


def shown(result: Result | None) -> str:
    return f"{result[0]:.2g}" if result else "cannot"


if __name__ == "__main__":
    main()
