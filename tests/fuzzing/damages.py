"""Damages: each is a function that changes one file at random, ``damage(path, rng)``.

They fall into groups, by what they understand of the file: nothing, its text, its JSON, or the values that it holds.
"""

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import h5py
import nibabel
import numpy as np
import pandas as pd
import scipy.io

Damage = Callable[[Path, Random], None]

EXTREME_BYTES = [b"\xff" * 4, b"\x7f" + b"\xff" * 3, b"\x80" + b"\0" * 3, b"\0" * 4, b"\0" * 3 + b"\1", b"\xff" * 8]
EXTREME_VALUES = [1e30, -1e30, np.inf, -np.inf, np.nan, 3.4e38, 1e-45, 0.0, -1.0, 1e6]
EXTREME_COUNTS = [0, 1, 2, -1, 3, 2**31 - 1, -(2**31), 2**16, 119, 121]
EXTREME_IDS = [0, -1, 1, 2**16, 2**31, 73_000, 73_001, 0.5, np.nan, 1e300]
ODD_TEXTS = [
    "",
    " ",
    "-1",
    "0",
    "1e400",
    "nan",
    "x" * 5000,
    "ä",
    "\x00",
    '"',
    "a,b",
    "../../x",
    "/etc",
    "9" * 30,
    "\ufeff",
]
ODD_NODES = [
    None,
    [],
    {},
    "",
    "x",
    "../x",
    "a/b",
    "\0",
    -1,
    0,
    1.5,
    1e308,
    2**63,
    10**40,
    True,
    float("nan"),
    [[]],
    {"": 0},
]


# --- of bytes ------------------------------------------------------------------------------------------------------------


def flip_bits(content: bytearray, rng: Random) -> None:
    for _ in range(rng.choice([1, 1, 3, 20])):
        content[_position(content, rng)] ^= 1 << rng.randrange(8)


def truncate(content: bytearray, rng: Random) -> None:
    del content[_position(content, rng) :]


def insert(content: bytearray, rng: Random) -> None:
    start = _position(content, rng)
    content[start:start] = rng.randbytes(rng.choice([1, 4, 100]))


def remove(content: bytearray, rng: Random) -> None:
    start = _position(content, rng)
    del content[start : start + rng.choice([1, 4, 100])]


def zero_run(content: bytearray, rng: Random) -> None:
    start = _position(content, rng)
    end = min(len(content), start + rng.choice([4, 64, 4096]))
    content[start:end] = bytes(end - start)


def set_extreme(content: bytearray, rng: Random) -> None:
    start, value = _position(content, rng), rng.choice(EXTREME_BYTES)
    content[start : start + len(value)] = value


def repeat_run(content: bytearray, rng: Random) -> None:
    start = _position(content, rng)
    content[start:start] = content[start : start + rng.choice([16, 512, 10**9])]


def append(content: bytearray, rng: Random) -> None:
    content += rng.choice([bytes(1), rng.randbytes(30), bytes(content)])


def _position(content: bytearray, rng: Random) -> int:
    """Return a position. Every second one is in the first 600 bytes, where most formats have their header."""
    return rng.randrange(max(1, rng.choice([len(content), min(600, len(content))])))


def _of_bytes(change: Callable[[bytearray, Random], None]) -> Damage:
    def damage(path: Path, rng: Random) -> None:
        is_compressed = path.suffix == ".mgz" and rng.random() < 0.7
        content = bytearray(gzip.decompress(path.read_bytes()) if is_compressed else path.read_bytes())
        change(content, rng)
        path.write_bytes(gzip.compress(content, mtime=0) if is_compressed else bytes(content))

    damage.__name__ = change.__name__
    return damage


BYTES = tuple(map(_of_bytes, (flip_bits, truncate, insert, remove, zero_run, set_extreme, repeat_run, append)))


# --- of the file as a whole ----------------------------------------------------------------------------------------------


def empty_file(path: Path, rng: Random) -> None:
    path.write_bytes(b"")


def delete(path: Path, rng: Random) -> None:
    path.unlink()


def make_folder(path: Path, rng: Random) -> None:
    path.unlink()
    path.mkdir()


def make_fifo(path: Path, rng: Random) -> None:
    path.unlink()
    os.mkfifo(path)


