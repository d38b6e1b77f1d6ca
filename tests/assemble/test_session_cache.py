"""The session cache on a tiny tree: which entries there are, what they hold, and what is read from them.

`test_sessions.py` tries it in whole builds.
"""

import logging
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

import reference
from allen2022_surface_packaging.assemble import sessions
from allen2022_surface_packaging.assemble.cluster import Workers
from allen2022_surface_packaging.assemble.entries import Entry, write_entry
from allen2022_surface_packaging.assemble.sessions import SessionCache, compute_entry
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.files import BetasShape
from allen2022_surface_packaging.nsd.inspection import inspect_tree
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.recipe import Region, make_recipe

TWO = make_recipe((1, 4), name="Two")
BETAS = "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR"


def with_regions(*regions, recipe=TWO):
    return replace(recipe, regions=tuple(Region(f"r{atlas}", atlas, labels) for atlas, labels in regions))


CORTEX, V1, IT = with_regions(("cortex", ())), with_regions(("Kastner2015", (1, 2))), with_regions(("streams", (5,)))
OWN = replace(make_recipe((4,), name="own", standardize_on="train"), pool="own", regions=V1.regions)


@pytest.fixture(scope="module")
def plan_of(tiny_tree):
    """A function that returns the plan of a recipe."""
    plans = {}

    def plan_of(recipe):
        if recipe not in plans:
            plans[recipe] = inspect_tree(open_tree(tiny_tree), recipe).require_sound()
        return plans[recipe]

    return plan_of


def names_of(cache):
    return [task.path.name for task in cache.tasks.values()]


def fill(plans, path):
    cache = SessionCache(plans, path)
    cache.prepare(Workers())
    return cache


def test_every_needed_session_has_an_entry_of_its_own(plan_of, tmp_path):
    cache = SessionCache([plan_of(V1)], tmp_path / "new" / "cache")

    assert [name[:16] for name in names_of(cache)] == [f"subj0{s}_session0{n}" for s in (1, 4) for n in (1, 2, 3)]
    assert all(
        re.fullmatch(r"subj0\d_session0\d_[0-9a-f]{20}_[0-9a-f]{20}\.responses", name) for name in names_of(cache)
    )
    assert len({name[17:] for name in names_of(cache)}) == 6  # also without subject and session
    assert list((tmp_path / "new" / "cache").iterdir()) == []


def test_task_holds_the_trials_and_vertices_of_its_plan(plan_of, tmp_path):
    plan = plan_of(V1)
    for session, task in zip(plan.sessions, SessionCache([plan], tmp_path).tasks.values(), strict=True):
        assert task.session is session
        assert task.trials.tolist() == session.trials.tolist()
        assert {h: task.vertices[h].tolist() for h in ("lh", "rh")} == {
            h: plan.region_map.vertices[h].tolist() for h in ("lh", "rh")
        }


def test_task_of_several_plans_holds_what_any_of_them_needs(plan_of, tmp_path):
    plans = [plan_of(V1), plan_of(IT), plan_of(OWN)]
    tasks = SessionCache(plans, tmp_path).tasks.values()

    assert len(tasks) == 6
    for task in tasks:
        others = [(s, plan) for plan in plans for s in plan.sessions if str(s) == str(task.session)]
        assert len(others) == (2 if task.session.subject == 1 else 3)
        assert task.trials.tolist() == sorted({t for s, _ in others for t in s.trials.tolist()})
        for h in ("lh", "rh"):
            needed = {v for _, plan in others for v in plan.region_map.vertices[h].tolist()}
            assert task.vertices[h].tolist() == sorted(needed)


def test_name_of_an_entry_depends_on_vertices_and_trials(plan_of, tmp_path):
    names = [names_of(SessionCache([plan_of(recipe)], tmp_path))[-1] for recipe in (V1, IT, CORTEX, OWN)]

    assert len(set(names)) == 4
    assert len({name.rsplit("_", 1)[0] for name in names}) == 1  # the betas are the same


