"""A picture that decoders read whole is read, with PIL's pixels; one that lost pixels is refused."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from odd_jpegs import CMYK, END, LOST, PLAIN, PROGRESSIVE, READ, RESTARTS, jpeg, scan
from PIL import Image
from small_images import encoded, picture

from pipelines.build.images import shard_images
from pipelines.build.transform import load_view
from pipelines.sources import open_source
from pipelines.sources.decode import decode_image, decode_jpeg, jpeg_size
from shards.reader import ShardSet

OPENCV_DIFFERS = {name for name in READ if "CMYK" in name} | {
    "Adobe's transform 9"
}  # it converts by a formula of its own


def pil(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("name", READ)
def test_what_decoders_read_is_not_corrupt(name: str) -> None:
    data = READ[name]
    pixels = decode_image(data)
    assert np.array_equal(pixels, pil(data))
    assert jpeg_size(data) == pixels.shape[:2]
    if name not in OPENCV_DIFFERS:
        theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert theirs is not None
        assert np.array_equal(pixels, theirs[..., ::-1])


def test_oddities_change_no_pixel() -> None:
    for name in ("scan parameters", "JFIF 9", "bytes between segments", "many bytes before the end", "all together"):
        assert np.array_equal(decode_jpeg(READ[name]), decode_jpeg(PLAIN))
    for name in ("bytes before a restart mark", "zeros before a restart mark", "bytes before every restart mark"):
        assert np.array_equal(decode_jpeg(READ[name]), decode_jpeg(RESTARTS))
    assert np.array_equal(decode_jpeg(READ["bytes between scans"]), decode_jpeg(PROGRESSIVE))
    assert np.array_equal(decode_jpeg(READ["3:1:1"]), np.full((8, 48, 3), decode_jpeg(READ["3:1:1"])[0, 0]))


def test_what_may_be_damaged_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Entropy-coded data with a flipped bit mostly end early; so do those that someone put bytes behind."""
    for number, name in enumerate(("plain", "zeros before the end", "many bytes before the end", "a scan too few")):
        (tmp_path / f"{number}.jpg").write_bytes(READ[name])
    info = shard_images(open_source("folder", tmp_path), tmp_path / "set", encoding="raw", workers=1)
    assert info.provenance["images"] == 4
    odd = info.provenance["odd_images"]
    assert [name.split(":")[0] for name in odd["names"]] == ["2.jpg", "3.jpg"]
    assert (
        "2 images may be damaged, or other than meant, e.g. 2.jpg: 497 bytes are left over behind its pixels: it may"
        in caplog.text
    )
    assert odd["names"][1].startswith("3.jpg: its scans do not belong together (Inconsistent progression sequence")


def test_moving_pictures_are_said(tmp_path: Path) -> None:
    first, *rest = (Image.fromarray(picture(seed)) for seed in range(3))
    for name in ("0.png", "1.png", "2.webp"):
        moving = {} if name == "0.png" else {"save_all": True, "append_images": rest}
        first.save(tmp_path / name, lossless=True, **moving)
    info = shard_images(open_source("folder", tmp_path), tmp_path / "set", encoding="raw", workers=1)
    said = [f"{name}: the first of its 3 frames is read" for name in ("1.png", "2.webp")]
    assert info.provenance["odd_images"]["names"] == said
    assert all(
        np.array_equal(ShardSet.open(tmp_path / "set").images("train").read_image(i), picture(0)) for i in range(3)
    )


def test_transparent_pictures_are_said(tmp_path: Path) -> None:
    """As renderers write what has no background; an alpha of 255 throughout is none."""
    opaque = Image.fromarray(picture(0)).convert("RGBA")
    clear = opaque.copy()
    clear.putpixel((3, 2), (9, 9, 9, 254))
    for name, image in (("0.png", opaque), ("1.png", clear), ("2.webp", clear), ("3.png", clear.convert("LA"))):
        image.save(tmp_path / name, lossless=True, exact=True)
    opaque.convert("P").save(tmp_path / "4.png", transparency=int(np.asarray(opaque.convert("P"))[0, 0]))
    info = shard_images(open_source("folder", tmp_path), tmp_path / "set", encoding="raw", workers=1)
    said = "it has transparent pixels, whose colours are taken as they lie in the file"
    named = [f"{name}: {said}" for name in ("1.png", "2.webp", "3.png", "4.png")]
    assert info.provenance["odd_images"]["names"] == named


def test_pictures_without_content_are_said(tmp_path: Path) -> None:
    """Renders that failed; twelve bits of a camera in sixteen, which eight bits leave nothing of."""
    almost = np.zeros((20, 24, 3), np.uint8)
    almost[7, 9, 2] = 1
    grey = np.arange(480, dtype=np.uint16).reshape(20, 24)
    pictures = (np.full_like(almost, 7), almost, grey * 8, grey * 8 + 264)
    for name, pixels in zip("0123", pictures, strict=True):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    info = shard_images(open_source("folder", tmp_path), tmp_path / "set", encoding="raw", workers=1)
    assert info.provenance["odd_images"]["names"] == [
        "0.png: all its pixels are (7, 7, 7)",
        "2.png: its 16 bits go to 3832 alone, nearly black: scale them to 65535, or to 8 bits",
    ]


def test_pictures_that_exif_turns_are_said(tmp_path: Path) -> None:
    """As telephones write them; 0 is what some cameras say that know nothing."""
    for turn, suffix in ((6, "jpg"), (8, "png"), (3, "webp"), (1, "jpg"), (0, "jpg"), (None, "jpg")):
        exif = Image.Exif()
        if turn is not None:
            exif[0x0112] = turn
        Image.fromarray(picture(1)).save(tmp_path / f"{turn}.{suffix}", exif=exif)
    (tmp_path / "torn.jpg").write_bytes(encoded(picture(1), "jpg", exif=b"Exif\0\0II*\0\xff\xff"))
    info = shard_images(open_source("folder", tmp_path), tmp_path / "set", encoding="raw", workers=1)
    assert info.provenance["images"] == 7
    said = [("3.webp", 3), ("6.jpg", 6), ("8.png", 8)]
    assert info.provenance["odd_images"]["names"] == [
        f"{name}: its EXIF turns it (orientation {turn}), which is left alone" for name, turn in said
    ]


@pytest.mark.parametrize("name", LOST)
def test_what_lost_pixels_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="corrupt JPEG"):
        decode_image(LOST[name])


@pytest.mark.parametrize("data", [PLAIN, CMYK, jpeg(mode="L"), RESTARTS], ids=["plain", "CMYK", "grey", "restarts"])
def test_every_cut_is_refused_or_lost_nothing(data: bytes) -> None:
    whole, refused = pil(data), 0
    for cut in range(scan(data), len(data) - 2, 5):
        with pytest.raises(ValueError, match="corrupt JPEG"):
            decode_jpeg(data[:cut])
        try:
            assert np.array_equal(decode_jpeg(data[:cut] + END), whole)
        except ValueError:
            refused += 1
    assert refused > (len(data) - scan(data)) / 5 - 3


def test_flipped_bits_are_refused_or_as_pil_has_them() -> None:
    rng = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(PLAIN)
        data[int(rng.integers(2, len(data)))] ^= 1 << int(rng.integers(8))
        try:
            pixels = decode_jpeg(bytes(data))
        except ValueError:
            continue
        assert np.array_equal(pixels, pil(bytes(data)))


def test_3diebench_reads_them_alike() -> None:
    data = READ["scan parameters"]
    assert np.array_equal(load_view("image_0.jpg", data, (48, 64)), pil(data))
