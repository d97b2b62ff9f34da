"""Position R² of runs on augmented whole images: read from patches that the frozen encoder is shown beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import IMAGE, PROJECTED, augmented_run_of, build_images

from seqjepa.config import EvalConfig
from seqjepa.data.actions import PRESETS
from seqjepa.data.draws import Purpose
from seqjepa.evaluate.encode import SplitFeatures, encode_splits
from seqjepa.evaluate.inputs import action_between
from seqjepa.evaluate.probe_training import fit_and_score
from seqjepa.evaluate.probes import Bench
from seqjepa.evaluate.run import evaluate_run
from seqjepa.evaluate.tasks import position
from seqjepa.training.checkpoint import LoadedRun, load_run
from shards.errors import ConfigError
from shards.reader import ShardSet
from shards.saliency_map import encode_map
from shards.sample import ImageSample, encode_raw
from shards.schema import ImageSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

QUICK = {"device": "cpu", "train_draws": 1, "m_val": (1,), "progress": False, "suite": "probes"}
PATCH, CPU = 8, torch.device("cpu")


@pytest.fixture(scope="session")
def gradients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose red is the column and whose green is the row; blue tells the class. Maps are flat."""
    out, rng = tmp_path_factory.mktemp("gradients") / "shards", np.random.default_rng(2)
    rows, columns = np.mgrid[:IMAGE, :IMAGE] * 6
    parts = encode_map(np.full((IMAGE, IMAGE), 1 / IMAGE**2), "float16")
    spec = ImageSpec(IMAGE, IMAGE, "raw", "float16")
    with SetBuilder(out, name="gradients", spec=spec, classes=("a", "b"), fingerprint={"by": "test"}) as builder:
        for split, count in (("train", 64), ("test", 32)):
            with builder.open_shard(split, 0) as writer:
                for number in range(count):
                    blue = np.full((IMAGE, IMAGE), 100 * (number % 2)) + rng.integers(0, 50)
                    pixels = np.stack([columns, rows, blue], axis=-1).astype(np.uint8)
                    sample = ImageSample(f"{split}-{number}", encode_raw(pixels), parts, number % 2, {})
                    writer.add(sample, PixelStats.of(pixels[None]))
        builder.finish({"command": "test"})
    return out


class MeanColour(torch.nn.Module):
    """z is the mean colour of a view, which here is where it was cut."""

    def embed(self, views: torch.Tensor) -> torch.Tensor:
        return views.mean((2, 3))


class Blind(MeanColour):
    """Sees how blue a view is, which says nothing of where it was cut."""

    def embed(self, views: torch.Tensor) -> torch.Tensor:
        return super().embed(views) * torch.tensor([0.0, 0.0, 1.0])


def position_of(run: Path, shards: Path, method: torch.nn.Module) -> tuple[dict[str, float], SplitFeatures]:
    """Position R² as evaluate_run reads it, without the other probes."""
    loaded, stored = load_run(run), ShardSet.open(shards)
    loaded = LoadedRun(loaded.config, method, loaded.data)  # type: ignore[arg-type]
    protocol = EvalConfig(m_val=(1,), probe_epochs=900, train_draws=4, patch=PATCH, standardise=True)
    banks = encode_splits(loaded, stored, protocol, CPU, progress=False)
    assert banks.patches is not None
    bench = Bench(banks.patches.train, banks.patches.val, CPU, 0)
    return fit_and_score(position(protocol), bench).last, banks


@pytest.mark.parametrize("fidelity", ["paper", "author"])
def test_where_patches_are_is_read_from_what_shows_it_and_from_nothing_else(tmp_path, gradients, fidelity):
    run = augmented_run_of(tmp_path / "run", fidelity, augment="simclr", method="simclr", context=1, model=PROJECTED)
    seeing, banks = position_of(run, gradients, MeanColour())
    blind, _ = position_of(run, gradients, Blind())
    # What lies beyond the image is black, so near the edges the mean colour is not linear in the place.
    assert 0.5 < seeing["r2_position_avg"] <= 1
    assert blind["r2_position_avg"] < 0.05
    assert banks.patches is not None
    train, val, how = banks.patches.train, banks.patches.val, banks.patches.how
    assert (how.patch, how.fidelity, how.inhibition) == (PATCH, fidelity, "disc" if fidelity == "paper" else "square")
    assert (train.param_names, train.run_length, train.runs, val.runs) == (("x", "y"), 2, 4, 1)
    pairs = val.params.reshape(len(val), 2, 2)
    x, y = action_between(PRESETS["position"])(val, val.draw(0, 0, Purpose.EVALUATION, 2))(torch.arange(len(val)))
    np.testing.assert_allclose(y, pairs[:, 1] - pairs[:, 0], atol=1e-6)
    np.testing.assert_array_equal(x, val.z.flatten(1))


def test_halves_have_positions_too_and_larger_patches_than_images_are_said(tmp_path, gradients):
    run = augmented_run_of(tmp_path / "sie", augment="simclr", method="sie", context=1, model=PROJECTED)
    results = evaluate_run(run, gradients, patch=PATCH, probe_epochs=6, **QUICK)
    assert {"r2_position_avg", "r2_crop_avg"} <= set(results["halves"]["equivariant"])
    with pytest.raises(ConfigError, match="patches of 41 pixels do not fit"):
        evaluate_run(run, gradients, patch=41, probe_epochs=6, **QUICK)


def test_images_smaller_than_the_papers_patches_are_skipped_with_a_reason(tmp_path):
    small = build_images(tmp_path / "small", {"train": 12, "test": 6}, size=24)
    run = augmented_run_of(tmp_path / "run", augment="simclr")
    (run / "run.json").write_text((run / "run.json").read_text().replace(f'_height": {IMAGE}', '_height": 24').replace(f'_width": {IMAGE}', '_width": 24'))  # fmt: skip # noqa: E501
    results = evaluate_run(run, small, probe_epochs=6, **QUICK)
    assert results["protocol"]["skipped"]["r2_position"] == "the images are smaller than patches of 32 px: --patch N"
    assert "r2_position_avg" in evaluate_run(run, small, probe_epochs=6, patch=PATCH, **QUICK)
