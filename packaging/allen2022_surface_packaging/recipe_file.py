"""Recipe files: TOML in, a recipe or all of its faults out. The recipes in `recipes/` ship with this package."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

from .errors import PackagingError, one_line
from .files import read_file
from .recipe import Recipe, Region, published_dataset, recipe_faults

SHIPPED = files(__package__) / "recipes"
SUFFIX = ".toml"

Table = dict[str, object]


def list_recipes() -> list[str]:
    """Return the names of the recipes that ship with this package, sorted."""
    return sorted(entry.name.removesuffix(SUFFIX) for entry in SHIPPED.iterdir() if entry.name.endswith(SUFFIX))


def recipe_text(name_or_path: str) -> tuple[str, str]:
    """Return where a recipe stands and its text: one that ships, by its name, or a TOML file.

    Raises
    ------
    PackagingError
        If there is neither, or the file is not text.
    """
    if name_or_path in list_recipes():
        file_name = f"{name_or_path}{SUFFIX}"
        return file_name, (SHIPPED / file_name).read_text(encoding="utf-8")
    path = Path(name_or_path)
    with suppress(RuntimeError):  # of a user who does not exist, so that there is no such file
        path = path.expanduser()
    if not path.is_file():
        raise PackagingError(
            f"{name_or_path} is neither a recipe file nor the name of a recipe that ships: {', '.join(list_recipes())}."
        )
    try:
        return str(path), read_file(path).decode()
    except UnicodeDecodeError as error:
        raise PackagingError(f"{path} is not text in UTF-8 ({one_line(error)}). Expected a recipe in TOML.") from error


def read_recipe(name_or_path: str) -> Recipe:
    """Read a recipe: one that ships, by its name, or a TOML file.

    Raises
    ------
    PackagingError
        If there is no such recipe, or it has a fault. The message is the first one.
    """
    recipe, faults = parse_recipe(*recipe_text(name_or_path))
    if recipe is None:
        more = f" ({len(faults)} faults in all: `recipes check` lists them.)" if len(faults) > 1 else ""
        raise PackagingError(faults[0] + more)
    return recipe


def parse_recipe(source: str, text: str) -> tuple[Recipe | None, list[str]]:
    """Check the text of a recipe as a whole.

    Parameters
    ----------
    source : the file, for messages

    Returns
    -------
    the recipe, or None if it has a fault; and its faults, a line each
        Each names the file and the key, what was found and what was expected.
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a ValueError also for a number of thousands of digits
        return None, [f"{source} is not TOML ({one_line(error)}). Expected a recipe, such as `recipes show` prints."]
    parser = _Parser(source)
    recipe = parser.recipe(document)
    # The rest is checked as well. Only whether the content is the published one cannot be known without every part.
    checked = replace(recipe, name="unknown") if parser.unread and published_dataset(recipe.name) else recipe
    parser.faults += [_fault(source, *fault) for fault in recipe_faults(checked) if fault[0] not in parser.unread]
    return (None if parser.faults else recipe), parser.faults


def _fault(source: str, key: str, found: str, expected: str) -> str:
    return f"{source}: {key} is {found}, expected {expected}."


_REQUIRED = object()


