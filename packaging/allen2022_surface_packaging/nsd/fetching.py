"""The commands that fetch files from NSD's public bucket.

References
----------
AWS CLI Command Reference, "Use of Exclude and Include Filters": a later filter goes before an earlier one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ..facts import N_IMAGES, N_TRIALS_PER_SESSION, N_VERTICES_OF_FSAVERAGE
from .files import MGH_DATA_OFFSET
from .inputs import BETAS, IMAGES, NCSNR, InputFile

BUCKET_URL = "s3://natural-scenes-dataset"
FILE_BYTES = {  # of a file in the bucket, NSD Data Manual; the others are small
    BETAS: MGH_DATA_OFFSET + 4 * N_VERTICES_OF_FSAVERAGE * N_TRIALS_PER_SESSION,
    NCSNR: MGH_DATA_OFFSET + 4 * N_VERTICES_OF_FSAVERAGE,
    IMAGES: N_IMAGES * 425 * 425 * 3,
}
N_COPIED = 4  # files of one folder; more are fetched by one command


def list_fetch_commands(root: Path, inputs: Iterable[InputFile]) -> list[str]:
    """List the shell commands that fetch files into the tree at `root`, in its layout.

    A few files of a folder are copied one by one. Of more files, one command fetches every session that is not there yet.
    """
    folders: dict[tuple[str, Path], list[str]] = {}
    for one in inputs:
        source, target = PurePosixPath(one.file.official_path), root / one.file.path
        folders.setdefault((f"{BUCKET_URL}/{source.parent}", target.parent), []).append(source.name)
    commands = []
    for (url, path), names in folders.items():
        if len(names) <= N_COPIED:
            commands += [f"aws s3 cp --no-sign-request {url}/{name} {shlex.quote(str(path / name))}" for name in names]
        else:
            patterns = dict.fromkeys(re.sub(r"_session\d\d", "_session*", name) for name in names)
            filters = " ".join(f"--include '{pattern}'" for pattern in patterns)
            commands.append(
                f"aws s3 sync --no-sign-request --size-only {url} {shlex.quote(str(path))} \\\n    --exclude '*' {filters}"
            )
    return commands