def test_name_of_an_entry_depends_on_the_method(plan_of, tmp_path, monkeypatch):
    before = names_of(SessionCache([plan_of(V1)], tmp_path))
    monkeypatch.setattr(sessions, "METHOD_VERSION", 2)
    after = names_of(SessionCache([plan_of(V1)], tmp_path))

    assert not set(before) & set(after)


@pytest.fixture
def tree_path(tiny_tree, tmp_path):
    return shutil.copytree(tiny_tree, tmp_path / "nsd")


@pytest.mark.parametrize("hemisphere", ["lh", "rh"])
def test_name_of_an_entry_depends_on_both_betas_files(tree_path, tmp_path, hemisphere):
    plan = inspect_tree(open_tree(tree_path), V1).require_sound()
    before = names_of(SessionCache([plan], tmp_path / "cache"))
    os.utime(tree_path / BETAS / f"{hemisphere}.betas_session02.mgh", ns=(0, 0))
    after = names_of(SessionCache([plan], tmp_path / "cache"))

    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True, True, True, True]


def test_betas_that_changed_while_the_build_ran_are_named(tree_path, tmp_path, monkeypatch):
    plan = inspect_tree(open_tree(tree_path), V1).require_sound()
    cache = SessionCache([plan], tmp_path / "cache")
    path = tree_path / BETAS / "rh.betas_session02.mgh"

    def change_after(task):
        name = compute_entry(task)
        if task.session.subject == 1 and task.session.number == 2:
            path.write_bytes(path.read_bytes()[:-4] + b"\x41\x00\x00\x00")
        return name

    monkeypatch.setattr(sessions, "compute_entry", change_after)
    before = {task.path for task in cache.tasks.values()}
    with pytest.raises(PackagingError, match=rf" or {path} was changed while the build ran\. Start it again\.$"):
        cache.prepare(Workers())

    assert sum(not path.exists() for path in before) == 1  # the entry of the changed file


