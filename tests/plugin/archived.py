"""ZIP files, and what is extracted from them."""

import io
import zipfile


def make_zip(entries, compression=zipfile.ZIP_STORED):
    """Return a ZIP file; an entry is a name or a ZipInfo, and its content."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for entry, data in entries:
            archive.writestr(zipfile.ZipInfo(entry) if isinstance(entry, str) else entry, data, compression)
    return content.getvalue()


def contents(folder):
    """Return the content of each file below a folder, by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
