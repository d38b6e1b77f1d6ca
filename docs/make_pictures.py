"""Make docs/images/report.png again: the first screen of the report of a simulated release.

Run it in a checkout where the package and Chromium are installed: ``python docs/make_pictures.py``. It takes about a
minute and 800 MB in the temporary folder. All data on the picture is simulated.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURE_PATH = Path(__file__).parent / "images" / "report.png"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1200, 1180  # CSS pixels: from the top of the page to the end of the map


def main() -> None:
    """Simulate, build, verify, report, and photograph the report."""
    with tempfile.TemporaryDirectory() as folder:
        tree, release = Path(folder, "nsd"), Path(folder, "release")
        # Vertices of fsaverage5: as many as a map shows.
        run("simulate", tree, "--vertices", "10242", "--betas", "betas_fithrf_GLMdenoise_RR")
        run("build", tree, release, "--cache", "none")
        run("verify", release, "--nsd-root", tree)
        run("report", release)
        picture = photograph(release / "report.html")
    PICTURE_PATH.parent.mkdir(exist_ok=True)
    picture.save(PICTURE_PATH, optimize=True)
    print(f"{PICTURE_PATH}: {PICTURE_PATH.stat().st_size / 1e3:.0f} kB")


def run(*arguments: object) -> None:
    """Run a command of this package."""
    subprocess.run([sys.executable, "-m", "allen2022_surface_packaging", *map(str, arguments)], check=True)


def photograph(page_path: Path) -> Image.Image:
    """Return the first screen of a page."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        sys.exit(f"No Chromium is installed, but it draws the picture. Install one of {', '.join(PROGRAMS)}.")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder, "screen.png")
        switches = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}")
        window = (f"--window-size={WIDTH},{HEIGHT}", "--virtual-time-budget=5000", f"--screenshot={path}")
        subprocess.run([program, *switches, *window, page_path.as_uri()], check=True, capture_output=True)
        return Image.open(io.BytesIO(path.read_bytes())).convert("RGB")


if __name__ == "__main__":
    main()
