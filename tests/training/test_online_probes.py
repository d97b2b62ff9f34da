from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from sklearn.metrics import r2_score
from torch import nn

from seqjepa.data.sequence import ViewSequence
from seqjepa.methods.base import StepOutput
from seqjepa.report.figures.drawing import CAPTIONS
from seqjepa.training.distributed import World
from seqjepa.training.monitor import EpochMeter, OnlineProbes, probe_scores
from shards.schema import ActionSpec, ActionTerm

WIDTHS = {"z": torch.Size((2, 3, 6)), "z_agg": torch.Size((2, 8))}


def batch(rows: int) -> ViewSequence:
    labels = torch.arange(rows) % 3
    return ViewSequence(
        torch.zeros(rows, 4, 3, 1, 1), torch.randn(rows, 3, 4), torch.zeros(rows, 4, 0), labels, [""] * rows
    )


def test_nothing_flows_back_into_the_features():
    encoder = nn.Linear(6, 6)
    z = encoder(torch.randn(8, 3, 6))
    OnlineProbes(WIDTHS, 3, 4).learn({"z": z, "z_agg": torch.randn(8, 8, requires_grad=True)}, batch(8), World())
    assert encoder.weight.grad is None


def test_scores_equal_sklearns_and_come_from_before_the_step():
    torch.manual_seed(1)
    probes, meter = OnlineProbes(WIDTHS, 3, 4), EpochMeter(WIDTHS, 4, "cpu")
    predicted, correct, targets = [], [], []
    for _ in range(3):
        seq = batch(7)
        features = {"z": torch.randn(7, 3, 6), "z_agg": torch.randn(7, 8)}
        before = copy.deepcopy(probes.heads).requires_grad_(False)
        predicted.append(before["action"](features["z"][:, :2].flatten(1)))
        correct += (before["class"](features["z_agg"]).argmax(1) == seq.labels).tolist()
        targets.append(seq.actions[:, 0])
        output = StepOutput(torch.tensor(0.5), features=features)
        meter.update(output, probes.learn(features, seq, World()), 7)
    found = meter.summary()
    assert found["probe_top1"] == pytest.approx(sum(correct) / 21)
    assert found["probe_r2"] == pytest.approx(r2_score(torch.cat(targets), torch.cat(predicted)), rel=1e-5)
    assert (found["loss"], found["samples"]) == (0.5, 21)


def test_they_learn_what_is_there_to_learn():
    torch.manual_seed(0)
    probes, meter, map_ = OnlineProbes(WIDTHS, 3, 4), EpochMeter(WIDTHS, 4, "cpu"), torch.randn(12, 4)
    for step in range(200):
        seq = batch(30)
        z = torch.randn(30, 3, 6)
        seq.actions[:, 0] = z[:, :2].flatten(1) @ map_
        z_agg = torch.nn.functional.one_hot(seq.labels, 8) * 10.0 + torch.randn(30, 8)
        if step == 100:
            meter.reset()
        meter.update(StepOutput(torch.tensor(0.0), features={"z": z, "z_agg": z_agg}),
                     probes.learn({"z": z, "z_agg": z_agg}, seq, World()), 30)  # fmt: skip
    assert meter.summary()["probe_top1"] > 0.95
    assert meter.summary()["probe_r2"] > 0.8


def test_probes_are_left_out_where_they_make_no_sense():
    one_view = {"z": torch.Size((2, 1, 6))}
    assert list(OnlineProbes(one_view, 3, 4).heads) == ["class"]
    assert list(OnlineProbes(WIDTHS, 0, 4).heads) == ["action"]
    off = OnlineProbes(WIDTHS, 3, 4, enabled=False)
    assert off.learn({}, batch(2), World()) == {}
    meter = EpochMeter(WIDTHS, 4, "cpu")
    features = {"z": torch.randn(2, 3, 6), "z_agg": torch.randn(2, 8)}
    meter.update(StepOutput(torch.tensor(1.0), features=features), {}, 2)
    assert not {"probe_top1", "probe_r2"} & set(meter.summary())


def test_an_action_that_does_not_vary_has_no_r2():
    """Added up in float32 it seems to, a little."""
    probes, meter = OnlineProbes(WIDTHS, 3, 4), EpochMeter(WIDTHS, 4, "cpu")
    for _ in range(3):
        seq, features = batch(7), {"z": torch.randn(7, 3, 6), "z_agg": torch.randn(7, 8)}
        seq.actions[:] = torch.tensor([0.5235988, -0.1, 3.3, 1e4])
        meter.update(StepOutput(torch.tensor(0.0), features=features), probes.learn(features, seq, World()), 7)
    assert "probe_r2" not in meter.summary()


def test_the_numbers_of_a_small_rotation_count_as_one():
    """Of which w, 1 less a little, cannot be read as exactly as it hardly varies."""
    pose = ActionSpec(
        (
            ActionTerm("difference", ("a",)),
            ActionTerm("relative_pose", tuple("bcdefg")),
            ActionTerm("angle_difference", ("h",)),
        )
    )
    assert pose.whole == (0, 1, 1, 1, 1, 2, 3, 4, 5)
    vectors = Rotation.from_rotvec(np.random.default_rng(0).normal(0, 0.1, (500, 3))).as_quat()
    y = torch.from_numpy(vectors)
    error = 0.01 * torch.randn(500, 4, generator=torch.Generator().manual_seed(0)).double()
    sums = {"sq_err": error.square().sum(0), "y": y.sum(0), "y_sq": y.square().sum(0), "labelled": torch.zeros(())}
    found = probe_scores(sums, 500, pose.whole[1:5])["probe_r2"]
    explained = 1 - error.square().sum() / (y - y.mean(0)).square().sum()
    assert found == pytest.approx(float(explained))
    assert found > 0.9
    assert probe_scores(sums, 500)["probe_r2"] < -1


def test_samples_without_a_label_do_not_count():
    seq = batch(6)
    seq.labels[:4] = -1
    sums = OnlineProbes(WIDTHS, 3, 4).learn({"z": torch.randn(6, 3, 6), "z_agg": torch.randn(6, 8)}, seq, World())
    assert sums["labelled"] == 2
    assert sums["correct"] <= 2


def test_the_reports_caption_says_what_kinds_of_heads_they_are():
    heads = OnlineProbes(WIDTHS, classes=3, action_size=4).heads
    assert isinstance(heads["class"], nn.Linear)
    assert [type(layer) for layer in heads["action"]] == [nn.Linear, nn.ReLU, nn.Linear]
    assert "linear for the class, with a hidden layer for the action" in CAPTIONS["online-probes"]["caption"]