def test_entry_that_another_build_removes_meanwhile_does_not_serve(plan_of, tmp_path, monkeypatch):
    fill([plan_of(V1)], tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    open_entry = Entry.open

    def remove_and_open(path):
        path.unlink()
        return open_entry(path)

    monkeypatch.setattr(Entry, "open", remove_and_open)

    assert sorted(names_of(SessionCache([plan_of(V1)], tmp_path))) == names


def test_betas_that_are_missing_by_now_are_named(tree_path, tmp_path):
    plan = inspect_tree(open_tree(tree_path), V1).require_sound()
    (tree_path / BETAS / "rh.betas_session02.mgh").unlink()

    with pytest.raises(PackagingError, match=r"rh\.betas_session02\.mgh is missing\. Download it"):
        SessionCache([plan], tmp_path / "cache")


@pytest.mark.parametrize("recipe", [CORTEX, V1, OWN], ids=["cortex", "V1", "own"])
def test_entries_hold_the_standardised_sessions_of_the_reference(tiny_tree, plan_of, tmp_path, recipe):
    cache = fill([plan_of(recipe)], tmp_path)

    for subject in recipe.subjects:
        every = {h: np.ones(1300, bool) for h in ("lh", "rh")}
        trials = reference.standardised_trials(tiny_tree, subject, every)
        for task in cache.tasks.values():
            if task.session.subject == subject:
                rows = 42 * (task.session.number - 1) + task.trials
                entry = Entry.open(task.path)
                for first, h in ((0, "lh"), (1300, "rh")):
                    expected = trials[rows][:, first + task.vertices[h]]
                    actual = entry.read(task.trials, h, task.vertices[h])
                    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


def test_entry_with_more_vertices_serves_as_well(plan_of, tmp_path):
    whole = fill([plan_of(CORTEX)], tmp_path)
    part = SessionCache([plan_of(V1)], tmp_path)

    assert names_of(part) == names_of(whole)
    assert {h: part.tasks[key].vertices[h].tolist() for key in part.tasks for h in ("lh", "rh")} == {
        h: plan_of(V1).region_map.vertices[h].tolist() for h in ("lh", "rh")
    }


def test_entry_without_a_needed_vertex_or_trial_does_not_serve(plan_of, tmp_path):
    present = fill([plan_of(V1)], tmp_path)

    for recipe in (IT, CORTEX, OWN):
        assert not set(names_of(SessionCache([plan_of(recipe)], tmp_path))) & set(names_of(present))


def test_smallest_entry_that_serves_is_used(plan_of, tmp_path):
    fill([plan_of(CORTEX)], tmp_path)
    small = SessionCache([plan_of(V1), plan_of(IT)], tmp_path / "other")
    small.prepare(Workers())
    for path in (tmp_path / "other").iterdir():
        path.rename(tmp_path / path.name)

    assert names_of(SessionCache([plan_of(V1)], tmp_path)) == names_of(small)


@pytest.mark.parametrize("content", [b"", b"[1, 1, 1]\n"])
def test_damaged_entry_does_not_serve_and_is_computed(plan_of, tmp_path, content):
    cache = fill([plan_of(CORTEX)], tmp_path)
    path = next(iter(cache.tasks.values())).path
    path.write_bytes(content)
    again = SessionCache([plan_of(V1)], tmp_path)

    assert [old == new for old, new in zip(names_of(cache), names_of(again), strict=True)] == [False] + [True] * 5


def test_only_missing_entries_are_computed_and_counted(plan_of, tmp_path, caplog):
    cache = fill([plan_of(V1)], tmp_path)
    paths = [task.path for task in cache.tasks.values()]
    before = {path: path.stat().st_mtime_ns for path in paths}
    paths[2].unlink()
    with caplog.at_level(logging.DEBUG):
        SessionCache([plan_of(V1)], tmp_path).prepare(Workers())

    changed = [path for path in paths if path.stat().st_mtime_ns != before[path]]
    assert changed == [paths[2]]
    messages = [record.getMessage() for record in caplog.records]
    assert f"5 of 6 sessions are in {tmp_path} already" in messages
    assert "subj01 session 03 is standardised" in messages


def test_parts_that_a_killed_build_left_are_removed(plan_of, tmp_path):
    (tmp_path / ".a.responses.0.partial").touch()
    os.utime(tmp_path / ".a.responses.0.partial", (0, 0))
    (tmp_path / ".b.responses.0.partial").touch()  # of a build that may be running
    SessionCache([plan_of(V1)], tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == [".b.responses.0.partial"]


def test_nothing_is_said_about_an_empty_cache(plan_of, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        fill([plan_of(V1)], tmp_path)

    assert "already" not in caplog.text


def test_error_of_one_session_stops_the_preparation(tree_path, tmp_path):
    plan = inspect_tree(open_tree(tree_path), V1).require_sound()
    cache = SessionCache([plan], tmp_path / "cache")
    os.truncate(tree_path / BETAS / "rh.betas_session03.mgh", 5000)

    with pytest.raises(PackagingError, match=r"rh\.betas_session03\.mgh is cut short"):
        cache.prepare(Workers())
    assert len(list((tmp_path / "cache").iterdir())) == 2  # sessions 1 and 2, and no part of another


def test_betas_of_another_shape_than_the_tree_are_refused(plan_of, tmp_path):
    task = next(iter(SessionCache([plan_of(V1)], tmp_path).tasks.values()))
    other = replace(task, session=replace(task.session, shape=BetasShape(1300, 43)))

    message = r"holds 1,300 vertices x 42 trials, expected 1,300 vertices x 43 trials as in the rest of the tree"
    with pytest.raises(PackagingError, match=message):
        compute_entry(other)
    assert compute_entry(task) == "subj01 session 01"


def plain_responses(tiny_tree, subject, images, n_repetitions, hemisphere, vertices):
    """Return the standardised responses to some images, NaN where an image was not shown."""
    n_sessions = {1: 3, 4: 3}[subject]
    trials = reference.standardised_trials(tiny_tree, subject, {hemisphere: np.ones(1300, bool)})
    shown = reference.shown_images(tiny_tree, subject, 42 * n_sessions)
    rows = reference.find_trials(shown, images, n_repetitions)
    return np.where(rows[:, :, None] < 0, np.nan, trials[rows])[:, :, vertices]


@pytest.mark.parametrize("recipe", [V1, OWN], ids=["shared", "own"])
@pytest.mark.parametrize("hemisphere", ["lh", "rh"])
def test_responses_are_in_the_row_and_repetition_of_their_trial(tiny_tree, plan_of, tmp_path, recipe, hemisphere):
    plan = plan_of(recipe)
    vertices = plan.region_map.vertices[hemisphere][1:]
    responses = fill([plan], tmp_path).responses_of(plan, 4)
    actual = responses.read(hemisphere, vertices)

    expected = plain_responses(tiny_tree, 4, plan.images.tolist(), 3, hemisphere, vertices)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)
    assert responses.images.tolist() == plan.images.tolist()
    rows, repetitions = responses.shown_trials()
    shown = sorted(zip(rows.tolist(), repetitions.tolist(), strict=True))
    count = reference.shown_images(tiny_tree, 4, 126).count
    assert shown == [(row, n) for row, i in enumerate(plan.images.tolist()) for n in range(count(i))]


def test_incomplete_shared_images_are_cached_but_not_returned(tiny_tree, plan_of, tmp_path):
    plan = plan_of(V1)
    responses = SessionCache([plan], tmp_path).responses_of(plan, 1)

    assert len({i for session in plan.sessions for i in session.nsd_ids.tolist()}) > len(plan.images)
    assert {i for session in responses.sessions for i in session.nsd_ids.tolist()} == set(plan.images.tolist())
    for session, whole in zip(responses.sessions, plan.sessions, strict=False):
        rows = np.isin(whole.nsd_ids, plan.images)
        assert session.trials.tolist() == whole.trials[rows].tolist()
        assert session.repetitions.tolist() == whole.repetitions[rows].tolist()
        assert (str(session), session.betas, session.shape) == (str(whole), whole.betas, whole.shape)


@pytest.mark.parametrize(("shift", "n_repetitions"), [(-2, 3), (0, 3), (1, 4), (4, 7)])
def test_responses_have_room_for_every_repetition(plan_of, tmp_path, shift, n_repetitions):
    plan = plan_of(V1)
    shifted = tuple(
        replace(session, repetitions=np.maximum(session.repetitions + shift, 0)) for session in plan.sessions
    )
    plan = replace(plan, sessions=shifted)

    assert SessionCache([plan], tmp_path).responses_of(plan, 1).n_repetitions == n_repetitions


def change_a_value(content):
    """Change the last value of rh in an entry, before the digests of two blocks and of the index."""
    position = len(content) - 3 * 20 - 1
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_damaged_entry_is_computed_again_while_it_is_read(plan_of, tmp_path, caplog, damage):
    plan = plan_of(V1)
    responses = fill([plan], tmp_path).responses_of(plan, 4)
    vertices = plan.region_map.vertices["rh"]
    expected = responses.read("rh", vertices)
    path = responses.tasks[1].path
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
        responses.entries.clear()
    else:
        path.write_bytes(content[:-500] if damage == "cut" else change_a_value(content))
    with caplog.at_level(logging.WARNING):
        actual = responses.read("rh", vertices)

    np.testing.assert_array_equal(actual, expected)
    assert f"{path} is damaged or missing; it is computed again" in caplog.text
    assert path.read_bytes() == content


def test_disk_that_damages_what_is_written_is_named(plan_of, tmp_path, monkeypatch):
    plan = plan_of(V1)
    responses = fill([plan], tmp_path).responses_of(plan, 4)
    path = responses.tasks[1].path

    def write_damaged(path, trials, vertices, values):
        write_entry(path, trials, vertices, values)
        path.write_bytes(change_a_value(path.read_bytes()))

    monkeypatch.setattr(sessions, "write_entry", write_damaged)
    write_damaged(path, responses.tasks[1].trials, responses.tasks[1].vertices, read_all(responses.tasks[1]))
    message = rf"{path.name} is damaged as soon as it is written\. Is the disk sound\? Choose --cache\."
    with pytest.raises(PackagingError, match=message):
        responses.read("rh", plan.region_map.vertices["rh"])


def read_all(task):
    return {h: Entry.open(task.path).read(task.trials, h, task.vertices[h]) for h in ("lh", "rh")}
