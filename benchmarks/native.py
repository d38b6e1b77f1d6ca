"""Compare reading and standardising native betas with those of fsaverage: ``python benchmarks/native.py FOLDER``.

FOLDER receives a tree of one subject of NSD's size with 30 sessions, whose files are hard links to those of two (4 GB). An S3 server on this
machine answers each request after 30 ms, counts, and once sends 100 Mbit/s in all. ``--small`` makes a small tree, to try
this program.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from server import Server
from table import HEADER, Row, describe_machine, format_seconds, speedup
from trees import make_tree

from allen2022_surface_packaging.assemble.sessions import SessionCache
from allen2022_surface_packaging.facts import N_SESSIONS, N_VERTICES_OF_FSAVERAGE
from allen2022_surface_packaging.nsd.inspection import inspect_tree
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.recipe import PUBLISHED_REGIONS, Recipe, format_recipe, read_recipe

SUBJECT = 4
DELAY_SECONDS = 0.03
BYTES_PER_SECOND = 100e6 / 8
N_TIMES = 5  # from a folder
CODE = "import sys; from native import measure; print(measure(*sys.argv[1:]))"
FILES = {"fsaverage": "*.betas_session*.mgh", "nativesurface": "*.betas_session*.hdf5"}


@dataclass(frozen=True)
class Streaming:
    """What was read of betas from the server: bytes, requests of the file with most, requests at once, and seconds."""

    n_bytes: int
    most_requests: int
    most_at_once: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    folder = options.folder.absolute()
    root = folder / "nsd"
    if not root.exists():
        n_vertices, n_sessions = (2562, 3) if options.small else (N_VERTICES_OF_FSAVERAGE, N_SESSIONS[SUBJECT])
        make_tree(
            root,
            subjects=(SUBJECT,),
            n_sessions=n_sessions,
            n_vertices=n_vertices,
            n_distinct=min(2, n_sessions),
            has_native_betas=True,
        )
    machine = describe_machine()
    print(HEADER, *compare(root, folder), "", machine, sep="\n")


def compare(root: Path, folder: Path) -> list[Row]:
    """Read and standardise both kinds of files, and return the rows of the table."""
    sizes = {files: sum(path.stat().st_size for path in root.rglob(names)) for files, names in FILES.items()}
    four = stream(root, folder, "nativesurface", 4, bytes_per_second=BYTES_PER_SECOND)
    v4 = stream(root, folder, "nativesurface", 1)
    warm = {files: min(standardise(str(root.absolute()), folder, files, 4) for _ in range(N_TIMES)) for files in FILES}
    copied = sizes["fsaverage"]
    of_copied = f"fsaverage {copied / 1e9:.1f} GB"
    return [
        Row(
            "four regions", f"{four.n_bytes / 1e9:.2f} GB", of_copied, 100 * four.n_bytes / copied, " % of the bytes", 6
        ),
        Row("the same", f"{four.most_requests} requests", "–", four.most_requests, " of a file at most", 300),
        Row("the same", f"{four.most_at_once} requests", "–", four.most_at_once, " at once", 8),
        Row("V4 alone", f"{v4.n_bytes / 1e9:.3f} GB", of_copied, 100 * v4.n_bytes / copied, " % of the bytes", 0.6),
        speedup(
            "four regions, throttled to 100 Mbit/s",
            four.seconds,
            "fsaverage, computed from the bytes",
            copied / BYTES_PER_SECOND,
            12,
        ),
        Row(
            "four regions from a folder, warm",
            format_seconds(warm["nativesurface"]),
            f"fsaverage {format_seconds(warm['fsaverage'])}",
            warm["nativesurface"] / warm["fsaverage"],
            " x",
            1,
        ),
    ]


def stream(root: Path, folder: Path, files: str, n_regions: int, *, bytes_per_second: float = 0) -> Streaming:
    """Standardise the sessions from the server, and return what that read."""
    paths = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    server = Server(paths, delay_seconds=DELAY_SECONDS, bytes_per_second=bytes_per_second)
    with server.running():
        seconds = standardise("s3://nsd", folder, files, n_regions, AWS_ENDPOINT_URL=server.url)
    read = [key for key in server.n_bytes if "betas_session" in key]
    n_bytes = sum(server.n_bytes[key] for key in read)
    return Streaming(n_bytes, max(server.n_requests[key] for key in read), server.most_at_once, seconds)


def standardise(nsd_root: str, folder: Path, files: str, n_regions: int, **environment: str) -> float:
    """Standardise all sessions in a new process, for V4 or for all four regions, and return how long that takes."""
    regions = PUBLISHED_REGIONS if n_regions == len(PUBLISHED_REGIONS) else PUBLISHED_REGIONS[2:3]
    recipe_path = folder / "bench.toml"
    recipe_path.write_text(format_recipe(Recipe("bench", (SUBJECT,), regions, files=files)))
    child = subprocess.run(
        [sys.executable, "-c", CODE, nsd_root, recipe_path],
        env=os.environ | environment,
        cwd=Path(__file__).parent,
        capture_output=True,
        check=True,
    )
    return float(child.stdout)


def measure(nsd_root: str, recipe_path: str) -> float:
    """Standardise all sessions of a recipe, and return how long that takes, without the inspection of the tree."""
    plan = inspect_tree(open_tree(nsd_root), read_recipe(recipe_path)).require_sound()
    with tempfile.TemporaryDirectory() as cache_path:
        start = time.perf_counter()
        SessionCache([plan], Path(cache_path)).prepare(Path(cache_path))
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
