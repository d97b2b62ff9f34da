"""Runs of the baselines on every kind of shards: killed, resumed, and the same bits at the end."""

from __future__ import annotations

import pytest
from train_helpers import SACCADES, assert_same_end, make_saliency_shards, make_shards, tiny_config, train_killed_at

from seqjepa.training.train import train
from shards.errors import ConfigError

KINDS = {"views": [], "images": ["data.augment=equimod", "data.action=augmentation"], "saccades": SACCADES}
CASES = [
    ("sie", "views"),
    ("vicreg_traj", "images"),
    ("conditional_byol", "saccades"),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (
            ("simclr", "views"),
            ("byol", "images"),
            ("equimod", "images"),
            ("sen", "saccades"),
            ("vicreg", "saccades"),
        )
    ),
]


@pytest.mark.parametrize(("method", "kind"), CASES)
def test_a_killed_run_ends_with_the_same_bits(tmp_path, monkeypatch, method: str, kind: str):
    make = make_shards if kind == "views" else make_saliency_shards
    shards = make(tmp_path / "set", 20)
    context = 2 if method == "vicreg_traj" else 1
    own = [f"method={method}", f"data.context={context}", "model.projector=[32,16]", "optim.epochs=2"]
    config = tiny_config(*KINDS[kind], *own, "train.checkpoint_minutes=1e-9")
    train(config, shards, tmp_path / "whole", workers=0, progress=False)
    train_killed_at(4, config, shards, tmp_path / "run", monkeypatch)
    assert_same_end(tmp_path / "run", tmp_path / "whole")


def test_a_wrong_number_of_views_is_refused_before_anything_is_written(tmp_path):
    shards = make_shards(tmp_path / "set", 20)
    with pytest.raises(ConfigError, match=r"simclr takes exactly 2 views .* set data\.context=1"):
        train(tiny_config("method=simclr"), shards, tmp_path / "run", workers=0, progress=False)
    assert not (tmp_path / "run").exists()
