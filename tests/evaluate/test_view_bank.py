from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seqjepa.data.one_pass import stored_views
from seqjepa.evaluate.features import encode_views
from shards.errors import DamageError
from shards.reader import ShardSet

CPU = torch.device("cpu")
STATISTICS = ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))


class MeanColour:
    """embed: the mean of each normalised channel [B, 3]."""

    def embed(self, views: torch.Tensor) -> torch.Tensor:
        return views.mean((2, 3))


@pytest.mark.parametrize("threads", [1, 3])
def test_every_distinct_view_comes_once_with_its_pixels(shards, threads):
    index = ShardSet.open(shards).split("train")
    seen = set()
    for samples, views, pixels in stored_views(index, batch_size=50, threads=threads):
        for s, v, image in zip(samples, views, pixels, strict=True):
            seen.add((s, v))
            oracle = np.asarray(Image.open(io.BytesIO(index.read_bytes(s, v))))
            assert np.abs(image.astype(int) - oracle).max() <= 1
    assert seen == {(s, v) for s in range(len(index)) for v in range(index.n_views[s])}


def test_a_shard_that_shrinks_while_it_is_read_is_named(shards, tmp_path):
    """A map of it would end the process with SIGBUS."""
    index = ShardSet.open(shutil.copytree(shards, tmp_path / "set")).split("val")
    batches = stored_views(index, batch_size=2, threads=1)
    next(batches)
    os.truncate(index.shard_paths[-1], 0)
    with pytest.raises(DamageError, match=r"val-\d+\.tar ends inside sample"):
        list(batches)


def test_a_set_that_is_made_anew_while_it_is_read_is_named(shards, tmp_path):
    index = ShardSet.open(shutil.copytree(shards, tmp_path / "set")).split("val")
    for change in (lambda info: info.write_text("{}"), Path.unlink):
        batches = stored_views(index, batch_size=2, threads=1)
        next(batches)
        change(tmp_path / "set/_meta/dataset.json")
        with pytest.raises(DamageError, match="set: the set was made anew while it was read: run the command again"):
            list(batches)


def test_features_stand_at_their_sample_and_view(shards):
    index = ShardSet.open(shards).split("val")
    bank = encode_views(MeanColour(), index, STATISTICS, CPU, batch_size=7)
    assert bank.z.shape == (24, 6, 3)
    for s in range(len(index)):
        for v in range(index.n_views[s]):
            pixels = index.read_view(s, v).reshape(-1, 3).mean(0) / 255
            np.testing.assert_allclose(bank.z[s, v], (pixels - STATISTICS[0]) / STATISTICS[1], atol=1e-4)
        assert not bank.z[s, index.n_views[s] :].any()
    assert bank.most_views == 4
    np.testing.assert_array_equal(bank.params[..., bank.param_names.index("floor_hue")], index.params[:, :, 3])


def test_features_may_be_trained_on(shards):
    bank = encode_views(MeanColour(), ShardSet.open(shards).split("val"), STATISTICS, CPU)
    layer = torch.nn.Linear(3, 1)
    layer(bank.z[:, 0]).sum().backward()
    torch.testing.assert_close(layer.weight.grad, bank.z[:, 0].sum(0, keepdim=True))


def test_large_caches_are_half_precision(shards, monkeypatch):
    index = ShardSet.open(shards).split("val")
    full = encode_views(MeanColour(), index, STATISTICS, CPU)
    monkeypatch.setattr("seqjepa.evaluate.features.FULL_PRECISION_BYTES", 100)
    half = encode_views(MeanColour(), index, STATISTICS, CPU)
    assert half.z.dtype == torch.float16
    torch.testing.assert_close(half.z.float(), full.z, atol=2e-3, rtol=1e-3)


def test_a_view_that_does_not_decode_is_named(shards, tmp_path):
    index = ShardSet.open(shards).split("val")
    broken = tmp_path / "val-000001.tar"
    data = bytearray(index.shard_paths[1].read_bytes())
    start = index.offsets[13, 2]
    data[start : start + 8] = b"\0" * 8
    broken.write_bytes(data)
    index.shard_paths[1] = broken
    with pytest.raises(DamageError, match=r"view 2 .*object_0061.*val-000001"):
        encode_views(MeanColour(), index, STATISTICS, CPU)
