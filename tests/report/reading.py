"""What the tests of the report share: a reader of the page, and numbers computed independently from the release."""

import base64
import io
import itertools
import json
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from PIL import Image
from sklearn.feature_selection import f_classif
from sklearn.model_selection import ShuffleSplit

REGION_NAMES = ("V1", "V2", "V4", "IT")
SPLITS = ("train", "test")


class Page(HTMLParser):
    """The content of a page: tables by id (rows of texts, the header first), pictures, texts for pictures, links and text.

    `alts` are the texts of pictures, of drawings in SVG too. `data` are the contents of the scripts that hold data, by id.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.pictures: list[dict[str, str]] = []
        self.drawings: list[dict[str, str]] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.terms: list[str] = []
        self.facts: list[str] = []
        self.data: dict[str, dict] = {}
        self.text = ""
        self._cells: list[str] | None = None
        self._hidden = ""
        self._script_id = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if "id" in named:
            self.ids.append(named["id"])
        if tag == "table":
            self._rows = self.tables.setdefault(named["id"], [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th", "dt", "dd"):
            self._cells = {"dt": self.terms, "dd": self.facts}.get(tag) if tag[0] == "d" else self._rows[-1]
            self._cells.append("")
        elif tag == "img":
            self.pictures.append(named)
        elif tag == "svg" and "aria-label" in named:
            self.drawings.append(named)
        elif tag in ("link", "a"):
            self.links.append(named["href"])
        elif tag == "script":
            self._script_id = named.get("id", "")
        if tag in ("style", "title", "script"):
            self._hidden = tag

    def handle_endtag(self, tag):
        if tag in ("td", "th", "dt", "dd"):
            self._cells = None
        if tag == self._hidden:
            self._hidden = self._script_id = ""

    def handle_data(self, data):
        if self._script_id:
            self.data[self._script_id] = json.loads(data)
        if not self._hidden:
            self.text += data
            if self._cells is not None:
                self._cells[-1] += data

    def rows(self, table: str) -> list[list[str]]:
        return self.tables[table][1:]

    def fact(self, term: str) -> str:
        return self.facts[self.terms.index(term)]

    def alts(self, pattern: str) -> list[str]:
        texts = [*(picture["alt"] for picture in self.pictures), *(drawing["aria-label"] for drawing in self.drawings)]
        return [text for text in texts if re.search(pattern, text)]

    def panel(self, region: str) -> list[list[str]]:
        """Return the rows of the panel of a region: subject, distribution, and the numbers."""
        number = int(re.search(rf'href="#region-(\d+)">{region}<', self.source)[1])
        return self.rows(f"distributions-{number}")


def measure(assembly_path: Path) -> pd.DataFrame:
    """Return the neuroids of a test assembly, and their split-half ceilings and correlations, computed with pandas."""
    with xr.open_dataarray(assembly_path) as assembly:
        names = ("neuroid_id", "subject", "hemisphere", "vertex_index", "region", "nc_testset")
        neuroids = pd.DataFrame({name: assembly[name].values for name in names})
        images = pd.MultiIndex.from_arrays([assembly["stimulus_id"].values, assembly["repetition"].values])
        responses = pd.DataFrame(assembly.values[:, :, 0].astype(float), index=images)
    repetitions = [responses.xs(repetition, level=1) for repetition in range(3)]
    for i, split in enumerate(ShuffleSplit(10, train_size=0.5, random_state=1).split(range(3))):
        halves = [sum(repetitions[repetition] for repetition in half) / len(half) for half in split]
        r = halves[0].corrwith(halves[1]).to_numpy()
        constant = [half.nunique().to_numpy() == 1 for half in halves]
        neuroids[f"split_{i}"] = np.where(constant[0] | constant[1], np.nan, 2 * r / (1 + r))
    for first, second in itertools.combinations(range(3), 2):
        neuroids[f"pair_{first}{second}"] = repetitions[first].corrwith(repetitions[second]).to_numpy()
    neuroids["repetition_r"] = neuroids.filter(like="pair_").mean(axis=1)
    neuroids["nc_repetitions"] = anova_ceiling(repetitions)
    return neuroids


def anova_ceiling(repetitions: list[pd.DataFrame]) -> np.ndarray:
    """Return 100 (1 - 1/F), at least 0, of a one-way analysis of variance of the images, with scikit-learn's F."""
    images = np.tile(np.arange(len(repetitions[0])), len(repetitions))
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        f = f_classif(pd.concat(repetitions).to_numpy(), images)[0]
        return 100 * np.maximum(1 - 1 / f, 0)


def split_half_ceiling(neuroids: pd.DataFrame) -> float:
    return neuroids.filter(like="split_").median().mean()


def number(text: str) -> float:
    return np.nan if text == "–" else float(text.replace(",", "").replace("−", "-"))


def agrees(text: str, expected: float, n_digits: int) -> bool:
    """Return whether a text is the rounded expected number, with a tolerance of a millionth for single precision."""
    if np.isnan(expected):
        return text == "–"
    return len(text.partition(".")[2]) == n_digits and abs(number(text) - expected) <= 0.5 * 10**-n_digits + 1e-6


def size_text(n_bytes: int) -> str:
    exponent = min(3, (len(str(n_bytes)) - 1) // 3)
    unit = ("bytes", "kB", "MB", "GB")[exponent]
    return f"{n_bytes} bytes" if exponent == 0 else f"{n_bytes / 1000**exponent:,.1f} {unit}"


def decode(source: str) -> np.ndarray:
    """Return the pixels of a data URI: red, green, blue and alpha."""
    content = base64.b64decode(source.partition("base64,")[2])
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGBA"), dtype=int)


def has_colour(pixels: np.ndarray, colour: str) -> np.ndarray:
    expected = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (np.abs(pixels[:, :, :3] - expected).max(axis=2) < 12) & (pixels[:, :, 3] > 200)
