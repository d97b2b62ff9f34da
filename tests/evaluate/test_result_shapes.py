"""Parts of results.json of a type that no reader expects are refused by name, and what evaluations write is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from seqjepa.evaluate.results import read_results
from shards.errors import FormatError

GOOD: dict[str, Any] = {
    "top1_z": 0.5,
    "top1_agg": {"1": 0.5, "3": 0.25},
    "r2_path": {"both": {"2": 0.1}},
    "intervals": {"top1_z": [0.4, 0.6], "top1_agg": {"1": [0.4, 0.6]}},
    "costs": {"parameters": 12, "macs_g": {"1": 0.5}, "device": "cpu"},
    "best": {},
    "protocol": {"m_tr": 3, "trained_epochs": 2.0, "seed": 2**63 - 1, "dataset": "3die", "m_val": [1], "skipped": {}},
}


def read(tmp_path, scores: Any) -> dict[str, Any]:
    (tmp_path / "results.json").write_text(json.dumps({"trained": scores}))
    return read_results(tmp_path)


def test_what_evaluations_write(tmp_path):
    assert read(tmp_path, GOOD)["trained"] == GOOD


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("top1_z", {}, "trained.top1_z is an object, not a number"),
        ("top1_z", {"a": {"b": 1}}, "trained.top1_z is an object, not a number"),
        ("top1_z", 10**400, "more than any number can be"),
        ("top1_agg", 0.5, "trained.top1_agg is not an object of numbers by size"),
        ("top1_agg", {"x": 0.5}, "trained.top1_agg.x is not a number of a size"),
        ("top1_agg", {"²": 0.5}, "trained.top1_agg.² is not a number of a size"),
        ("top1_agg", {"1": {}}, "trained.top1_agg.1 is not a number of a size"),
        ("r2_path", [0.1], "trained.r2_path is not an object"),
        ("intervals", {"top1_z": {}}, "trained.intervals.top1_z is an object, not a number"),
        ("intervals", {"retrieval_online": {"h1": [[1], 0.5]}}, "retrieval_online.h1 is [[1], 0.5], not [low, high]"),
        ("intervals", {"of_mine": [None, 0.5]}, "of_mine is [None, 0.5], not [low, high]"),
        ("costs", 5.0, "trained.costs is not an object"),
        ("costs", {"macs_g": 5.0}, "trained.costs.macs_g is not an object of numbers by size"),
        ("costs", {"parameters": {}}, "trained.costs.parameters is an object, not a number"),
        ("per_class", ["x"], "trained.per_class is not an object"),
        ("protocol", {"m_tr": "3"}, "trained.protocol.m_tr is not a number"),
        ("protocol", {"m_tr": True}, "trained.protocol.m_tr is not a number"),
        ("protocol", {"trained_epochs": float("nan")}, "trained.protocol.trained_epochs is no number that"),
        ("protocol", {"epochs": 10**400}, "trained.protocol.epochs is no number that"),
        ("protocol", {"dataset": ["3die"]}, "trained.protocol.dataset is not a text"),
        ("protocol", {"skipped": "all"}, "trained.protocol.skipped is not an object"),
        ("protocol", {"m_val": 5}, "trained.protocol.m_val is not a list"),
    ],
)
def test_other_types(tmp_path, part, value, said):
    with pytest.raises(FormatError) as caught:
        read(tmp_path, {**GOOD, part: value})
    assert said in str(caught.value)
