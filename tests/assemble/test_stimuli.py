"""The images of a release and the tables that list them."""

import io
import logging
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from allen2022_surface_packaging.assemble.stimuli import write_stimuli
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.files import read_origins
from allen2022_surface_packaging.nsd.inspection import inspect_tree
from allen2022_surface_packaging.nsd.tree import OFFICIAL, open_tree
from allen2022_surface_packaging.recipe import make_recipe
from allen2022_surface_packaging.release import ReleaseFolder
from support import Memory

IMAGES_PATH = OFFICIAL.images[0]
SPLITS = {"train": np.array([2, 5, 9]), "test": np.array([0, 7])}
HEADER = "nsdId,cocoId,cocoSplit,cropBox\n"
ALL_IDS = [0, 2, 5, 7, 9]
ORIGINS = {i: f'{i},{100 + i},train2017,"(0, 0.5, 0.125, 0.{i})"' for i in ALL_IDS}


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (10, 6, 4, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def image_file(pixels):
    target = io.BytesIO()
    with h5py.File(target, "w") as file:
        file["imgBrick"] = pixels
    return target.getvalue()


@pytest.fixture(scope="module")
def whole_plan(tiny_tree):
    return inspect_tree(open_tree(tiny_tree), make_recipe((1, 4), name="Two")).require_sound()


@pytest.fixture
def plan(whole_plan, image_file):
    """A plan of five images in memory, all of which have an origin."""
    brick = Memory({IMAGES_PATH: image_file}).file(IMAGES_PATH)
    return replace(whole_plan, splits=SPLITS, image_brick=brick, origins=read_rows(ORIGINS))


def read_rows(rows, nsd_ids=ALL_IDS):
    """Return the origins that a table of images gives."""
    content = "\n".join([HEADER.strip(), *rows.values()]).encode()
    return read_origins(Memory({"origins": content}).file("origins"), nsd_ids)


def write(plan, tmp_path):
    folder = ReleaseFolder(tmp_path / "release")
    folder.path.mkdir()
    write_stimuli(plan, folder)
    return folder


def test_images_are_those_of_the_split_without_loss(plan, pixels, tmp_path):
    folder = write(plan, tmp_path)

    for split, nsd_ids in SPLITS.items():
        paths = sorted(folder.stimuli_path(split).iterdir())
        assert [path.name for path in paths] == [f"nsd_{i:05d}.png" for i in nsd_ids]
        for nsd_id, path in zip(nsd_ids, paths, strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels[nsd_id])


def test_images_are_jpeg_of_quality_95_when_asked(plan, pixels, tmp_path):
    folder = write(replace(plan, image_format="jpg"), tmp_path)

    expected = io.BytesIO()
    Image.fromarray(pixels[7]).save(expected, "JPEG", quality=95)
    assert (folder.stimuli_path("test") / "nsd_00007.jpg").read_bytes() == expected.getvalue()
    assert pd.read_csv(folder.stimulus_table_path("test")).image_file_name.tolist() == [
        "nsd_00000.jpg",
        "nsd_00007.jpg",
    ]


def test_stimulus_tables_have_the_documented_text(plan, tmp_path):
    folder = write(plan, tmp_path)

    assert folder.stimulus_table_path("train").read_bytes() == (
        b"stimulus_id,nsd_id,image_file_name,coco_id\n"
        b"nsd_00002,2,nsd_00002.png,102\nnsd_00005,5,nsd_00005.png,105\nnsd_00009,9,nsd_00009.png,109\n"
    )
    assert folder.stimulus_table_path("test").read_bytes() == (
        b"stimulus_id,nsd_id,image_file_name,coco_id\nnsd_00000,0,nsd_00000.png,100\nnsd_00007,7,nsd_00007.png,107\n"
    )


def test_split_and_origins_are_tables_of_all_images(plan, tmp_path):
    folder = write(plan, tmp_path)

    assert folder.split_path.read_bytes() == (
        b"nsd_id,stimulus_id,split\n0,nsd_00000,test\n2,nsd_00002,train\n5,nsd_00005,train\n"
        b"7,nsd_00007,test\n9,nsd_00009,train\n"
    )
    lines = folder.origin_path.read_bytes().split(b"\n")
    assert lines[0] == b"stimulus_id,nsd_id,coco_id,coco_split,crop_top,crop_bottom,crop_left,crop_right"
    assert lines[2] == b"nsd_00002,2,102,train2017,0.0,0.5,0.125,0.2"
    assert [line.split(b",")[1] for line in lines[1:-1]] == [b"0", b"2", b"5", b"7", b"9"]


@pytest.mark.parametrize(
    ("nsd_id", "row", "has_ids"),
    [
        (5, "5,105,train2017,", True),
        (9, '9,109,,"(0, 0, 0, 0)"', True),
        (0, "0,100,,", True),
        (5, "5,,train2017,", False),
        (5, "6,106,train2017,", False),
    ],
    ids=["no crop box", "no split", "neither", "no COCO id", "no row"],
)
def test_columns_that_are_unknown_for_one_image_are_left_out(plan, tmp_path, nsd_id, row, has_ids):
    folder = write(replace(plan, origins=read_rows(ORIGINS | {nsd_id: row})), tmp_path)

    assert not folder.origin_path.exists()
    for split in SPLITS:
        assert ("coco_id" in pd.read_csv(folder.stimulus_table_path(split))) is has_ids


def test_no_origin_is_needed(plan, tmp_path):
    folder = write(replace(plan, origins={}), tmp_path)

    assert not folder.origin_path.exists()
    assert list(pd.read_csv(folder.stimulus_table_path("test"))) == ["stimulus_id", "nsd_id", "image_file_name"]


def encode_image(suffix, colour=0, mode="RGB"):
    """Return the content of a small image file."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (colour, 128, 255)).convert(mode).save(buffer, {"png": "PNG", "jpg": "JPEG"}[suffix])
    return buffer.getvalue()


@pytest.fixture
def extracted_plan(plan):
    """A plan whose images an earlier packaging extracted; some are JPEG, and imgBrick is missing."""
    suffixes = dict(zip(ALL_IDS, ("png", "jpg", "png", "jpg", "png"), strict=True))
    contents = {
        f"brainscore/stimuli_train/stimulus_{i}.{suffix}": encode_image(suffix, colour=i)
        for i, suffix in suffixes.items()
    }
    files = {i: Memory(contents).file(path) for i, path in zip(ALL_IDS, contents, strict=True)}
    return replace(plan, extracted_images=files)


def test_extracted_images_are_copied_under_the_name_of_the_stimulus(extracted_plan, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        folder = write(extracted_plan, tmp_path)

    assert {path.name: path.read_bytes() for path in folder.stimuli_path("test").iterdir()} == {
        "nsd_00000.png": encode_image("png", 0),
        "nsd_00007.jpg": encode_image("jpg", 7),
    }
    names = pd.read_csv(folder.stimulus_table_path("train")).image_file_name.tolist()
    assert names == ["nsd_00002.jpg", "nsd_00005.png", "nsd_00009.png"]
    assert [record.getMessage() for record in caplog.records] == [
        "stimuli_train: 3 images copied",
        "stimuli_test: 2 images copied",
    ]


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        ("png", b"", "cannot be read"),
        ("jpg", b"\xff\xd8 no image", "cannot be read"),
        ("png", encode_image("png")[:-30], "cannot be read"),
        ("jpg", encode_image("jpg")[:-100], "cannot be read"),
        ("png", encode_image("jpg"), "is a file of JPEG with RGB pixels"),
        ("jpg", encode_image("png"), "is a file of PNG with RGB pixels"),
        ("png", encode_image("png", mode="L"), "is a file of PNG with L pixels"),
        ("png", encode_image("png", mode="RGBA"), "is a file of PNG with RGBA pixels"),
        ("png", encode_image("png", mode="P"), "is a file of PNG with P pixels"),
        ("jpg", encode_image("jpg", mode="CMYK"), "is a file of JPEG with CMYK pixels"),
    ],
)
def test_damaged_extracted_image_is_refused(plan, tmp_path, suffix, content, message):
    files = dict.fromkeys(ALL_IDS, Memory({f"stimulus.{suffix}": content}).file(f"stimulus.{suffix}"))

    kind = {"png": "PNG", "jpg": "JPEG"}[suffix]
    with pytest.raises(
        PackagingError,
        match=rf"stimulus\.{suffix} {message}.*, expected an image of {kind} with RGB pixels\. Extract it",
    ):
        write(replace(plan, extracted_images=files), tmp_path)


def test_extracted_images_are_counted_in_the_log(plan, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        write(plan, tmp_path)

    assert "stimuli_train: 3 images extracted" in caplog.text


@settings(max_examples=20)  # each writes files
@given(st.data())
def test_tables_of_any_split_agree_with_plain_lists(whole_plan, tmp_path_factory, data):
    nsd_ids = data.draw(st.lists(st.integers(0, 72_999), min_size=2, max_size=8, unique=True))
    n_train = data.draw(st.integers(1, len(nsd_ids) - 1))
    splits = {"train": sorted(nsd_ids[:n_train]), "test": sorted(nsd_ids[n_train:])}
    coco_ids = {i: data.draw(st.integers(1, 10**6)) for i in nsd_ids}
    boxes = {i: data.draw(st.tuples(*[st.sampled_from([0.0, 0.125, 0.5])] * 4)) for i in nsd_ids}
    rows = {i: f'{i},{coco_ids[i]},val2017,"{boxes[i]}"' for i in data.draw(st.permutations(nsd_ids))}
    memory = Memory({f"{i}.png": encode_image("png") for i in nsd_ids})
    plan = replace(
        whole_plan,
        splits={split: np.array(ids) for split, ids in splits.items()},
        extracted_images={i: memory.file(f"{i}.png") for i in nsd_ids},
        origins=read_rows(rows, sorted(nsd_ids)),
    )
    folder = write(plan, tmp_path_factory.mktemp("stimuli"))

    def read(path):
        return [tuple(row) for row in pd.read_csv(path).itertuples(index=False)]

    for split, ids in splits.items():
        assert read(folder.stimulus_table_path(split)) == [
            (f"nsd_{i:05d}", i, f"nsd_{i:05d}.png", coco_ids[i]) for i in ids
        ]
    assert read(folder.split_path) == [
        (i, f"nsd_{i:05d}", "train" if i in splits["train"] else "test") for i in sorted(nsd_ids)
    ]
    assert read(folder.origin_path) == [(f"nsd_{i:05d}", i, coco_ids[i], "val2017", *boxes[i]) for i in sorted(nsd_ids)]
