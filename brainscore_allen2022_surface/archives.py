"""ZIP files of images, which come from a bucket and may hold anything. Only what is safe to extract is extracted."""

from __future__ import annotations

import stat
import struct
import zlib
from pathlib import PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

# What zipfile raises for damaged files, beside BadZipFile.
ARCHIVE_ERRORS = (BadZipFile, EOFError, OverflowError, RuntimeError, UnicodeError, struct.error, zlib.error)
COMPRESSIONS = (ZIP_STORED, ZIP_DEFLATED)
# Images are compressed already, so a ZIP file is about as large as they are. A small file may extract to a little more.
LARGEST_RATIO = 20
SMALL_BYTES = 2**20
LONGEST_NAME_BYTES = 255  # of one part of a path, on most file systems


def list_entries(archive: ZipFile, n_bytes: int) -> list[ZipInfo]:
    """List the files of a ZIP file, if all are safe to extract.

    Parameters
    ----------
    n_bytes : size of the ZIP file

    Raises
    ------
    BadZipFile
        If an entry points outside its folder, is no regular file, or cannot be a file beside the others, or if the files
        would be much larger than the ZIP file.
    """
    entries = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
    for entry in entries:
        reason = _find_fault(entry) or ("lies outside the file" if not 0 <= entry.header_offset < n_bytes else "")
        if reason:
            raise BadZipFile(f"the entry {entry.filename[:80]!r} {reason}. Nothing is extracted")
    names = [entry.filename for entry in entries]
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    if len(set(names)) < len(names) or folders & set(names):
        raise BadZipFile("two entries have the same name. Nothing is extracted")
    n_extracted = sum(entry.file_size for entry in entries)
    if n_extracted > max(LARGEST_RATIO * n_bytes, SMALL_BYTES):
        raise BadZipFile(f"its {n_bytes:,} bytes would become {n_extracted:,} bytes of images. Nothing is extracted")
    return entries


def _find_fault(entry: ZipInfo) -> str:
    """Return what makes an entry unsafe; empty if it is safe."""
    parts = entry.filename.split("/")
    if ".." in parts or parts[0] == "" or ":" in entry.filename or "\\" in entry.filename:
        return "points outside its folder"
    if any(part in ("", ".") or len(part.encode("utf-8", "surrogatepass")) > LONGEST_NAME_BYTES for part in parts):
        return "is not the name of a file"
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is a link or another special file"
    if entry.flag_bits & 1 or entry.compress_type not in COMPRESSIONS:
        return "is encrypted, or compressed in an unusual way"
    return ""
