from __future__ import annotations

import io

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image
from small_3die import jpeg, smooth_image
from torchvision.transforms import Resize
from torchvision.transforms.functional import to_pil_image

from pipelines.build.encode import (
    LADDER,
    Frame,
    JpegSetting,
    choose_by,
    choose_setting,
    decode_jpeg,
    encode_jpeg,
    fit_image,
    psnr_db,
    psnrs,
    squared_difference,
)
from pipelines.sources.decode import jpeg_size
from shards.errors import UsageError


def noise(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def mean_psnr(images: list[np.ndarray], setting: JpegSetting) -> float:
    errors = [squared_difference(decode_jpeg(encode_jpeg(image, setting)), image) for image in images]
    return float(np.mean([psnr_db(error, image.size) for error, image in zip(errors, images, strict=True)]))


def resize(image: np.ndarray, side: int) -> np.ndarray:
    return fit_image(image, Frame(side, side, "squash"))


def frame_markers(data: bytes) -> list[int]:
    """Start-of-frame markers, by walking the segments."""
    found, at = [], 2
    while data[at + 1] != 0xDA:
        if 0xC0 <= data[at + 1] <= 0xCF and data[at + 1] not in (0xC4, 0xC8, 0xCC):
            found.append(data[at + 1])
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return found


@pytest.mark.parametrize("image", [noise(256), smooth_image(1, 256), noise(200, 3)])
def test_resize_is_the_papers(image: np.ndarray) -> None:
    """torchvision's Resize((128, 128)) on a PIL image, bit for bit."""
    assert np.array_equal(resize(image, 128), np.asarray(Resize((128, 128))(Image.fromarray(image))))


def test_resize_is_within_one_level_of_the_tensor_form() -> None:
    image = noise(256)
    tensor = Resize((128, 128), antialias=True)(torch.from_numpy(image.copy()).permute(2, 0, 1))
    other = np.asarray(to_pil_image(tensor)).astype(int)
    assert np.abs(resize(image, 128).astype(int) - other).max() <= 1


def test_same_size_is_not_resampled() -> None:
    image = noise(64)
    assert resize(image, 64) is image


@pytest.mark.parametrize("setting", LADDER)
def test_jpegs_are_baseline(setting: JpegSetting) -> None:
    data = encode_jpeg(smooth_image(0, 64), setting)
    assert frame_markers(data) == [0xC0]
    subsampling = simplejpeg.decode_jpeg_header(data)[3]
    assert subsampling == setting.subsampling


def test_a_progressive_jpeg_would_show() -> None:
    assert frame_markers(jpeg(noise(64), progressive=True)) == [0xC2]


def test_huffman_tables_are_optimised() -> None:
    image = smooth_image(0, 128)
    assert len(encode_jpeg(image, JpegSetting("444", 90))) < len(jpeg(image, quality=90, subsampling=0))


def test_decoder_equals_pil_and_spreads_grey() -> None:
    data = jpeg(noise(96))
    assert np.array_equal(decode_jpeg(data), np.asarray(Image.open(io.BytesIO(data))))
    buffer = io.BytesIO()
    Image.fromarray(noise(32)[..., 0]).save(buffer, "JPEG")
    grey = decode_jpeg(buffer.getvalue())
    assert grey.shape == (32, 32, 3)
    assert np.array_equal(grey[..., 0], grey[..., 2])


def test_every_cut_of_a_jpeg_is_refused() -> None:
    data = jpeg(smooth_image(0, 32))
    for cut in range(0, len(data) - 2, 7):
        with pytest.raises(ValueError, match=r".*"):
            decode_jpeg(data[:cut])


def test_header_only_size() -> None:
    assert jpeg_size(jpeg(noise(100)[:60])) == (60, 100)
    with pytest.raises(ValueError, match=r".*"):
        jpeg_size(b"no image")


def test_psnr_by_hand() -> None:
    a, b = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    b[0, 0, 0] = 255
    assert squared_difference(a, b) == 255**2
    assert psnr_db(255**2, 12) == pytest.approx(10 * np.log10(12))
    assert psnr_db(0, 12) == 99


def test_squared_error_is_exact_for_large_images() -> None:
    a, b = noise(1000, 1), noise(1000, 2)
    assert squared_difference(a, b) == int(((a.astype(np.int64) - b) ** 2).sum())


def test_first_of_the_ladder_that_is_good_enough() -> None:
    flat = [np.full((32, 32, 3), level, np.uint8) for level in (0, 128, 255)]
    assert choose_setting(flat) == LADDER[0]
    assert choose_setting([noise(64)]) == LADDER[-1]
    images = [smooth_image(seed, 64) for seed in range(4)]
    target = mean_psnr(images, LADDER[2]) - 0.01
    chosen = choose_setting(images, target)
    assert mean_psnr(images, chosen) >= target
    assert all(mean_psnr(images, rung) < target for rung in LADDER[: LADDER.index(chosen)])


def test_images_in_parts_get_the_setting_of_all_together() -> None:
    """Though each part alone would have stopped elsewhere: flat images at the first setting, noise at the last."""
    images = [*(np.full((32, 32, 3), level, np.uint8) for level in (0, 99)), smooth_image(1, 32), noise(32)]
    asked: list[int] = []
    for target in (mean_psnr(images, rung) - 0.01 for rung in LADDER):

        def measured(least: int, target: float = target) -> list[list[float]]:
            asked.append(least)
            return [row for part in (images[:2], images[2:3], images[3:]) for row in psnrs(part, least, target)]

        assert choose_by(measured, target) == choose_setting(images, target)
    assert max(asked) > 1, "a part had to go on"


@pytest.mark.parametrize("text", ["444", "411-90", "444-0", "444-101", "444-9x", "best"])
def test_unknown_settings_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="420-90"):
        JpegSetting.parse(text)


def test_setting_spelled() -> None:
    assert str(JpegSetting.parse("420-85")) == "420-85"
