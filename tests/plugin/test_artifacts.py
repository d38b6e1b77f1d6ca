"""The artifacts file: the file that ships with the plugin, and files that are damaged or lack a dataset."""

import json
from pathlib import Path

import pytest

from brainscore_allen2022_surface.artifacts import SHIPPED_PATH, StoredDataset, StoredObject, read_artifacts
from brainscore_allen2022_surface.loaders import load_assembly

IDENTIFIERS = [
    f"{name}.{split}"
    for name in ("Allen2022_fmri_surface", "Allen2022_fmri_surface_4subj")
    for split in ("train", "test")
]
SHA1 = "0a1b2c3d4e" * 4
OBJECT = {"bucket": "brain", "key": "a/b.nc", "version_id": "v", "sha1": SHA1}
# The key and the SHA-1 become parts of a path in the cache.
DAMAGED_VALUES = [
    ("sha1", "../../outside"),
    ("sha1", "s"),
    ("sha1", SHA1.upper()),
    ("key", ""),
    ("key", "a/.."),
    ("key", "a/"),
    ("key", "a\nb"),
    ("key", "a\0b"),
    ("key", "a" * 201),
    ("key", "é" * 101),
    ("bucket", ""),
    ("version_id", ""),
    ("size", True),
    ("simulated", 1),
    ("sha1", ["deep"] * 1000),
]
DATASET = {"assembly": OBJECT | {"size": 5}, "stimulus_csv": OBJECT, "stimulus_zip": OBJECT}


@pytest.fixture
def artifacts_path(tmp_path, monkeypatch) -> Path:
    """The path of an artifacts file that the environment names. The test writes it."""
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS", str(tmp_path / "artifacts.json"))
    return tmp_path / "artifacts.json"


def test_shipped_artifacts_equal_those_of_brainscore_vision():
    """brain-score/vision 2.4.2 registers the same version ids and SHA-1s in the text of its plugins."""
    import brainscore_vision

    folder = Path(brainscore_vision.__file__).parent / "data"
    registered = "".join(
        (folder / name / "__init__.py").read_text() for name in ("allen2022_fmri", "allen2022_fmri_surface")
    )
    artifacts = json.loads(SHIPPED_PATH.read_text())

    assert list(artifacts) == IDENTIFIERS
    for identifier, objects in artifacts.items():
        infix = "_4subj" if "4subj" in identifier else ""
        split = identifier.rpartition(".")[2]
        prefix = "brainscore-vision/benchmarks/Allen2022"
        assert {kind: entry["key"] for kind, entry in objects.items()} == {
            "assembly": f"{prefix}/Allen2022_fmri_surface/assy_Allen2022_fMRI_surface{infix}_{split}_Assembly.nc",
            "stimulus_csv": f"{prefix}/Allen2022_fmri/stimulus_Allen2022_fMRI{infix}_{split}_Stimuli.csv",
            "stimulus_zip": f"{prefix}/Allen2022_fmri/stimulus_Allen2022_fMRI{infix}_{split}_Stimuli.zip",
        }
        for kind, entry in objects.items():
            name = Path(entry["key"]).stem.removeprefix("assy_").removeprefix("stimulus_")
            lines = registered[registered.index(f'identifier="{name}"') :].partition("registry[")[0]
            argument = {"assembly": "", "stimulus_csv": "csv_", "stimulus_zip": "zip_"}[kind]
            assert entry["bucket"] == "brainscore-storage"
            assert f'{argument}version_id="{entry["version_id"]}"' in lines
            assert f'{argument}sha1="{entry["sha1"]}"' in lines


def test_artifacts_are_read_with_and_without_size(artifacts_path):
    artifacts_path.write_text(json.dumps({"X.test": DATASET}))
    with_size, without_size = (StoredObject("brain", "a/b.nc", "v", SHA1, size) for size in (5, None))

    assert read_artifacts(artifacts_path) == {"X.test": StoredDataset(with_size, without_size, without_size)}


