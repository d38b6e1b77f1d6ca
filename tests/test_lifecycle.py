"""What people do with a release, in any order: build, overwrite, kill, damage, verify, report and load it."""

import itertools
import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from brainscore_allen2022_surface.loaders import load_assembly
from support import hashes, run_cli

SIZE = TreeSize((1,), n_sessions=2, n_trials=30, n_vertices=162, image_size=8, betas=(DEFAULT_BETAS,))
SETTINGS = settings(
    max_examples=5,
    stateful_step_count=10,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
POLICIES = ("zero", "drop")
BESIDE = ("report.html", "verify.json", "release.json")  # release.json holds the time of the build


def contents(release: Path) -> dict[str, str]:
    """Return the SHA-1 of every file that belongs to a release and is the same after every build."""
    return {name: sha1 for name, sha1 in hashes(release).items() if name not in BESIDE}


class Lifecycle(RuleBasedStateMachine):
    """`states` holds what may be at the path of the release: the name of a policy, or None for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.tree, self.release = self.folder / "nsd", self.folder / "release"
        simulate_tree(self.tree, SIZE)
        self.sound: dict[str | None, dict[str, str]] = {None: {}}
        for policy in POLICIES:
            assert self.build(self.folder / policy, policy) == 0
            self.sound[policy] = contents(self.folder / policy)
        self.states: set[str | None] = {None}
        self.is_damaged = False

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def build(self, path: Path, policy: str, *options: str) -> int:
        names = ("--subjects", 1, "--name", "one", "--nan-policy", policy)
        return run_cli("build", self.tree, path, *names, *options).returncode

    @rule(policy=st.sampled_from(POLICIES))
    def build_where_nothing_may_be_lost(self, policy):
        status = self.build(self.release, policy)

        if None in self.states and status == 0:
            self.states = {policy}
        else:
            assert status == 1
            self.states -= {None}
            assert self.states, "a build was refused where nothing was"

    @rule(policy=st.sampled_from(POLICIES))
    def overwrite(self, policy):
        assert self.build(self.release, policy, "--overwrite") == 0

        self.states, self.is_damaged = {policy}, False

    @rule(policy=st.sampled_from(POLICIES), n_lines=st.integers(1, 8))
    def kill_an_overwriting_build(self, policy, n_lines):
        """Kill it when it writes a line of its log, so that every run of this test is the same."""

        def build_and_die() -> None:
            lines = itertools.count(1)
            handler = logging.Handler()
            handler.emit = lambda _: next(lines) == n_lines and os.kill(os.getpid(), signal.SIGKILL)
            logging.getLogger("allen2022_surface_packaging").addHandler(handler)
            os._exit(self.build(self.release, policy, "--overwrite"))

        process = multiprocessing.get_context("fork").Process(target=build_and_die)
        process.start()
        process.join()

        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode == 0:
            self.states, self.is_damaged = {policy}, False
        else:
            self.states = self.states | {policy}

    @precondition(lambda self: None not in self.states and len(self.states) == 1 and not self.is_damaged)
    @rule(data=st.data())
    def damage_a_file(self, data):
        path = self.release / data.draw(st.sampled_from(sorted(contents(self.release))))
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1
        path.write_bytes(content)

        self.is_damaged = True
        assert run_cli("verify", self.release).returncode == 1

    @precondition(lambda self: None not in self.states and len(self.states) == 1)
    @rule(checks_values=st.booleans())
    def verify(self, checks_values):
        options = ("--nsd-root", self.tree, "--all") if checks_values else ()

        assert run_cli("verify", self.release, *options).returncode == self.is_damaged

    @precondition(lambda self: self.release.exists() and not self.is_damaged)
    @rule(split=st.sampled_from(("train", "test")))
    def load(self, split):
        loaded = load_assembly("one", split, source=self.release)

        sound = [load_assembly("one", split, source=self.folder / policy) for policy in self.states]
        assert any(loaded.shape == other.shape and np.array_equal(loaded, other) for other in sound)

    @precondition(lambda self: self.states == {"zero"} and not self.is_damaged)
    @rule()
    def report(self):
        assert run_cli("report", self.release).returncode == 0

    @rule()
    def simulate_over_a_tree(self):
        before = hashes(self.tree)

        assert run_cli("simulate", self.tree, "--vertices", 162).returncode == 1
        assert hashes(self.tree) == before

    @invariant()
    def release_is_whole(self):
        """A killed build may leave the old release under its hidden name, until the next build."""
        replaced = self.folder / ".release.replaced"
        path = self.release if self.release.exists() or not replaced.exists() else replaced
        if not self.is_damaged:
            assert contents(path) in [self.sound[state] for state in self.states]


def test_release_is_whole_in_any_order():
    run_state_machine_as_test(Lifecycle, settings=SETTINGS)