def make_broken_link(path: Path, rng: Random) -> None:
    path.unlink()
    path.symlink_to(rng.choice([path.name, "nowhere"]))  # to itself, or to nothing


def copy_neighbour(path: Path, rng: Random) -> None:
    neighbours = sorted(other for other in path.parent.iterdir() if other.suffix == path.suffix and other != path)
    if neighbours:
        path.write_bytes(rng.choice(neighbours).read_bytes())


def swap_with_neighbour(path: Path, rng: Random) -> None:
    neighbours = sorted(other for other in path.parent.iterdir() if other.suffix == path.suffix and other != path)
    if neighbours:
        other = rng.choice(neighbours)
        path.rename(path.with_name("between"))
        other.rename(path)
        path.with_name("between").rename(other)


def add_neighbour(path: Path, rng: Random) -> None:
    neighbour = path.with_name(rng.choice([f"{path.name}.bak", f"new{path.suffix}", "ä", ".hidden", "line\nbreak"]))
    rng.choice([lambda: shutil.copyfile(path, neighbour), lambda: os.mkfifo(neighbour), neighbour.mkdir])()


FILES = (
    empty_file,
    delete,
    make_folder,
    make_fifo,
    make_broken_link,
    copy_neighbour,
    swap_with_neighbour,
    add_neighbour,
)


# --- of lines and cells --------------------------------------------------------------------------------------------------


def replace_cell(lines: list[str], rng: Random) -> None:
    row, separator = rng.randrange(len(lines)), rng.choice([",", " ", "="])
    cells = lines[row].split(separator)
    cells[rng.randrange(len(cells))] = rng.choice(ODD_TEXTS)
    lines[row] = separator.join(cells)


def change_number(lines: list[str], rng: Random) -> None:
    rows = [row for row, line in enumerate(lines) if any(character.isdigit() for character in line)]
    if rows:
        row = rng.choice(rows)
        position = rng.choice([i for i, character in enumerate(lines[row]) if character.isdigit()])
        lines[row] = f"{lines[row][:position]}{rng.choice('0123456789.-e')}{lines[row][position + 1 :]}"


def delete_line(lines: list[str], rng: Random) -> None:
    del lines[rng.randrange(len(lines))]


def repeat_line(lines: list[str], rng: Random) -> None:
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))


def swap_lines(lines: list[str], rng: Random) -> None:
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]


def replace_line(lines: list[str], rng: Random) -> None:
    lines[rng.randrange(len(lines))] = rng.choice(
        [*ODD_TEXTS, "[[", "a = 1", "a = [", "# x", "a\r", "[region]", "\ud800"]
    )


def _of_lines(change: Callable[[list[str], Random], None]) -> Damage:
    def damage(path: Path, rng: Random) -> None:
        lines = path.read_text(encoding="utf-8").split("\n")
        change(lines, rng)
        path.write_bytes(
            "\n".join(lines).encode(rng.choice(["utf-8", "utf-8", "utf-8", "utf-16"]), errors="surrogatepass")
        )

    damage.__name__ = change.__name__
    return damage


