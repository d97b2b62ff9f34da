"""Where there is nothing to tell apart, nothing is measured. Oracle: scikit-learn on what does vary."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, r2_score, recall_score
from small_cases import bank_of

from seqjepa.evaluate.metrics import confusion, confusion_summary, varying
from seqjepa.evaluate.probe_training import fit_and_score
from seqjepa.evaluate.probes import Bench, Scores, classification, regression
from seqjepa.evaluate.results import confusion_arrays

CPU = torch.device("cpu")
NOISE = {"exactly": 0.0, "up to float noise": 1e-7}
RNG = np.random.default_rng(0)
Z = RNG.normal(size=(60, 1, 4)).astype(np.float32)
BANK = bank_of(np.repeat(Z, 3, axis=1), np.arange(60) % 3, np.zeros((60, 3, 3), np.float32))


def scored(measure: Any, bank=BANK) -> Scores:
    return fit_and_score(measure, Bench(bank, bank, CPU, 0))


def shown(targets: np.ndarray):
    """Inputs: z, or K copies of it, with the targets [60, …]."""
    y = torch.from_numpy(targets.astype(np.float32))
    x = torch.from_numpy(Z[:, 0])
    x = x if y.ndim == 2 else x[:, None].expand(-1, y.shape[1], -1)
    return lambda bank, slots: lambda rows: (x[rows], y[rows])


def constant(noise: float, *shape: int) -> np.ndarray:
    return 0.37 + noise * RNG.normal(size=shape)


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
@pytest.mark.parametrize("deep", [True, False])
def test_a_constant_target_is_not_measured(noise, deep):
    taken = scored(regression("r2_hue", shown(constant(noise, 60, 2)), 1, 2, 2, deep=deep))
    assert taken[:3] == ({}, {}, {})
    assert taken.skipped == {"r2_hue": "constant: the same in all validation samples"}


def test_constant_rotations_have_no_error_in_degrees_either():
    still = np.tile([0.0, 0.0, 0.0, 1.0], (60, 1))
    taken = scored(regression("r2_rel_rot", shown(still), 1, 4, 2, deep=True, degrees=True))
    assert (taken.last, list(taken.skipped)) == ({}, ["r2_rel_rot"])


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
def test_dimensions_that_do_not_vary_are_left_out_and_named(noise):
    y = np.concatenate([constant(noise, 60, 1), Z[:, 0, :2] * 0.3, constant(noise, 60, 1)], axis=1)
    measure = regression("r2_rel_rot", shown(y), 1, 4, 40, deep=False)
    taken = scored(measure)
    assert list(taken.skipped) == ["r2_rel_rot, dimension 1, 4 of 4"]
    predicted = torch.from_numpy(Z[:, 0] @ RNG.normal(size=(4, 4))).float()
    found = measure.score(predicted, torch.from_numpy(y).float())
    assert found["r2_rel_rot_avg"] == pytest.approx(r2_score(y[:, 1:3], predicted[:, 1:3]), rel=1e-4)
    assert found["r2_rel_rot_pool"] == pytest.approx(r2_score(y[:, 1:3].ravel(), predicted[:, 1:3].ravel()), rel=1e-4)


def test_each_size_of_a_path_is_asked_for_itself():
    ways = np.stack([constant(0, 60, 2), Z[:, 0, :2]], axis=1)
    taken = scored(regression("r2_path.both", shown(ways), 3, 2, 3, deep=False, sizes=(1, 2)))
    assert (list(taken.last), list(taken.best)) == (["r2_path.both.2"], ["r2_path.both.2"])
    assert list(taken.skipped) == ["r2_path.both.1"]
    ways[:, 1] = 0
    taken = scored(regression("r2_path.both", shown(ways), 3, 2, 3, deep=False, sizes=(1, 2)))
    assert (taken.last, list(taken.skipped)) == ({}, ["r2_path.both"])


def test_small_but_real_spreads_are_measured():
    y = torch.tensor([[0.5, 1e-3, 1e5], [0.5 + 1e-3, -1e-3, 1e5 + 10], [0.5, 0.0, 1e5]])
    assert varying(y).tolist() == [True, True, True]
    assert varying(torch.tensor([[1e5, 1.0], [1e5 + 0.01, 1.0]])).tolist() == [False, False]


def test_one_class_is_no_accuracy():
    def shown_one(bank, slots):
        return lambda rows: (bank.z[rows, 0], torch.full_like(rows, 2))

    taken = scored(classification("top1_z", shown_one, 3, 2))
    assert (taken.last, taken.confusions) == ({}, {})
    assert taken.skipped == {"top1_z": "constant: all validation samples are of one class"}


VALIDATION = "the validation samples"


@pytest.mark.parametrize(
    ("known", "skipped"),
    [
        ([0, 1, 2, 3], {}),
        ([1, 3], {"top1_z, 2 of 4 classes": f"training has no sample of them; the others are 0.700 of {VALIDATION}"}),
        ([7, 9], {"top1_z": "training has no sample of any class of validation"}),
    ],
)  # fmt: skip
def test_classes_that_training_lacks_are_said(known: list[int], skipped: dict[str, str]):
    task = classification("top1_z", lambda bank, slots: lambda rows: (bank.z[rows, 0], rows % 4), 10, 2)
    labels = torch.tensor([0, 1, 1, 1, 1, 2, 3, 3, 3, 2])
    assert task.missing(labels, torch.tensor(known)) == skipped
    assert replace(task, labels=False).missing(labels, torch.tensor(known)) == {}  # its classes are others


def test_a_confusion_matrix_is_scikit_learns_and_its_diagonal_is_top1():
    labels = torch.from_numpy(RNG.integers(0, 4, 200))
    logits = torch.from_numpy(RNG.normal(size=(200, 6)))
    predicted = logits.argmax(dim=1)
    counts = confusion(logits, labels, 6).numpy()
    np.testing.assert_array_equal(counts, confusion_matrix(labels, predicted, labels=range(6)))
    found = confusion_summary(counts, list("abcdef"))
    assert found["mean"] == pytest.approx(recall_score(labels, predicted, labels=range(4), average="macro"))
    assert found["classes"] == 4


def test_what_stands_out_class_by_class_by_hand():
    counts = np.array([[8, 2, 0], [0, 0, 0], [3, 1, 0]])
    assert confusion_summary(counts, ["dog", "none", "cat"]) == {
        "mean": 0.4,
        "classes": 2,
        "lowest": [
            {"class": "cat", "accuracy": 0.0, "count": 4},
            {"class": "dog", "accuracy": 0.8, "count": 10},
        ],
        "confused": [
            {"class": "cat", "taken_for": "dog", "share": 0.75},
            {"class": "cat", "taken_for": "none", "share": 0.25},
            {"class": "dog", "taken_for": "none", "share": 0.2},
        ],
    }


def test_class_by_class_in_the_file_and_in_the_numbers():
    def prefixes(bank, slots):
        return lambda rows: (bank.z[rows][:, :2], bank.labels[rows])

    taken = scored(classification("top1_z", lambda b, s: lambda rows: (b.z[rows, 0], b.labels[rows]), 3, 9))
    taken = taken.joined(scored(classification("top1_agg", prefixes, 3, 9, sizes=(1, 5))))
    stored, found = confusion_arrays(taken.confusions, ["a", "b", "ü"])
    found = found["per_class"]
    assert stored["class_names"].tolist() == ["a", "b", "ü"]
    assert set(stored) == {"class_names", "top1_z", "top1_agg.1", "top1_agg.5"}
    for name, summary in (("top1_z", found["top1_z"]), ("top1_agg.5", found["top1_agg"]["5"])):
        assert stored[name].sum() == 60
        assert stored[name].trace() / 60 == pytest.approx(taken.last[name])
        assert math.isclose(summary["mean"], np.mean(stored[name].diagonal() / stored[name].sum(1)))


def test_of_very_many_classes_hits_alone_are_kept():
    counts = np.zeros((1001, 1001), np.int64)
    counts[7, 7], counts[7, 8] = 3, 1
    stored, _ = confusion_arrays({"top1_z": counts}, [])
    assert stored["top1_z"].shape == (2, 1001)
    assert stored["top1_z"][:, 7].tolist() == [4, 3]
    assert stored["class_names"][7] == "7"
