"""Images, trials and regions that the raw files give, from a design and labels that are written by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.recipe import Region
from allen2022_surface_packaging.verify import expectation
from allen2022_surface_packaging.verify.expectation import Trial, find_region_vertices
from allen2022_surface_packaging.verify.raw import Design

# NSD's numbers are 1-based. Every subject sees the shared images 10 and 20; subjects 1 and 2 also share image 30.
DESIGN = Design(
    masterordering=np.array([1, 2, 1, 3, 1, 2, 4, 2, 5, 3]),
    subjectim=np.array([[10, 20, 30, 40, 50], [10, 20, 30, 60, 70], [10, 20, 80, 90, 99]]),
    sharedix=np.array([10, 20]),
)


def trials_of(subject, n_sessions=2, n_trials=5):
    return expectation._list_trials(DESIGN, subject, n_sessions, n_trials)


def recipe(**options):
    return SimpleNamespace(**({"pool": "shared", "subjects": (1,), "split_seed": 42, "train_fraction": 0.5} | options))


def test_trials_are_counted_from_the_first_session():
    assert trials_of("subj01") == {
        9: [Trial(1, 0), Trial(1, 2), Trial(1, 4)],
        19: [Trial(1, 1), Trial(2, 0), Trial(2, 2)],
        29: [Trial(1, 3), Trial(2, 4)],
        39: [Trial(2, 1)],
        49: [Trial(2, 3)],
    }
    assert trials_of("subj02", n_sessions=1)[29] == [Trial(1, 3)]
    assert trials_of("subj03", n_sessions=4, n_trials=2)[9] == [Trial(1, 0), Trial(2, 0), Trial(3, 0)]


def test_own_images_are_those_that_no_other_subject_saw():
    trials = {"subj02": trials_of("subj02")}

    assert expectation._choose_images(recipe(pool="own", subjects=(2,)), DESIGN, trials) == {
        "train": [59, 69],
        "test": [9, 19],
    }


def test_own_images_were_shown_and_test_images_three_times():
    trials = {"subj01": trials_of("subj01", n_sessions=1, n_trials=7)}

    splits = expectation._choose_images(recipe(pool="own", subjects=(1,)), DESIGN, trials)

    assert splits == {"train": [39], "test": [9]}  # image 50 was not shown, and 20 was shown twice


@pytest.mark.parametrize(("fraction", "n_train"), [(0, 0), (0.4, 0), (0.5, 1), (0.99, 1), (1, 2)])
def test_shared_images_are_split_by_the_published_shuffle(fraction, n_train):
    trials = {subject: trials_of(subject) for subject in ("subj01", "subj03")}

    splits = expectation._choose_images(recipe(train_fraction=fraction), DESIGN, trials)

    order = np.random.RandomState(42).permutation(2)  # noqa: NPY002, the published split
    assert splits["train"] == sorted(np.array([9, 19])[order[:n_train]].tolist())
    assert sorted(splits["train"] + splits["test"]) == [9, 19]


def test_image_that_a_subject_saw_twice_is_not_complete():
    trials = {"subj01": trials_of("subj01"), "subj02": trials_of("subj02", n_sessions=1, n_trials=7)}

    splits = expectation._choose_images(recipe(), DESIGN, trials)

    assert splits["train"] + splits["test"] == [9]


LABELS = {"lh": np.array([0, 1, 2, 2, -1, 7]), "rh": np.array([2, 0, 1, 1, 3, 0])}


@pytest.fixture
def find(monkeypatch):
    """A function that finds the regions of an atlas with the labels 1 to 3 and 7, of which three have names."""
    names = {0: "Unknown", 1: "one", 2: "tw o", 7: "seven"}
    labels = dict(LABELS)
    tree = SimpleNamespace(labels=lambda atlas, hemisphere: hemisphere, label_names=lambda atlas: f"{atlas}.ctab")
    monkeypatch.setattr(expectation, "read_surface", lambda file: labels[file])
    monkeypatch.setattr(expectation, "read_label_names", lambda file: dict(names))

    def find_regions(*regions, n_vertices=6, named=None, lh=None):
        names.update(named or {})
        labels.update({} if lh is None else {"lh": np.array(lh)})
        return find_region_vertices(tree, SimpleNamespace(regions=regions), n_vertices)

    return find_regions


def contents(regions):
    return [(r.name, r.labels, *(r.vertices[h].tolist() for h in ("lh", "rh"))) for r in regions]


def test_regions_are_the_vertices_of_their_labels(find):
    regions = find(Region("a", "atlas", (1, 7)), Region("b", "atlas", ("tw o", 3)), Region("c", "cortex", ()))

    assert contents(regions) == [
        ("a", (1, 7), [1, 5], [2, 3]),
        ("b", (2, 3), [2, 3], [0, 4]),
        ("c", (), [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]),
    ]


def test_region_without_labels_holds_all_that_are_positive(find):
    (region,) = find(Region("all", "atlas", ()))

    assert contents([region]) == [("all", (1, 2, 3, 7), [1, 2, 3, 5], [0, 2, 3, 4])]


def test_each_label_is_a_region_with_a_legal_name(find):
    regions = find(Region("", "atlas", (), each=True))

    assert contents(regions) == [
        ("one", (1,), [1], [2, 3]),
        ("tw_o", (2,), [2, 3], [0]),
        ("atlas_3", (3,), [], [4]),
        ("seven", (7,), [5], []),
    ]


def test_label_zero_has_no_name(find):
    """As in the builder, which names what is outside an atlas like a label without a name."""
    assert [region.name for region in find(Region("", "atlas", (0, 1), each=True))] == ["atlas_0", "one"]


@pytest.mark.parametrize("named", [{1: "a.b", 2: "a_b"}, {2: "atlas_3"}])
def test_labels_with_one_name_are_not_taken_for_one_region(find, named):
    name = list(named.values())[-1]

    with pytest.raises(
        PackagingError, match=f"gives the recipe more than one region {name}, expected every region once"
    ):
        find(Region("", "atlas", (), each=True), named=named)


def test_label_that_is_no_whole_number_is_named(find):
    with pytest.raises(PackagingError, match=r"^atlas in .* has the label 1\.5, expected whole numbers\.$"):
        find(Region("a", "atlas"), lh=[0, 1.5, 2, 2, -1, 7])


def test_label_that_no_vertex_has_is_named(find):
    with pytest.raises(PackagingError, match=r"^No vertex of atlas in .* has the label 99, as the recipe asks\.$"):
        find(Region("a", "atlas", (1, 99)))
    assert contents(find(Region("a", "atlas", (1, 8)), named={8: "empty"})) == [("a", (1, 8), [1], [2, 3])]


def test_unknown_label_is_named(find):
    with pytest.raises(PackagingError, match=r"^atlas\.ctab names no label two, as the recipe asks\.$"):
        find(Region("a", "atlas", ("one", "two")))


def test_atlas_of_another_surface_is_named(find):
    with pytest.raises(PackagingError, match=r"^lh holds 6 vertices, expected 1,642 as in the manifest\.$"):
        find(Region("a", "atlas", (1,)), n_vertices=1642)
