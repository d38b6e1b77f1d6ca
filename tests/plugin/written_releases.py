"""Releases that are written by hand, with files of a few bytes."""

import json
from pathlib import Path

CONTENT = {
    "one_train.nc": b"1234567",
    "one_test.nc": b"12",
    "stimulus_metadata_train.csv": b"12345",
    "stimulus_metadata_test.csv": b"",
    "stimuli_train/a.png": b"a",
    "stimuli_train/below/b.png": b"bb",
    "stimuli_test/c.png": b"c",
    "stimuli_trainer/d.png": b"d",
}
SHA1S = {name: f"{number:040x}" for number, name in enumerate(CONTENT)}


def write_release(path: Path, **changes) -> Path:
    for name, content in CONTENT.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    files = {name: {"size": len(content), "sha1": SHA1S[name]} for name, content in CONTENT.items()}
    write_manifest(path, {"name": "one", "files": files} | changes)
    return path


def write_manifest(path: Path, manifest: object) -> None:
    (path / "release.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
