"""Contact sheets of images and maps, and the colours and marks on them."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageColor
from shard_sets import build

from shards.errors import ConfigError, UsageError
from shards.preview.contact_sheet import IMAGE_TILE, contact_sheet
from shards.preview.sheet import DARK, FIRST, LIGHT, RADIUS, colours_of, draw_fixations, overlay
from shards.reader import ShardSet


def on_sheet(sheet: np.ndarray, pixels: np.ndarray) -> int:
    """How often a picture lies on the sheet, its longer side TILE px."""
    scale = IMAGE_TILE / max(pixels.shape[:2])
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    wanted = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    rows, columns = np.nonzero((sheet == wanted[0, 0]).all(-1))
    spots = {(int(r), int(c)) for r, c in zip(rows, columns, strict=True)}
    return sum(np.array_equal(sheet[r : r + size[1], c : c + size[0]], wanted) for r, c in spots)


@pytest.mark.parametrize("flavour", ["image-raw", "image-jpeg", "saliency-raw", "maps-log8"])
def test_a_sheet_holds_every_picture_once(tmp_path: Path, flavour: str) -> None:
    build(tmp_path / "set", flavour)
    out = contact_sheet(tmp_path / "set", "val", tmp_path / "sheet.png", samples=99)
    sheet, index = np.asarray(Image.open(out)), ShardSet.open(tmp_path / "set").images("val")
    for sample in range(len(index)):
        if index.encoding != "none":
            assert on_sheet(sheet, index.read_image(sample)) == 1
        if index.saliency != "none":
            density = index.read_map(sample)
            shown = colours_of(density) if index.encoding == "none" else overlay(index.read_image(sample), density)
            assert on_sheet(sheet, shown) == 1
    again = contact_sheet(tmp_path / "set", "val", tmp_path / "again.png", samples=99)
    assert again.read_bytes() == out.read_bytes()


def test_fixations_come_from_the_maps_on_the_sheet(tmp_path: Path) -> None:
    build(tmp_path / "set", "saliency-raw")
    index = ShardSet.open(tmp_path / "set").images("train")
    seen: list[np.ndarray] = []

    def look(maps: np.ndarray) -> np.ndarray:
        seen.append(maps)
        return np.tile([[1, 2], [6, 9]], (len(maps), 1, 1))

    out = contact_sheet(tmp_path / "set", "train", tmp_path / "sheet.png", samples=99, fixations=look)
    (maps,) = seen
    np.testing.assert_array_equal(maps, [index.read_map(sample) for sample in range(9)])
    sheet = np.asarray(Image.open(out))
    size = (IMAGE_TILE, round(IMAGE_TILE * 8 / 12))
    for sample in range(9):
        covered = overlay(index.read_image(sample), maps[sample])
        marked = np.asarray(draw_fixations(covered, np.array([[1, 2], [6, 9]]), size))
        assert on_sheet(sheet, marked) == 1
        assert on_sheet(sheet, covered) == 0


def test_dots_are_where_the_fixations_are() -> None:
    """Pixels in (row, col), the centre of each: a mix-up of rows and columns would put them elsewhere."""
    fixations = np.array([[2, 20], [7, 4], [7, 34]])
    picture = np.asarray(draw_fixations(np.zeros((10, 40, 3), np.uint8), fixations, (400, 100))).astype(int)
    for number, (row, column) in enumerate(fixations):
        x, y = 10 * column + 5, 10 * row + 5
        inside = picture[y - RADIUS + 3, x - 3 : x + 4]
        assert np.abs(inside - ImageColor.getrgb(FIRST if number == 0 else LIGHT)).max() < 25
        assert (picture[y - 4 : y + 5, x - 4 : x + 5].sum(-1) < 200).any(), "a number in the dot"
        assert picture[y - RADIUS - 4, x - 4 : x + 5].max() < 60
    assert (picture[75, 150:250] == ImageColor.getrgb(LIGHT)).all(), "a line from the second to the third"
    assert picture[95].max() <= max(ImageColor.getrgb(DARK))
    alone = draw_fixations(np.zeros((10, 10, 3), np.uint8), fixations[:1] // 4, (100, 100))
    assert alone.size == (100, 100)


def test_the_ramp_is_matplotlibs_and_grows_in_lightness() -> None:
    density = np.linspace(0, 1, 201)[None] ** 2
    colours = colours_of(density)[0].astype(float)
    expected = 255 * matplotlib.colormaps["inferno"](np.linspace(0, 1, 201))[:, :3]
    assert np.abs(colours - expected).max() < 20
    assert (np.diff(colours @ [0.2126, 0.7152, 0.0722]) > -0.5).all()
    assert colours_of(np.ones((2, 2)))[0, 0].tolist() == [252, 255, 164]


def test_an_overlay_shows_the_image_where_there_is_no_density_and_the_ramp_at_the_peak() -> None:
    image = np.full((1, 2, 3), (200, 100, 0), np.uint8)
    clear, dense = overlay(image, np.array([[0.0, 1.0]]))[0].astype(int)
    assert np.ptp(clear) < 5, "grey, whatever the image's colour"
    assert 95 < clear[0] < 119
    assert np.abs(dense - (252, 255, 164)).max() < 40


def test_what_a_preview_refuses(tmp_path: Path) -> None:
    build(tmp_path / "set", "maps-log8")
    with pytest.raises(UsageError, match="needs a sample"):
        contact_sheet(tmp_path / "set", "val", tmp_path / "sheet.png", samples=0)
    with pytest.raises(ConfigError, match="no split 'x'"):
        contact_sheet(tmp_path / "set", "x", tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()