def change_column(path: Path, rng: Random) -> None:
    """Delete, repeat, rename, reorder or reverse a column of a CSV table."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    name = rng.choice(list(table))
    change = rng.randrange(5)
    if change == 0:
        table = table.drop(columns=name)
    elif change == 1:
        table = pd.concat([table, table[[name]]], axis=1)
    elif change == 2:
        table = table.rename(columns={name: rng.choice(["x", "", "nsd_id", "filename", "coco_id"])})
    elif change == 3:
        table = table[list(table)[::-1]]
    else:
        table[name] = table[name].to_numpy()[::-1]
    path.unlink()
    table.to_csv(path, index=False)


LINES = tuple(map(_of_lines, (replace_cell, change_number, delete_line, repeat_line, swap_lines, replace_line)))
TABLES = (*LINES, change_column)


# --- of JSON -------------------------------------------------------------------------------------------------------------


def _change_json(change: Callable[[Random, dict | list, str | int], None]) -> Damage:
    """Return a damage that changes one random node of a JSON file; `change` gets its parent and its key."""

    def damage(path: Path, rng: Random) -> None:
        document = json.loads(path.read_text())
        nodes = list(_nodes(document))
        change(rng, *rng.choice(nodes))
        path.write_bytes(json.dumps(document).encode(errors="surrogatepass"))

    damage.__name__ = change.__name__
    return damage


def _nodes(document: object):
    """Yield the container and the key of every node."""
    if isinstance(document, dict | list):
        for key in list(document) if isinstance(document, dict) else range(len(document)):
            yield document, key
            yield from _nodes(document[key])


def replace_node(rng: Random, parent: dict | list, key: str | int) -> None:
    parent[key] = rng.choice(ODD_NODES)


def delete_node(rng: Random, parent: dict | list, key: str | int) -> None:
    del parent[key]


def wrap_node(rng: Random, parent: dict | list, key: str | int) -> None:
    parent[key] = rng.choice([lambda node: [node], lambda node: {"x": node}, lambda node: [node, node], str])(
        parent[key]
    )


def rename_node(rng: Random, parent: dict | list, key: str | int) -> None:
    if isinstance(parent, dict):
        parent[rng.choice([f"{key}x", f"../{key}", str(key).upper(), str(key)[:-1]])] = parent.pop(key)


def copy_node(rng: Random, parent: dict | list, key: str | int) -> None:
    siblings = list(parent) if isinstance(parent, dict) else range(len(parent))
    parent[key] = parent[rng.choice(siblings)]


def change_scalar(rng: Random, parent: dict | list, key: str | int) -> None:
    """Change a number or a text by little, so that its type stays."""
    value = parent[key]
    if isinstance(value, bool):
        parent[key] = not value
    elif isinstance(value, int):
        parent[key] = value + rng.choice([1, -1])
    elif isinstance(value, str):
        parent[key] = rng.choice([value[:-1], f"{value}0", value.swapcase(), value[::-1]])


def nest_deeply(path: Path, rng: Random) -> None:
    depth = rng.choice([500, 3000, 200_000])
    path.write_bytes(rng.choice([b"[" * depth, b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth]))


JSON = (
    *map(_change_json, (replace_node, delete_node, wrap_node, rename_node, copy_node, change_scalar, change_scalar)),
    nest_deeply,
)


# --- of values -----------------------------------------------------------------------------------------------------------


def plant_values(path: Path, rng: Random) -> None:
    """Plant extreme values in an MGH file, of betas or of one value per vertex."""
    content = bytearray(path.read_bytes())
    values = np.frombuffer(content, ">f4", offset=284, count=int(np.prod(np.frombuffer(content, ">i4", 4, offset=4))))
    n_vertices = int(np.frombuffer(content, ">i4", 1, offset=4)[0])
    by_trial = values.reshape(-1, n_vertices)
    trial, vertex, value = rng.randrange(len(by_trial)), rng.randrange(n_vertices), rng.choice(EXTREME_VALUES)
    rows = rng.choice([[trial], slice(None), slice(trial, None), slice(None, None, 2)])
    columns = rng.choice([[vertex], slice(None), slice(vertex, None), slice(None, None, 7)])
    by_trial[rows, columns] = value
    if rng.random() < 0.3:
        by_trial[rng.randrange(len(by_trial)), columns] = rng.choice(EXTREME_VALUES)
    path.write_bytes(bytes(content))


def change_mgh_header(path: Path, rng: Random) -> None:
    """Set one of the fields version, dimensions 1 to 4, type and degrees of freedom."""
    is_compressed = path.suffix == ".mgz"
    content = bytearray(gzip.decompress(path.read_bytes()) if is_compressed else path.read_bytes())
    start = 4 * rng.randrange(7)
    content[start : start + 4] = rng.choice(EXTREME_COUNTS).to_bytes(4, "big", signed=True)
    path.write_bytes(gzip.compress(content, mtime=0) if is_compressed else bytes(content))


def retype_mgh(path: Path, rng: Random) -> None:
    """Write the values of an MGH file in another type or shape."""
    values = np.asarray(nibabel.load(path).dataobj)
    values = values.astype(rng.choice([np.uint8, np.int16, np.int32, np.float32]))
    shapes = [values.shape, (1, *values.shape[1:2], values.shape[0], *values.shape[3:]), (values.size, 1, 1)]
    path.unlink()
    nibabel.save(nibabel.freesurfer.MGHImage(values.reshape(rng.choice(shapes)), np.eye(4)), path)


def change_labels(path: Path, rng: Random) -> None:
    values = np.array(nibabel.load(path).dataobj)
    values.flat[:: rng.choice([1, 3, values.size])] = rng.choice([0, 1, 5, 7, -1, 1000])
    path.unlink()
    nibabel.save(nibabel.freesurfer.MGHImage(values, np.eye(4)), path)


def change_design(path: Path, rng: Random) -> None:
    """Change a variable of the MATLAB file: one number, its type, its shape, or the whole."""
    variables = {name: values for name, values in scipy.io.loadmat(path).items() if not name.startswith("__")}
    name = rng.choice(sorted(variables))
    values = variables[name].astype(float)
    change = rng.randrange(8)
    if change < 3:
        values.flat[rng.randrange(values.size)] = rng.choice(EXTREME_IDS)
        variables[name] = values if change else np.nan_to_num(values).astype(np.int64)
    elif change == 3:
        variables[name] = values.astype(rng.choice([np.float32, np.uint8, np.int16, np.complex128, bool]))
    elif change == 4:
        variables[name] = rng.choice(
            [values[:, :-1], values.T, values.ravel()[: values.size // 2], values[None], values[:0]]
        )
    elif change == 5:
        variables[name] = rng.choice(
            ["text", {"x": 1}, np.array(["a", "b"], dtype=object), scipy.sparse.csc_matrix(values)]
        )
    elif change == 6:
        del variables[name]
    else:
        variables[name] = values[:, np.array(rng.sample(range(values.shape[1]), values.shape[1]))]
    path.unlink()
    scipy.io.savemat(path, variables, do_compression=rng.random() < 0.5)


def change_hdf5(path: Path, rng: Random) -> None:
    """Change an object of an HDF5 or NetCDF file: its values, its type, its shape, its kind or its attributes."""
    with h5py.File(path, "r+") as file:
        name = rng.choice(sorted(file))
        dataset = file[name]
        change = rng.randrange(9)
        if change < 4:
            _change_dataset_values(dataset, rng)
        elif change == 4:
            values = dataset[()]
            del file[name]
            file[name] = rng.choice(
                [lambda: values.astype("S8"), lambda: values[..., None], lambda: values[:-1], lambda: 1]
            )()
        elif change == 5:
            del file[name]
            rng.choice(
                [lambda: None, lambda: file.create_group(name), lambda: file.update({name: h5py.SoftLink("/x")})]
            )()
        elif change == 6:
            owner = rng.choice([dataset, file])
            for attribute in sorted(owner.attrs)[:: rng.choice([1, 2, 100])]:
                del owner.attrs[attribute]
        elif change == 7:
            owner = rng.choice([dataset, file])
            for attribute in rng.sample(sorted(owner.attrs), min(1, len(owner.attrs))):
                owner.attrs[attribute] = rng.choice(["", "x y", 0, np.nan, np.arange(3)])
        else:
            rng.choice([dataset, file]).attrs[rng.choice(["units", "coordinates", "x", "_FillValue"])] = rng.choice(
                ["x", 0]
            )


def _change_dataset_values(dataset: h5py.Dataset, rng: Random) -> None:
    values = dataset[()]
    if not values.size:
        return
    i, j = rng.randrange(values.size), rng.randrange(values.size)
    if rng.random() < 0.4:
        values.flat[[i, j]] = values.flat[[j, i]]
    elif values.dtype.kind == "f":
        values.flat[i] = rng.choice([*EXTREME_VALUES, values.flat[i] + 0.01])
    elif values.dtype.kind in "iu":
        values.flat[i] = rng.choice([values.flat[i] ^ 1, 0, np.iinfo(values.dtype).max])
    elif values.dtype.kind == "S":
        values.flat[i] = rng.choice([b"", b"\xff", b"0", b"x"])
    else:
        values.flat[i] = "x"
    dataset[...] = values


BETAS = (plant_values, plant_values, change_mgh_header, retype_mgh)
LABELS = (change_mgh_header, retype_mgh, change_labels)
DESIGN = (change_design, change_design, change_design)
HDF5 = (change_hdf5, change_hdf5, change_hdf5)
