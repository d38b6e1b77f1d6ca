"""The neuroids of an assembly: their order, ids and coordinates, compared with plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allen2022_surface_packaging.assemble.neuroids import RegionNeuroids, order_neuroids
from allen2022_surface_packaging.nsd.regions import LabelledRegion, RegionMap

HEMISPHERES = ("lh", "rh")


def make_map(n_vertices, *regions):
    """Make a region map from the vertices of lh and rh of each region, which are named A, B and so on."""
    members = [
        LabelledRegion(name, "atlas", (1,), {h: np.array(v, int) for h, v in zip(HEMISPHERES, vertices, strict=True)})
        for name, vertices in zip("ABCDEF", regions, strict=False)
    ]
    return RegionMap(n_vertices, tuple(members))


def list_rows(table):
    """Return the coordinates of every neuroid, with text decoded."""
    columns = dict(table.coordinates())
    assert list(columns) == ["neuroid_id", "subject", "hemisphere", "vertex_index", "region", "nc_testset"]
    texts = {name: values.astype(str) if values.dtype.kind == "S" else values for name, values in columns.items()}
    return list(zip(*(values.tolist() for values in texts.values()), strict=True))


def test_neuroids_are_ordered_by_region_subject_hemisphere_and_vertex():
    region_map = make_map(9, ([2, 5], [1]), ([5], [0, 8]))
    ncsnr = {3: np.array([1.0, 0.5, 0.0, 2.0, np.nan]), 8: np.zeros(5)}  # lh 2, lh 5, rh 0, rh 1, rh 8
    table = order_neuroids(region_map, ncsnr)

    half, twice = 100 * 0.25 / (0.25 + 1 / 3), 100 * 4 / (4 + 1 / 3)
    rows = list_rows(table)
    assert rows[:6] == [
        ("subj03_lh_A_v00000", "subj03", "lh", 2, "A", pytest.approx(75)),
        ("subj03_lh_A_v00001", "subj03", "lh", 5, "A", pytest.approx(half)),
        ("subj03_rh_A_v00002", "subj03", "rh", 1, "A", pytest.approx(twice)),
        ("subj08_lh_A_v00000", "subj08", "lh", 2, "A", 0),
        ("subj08_lh_A_v00001", "subj08", "lh", 5, "A", 0),
        ("subj08_rh_A_v00002", "subj08", "rh", 1, "A", 0),
    ]
    assert [row[0] for row in rows[6:9]] == ["subj03_lh_B_v00000", "subj03_rh_B_v00001", "subj03_rh_B_v00002"]
    assert np.isnan(rows[8][5])
    assert len(table) == len(rows) == 12
    assert [(group.subject, group.region, group.start, len(group)) for group in table.groups] == [
        (3, "A", 0, 3),
        (8, "A", 3, 3),
        (3, "B", 6, 3),
        (8, "B", 9, 3),
    ]
    assert [(group.subject, group.columns.tolist()) for group in table.of_subject(8)] == [
        (8, [0, 1, 3]),
        (8, [1, 2, 4]),
    ]


def test_numbers_have_gaps_where_neuroids_are_left_out():
    region_map = make_map(9, ([2, 5], [1, 7]), ([5], [8]))
    valid = {1: np.array([True, False, True, False, True]), 2: np.ones(5, bool)}
    table = order_neuroids(region_map, {1: np.ones(5), 2: np.ones(5)}, valid)

    assert [(row[0], row[3]) for row in list_rows(table)] == [
        ("subj01_lh_A_v00000", 2),
        ("subj01_rh_A_v00002", 1),
        *(("subj02_lh_A_v00000", 2), ("subj02_lh_A_v00001", 5), ("subj02_rh_A_v00002", 1), ("subj02_rh_A_v00003", 7)),
        ("subj01_rh_B_v00001", 8),
        *(("subj02_lh_B_v00000", 5), ("subj02_rh_B_v00001", 8)),
    ]
    assert [group.start for group in table.groups] == [0, 2, 6, 7]


@pytest.mark.parametrize("largest", [0, 9, 99_999, 100_000, 999_999, 1_000_000])
def test_ids_have_at_least_five_digits(largest):
    """A large number makes the text wider, but gives small numbers no more zeros."""
    numbers = [n for n in (0, 10, 9999, 10_000, 99_999, 100_000, 234_567, 999_999, 1_000_000) if n <= largest]
    is_left = np.arange(len(numbers)) == 0
    columns = np.arange(len(numbers))
    group = RegionNeuroids(7, "V1", 0, columns, np.array(numbers), is_left, columns, np.ones(len(numbers)))

    hemispheres = ["lh", *["rh"] * (len(numbers) - 1)]
    assert [name.decode() for name in group.ids] == [
        f"subj07_{h}_V1_v{number:05d}" for h, number in zip(hemispheres, numbers, strict=True)
    ]


@given(st.data())
def test_any_neuroids_agree_with_plain_loops(data):
    n_vertices = data.draw(st.integers(1, 8))
    vertex_sets = st.sets(st.integers(0, n_vertices - 1)).map(sorted)
    regions = data.draw(st.lists(st.tuples(vertex_sets, vertex_sets), min_size=1, max_size=4))
    region_map = make_map(n_vertices, *regions)
    read = [(h, v) for i, h in enumerate(HEMISPHERES) for v in range(n_vertices) if any(v in r[i] for r in regions)]
    subjects = sorted(data.draw(st.sets(st.integers(1, 8), min_size=1, max_size=3)))
    ncsnr = {
        s: np.array(data.draw(st.lists(st.floats(0, 3), min_size=len(read), max_size=len(read)))) for s in subjects
    }
    valid = {
        s: np.array(data.draw(st.lists(st.booleans(), min_size=len(read), max_size=len(read))), bool) for s in subjects
    }
    is_dropped = data.draw(st.booleans())
    table = order_neuroids(region_map, ncsnr, valid if is_dropped else None)

    expected = []
    for name, region in zip("ABCD", regions, strict=False):
        for s in subjects:
            members = [(h, v) for h, vertices in zip(HEMISPHERES, region, strict=True) for v in vertices]
            for number, (h, v) in enumerate(members):
                signal = ncsnr[s][read.index((h, v))] ** 2
                if not is_dropped or valid[s][read.index((h, v))]:
                    ceiling = pytest.approx(100 * signal / (signal + 1 / 3))
                    expected.append((f"subj{s:02d}_{h}_{name}_v{number:05d}", f"subj{s:02d}", h, v, name, ceiling))
    assert list_rows(table) == expected
