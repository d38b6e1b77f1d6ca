"""Whether a release is sound: whether its files agree with its manifest and with each other."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import PackagingError
from ..files import sha1_of
from ..release import SPLITS, FileRecord, Manifest, ReleaseFolder
from .assembly_soundness import find_assembly_problems
from .manifest_soundness import find_manifest_problems
from .stimulus_soundness import find_stimulus_problems


@dataclass(frozen=True)
class Soundness:
    """What a release says about itself.

    Attributes
    ----------
    problems : a line each; empty if the release is sound
    is_intact : whether every file is the one that was written; else nothing else was compared
    manifest_sha1 : of the manifest, in hexadecimal
    files_sha1 : a hash of all other files, in hexadecimal; it changes when one of them changes
    n_files : how many files the manifest lists
    """

    problems: list[str]
    is_intact: bool
    manifest_sha1: str
    files_sha1: str
    n_files: int


def verify_release(release_path: Path) -> list[str]:
    """Return the problems of a release, as `check_soundness`; empty if it is sound."""
    return check_soundness(release_path).problems


def check_soundness(release_path: Path) -> Soundness:
    """Compare the files of a release with its manifest and with each other.

    If a file is not the one that was written, nothing else is compared. What only the raw files tell is not compared: values,
    pixels, noise ceilings, COCO ids, which images and vertices were chosen, the sizes of the inputs. Nothing tells which
    versions of other packages were installed. How a file is written is not compared where no reader can see it, such as the
    metadata of an image.

    Raises
    ------
    PackagingError
        If the folder is not a release, or its manifest is damaged.
    """
    folder = ReleaseFolder(release_path)
    manifest = Manifest.read(folder)
    problems, hashes = _compare_files(folder, manifest.name, manifest.files)
    is_intact = not problems
    files_sha1 = hashlib.sha1("\n".join([*problems, *hashes]).encode()).hexdigest()
    if is_intact:
        checks: tuple[Callable[[ReleaseFolder, Manifest], Iterator[str]], ...] = (
            find_manifest_problems,
            find_stimulus_problems,
            find_assembly_problems,
        )
        for check in checks:
            problems += _collect(check(folder, manifest))
    problems = list(dict.fromkeys(problems))
    return Soundness(problems, is_intact, sha1_of(folder.manifest_path), files_sha1, len(manifest.files))


def _collect(problems: Iterator[str]) -> Iterator[str]:
    """Yield problems. An error, such as a file that cannot be read, is the last of them."""
    try:
        yield from problems
    except PackagingError as error:
        yield str(error)


def _compare_files(
    folder: ReleaseFolder, release_name: str, records: dict[str, FileRecord]
) -> tuple[list[str], list[str]]:
    """Return the problems of the files, and the SHA-1 of each file that is there."""
    manifest_name = folder.manifest_path.name
    others = (folder.manifest_path, folder.verification_path, folder.report_path)
    present = [path for path in folder.path.rglob("*") if path.is_file() and path not in others]
    # What odd disks and half-written files add begins with a dot.
    paths = {folder.file_name(path): path for path in present if not path.name.startswith(".")}
    problems = [
        f"{path} is in the release, but a release has no such {kind}." for path, kind in _find_strangers(folder)
    ]
    known = {folder.split_path, folder.origin_path, *map(folder.stimulus_table_path, SPLITS)}
    known |= {folder.assembly_path(release_name, split) for split in SPLITS}
    image_folders = [folder.stimuli_path(split) for split in SPLITS]
    problems += [
        f"{folder.path / name} is listed by {manifest_name}, but a release has no such file."
        for name in sorted(records)
        if folder.path / name not in known and (folder.path / name).parent not in image_folders
    ]
    for name in sorted(set(records) - set(paths)):
        path = folder.path / name
        state = "is not a regular file" if path.exists() or path.is_symlink() else "is missing"
        problems.append(f"{path} {state}, but {manifest_name} lists it.")
    problems += [
        f"{paths[name]} is in the release, but {manifest_name} does not list it."
        for name in sorted(set(paths) - set(records))
    ]
    hashes = []
    for name in sorted(set(paths) & set(records)):
        size, expected = paths[name].stat().st_size, records[name]
        sha1 = sha1_of(paths[name])
        hashes.append(sha1)
        if size != expected.size:
            problems.append(f"{paths[name]} has {size:,} bytes, expected {expected.size:,}.")
        elif sha1 != expected.sha1:
            problems.append(f"{paths[name]} has the SHA-1 {sha1}, expected {expected.sha1}.")
    return problems, hashes


def _find_strangers(folder: ReleaseFolder) -> Iterator[tuple[Path, str]]:
    """Yield what is neither a regular file nor a folder of images, such as a named pipe; with its kind."""
    image_folders = {folder.stimuli_path(split) for split in SPLITS}
    for path in sorted(folder.path.rglob("*")):
        if path in image_folders and path.is_dir() and not path.is_symlink():
            continue
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            yield path, "folder"
        elif not stat.S_ISREG(mode) and not path.is_file():
            yield path, "special file"
