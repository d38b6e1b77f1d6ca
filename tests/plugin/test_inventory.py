"""What an identifier would load: sizes, places and problems, from a release that is written by hand."""

import pytest

from brainscore_allen2022_surface.inventory import Listing, format_bytes, list_identifier
from plugin.written_releases import CONTENT, write_release


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (None, "unknown"),
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (10**6, "1.0 MB"),
        (1_550_000, "1.6 MB"),
        (10**9, "1.0 GB"),
    ],
)
def test_sizes_are_in_decimal_units(n_bytes, text):
    assert format_bytes(n_bytes) == text


def test_listing_has_the_size_and_place_of_a_release(tmp_path):
    release = write_release(tmp_path / "release")

    dataset = list_identifier("data_registry", "one.V4.test", release)
    stimuli = list_identifier("stimulus_set_registry", "one.test", release)

    assert dataset == Listing("one.V4.test", str(release / "one_test.nc"), 2, True)
    n_bytes = len(CONTENT["stimuli_test/c.png"]) + len(CONTENT["stimulus_metadata_test.csv"])
    assert stimuli == Listing("one.test", str(release / "stimuli_test"), n_bytes, True)


def test_what_is_not_found_is_not_here(tmp_path):
    listing = list_identifier("data_registry", "two.test", write_release(tmp_path / "release"))

    assert (listing.location, listing.n_bytes, listing.is_here) == ("", None, False)
    assert "expected two" in listing.problem and "\n" not in listing.problem
