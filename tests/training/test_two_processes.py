"""Two gloo ranks on the CPU learn what one process learns on the same global batches."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file
from train_helpers import SACCADES, make_saliency_shards, make_shards, metrics, tiny_config

from seqjepa.embedding.feature_sets import encoder_of_config, make_features
from seqjepa.training.train import train
from shards.reader import ShardSet

SETTINGS = ["model.dropout=0.0", "optim.epochs=2", "train.monitor_epochs=1", 'train.loggers=["csv"]']


@pytest.mark.parametrize("kind", ["views", pytest.param("saccades", marks=pytest.mark.slow)])
def test_losses_and_weights_equal_one_process(two_ranks, tmp_path, kind: str):
    # The last batch of an epoch holds 6, three a rank.
    shards = make_shards(tmp_path / "set", 22) if kind == "views" else make_saliency_shards(tmp_path / "set", 22)
    settings = [*SETTINGS, *(SACCADES if kind == "saccades" else [])]
    train(tiny_config(*settings), shards, tmp_path / "one", workers=0, progress=False)
    done = two_ranks(shards, tmp_path / "two", settings)
    assert [code for code, _ in done] == [0, 0], done
    for one, two in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert one["samples"] == two["samples"] == 22
        for key in ("loss", "z_std", "agg_std", "probe_r2"):
            assert two[key] == pytest.approx(one[key], abs=1e-5 if key == "loss" else 1e-3)
        assert two["z_rankme"] == pytest.approx(one["z_rankme"], rel=1e-2)  # the first rank measures, the other waits
    assert len((tmp_path / "two" / "loggers" / "metrics.csv").read_text().splitlines()) == 3  # and one rank logs
    one, two = (load_file(tmp_path / run / "model.safetensors") for run in ("one", "two"))
    assert set(one) == set(two)
    # AdamW divides by the gradient's own size: where that is nothing but rounding, one step may differ by all of lr.
    assert max(float((one[k].float() - two[k].float()).abs().max()) for k in one) < 2e-3


@pytest.mark.slow
def test_two_ranks_learn_from_features_what_one_does(two_ranks, tmp_path):
    views = make_shards(tmp_path / "views", 22)
    source, encoder = ShardSet.open(views), tiny_config("seed=11")
    make_features(source, tmp_path / "set", encoder_of_config(encoder, source), dtype="float32")
    train(tiny_config(*SETTINGS), tmp_path / "set", tmp_path / "one", workers=0, progress=False)
    done = two_ranks(tmp_path / "set", tmp_path / "two", SETTINGS)
    assert [code for code, _ in done] == [0, 0], done
    for one, two in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert one["samples"] == two["samples"] == 22
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_both_and_the_run_resumes(two_ranks, tmp_path):
    shards, settings = make_shards(tmp_path / "set", objects=22), ["optim.epochs=4"]
    done = two_ranks(shards, tmp_path / "run", settings, stop_at=3)
    assert [code for code, _ in done] == [143, 143], done
    assert "stopped and saved at step 8 of 12" in done[0][1]
    assert [code for code, _ in two_ranks(shards, tmp_path / "run", settings)] == [0, 0]
    assert [line["epoch"] for line in metrics(tmp_path / "run")] == [1, 2, 3, 4]
    assert {line["samples"] for line in metrics(tmp_path / "run")} == {22}


@pytest.mark.slow
def test_a_refusal_on_rank_0_ends_both(two_ranks, tmp_path):
    shards = make_shards(tmp_path / "set", objects=22)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "foreign").touch()
    done = two_ranks(shards, tmp_path / "run", SETTINGS)
    assert [code for code, _ in done] == [2, 1], done
    assert "not a run directory" in done[0][1]
