"""What the tests of the report share: a reader of the page, and numbers computed independently from the release."""

import itertools
import json
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from sklearn.feature_selection import f_classif
from sklearn.model_selection import ShuffleSplit

REGION_NAMES = ("V1", "V2", "V4", "IT")
SPLITS = ("train", "test")


class Page(HTMLParser):
    """The content of a page: tables by id (rows of texts, the header first), facts by term, pictures, links and text.

    `data` are the contents of the scripts that hold data, by id.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.pictures: list[dict[str, str]] = []
        self.links: list[str] = []
        self.data: dict[str, dict] = {}
        self.text = ""
        self._terms: list[str] = []
        self._cells: list[str] | None = None
        self._script_id: str | None = None
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.facts = dict(zip(self._terms[::2], self._terms[1::2], strict=True))

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if tag == "table":
            self._rows = self.tables.setdefault(named["id"], [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th", "dt", "dd"):
            self._cells = self._terms if tag[0] == "d" else self._rows[-1]
            self._cells.append("")
        elif tag == "img":
            self.pictures.append(named)
        elif tag in ("link", "a"):
            self.links.append(named["href"])
        elif tag in ("script", "style"):
            self._script_id = named.get("id", "")

    def handle_endtag(self, tag):
        if tag in ("td", "th", "dt", "dd"):
            self._cells = None
        if tag in ("script", "style"):
            self._script_id = None

    def handle_data(self, data):
        if self._script_id:
            self.data[self._script_id] = json.loads(data)
        if self._script_id is None:
            self.text += data
            if self._cells is not None:
                self._cells[-1] += data

    def rows(self, table: str) -> list[list[str]]:
        return self.tables[table][1:]

    def panel(self, region: str) -> list[list[str]]:
        """Return the rows of the panel of a region: subject, distribution, and the numbers."""
        number = re.search(rf'<h3 id="region-(\d+)-name">{region}<', self.source)[1]
        return self.rows(f"distributions-{number}")

    @property
    def methods(self) -> str:
        """The methods for a paper, with their references, in one line."""
        return " ".join(self.text.partition("Methods for a paper, with references")[2].partition("Copy")[0].split())

    @property
    def findings(self) -> str:
        """The verdict of `verify`, and what needs attention."""
        return self.text.partition("Findings")[2].partition("subjects")[0]


def change_manifest(path: Path, **changes: object) -> None:
    """Change keys of the manifest of a release."""
    manifest = json.loads((path / "release.json").read_text())
    (path / "release.json").write_text(json.dumps(manifest | changes))


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
    neuroids["split_half"] = neuroids.filter(like="split_").median(axis=1)
    for first, second in itertools.combinations(range(3), 2):
        neuroids[f"pair_{first}{second}"] = repetitions[first].corrwith(repetitions[second]).to_numpy()
    neuroids["repetition_r"] = neuroids.filter(like="pair_").mean(axis=1)
    neuroids["nc_repetitions"] = anova_ceiling(repetitions)
    columns = pd.concat([neuroids[["subject", "region"]], responses.T.reset_index(drop=True)], axis=1)
    neuroids["is_copy"] = columns.duplicated() & (responses.nunique().to_numpy() > 1)
    averages = (sum(repetitions) / 3).T[responses.nunique().to_numpy() > 1]
    places = averages.groupby([neuroids[name] for name in ("hemisphere", "vertex_index", "region")])
    others = (places.transform("sum") - averages).div(places.transform("size") - 1, axis=0)
    neuroids["between_subjects"] = averages.corrwith(others, axis=1)
    return neuroids


def anova_ceiling(repetitions: list[pd.DataFrame]) -> np.ndarray:
    """Return 100 (1 - 1/F), at least 0, of a one-way analysis of variance of the images, with scikit-learn's F."""
    images = np.tile(np.arange(len(repetitions[0])), len(repetitions))
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        f = f_classif(pd.concat(repetitions).to_numpy(), images)[0]
        return 100 * np.maximum(1 - 1 / f, 0)


def split_half_ceiling(neuroids: pd.DataFrame) -> float:
    return neuroids[[f"split_{i}" for i in range(10)]].median().mean()


def number(text: str) -> float:
    return np.nan if text == "–" else float(text.replace(",", "").replace("−", "-"))


def agrees(text: str, expected: float, n_digits: int) -> bool:
    """Return whether a text is the rounded expected number, with a tolerance of a millionth for single precision."""
    if np.isnan(expected):
        return text == "–"
    return len(text.partition(".")[2]) == n_digits and abs(number(text) - expected) <= 0.5 * 10**-n_digits + 1e-6
