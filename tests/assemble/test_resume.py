"""A build that is killed at any moment and started again gives the same bytes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from support import hashes

# How often a build is killed. Set it higher, such as 50, for a longer test.
N_KILLS = int(os.environ.get("ALLEN2022_SURFACE_KILLS", "8"))


def count_entries(cache):
    return len(list(cache.glob("*.responses")))


@pytest.mark.slow
@pytest.mark.timeout(60 + 15 * N_KILLS)
def test_killed_build_gives_the_same_bytes_when_resumed(nsd_tree, release, tmp_path):
    rng = random.Random(N_KILLS)
    target, cache = tmp_path / "release", tmp_path / "allen2022_surface_cache"
    command = [sys.executable, "-m", "allen2022_surface_packaging", "build", str(nsd_tree), str(target)]
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    duration = time.monotonic() - started
    assert hashes(target) == hashes(release)
    n_needed = count_entries(cache)

    n_killed_while_writing = 0
    for kill in range(N_KILLS):
        shutil.rmtree(target, ignore_errors=True)
        if count_entries(cache) >= n_needed:  # too little work is left for a kill, so start over
            shutil.rmtree(cache)
        # Every second kill waits until some sessions are finished. The others come at a random moment.
        n_awaited = min(n_needed, count_entries(cache) + rng.randint(1, 6)) if kill % 2 == 0 else n_needed + 1
        seconds = rng.uniform(0, 1.2) * duration if kill % 2 else 60
        build = subprocess.Popen(
            [*command, "--workers", rng.choice("112")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + seconds
        while build.poll() is None and count_entries(cache) < n_awaited and time.monotonic() < deadline:
            time.sleep(0.002)
        if build.poll() is None:
            os.killpg(build.pid, signal.SIGKILL)  # with its workers
            build.wait()
            n_killed_while_writing += (tmp_path / ".release.partial").exists()
        if target.exists():  # a release is whole or absent, whenever the kill came
            assert hashes(target) == hashes(release)

    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(command, check=True, capture_output=True)
    assert hashes(target) == hashes(release)
    assert {path.name for path in tmp_path.iterdir()} == {"release", "allen2022_surface_cache"}
    assert n_killed_while_writing >= N_KILLS // 3