def test_longest_name_and_a_shape_are_accepted(artifacts_path):
    """The cache adds to the name, and a file system takes 255 bytes. The shape is for people."""
    entry = OBJECT | {"key": f"a/{'n' * 200}", "shape": [5, 7, 1]}
    artifacts_path.write_text(json.dumps({"X.test": DATASET | {"assembly": entry}}))

    assert read_artifacts(artifacts_path)["X.test"].assembly == StoredObject("brain", entry["key"], "v", SHA1)


def test_regions_belong_to_their_dataset(artifacts_path):
    region = OBJECT | {"key": "a/b_V4.nc"}
    artifacts_path.write_text(json.dumps({"X.V4.test": {"assembly": region}, "X.test": DATASET}))

    artifacts = read_artifacts(artifacts_path)

    assert list(artifacts) == ["X.test"]
    assert artifacts["X.test"].region_assemblies == {"V4": StoredObject("brain", "a/b_V4.nc", "v", SHA1)}


@pytest.mark.parametrize(
    ("content", "listed"), [(json.dumps({"B.test": DATASET, "A.test": DATASET}), "A.test, B.test"), ("{}", "nothing")]
)
def test_error_lists_datasets_when_one_is_missing(artifacts_path, content, listed):
    artifacts_path.write_text(content)

    with pytest.raises(FileNotFoundError, match=f"lists {listed}, expected Other.test. Upload it .*or set BRAINSCORE"):
        load_assembly("Other", "test")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting property name"),
        ("[" * 100_000, "maximum recursion depth exceeded"),
        ("[]", "it holds a list, expected an object of datasets"),
        (json.dumps({"X.test": [1]}), "X.test lacks one of the objects assembly, stimulus_csv and stimulus_zip"),
        (json.dumps({"X.test": {"assembly": OBJECT}}), "X.test lacks one of the objects"),
        (json.dumps({"X.test": DATASET | {"assembly": {"sha1": "x"}}}), "X.test, assembly must have the texts bucket"),
        (json.dumps({"X.test": DATASET | {"assembly": "s3://brain"}}), "X.test, assembly must .*got 's3://brain'"),
        (
            json.dumps({"X.test": DATASET | {"stimulus_csv": OBJECT | {"key": 1}}}),
            "X.test, stimulus_csv must .*'key': 1",
        ),
        (json.dumps({"X.test": DATASET | {"stimulus_zip": OBJECT | {"size": "5"}}}), "X.test, stimulus_zip must .*'5'"),
        (
            json.dumps({"X.test": DATASET | {"stimulus_zip": OBJECT | {"url": "x"}}}),
            "X.test, stimulus_zip must .*'url'",
        ),
        (
            json.dumps(
                {"X.test": DATASET | {"assembly": OBJECT | {"size": 5, "shape": [1], "simulated": True, "zip": 1}}}
            ),
            "X.test, assembly must .*'zip': 1",
        ),
        *(
            (
                json.dumps({"X.test": DATASET | {"assembly": OBJECT | {key: value}}}),
                "X.test, assembly must have the texts",
            )
            for key, value in DAMAGED_VALUES
        ),
        (json.dumps({"../X.test": DATASET}), "'../X.test' is no identifier"),
        (json.dumps({"X": DATASET}), "'X' is no identifier"),
        (json.dumps({"X\n.test": DATASET}), ".* is no identifier"),
        (json.dumps({"X.V4.test": {"assembly": OBJECT}}), "X.V4.test is a region of X.test, which is missing"),
        (json.dumps({"X.test": DATASET, "X.V4.test": {"assembly": "x"}}), "X.V4.test, assembly must have .*'x'"),
        (
            json.dumps({"X.test": DATASET, "X.V4.test": {"assembly": OBJECT, "stimulus_csv": OBJECT}}),
            "X.V4.test lacks one of the objects",
        ),
    ],
    ids=lambda text: text[:40],
)
def test_damaged_artifacts_file_is_refused(artifacts_path, content, reason):
    artifacts_path.write_text(content)

    with pytest.raises(ValueError, match=rf"artifacts.json is damaged \({reason}.*Install the plugin again") as error:
        load_assembly("X", "test")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


def test_artifacts_file_that_is_not_text_is_refused(artifacts_path):
    artifacts_path.write_bytes(b"\xff\xfe{")

    with pytest.raises(ValueError, match="artifacts.json is damaged"):
        load_assembly("X", "test")
