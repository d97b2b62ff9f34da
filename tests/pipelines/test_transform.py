from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_3die import jpeg, latent, npy, smooth_image

from pipelines.build.encode import Frame, JpegSetting, pixel_sums, psnr_db
from pipelines.build.transform import ViewJob, read_latent, transform
from pipelines.sources import ViewsContent, ViewsRecord
from pipelines.sources.decode import decode_jpeg
from shards.stats import PixelStats

JOB = ViewJob(Frame(16, 16, "squash"), JpegSetting("444", 95), (32, 32), 7)


def record(views: list, latents: list, ids: list[int] | None = None) -> ViewsContent:
    view_ids = tuple(ids or range(len(views)))
    return ViewsContent(ViewsRecord("key", 3, "train", "0001/o0", view_ids, meta={"object": "o0"}), views, latents)


def good(count: int) -> tuple[list[bytes], list[bytes]]:
    return [jpeg(smooth_image(k)) for k in range(count)], [npy(latent(k)) for k in range(count)]


def test_numbers_and_parameters_stay_together() -> None:
    views, latents = good(3)
    result = transform(record(views, latents, [4, 7, 31]), JOB)
    assert result.sample is not None
    assert result.sample.view_ids == [4, 7, 31]
    assert result.sample.params.dtype == np.float32
    assert np.array_equal(result.sample.params, np.stack([latent(k) for k in range(3)]).astype(np.float32))
    assert (result.sample.key, result.sample.label, result.sample.meta) == ("key", 3, {"object": "o0"})
    assert result.bad == ()


def test_sums_are_of_what_a_reader_sees() -> None:
    views, latents = good(2)
    result = transform(record(views, latents), JOB)
    assert result.sample is not None
    seen = np.stack([decode_jpeg(view) for view in result.sample.views]).astype(np.int64).reshape(-1, 3)
    assert result.stats.count == len(seen) == 2 * 16 * 16
    assert result.stats.sum.tolist() == seen.sum(0).tolist()
    assert result.stats.sum_sq.tolist() == (seen**2).sum(0).tolist()
    assert result.stats.sq_err_count == 2 * 16 * 16 * 3
    assert result.psnr_sum / 2 == pytest.approx(psnr_db(result.stats.sq_err, result.stats.sq_err_count), abs=2)


def test_fast_sums_equal_the_plain_ones() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    fast, plain = pixel_sums(pixels), PixelStats.of(pixels)
    assert fast.to_json() == plain.to_json()


def test_raw_views_are_the_resized_pixels() -> None:
    views, latents = good(1)
    result = transform(record(views, latents), ViewJob(Frame(32, 32, "squash"), None, (32, 32), 7))
    assert result.sample is not None
    assert result.sample.views == [npy(decode_jpeg(views[0]))]
    assert result.psnr_sum == 0


BAD_IMAGES = {
    "cut": (jpeg(smooth_image(0))[:-200], "corrupt JPEG"),
    "text": (b"hello", "not a JPEG"),
    "empty": (b"", "empty"),
    "size": (jpeg(smooth_image(0, 40)), "40×40 pixels, the others have 32×32"),
    "absent": (Path("/nowhere/image_1.jpg"), "unreadable"),
}
BAD_LATENTS = {
    "nine": (npy(np.zeros(9)), "shape (9,)"),
    "matrix": (npy(np.zeros((1, 7))), "shape (1, 7)"),
    "nan": (npy(np.array([np.nan] * 7)), "not finite"),
    "overflow": (npy(np.full(7, 1e300)), "not finite"),
    "integers": (npy(np.zeros(7, int)), "int64"),
    "text": (b"hello hello hello", "not a NumPy file"),
    "cut": (npy(np.zeros(7))[:-1], "cut short"),
    "cut header": (npy(np.zeros(7))[:60], "not a NumPy file"),
    "huge": (npy(np.zeros(7)).replace(b"(7,)", b"(7e9,)"), "shape"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images_are_named_and_left_out(name: str) -> None:
    views, latents = good(3)
    views[1], reason = BAD_IMAGES[name]  # type: ignore[call-overload]
    result = transform(record(views, latents), JOB)
    assert result.sample is not None
    assert result.sample.view_ids == [0, 2]
    (text,) = result.bad
    assert text.startswith("0001/o0/image_1.jpg: ")
    assert reason in text


@pytest.mark.parametrize("name", BAD_LATENTS)
def test_bad_latents_are_named_and_left_out(name: str) -> None:
    views, latents = good(3)
    latents[1], reason = BAD_LATENTS[name]
    result = transform(record(views, latents), JOB)
    assert result.sample is not None
    assert np.array_equal(result.sample.params, np.stack([latent(0), latent(2)]).astype(np.float32))
    (text,) = result.bad
    assert text.startswith("0001/o0/latent_1.npy: ")
    assert reason in text


def test_pickled_latents_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "evil.npy", np.array([object] * 7), allow_pickle=True)
    with pytest.raises(ValueError, match="object"):
        read_latent((tmp_path / "evil.npy").read_bytes(), 7)


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f8", "<f2"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_latents_of_any_float_and_version(tmp_path: Path, dtype: str, version: tuple[int, int]) -> None:
    values = latent(0).astype(dtype)
    with (tmp_path / "latent.npy").open("wb") as file:
        np.lib.format.write_array(file, values, version=version)
    found = read_latent((tmp_path / "latent.npy").read_bytes(), 7)
    assert np.array_equal(found, values.astype(np.float32))


def test_an_object_without_a_good_view() -> None:
    result = transform(record([b"x"], [npy(latent(0))]), JOB)
    assert result.sample is None
    assert len(result.bad) == 1
