"""The centre bias at an image's size, against scipy's zoom, which the released scripts call."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom
from scipy.special import logsumexp

from pipelines.saliency import device
from pipelines.saliency.deepgaze import CentreBias, read_template, zoom_index
from shards.errors import FormatError


def test_index_is_scipys_at_every_size_to_1100() -> None:
    source = np.arange(1024.0)
    for target in range(2, 1101):
        expected = zoom(source, target / 1024, order=0, mode="nearest")
        assert len(expected) == target
        np.testing.assert_array_equal(zoom_index(1024, target), expected, err_msg=str(target))


@pytest.mark.parametrize(("height", "width"), [(512, 512), (375, 500), (333, 501), (768, 1024)])
def test_log_density_is_the_scripts(height: int, width: int) -> None:
    template = np.random.default_rng(0).normal(-14, 2, (1024, 1024))
    expected = zoom(template, (height / 1024, width / 1024), order=0, mode="nearest")
    found = CentreBias(template).at(height, width)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected - logsumexp(expected), rtol=1e-6)


def test_each_size_is_zoomed_once_and_old_ones_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "MOST_BYTES", 4 * (4 * 5 + 6 * 7 + 8 * 9))
    bias = CentreBias(np.zeros((8, 8)))
    first = bias.at(4, 5)
    second = bias.at(6, 7)
    third = bias.at(8, 9)
    assert bias.at(4, 5) is first
    bias.at(1, 2)
    assert bias.at(6, 7) is not second  # the one that was used longest ago
    assert bias.at(4, 5) is first
    assert bias.at(8, 9) is not third
    large = bias.at(20, 20)
    assert bias.at(20, 20) is large  # the newest stays in any case
    assert bias.at(4, 5) is not first


def test_what_stays_is_counted_whatever_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "MOST_BYTES", 100)
    kinds = (lambda _: torch.zeros(10), lambda _: [torch.zeros(5)] * 2, lambda _: SimpleNamespace(a=torch.zeros(10)))
    for make in kinds:
        made: list[int] = []
        kept = device.Kept(lambda key, make=make, made=made: made.append(key) or make(key))
        for key in (1, 2, 1, 2, 3, 1):
            kept(key)
        assert made == [1, 2, 3, 1]


def test_template_is_read_as_float64(tmp_path: Path) -> None:
    np.save(tmp_path / "bias.npy", np.full((3, 4), -2.0, np.float32))
    template = read_template(tmp_path / "bias.npy")
    assert template.dtype == np.float64
    assert template.shape == (3, 4)


@pytest.mark.parametrize(
    "bad",
    [np.zeros(4), np.zeros((2, 2), int), np.array([[0.0, np.nan]]), np.array([[0.0, -np.inf]]), np.array([{}])],
    ids=["1-d", "integers", "nan", "infinite", "pickled"],
)
def test_what_is_no_log_density_is_refused(tmp_path: Path, bad: np.ndarray) -> None:
    np.save(tmp_path / "bias.npy", bad, allow_pickle=True)
    with pytest.raises(FormatError, match=r"bias\.npy"):
        read_template(tmp_path / "bias.npy")


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", np.zeros((64, 64)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:1000])
    with pytest.raises(FormatError, match=r"cut\.npy"):
        read_template(tmp_path / "cut.npy")
