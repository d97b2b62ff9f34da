from __future__ import annotations

import numpy as np
import pytest

from shards.errors import FormatError
from shards.stats import PixelStats


def test_sums_are_numpys_in_any_order() -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (5, 16, 24, 3), dtype=np.uint8)
    decoded = rng.integers(0, 256, pixels.shape, dtype=np.uint8)
    parts = [PixelStats.of(p, q) for p, q in zip(pixels, decoded, strict=True)]
    total = sum(reversed(parts), PixelStats())
    assert total.to_json() == PixelStats.of(pixels, decoded).to_json()
    unit = pixels.reshape(-1, 3) / 255.0
    np.testing.assert_allclose(total.normalisation()["mean"], unit.mean(0), atol=1e-6)
    np.testing.assert_allclose(total.normalisation()["std"], unit.std(0), atol=1e-6)
    error = ((pixels.astype(float) - decoded) ** 2).mean()
    assert total.psnr == pytest.approx(10 * np.log10(255**2 / error), abs=1e-9)


def test_constant_and_absent_pixels_have_a_safe_deviation() -> None:
    assert PixelStats().normalisation() == {"mean": [0.0] * 3, "std": [1.0] * 3}
    flat = PixelStats.of(np.full((4, 4, 3), 255, np.uint8))
    assert flat.normalisation() == {"mean": [1.0] * 3, "std": [pytest.approx(1 / 255, abs=1e-6)] * 3}
    assert flat.psnr is None


def test_sums_survive_json_and_malformed_ones_do_not() -> None:
    stats = PixelStats.of(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    assert PixelStats.from_json(stats.to_json()).to_json() == stats.to_json()
    for bad in ({}, {**stats.to_json(), "sum": [1]}, {**stats.to_json(), "count": "x"}):
        with pytest.raises(FormatError, match="pixel sums"):
            PixelStats.from_json(bad)
