from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).resolve().parents[1] / "benchmarks" / "common.py"


@pytest.fixture
def common() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_common", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_emit_prints_one_object_on_one_line(common, capsys):
    common.emit(
        "loading", "sequences/s", 90.0, {"a": 30.0, "b": 45.0}, 100.0, versions=common.versions("numpy", "nothing-such")
    )
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    result = json.loads(line)
    assert {"name", "unit", "ours", "peers", "ratio_best_peer", "limit", "ratio_limit", "versions", "machine"} == set(
        result
    )
    assert result["ratio_best_peer"] == 2.0
    assert result["ratio_limit"] == 0.9
    assert list(result["versions"]) == ["numpy"]
    assert result["machine"]["cores"] >= 1


def test_emit_without_peers_or_limit_says_null(common, capsys):
    common.emit("alone", "views/s", 1.23456789, {})
    result = json.loads(capsys.readouterr().out)
    assert (result["ratio_best_peer"], result["limit"], result["ratio_limit"]) == (None, None, None)
    assert result["ours"] == 1.235
