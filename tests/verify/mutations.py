"""Mutations of the structure of release.json: every value replaced or removed, and files that are no JSON at all."""

import json
from collections.abc import Iterator

REPLACEMENTS: tuple[object, ...] = (
    *(None, True, -1, 0, 1, 2, 1.5, 10**30, 2**63, "", "x", "../x", "/x", "a\nb", "x\0", "\ud800", "x" * 5000),
    *([], {}, [None], ["x"], [1, 1], {"x": 1}, {"": {}}, [[[[]]]], [-1, 2**40, 1]),
)
NO_JSON = {
    "empty": b"",
    "cut": b'{"name": "x", ',
    "null": b"null",
    "list": b"[]",
    "number": b"3",
    "text": b'"release"',
    "UTF-16": '{"name": 1}'.encode("utf-16"),
    "with a byte order mark": b"\xef\xbb\xbf{}",
    "not UTF-8": b'{"name": "\xff"}',
    "NaN": b'{"name": NaN}',
    "endless number": b'{"n_vertices": ' + b"9" * 10_000 + b"}",
    "deep lists": b"[" * 200_000,
    "deep tables": b'{"a": ' * 100_000,
    "deep unknown key": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "zero bytes": b"\0" * 1000,
}


def list_places(value: object, place: tuple = ()) -> Iterator[tuple]:
    """Yield the keys that lead to every value in a JSON document; of long tables and lists, to the first two."""
    yield place
    if isinstance(value, dict):
        for key in list(value)[:2] if len(value) > 20 else value:
            yield from list_places(value[key], (*place, key))
    elif isinstance(value, list):
        for number in range(min(2, len(value))):
            yield from list_places(value[number], (*place, number))


def mutate(document: dict) -> Iterator[tuple[str, str]]:
    """Yield the title and the text of every mutation of a JSON document."""
    for place in list_places(document):
        title = ".".join(map(str, place)) or "document"
        for replacement in REPLACEMENTS:
            yield f"{title} = {replacement!r:.40}", _dump_with(document, place, replacement)
        if not place:
            continue
        key, parent = place[-1], _find(document, place[:-1])
        if isinstance(parent, list):
            others = parent[:key] + parent[key + 1 :]
            changes = {"removed": others, "twice": [parent[key], *parent]}
        else:
            others = {name: value for name, value in parent.items() if name != key}
            changes = {
                "removed": others,
                "renamed": {f"{key} ": parent[key], **others},
                "copied": {f"{key}2": parent[key], **parent},
            }
        for change, changed_parent in changes.items():
            yield f"{title} {change}", _dump_with(document, place[:-1], changed_parent)


def _find(document, place: tuple):
    for key in place:
        document = document[key]
    return document


def _dump_with(document, place: tuple, value: object) -> str:
    """Return the text of a document in which the value at a place is another one."""
    if not place:
        return json.dumps(value)
    parent, key = _find(document, place[:-1]), place[-1]
    before = parent[key]
    parent[key] = value
    try:
        return json.dumps(document)
    finally:
        parent[key] = before
