"""A manifest of any structure is refused in one line that names it, or describes a release that can be used."""

import json
import shutil
from pathlib import Path

import pytest

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.release import Manifest, ReleaseFolder
from allen2022_surface_packaging.verify.comparison import compare_release
from allen2022_surface_packaging.verify.soundness import verify_release
from verify.mutations import NO_JSON, mutate

USED_EVERY = 25  # of the manifests that are not refused


@pytest.fixture(scope="module")
def copy(tiny_release, tmp_path_factory) -> Path:
    return Path(shutil.copytree(tiny_release, tmp_path_factory.mktemp("mutations") / "release"))


def test_manifest_of_any_structure_is_refused_in_one_line_or_can_be_used(copy, tiny_release):
    path = copy / "release.json"
    document = json.loads((tiny_release / "release.json").read_bytes())
    n_refused, accepted = 0, []
    for title, text in mutate(document):
        path.write_text(text)
        try:
            Manifest.read(ReleaseFolder(copy))
            accepted.append((title, text))
        except PackagingError as error:
            n_refused += 1
            assert str(error).startswith(f"{path} is damaged ("), title
            assert str(error).isprintable(), title
            assert len(str(error)) < 1000, title

    assert n_refused > 5 * len(accepted) > 0
    for title, text in accepted[::USED_EVERY]:
        path.write_text(text)
        assert all(problem.isprintable() for problem in verify_release(copy)), title
        assert compare_release(copy, str(tiny_release)).verdict == "identical", title


@pytest.mark.parametrize("name", NO_JSON)
def test_manifest_that_is_no_json_is_refused_in_one_line(copy, name):
    (copy / "release.json").write_bytes(NO_JSON[name])

    with pytest.raises(PackagingError, match=r"release\.json is damaged \(.*\)\. Build the release again") as raised:
        Manifest.read(ReleaseFolder(copy))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500
