"""Image and map move together: what a map points at stays at the same pixel of the image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from small_images import blob, picture

from pipelines.build.encode import Frame, fit_image, fit_map

SHAPES = [(60, 90), (90, 60), (45, 45), (333, 500), (20, 30)]


def coordinates(height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3]: red is the row, green the column, from 0 to 250 between the first and the last."""
    rows, cols = np.linspace(0, 250, height), np.linspace(0, 250, width)
    return np.rint(np.stack([*np.meshgrid(rows, cols, indexing="ij"), np.zeros((height, width))], 2)).astype(np.uint8)


@pytest.mark.parametrize("fit", ["squash", "crop"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("place", [(0.4, 0.5), (0.55, 0.62), (0.7, 0.35)])
def test_a_blob_stays_on_its_pixel(fit: str, shape: tuple[int, int], place: tuple[float, float]) -> None:
    """The fitted image's colours, weighted by the fitted map, are those under the blob in the source."""
    height, width = shape
    frame = Frame(32, 32, fit)  # pyright: ignore[reportArgumentType]
    peak = blob(height, width, place[0] * (height - 1), place[1] * (width - 1))
    image, p = fit_image(coordinates(height, width), frame), fit_map(peak, frame)
    assert image.shape == (32, 32, 3)
    assert p.shape == (32, 32)
    assert p.sum() == pytest.approx(1, abs=1e-5)
    seen = (image[..., :2] * p[..., None]).sum((0, 1)) / 250
    assert seen == pytest.approx(place, abs=0.25 / 32)  # a quarter of a pixel


def test_pixels_are_pils() -> None:
    image = picture(0, 60, 90)
    whole = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR))
    middle = np.asarray(Image.fromarray(image[:, 15:75]).resize((32, 32), Image.Resampling.BILINEAR))
    assert np.array_equal(fit_image(image, Frame(32, 32, "squash")), whole)
    assert np.array_equal(fit_image(image, Frame(32, 32, "crop")), middle)


def test_a_crop_forgets_what_lies_outside() -> None:
    p = 0.9 * blob(30, 90, 15, 5) + 0.1 * blob(30, 90, 10, 45)
    fitted = fit_map(p, Frame(30, 30, "crop"))
    assert np.unravel_index(fitted.argmax(), fitted.shape) == (10, 15)
    assert fitted.sum() == pytest.approx(1, abs=1e-5)
    assert fit_map(blob(30, 90, 15, 0), Frame(30, 30, "crop")).sum() == 0


def test_what_has_the_size_is_untouched() -> None:
    image = picture(0)
    assert fit_image(image, Frame(24, 32)) is image
    with pytest.raises(ValueError, match="32×24 pixels, the others have 24×24; give --size"):
        fit_image(image, Frame(24, 24))
