"""Declared actions: written to dataset.json, read back, checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from shard_sets import FLAVOURS, build

from shards.describe import describe_set
from shards.errors import FormatError
from shards.metadata import spec_from_json, spec_to_json
from shards.reader import ShardSet
from shards.schema import THREE_DIEBENCH_PARAMS, ActionSpec, ActionTerm, ParamField, ViewSpec

TERMS: list[dict[str, Any]] = [
    {"op": "difference", "columns": ["tx", "ty"]},
    {"op": "difference", "columns": ["tx"], "normalise": "zscore", "mean": [1.0], "std": [2.0]},
    {"op": "angle_difference", "columns": ["yaw"]},
    {"op": "relative_rotation", "columns": ["a", "b", "c"]},
    {"op": "relative_rotation", "columns": ["a", "b", "c", "d"], "from": "quaternion_xyzw", "result": "6d"},
    {"op": "relative_pose", "columns": list("abcdefghijkl"), "from": "matrix"},
    {"op": "command", "columns": ["action.0", "action.1"], "over": "sum"},
    {"op": "categorical", "columns": ["light"], "values": [0.0, 1.0, 5.0]},
]


def test_terms_come_back_as_they_were_written() -> None:
    spec = ActionSpec.from_json(TERMS)
    assert spec.to_json() == TERMS
    assert [term.size for term in spec.terms] == [2, 1, 1, 4, 6, 7, 2, 3]
    assert spec.size == 26
    assert spec.columns[:4] == ("tx", "ty", "yaw", "a")
    assert ActionSpec.from_json([]) == ActionSpec()
    defaults = ActionSpec.from_json([{"op": "relative_rotation", "columns": ["a", "b", "c"], "from": "euler_xyz"}])
    assert defaults.to_json() == [TERMS[3]]


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({}, "actions must be a list of at most 64 terms, found {}"),
        (["rotation"], "action 1: a term must be a table, found 'rotation'"),
        ([{"op": "jump"}], "action 1: op 'jump' is unknown, allowed: difference, angle_difference"),
        ([TERMS[0], {"op": "difference"}], "action 2: columns must be a list, found None"),
        ([{"op": "difference", "columns": ["a", 3]}], "action 1: columns must be strings"),
        ([{"op": "difference", "columns": []}], "action 1: difference: needs 1 to 64 different columns, found ''"),
        ([{"op": "difference", "columns": ["a", "a"]}], "needs 1 to 64 different columns, found 'a, a'"),
        ([{**TERMS[3], "columns": ["a"]}], "relative_rotation: needs 3 different columns, found 'a'"),
        ([{**TERMS[5], "columns": ["a"]}], "relative_pose: needs 12 or 16 different columns, found 'a'"),
        ([{**TERMS[3], "from": "axis"}], "from 'axis' is unknown, allowed: euler_xyz, quaternion_xyzw, matrix"),
        ([{**TERMS[0], "from": "matrix"}], "difference has no 'from', allowed: op, columns, normalise, mean, std"),
        ([{**TERMS[6], "over": "max"}], "over 'max' is unknown, allowed: last, sum, mean"),
        ([{**TERMS[7], "values": [1]}], "categorical: needs 2 to 256 different values, found 1"),
        ([{**TERMS[7], "values": [1, "a"]}], "values must be numbers of at most 1e+12"),
        ([{**TERMS[7], "values": [1, float("nan")]}], "values must be numbers of at most 1e+12"),
        ([{**TERMS[1], "std": [0]}], "difference: std must be at least 1e-12"),
        ([{**TERMS[1], "mean": [10**400]}], "mean must be numbers of at most 1e+12"),
        ([{**TERMS[1], "std": [1, 2]}], "mean and std are for normalise zscore, one number each a column"),
        ([{**TERMS[1], "normalise": "none"}], "mean and std are for normalise zscore, one number each a column"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(terms: Any, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        ActionSpec.from_json(terms)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_have_to_be_there_and_angles_in_rad() -> None:
    fields = [ParamField("tx", "m"), ParamField("yaw", "deg")]
    assert ActionSpec.from_json([{"op": "difference", "columns": ["tx", "yaw"]}]).problem(fields) is None
    missing = ActionSpec.from_json([{"op": "difference", "columns": ["tx", "tz"]}]).problem(fields)
    assert missing == "actions need tz; the parameters are tx, yaw"
    degrees = ActionSpec.from_json([{"op": "angle_difference", "columns": ["yaw"]}]).problem(fields)
    assert degrees == "angle_difference needs angles in rad, and yaw is in 'deg'"
    pose = ActionTerm("relative_pose", ("x", "y", "z", "r", "p", "q"))
    units = [ParamField(name, "m" if name in "xyz" else "rad") for name in pose.columns]
    assert ActionSpec((pose,)).problem(units) is None


def test_sets_keep_what_they_declare(tmp_path: Path) -> None:
    spec = FLAVOURS["declared"]
    assert isinstance(spec, ViewSpec)
    build(tmp_path, "declared")
    opened = ShardSet.open(tmp_path)
    assert opened.info.spec == spec
    assert opened.split("train").actions == spec.actions
    assert spec.actions is not None
    assert describe_set(tmp_path)["actions"] == spec.actions.to_json()
    stored = json.loads((tmp_path / "_meta" / "dataset.json").read_text())
    assert stored["format_version"] == 1  # readers of before pass over the key
    assert stored["spec"]["actions"] == spec.actions.to_json()


def test_sets_that_declare_nothing_are_written_as_ever() -> None:
    plain = ViewSpec(3, 8, 12, "raw", THREE_DIEBENCH_PARAMS)
    assert "actions" not in spec_to_json(plain)
    assert spec_from_json("views", json.loads(json.dumps(spec_to_json(plain)))) == plain


def test_a_set_that_declares_what_it_has_not_is_refused() -> None:
    record = json.loads(json.dumps(spec_to_json(FLAVOURS["declared"])))
    record["actions"][0]["columns"] = ["tz"]
    with pytest.raises(FormatError, match="actions need tz; the parameters are tx, yaw, light"):
        spec_from_json("views", record)
    record["actions"] = "rotation"
    with pytest.raises(FormatError, match="actions must be a list"):
        spec_from_json("views", record)


def test_views_may_have_no_parameters(tmp_path: Path) -> None:
    build(tmp_path, "bare")
    index = ShardSet.open(tmp_path).split("train")
    assert index.params.shape == (len(index), 3, 0)
    assert index.param_names == ()
