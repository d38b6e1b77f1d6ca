"""The text of the pull request to brain-score/vision. Every number comes from the objects or from a release."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files

from ..errors import PackagingError
from ..facts import N_REPETITIONS, TERMS_URL
from ..recipe import PUBLISHED_DATASETS
from ..release import SPLITS
from .artifacts import Artifacts, ObjectRecord
from .ceilings import ReleaseCeilings
from .shapes import find_shape

TEMPLATES = files(__package__) / "templates"
SHARED = (
    "It loads the very objects of that plugin and the images of `data/allen2022_fmri`, by the same versions and SHA-1s. Nothing "
    "new has to be stored. The identifier of a region fetches the whole assembly and reads the region."
)
NOT_SHARED = (
    "It shares the method and the images, but it has the objects that are listed below. {regions}The existing objects stay as "
    "they are."
)
NO_CEILINGS = "Not measured for this text: `export --release RELEASE` computes them from a release on disk."


@dataclass(frozen=True)
class ListedObject:
    """A row of the table of objects."""

    identifier: str
    kind: str
    shape: str
    record: ObjectRecord


def list_objects(artifacts: Artifacts) -> list[ListedObject]:
    """List the objects of the published datasets and of their regions, with the shapes that the objects have.

    Raises
    ------
    PackagingError
        If a dataset is missing, or the shape of an object is neither recorded nor known and cannot be read.
    """
    return [
        row
        for dataset in PUBLISHED_DATASETS
        for split in SPLITS
        for row in _dataset_rows(artifacts, dataset.name, split)
    ]


def check_ceilings(ceilings: ReleaseCeilings, objects: Sequence[ListedObject]) -> None:
    """Raise a `PackagingError` if ceilings are of a release that is not like its object."""
    identifier = f"{ceilings.name}.test"
    listed = [one for one in objects if one.identifier == identifier and one.kind == "assembly"]
    shape = _format_shape(ceilings.test_shape)
    if not listed or listed[0].shape != shape:
        found = f"an object of shape {listed[0].shape}" if listed else "no such object"
        raise PackagingError(
            f"The release of {identifier} has the shape {shape}, but artifacts.json lists {found}. Name the release that was "
            "uploaded."
        )


def write_text(
    plugin_name: str,
    test_path: str,
    objects: Sequence[ListedObject],
    ceilings: Sequence[ReleaseCeilings],
    checks: Sequence[str],
    *,
    shares_objects: bool,
) -> str:
    """Write the text of the pull request.

    Parameters
    ----------
    shares_objects : whether the existing plugins load the same objects
    test_path : of the plugin's tests, in the checkout
    checks : a line about each check that was run, with its result
    """
    return (
        read_template("pull_request.md")
        .format(
            plugin_name=plugin_name,
            test_path=test_path,
            terms_url=TERMS_URL,
            sharing=SHARED if shares_objects else _describe_objects(objects),
            objects="\n".join(_format_object(one) for one in objects),
            ceilings="\n\n".join(_format_ceilings(one, objects) for one in ceilings) or NO_CEILINGS,
            checks="\n".join(f"* {check}" for check in checks),
        )
        .rstrip("\n")
    )


def read_template(name: str) -> str:
    """Read a template of this folder."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _dataset_rows(artifacts: Artifacts, name: str, split: str) -> Iterator[ListedObject]:
    """Yield the rows of a split: its three objects, then its regions."""
    identifier = f"{name}.{split}"
    record = artifacts.datasets.get(identifier)
    if record is None or record.stimulus_csv is None or record.stimulus_zip is None:
        raise PackagingError(f"The artifacts file lists no objects for {identifier}. Upload that release first.")
    shape = find_shape(record.assembly)
    n_images = f"{shape[0] // (N_REPETITIONS if split == 'test' else 1)} images"
    yield ListedObject(identifier, "assembly", _format_shape(shape), record.assembly)
    yield ListedObject(identifier, "stimulus_csv", n_images, record.stimulus_csv)
    yield ListedObject(identifier, "stimulus_zip", n_images, record.stimulus_zip)
    for region_identifier, region in artifacts.datasets.items():
        if region_identifier.count(".") == 2 and region_identifier.split(".")[::2] == [name, split]:
            region_shape = _format_shape(find_shape(region.assembly))
            yield ListedObject(region_identifier, "assembly", region_shape, region.assembly)


def _describe_objects(objects: Sequence[ListedObject]) -> str:
    has_regions = any(one.identifier.count(".") > 1 for one in objects)
    return NOT_SHARED.format(
        regions="Each region has an object, so that its identifier fetches only that. " * has_regions
    )


def _format_object(one: ListedObject) -> str:
    return f"| `{one.identifier}` | {one.kind} | {one.shape} | `{one.record.sha1}` | `{one.record.url}` |"


def _format_ceilings(ceilings: ReleaseCeilings, objects: Sequence[ListedObject]) -> str:
    is_object = any(one.record.sha1 == ceilings.test_sha1 for one in objects)
    origin = (
        "the object above" if is_object else "a release of the same shape, whose file differs from the object above"
    )
    rows = [
        f"| {one.region} | {one.n_neuroids:,} | {one.noise_ceiling:.1f} | {one.split_half:.3f} |"
        for one in ceilings.regions
    ]
    header = ["| region | neuroids | noise ceiling (%) | split-half |", "|---|---|---|---|"]
    return "\n".join([f"`{ceilings.name}.test`, computed from {origin}:", "", *header, *rows])


def _format_shape(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)
