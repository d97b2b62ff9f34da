"""Sheets of augmented views: the views and parameters that were made, and where the crops were taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor
from shard_sets import build
from typer.testing import CliRunner

import cli
from shards.errors import ConfigError
from shards.preview.contact_sheet import Augmentation, contact_sheet
from shards.preview.rows import VIEW_TILE, group_params
from shards.preview.sheet import BOXES, draw_boxes
from shards.reader import ShardSet
from shards.schema import ParamField

NINE = (
    *(ParamField(f"crop_{side}", "px") for side in ("top", "left", "height", "width")),
    *(ParamField(name, "1") for name in ("brightness", "contrast", "saturation")),
    *(ParamField("hue", "turn"), ParamField("blur_sigma", "px")),
)


def flipped(images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    views = np.stack([images[:, ::-1], images[:, :, ::-1]], axis=1)
    return views, np.tile(np.array([1, 2, 3, 4, 1, 1, 1, 0, 0], np.float32), (len(rows), 2, 1))


def lies_on(sheet: np.ndarray, wanted: np.ndarray) -> bool:
    rows, columns = np.nonzero((sheet == wanted[0, 0]).all(-1))
    spots = {(int(r), int(c)) for r, c in zip(rows, columns, strict=True)}
    height, width = wanted.shape[:2]
    return any(np.array_equal(sheet[r : r + height, c : c + width], wanted) for r, c in spots)


def test_a_sheet_holds_each_image_with_its_crops_and_the_views_made_of_it(tmp_path: Path) -> None:
    build(tmp_path / "set", "image-raw")
    index, seen = ShardSet.open(tmp_path / "set").images("train"), []

    def make(images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.extend(rows.tolist())
        return flipped(images, rows)

    out = contact_sheet(
        tmp_path / "set", "train", tmp_path / "a.png", samples=99, augmentation=Augmentation(make, NINE)
    )
    sheet, size = np.asarray(Image.open(out)), (VIEW_TILE * 12 // 8, VIEW_TILE)
    assert seen == list(range(len(index)))
    for row in seen:
        image = index.read_image(row)
        for view in (image[::-1], image[:, ::-1]):
            drawn = np.asarray(Image.fromarray(view).resize(size, Image.Resampling.BICUBIC))
            assert lies_on(sheet, drawn)
        assert lies_on(sheet, np.asarray(draw_boxes(image, np.array([[1, 2, 3, 4]] * 2), size)))


def test_boxes_are_where_the_crops_are() -> None:
    """Rows, then columns: a mix-up would put the edges elsewhere."""
    picture = np.asarray(draw_boxes(np.zeros((10, 20, 3), np.uint8), np.array([[2, 5, 6, 10]]), (200, 100)))
    inked = (picture == ImageColor.getrgb(BOXES[0])).all(-1)
    rows, columns = np.nonzero(inked)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 79, 50, 149)
    assert inked[79, 50:150].all()
    assert not inked[60, 60:140].any()


def test_sets_without_images_are_refused(tmp_path: Path) -> None:
    build(tmp_path / "maps", "maps-log8")
    build(tmp_path / "views", "raw")
    for name, message in (("maps", "holds maps without images"), ("views", "holds views that are made already")):
        with pytest.raises(ConfigError, match=message):
            contact_sheet(tmp_path / name, "val", tmp_path / "a.png", augmentation=Augmentation(flipped, NINE))


def test_the_nine_and_the_two_share_lines() -> None:
    groups = group_params(NINE)
    assert [group.label for group in groups] == [
        "crop h x w at top, left", "brightness, contrast", "saturation, hue", "blur sigma",
    ]  # fmt: skip
    assert not any(group.is_hue for group in groups), "a shift of hues is no colour"
    values = np.array([3, 5, 25, 28, 1.2, 0.75, 1, -0.04, 0.5], np.float32)
    assert [group.text(values) for group in groups] == ["25 x 28 at 3, 5", "1.20  0.75", "1.00  -0.04", "0.50"]
    (both,) = group_params((ParamField("x", "1"), ParamField("y", "1")))
    assert (both.label, both.text(np.array([0.5, 0.25]))) == ("x, y", "0.50  0.25")


def test_patches_are_of_sets_with_saliency_maps(tmp_path: Path) -> None:
    build(tmp_path / "set")
    words = ["preview", str(tmp_path / "set"), "--out", str(tmp_path / "sheet.png"), "--patch", "8"]
    done = CliRunner().invoke(cli.seqjepa_data_app, words)
    assert done.exit_code == 2
    assert f"--patch 8 is for sets with saliency maps, and {tmp_path / 'set'} holds views shards" in done.output
    assert not (tmp_path / "sheet.png").exists()


def test_patches_larger_than_the_images_are_refused(tmp_path: Path) -> None:
    """As in training; the sheet showed fixations from all over the image."""
    build(tmp_path / "set", "saliency-raw")
    words = ["preview", str(tmp_path / "set"), "--out", str(tmp_path / "sheet.png"), "--patch", "900"]
    done = CliRunner().invoke(cli.seqjepa_data_app, words)
    assert done.exit_code == 2
    assert "patches of 900 pixels do not fit images of" in done.output
    assert not (tmp_path / "sheet.png").exists()
