"""Damaged raw files, and disks that give fewer bytes than asked for or fail. A message is one line and names the file."""

import errno
import os
import random
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.files import (
    BetasShape,
    ImageOrigin,
    read_betas,
    read_betas_shape,
    read_images,
    read_origins,
    read_vertices,
)
from allen2022_surface_packaging.nsd.storage import Folder, RawFile

BETAS = "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR/lh.betas_session01.mgh"
NCSNR = "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR/lh.ncsnr.mgh"
IMAGES = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
SHAPE = BetasShape(n_vertices=642, n_trials=300)
N_DAMAGES = 60
TABLE = (
    ",cocoId,cocoSplit,cropBox,nsdId,flagged\n"
    '0,5,train2017,"(0, 0, 0.1, 0.1)",0,False\n'
    '1,7,val2017,"(0, 0, 0.2, 0.1)",1,False\n'
)


def raw_file(path: Path) -> RawFile:
    return RawFile(Folder(path.parent), path.name, path.name)


def read_table(tmp_path: Path, content: bytes) -> list[ImageOrigin] | None:
    path = tmp_path / "nsd_stim_info_merged.csv"
    path.write_bytes(content)
    return read_origins(raw_file(path), [0, 1])


def test_table_of_images_is_read(tmp_path):
    assert read_table(tmp_path, TABLE.encode()) == [
        ImageOrigin(5, "train2017", (0, 0, 0.1, 0.1)),
        ImageOrigin(7, "val2017", (0, 0, 0.2, 0.1)),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"\x00" * 100,
        b"\xff\xfe\x00",
        TABLE.encode("utf-16"),
        TABLE.encode("utf-32"),
        TABLE.replace("val2017", "v\u00e4l2017").encode("latin-1"),
        TABLE.replace("1,7", '"1,7').encode(),
        TABLE.replace("False", "False,False,False", 1).encode(),
        TABLE.replace(",7,", ",1e400,").encode(),
        TABLE.replace(",7,", ",-7,").encode(),
        TABLE.replace(",7,", ",7.0,").encode(),
        TABLE.replace(",7,", ",nan,").encode(),
        TABLE.replace(",7,", ",1_0,").encode(),
        TABLE.replace(",7,", ",\u0667,").encode(),
        TABLE.replace(",7,", f",{'9' * 30},").encode(),
        TABLE.replace(",7,", f",{'9' * 5000},").encode(),
        TABLE.replace("val2017", "val\x002017").encode(),
        TABLE.replace("val2017", "../2017").encode(),
        TABLE.replace("val2017", "val2014").encode(),
        TABLE.replace("0.2", "nan").encode(),
        TABLE.replace("0.2", "-0.2").encode(),
        TABLE.replace("0.2", "1e400").encode(),
        TABLE.replace("0.2, ", "").encode(),
        TABLE.replace('0.1)",0,', '0.1)",-1,').encode(),
        TABLE.replace('0.1)",1,', '0.1)",0,').encode(),
        TABLE.replace('0.1)",1,', '0.1)",,').encode(),
        TABLE.replace('0.1)",1,', '0.1)",73000,').encode(),
        TABLE.replace("cocoSplit", "cocoId").encode(),
        TABLE.replace("flagged", "nsdId").encode(),
        TABLE.replace("nsdId", "id").encode(),
    ],
)
def test_damaged_table_of_images_is_named_in_one_line(tmp_path, content):
    with pytest.raises(
        PackagingError, match=r"nsd_stim_info_merged\.csv is not NSD's table of images \(.*Download it"
    ) as e:
        read_table(tmp_path, content)

    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 400 + len(str(tmp_path))


@pytest.fixture(params=["contiguous", "chunked"])
def brick(request, tmp_path, rng) -> tuple[Path, np.ndarray]:
    """A file with images, and the images."""
    path, images = tmp_path / "nsd_stimuli.hdf5", rng.integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
    with h5py.File(path, "w") as file:
        file.create_dataset("imgBrick", data=images, chunks=(1, 6, 6, 3) if request.param == "chunked" else None)
    return path, images


def test_damaged_images_give_other_pixels_or_a_line_that_names_the_file(brick):
    """A byte of a pixel may change unnoticed: `imgBrick` has no checksum. Nothing else happens."""
    path, images = brick
    sound = path.read_bytes()
    outcomes = set()
    for seed in range(N_DAMAGES):
        rng, content = random.Random(seed), bytearray(sound)
        for _ in range(4):
            start = rng.randrange(min(len(content), 4096))
            content[start : start + rng.choice([1, 8, 64])] = rng.choice([b"\xff", b"\x00", rng.randbytes(1)]) * 8
        if seed % 5 == 0:
            del content[rng.randrange(len(content)) :]
        path.write_bytes(content)
        try:
            pixels = list(read_images(raw_file(path), range(len(images))))
            outcomes.add("images")
            assert all(image.shape == (6, 6, 3) and image.dtype == np.uint8 for image in pixels)
        except PackagingError as error:
            outcomes.add("error")
            assert re.search(r"nsd_stimuli\.hdf5.* Do", str(error)), f"seed {seed}: {error}"
            assert "\n" not in str(error)
    assert "error" in outcomes


def test_group_in_place_of_the_images_is_refused(tmp_path):
    with h5py.File(tmp_path / "nsd_stimuli.hdf5", "w") as file:
        file.create_group("imgBrick")

    with pytest.raises(PackagingError, match=r"nsd_stimuli\.hdf5 does not hold an HDF5 dataset imgBrick"):
        list(read_images(raw_file(tmp_path / "nsd_stimuli.hdf5"), [0]))


def read_in_parts(monkeypatch, seed: int) -> None:
    """Let every read give a part of the bytes that it asks for, as network file systems may."""
    rng, preadv = random.Random(seed), os.preadv

    def give_part(descriptor, buffers, offset):
        (buffer,) = buffers
        return preadv(descriptor, [buffer[: rng.randint(1, max(1, len(buffer)))]], offset)

    monkeypatch.setattr(os, "preadv", give_part)


@pytest.mark.parametrize("seed", range(3))
def test_reads_that_are_short_give_all_data(nsd_tree, monkeypatch, seed):
    def read_all():
        betas = raw_file(nsd_tree / BETAS)
        return {
            "shape": read_betas_shape(betas),
            "betas": np.concatenate([block.copy() for block in read_betas(betas, SHAPE)]).tobytes(),
            "ncsnr": read_vertices(raw_file(nsd_tree / NCSNR)).tobytes(),
            "images": [image.tobytes() for image in read_images(raw_file(nsd_tree / IMAGES), range(0, 60, 7))],
        }

    whole = read_all()
    read_in_parts(monkeypatch, seed)
    assert read_all() == whole


@pytest.mark.parametrize(
    "read",
    [
        lambda file: file.read(),
        read_betas_shape,
        lambda file: next(read_betas(file, SHAPE)),
    ],
)
def test_disk_that_fails_is_named(nsd_tree, monkeypatch, read):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(OSError, match=rf"Input/output error: '{nsd_tree / IMAGES}'"):
        read(raw_file(nsd_tree / IMAGES))