@dataclass
class _Parser:
    """Reads the tables of a recipe, and collects faults.

    Attributes
    ----------
    unread : the keys whose values are missing or of another type; the recipe has empty values or defaults there
    """

    source: str
    faults: list[str] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)

    def recipe(self, document: Table) -> Recipe:
        """Read a whole recipe. The result counts only if there is no fault."""
        top = _Table(self, "", document)
        parts = {
            "name": top.take("name", _is_text, "a text") or "",
            "description": top.take("description", _is_text, "a text", default=""),
            "subjects": top.take("subjects", _is_whole_numbers, "a list of whole numbers", convert=_sorted_tuple) or (),
            "betas": top.take("betas", _is_text, "a text", default=Recipe.betas),
            "regions": tuple(self._regions(top.take("region", _is_tables, "tables, each begun by [[region]]"))),
        }
        images = _Table(self, "images", top.take("images", _is_table, "a table", default={}))
        pool = images.take("pool", _is_text, "a text", default=Recipe.pool)
        split = _Table(self, "split", top.take("split", _is_table, "a table", default={}))
        if pool == "own" and split.rest:
            self.add("split", "given", "no such table with images.pool = 'own', whose split follows from the design")
        standardise = _Table(self, "standardise", top.take("standardise", _is_table, "a table", default={}))
        invalid = _Table(self, "invalid", top.take("invalid", _is_table, "a table", default={}))
        parts |= {
            "pool": pool,
            "train_fraction": split.take("fraction", _is_number, "a number", default=Recipe.train_fraction),
            "split_seed": split.take("seed", _is_whole_number, "a whole number", default=Recipe.split_seed),
            "standardize_on": standardise.take(
                "over", _is_text, "a text", default="train" if pool == "own" else Recipe.standardize_on
            ),
            "nan_policy": invalid.take("policy", _is_text, "a text", default=Recipe.nan_policy),
        }
        for table in (top, images, split, standardise, invalid):
            table.refuse_rest()
        return Recipe(**parts, source=self.source)  # type: ignore[arg-type]  # `take` has checked the types

    def _regions(self, tables: object) -> Iterator[Region]:
        for number, table in enumerate(tables if isinstance(tables, list) else [], start=1):
            region = _Table(self, f"region {number}", table)
            each = region.take("each", _is_flag, "true or false", default=False)
            needs_name = each is False and region.locate("each") not in self.unread
            parts = {
                "name": region.take("name", _is_text, "a text", default=_REQUIRED if needs_name else "") or "",
                "atlas": region.take("atlas", _is_text, "a text") or "",
                "labels": region.take(
                    "labels", _is_labels, "a list of whole numbers or names", default=(), convert=tuple
                ),
                "each": each,
            }
            region.refuse_rest()
            yield Region(**parts)  # type: ignore[arg-type]  # `take` has checked the types

    def add(self, key: str, found: str, expected: str) -> None:
        """Note a fault."""
        self.faults.append(_fault(self.source, key, found, expected))


class _Table:
    """A table of a recipe, from which the known keys are taken one after the other."""

    def __init__(self, parser: _Parser, title: str, table: object) -> None:
        self.parser = parser
        self.title = title
        self.rest: Table = dict(table) if isinstance(table, dict) else {}
        self.taken: list[str] = []

    def take(
        self,
        key: str,
        is_valid: Callable[[object], bool],
        expected: str,
        *,
        default: object = _REQUIRED,
        convert: Callable[..., object] | None = None,
    ) -> object:
        """Return the value of a key, or its default; note a fault if it is missing or of another type."""
        self.taken.append(key)
        value = self.rest.pop(key, default)
        if value is _REQUIRED:
            self._refuse(key, "missing", expected)
            return None
        if value is default:
            return value
        if not is_valid(value):
            self._refuse(key, _show(value), expected)
            return None if default is _REQUIRED else default
        return convert(value) if convert else value

    def _refuse(self, key: str, found: str, expected: str) -> None:
        self.parser.add(self.locate(key), found, expected)
        self.parser.unread.add(self.locate(key))

    def refuse_rest(self) -> None:
        """Note a fault for every key that nobody has taken."""
        for key in self.rest:
            is_bare = re.fullmatch(r"[A-Za-z0-9_-]+", key)
            self.parser.add(self.locate(key if is_bare else repr(key)), "unknown", f"only {', '.join(self.taken)}")

    def locate(self, key: str) -> str:
        """Return the full name of a key, for messages."""
        separator = ", " if self.title.startswith("region") else "."
        return f"{self.title}{separator}{key}" if self.title else key


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_whole_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63  # as in TOML


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_whole_number(value)


def _is_whole_numbers(value: object) -> bool:
    return isinstance(value, list) and all(_is_whole_number(item) for item in value)


def _is_labels(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_whole_number(item) or _is_text(item) for item in value)


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and all(_is_table(item) for item in value)


def _show(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # Python prints no number of thousands of digits
        return "too long a number"


def _sorted_tuple(values: list[int]) -> tuple[int, ...]:
    return tuple(sorted(values))
