"""The commands that fetch files from NSD's public bucket, and nothing else.

References
----------
AWS CLI Command Reference, "Use of Exclude and Include Filters": later filters take precedence; a pattern is compared with
the whole path below the source, in which ``*`` matches slashes too; ``[…]`` matches one character.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from ..facts import (
    HEMISPHERES,
    N_IMAGES,
    N_SESSIONS,
    N_TRIALS_PER_SESSION,
    N_VERTICES_OF_FSAVERAGE,
    SUBJECTS,
    subject_name,
)
from .files import MGH_DATA_OFFSET
from .needs import BETAS, IMAGES, NCSNR, NeededFile

BUCKET_URL = "s3://natural-scenes-dataset"
IMAGE_BYTES = 425 * 425 * 3  # of an image in nsd_stimuli.hdf5, NSD Data Manual
FILE_BYTES = {  # of a file in the bucket; the others are small
    BETAS: MGH_DATA_OFFSET + 4 * N_VERTICES_OF_FSAVERAGE * N_TRIALS_PER_SESSION,
    NCSNR: MGH_DATA_OFFSET + 4 * N_VERTICES_OF_FSAVERAGE,
    IMAGES: N_IMAGES * IMAGE_BYTES,
}
HEMISPHERE_PATTERN = f"[{''.join(hemisphere[0] for hemisphere in HEMISPHERES)}]h"

Folders = tuple[str, str]  # of the bucket, and of the tree


def count_bytes(needed: Iterable[NeededFile]) -> int:
    """Return about how many bytes some files have in the bucket."""
    return sum(FILE_BYTES.get(one.kind, 0) for one in needed)


def list_sync_commands(root: Path, needed: Sequence[NeededFile]) -> list[str]:
    """List the shell commands that fetch some files into the tree at `root`, in its layout, and nothing else.

    Each command fetches from one folder of the bucket, or from the same folder of several subjects.
    """
    names: dict[Folders, list[str]] = {}
    for one in needed:
        source, target = PurePosixPath(one.file.official_path), PurePosixPath(one.file.path)
        names.setdefault((str(source.parent), str(target.parent)), []).append(source.name)
    patterns = {
        folders: shorten_names(sorted(set(members)), _subject_of(folders)) for folders, members in names.items()
    }
    return [
        _sync_command(f"{BUCKET_URL}/{source}", root / target, members)
        for (source, target), members in _join_subjects(patterns).items()
    ]


def shorten_names(names: Sequence[str], subject: int | None = None) -> list[str]:
    """Return few patterns that match some file names, and no other name in the same folder of the bucket."""
    rests = {
        hemisphere: {name[3:] for name in names if name.startswith(f"{hemisphere}.")} for hemisphere in HEMISPHERES
    }
    both = set.intersection(*rests.values())
    patterns = [name for name in names if name[:3] not in tuple(f"{h}." for h in HEMISPHERES)]
    patterns += _shorten_sessions(HEMISPHERE_PATTERN, both, subject)
    for hemisphere in HEMISPHERES:
        patterns += _shorten_sessions(hemisphere, rests[hemisphere] - both)
    return patterns


def _shorten_sessions(prefix: str, rests: set[str], subject: int | None = None) -> Iterator[str]:
    """Yield patterns for names that differ in the number of the session: one per ten sessions, or one for all of them."""
    matches = [re.fullmatch(r"betas_session(\d)(\d)\.mgh", rest) for rest in sorted(rests)]
    sessions = [(match[1], match[2]) for match in matches if match]
    if subject is not None and len(sessions) == N_SESSIONS[subject]:
        yield f"{prefix}.betas_session*.mgh"
    else:
        for ten, members in itertools.groupby(sessions, key=lambda digits: digits[0]):
            yield f"{prefix}.betas_session{ten}{_one_of([digit for _, digit in members])}.mgh"
    yield from (f"{prefix}.{rest}" for rest, match in zip(sorted(rests), matches, strict=True) if not match)


def _join_subjects(patterns: dict[Folders, list[str]]) -> dict[Folders, list[str]]:
    """Join folders that differ only in the subject, if their patterns are the same."""
    joined: dict[Folders, list[str]] = {}
    groups: dict[tuple[Folders, tuple[str, ...]], list[str]] = {}
    for folders, members in patterns.items():
        subject = _subject_of(folders)
        if subject is None or folders[0] != folders[1]:
            joined[folders] = members
            continue
        name = subject_name(subject)
        before, _, after = folders[0].partition(f"/{name}/")
        key = ((before, before), tuple(f"{after}/{pattern}" for pattern in members))
        groups.setdefault(key, []).append(name)
    for (folders, paths), subjects in groups.items():
        names = f"{subjects[0][:-1]}{_one_of([subject[-1] for subject in subjects])}"
        joined.setdefault(folders, []).extend(f"{names}/{path}" for path in paths)
    return joined


def _subject_of(folders: Folders) -> int | None:
    return next((subject for subject in SUBJECTS if f"/{subject_name(subject)}/" in folders[0]), None)


def _one_of(characters: Sequence[str]) -> str:
    """Return a pattern that matches one of some ascending digits."""
    if len(characters) == 1:
        return characters[0]
    is_run = len(characters) > 2 and int(characters[-1]) - int(characters[0]) == len(characters) - 1
    return f"[{characters[0]}-{characters[-1]}]" if is_run else f"[{''.join(characters)}]"


def _sync_command(source: str, target: Path, patterns: Sequence[str]) -> str:
    words = ["aws", "s3", "sync", "--no-sign-request", source, shlex.quote(str(target))]
    filters = ["--exclude '*'", *(f"--include '{pattern}'" for pattern in patterns)]
    return " \\\n    ".join([" ".join(words), *filters])
