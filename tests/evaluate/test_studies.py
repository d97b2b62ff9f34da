"""Which studies a suite takes, where their numbers and reasons go, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_runs import CLASSES, SIZE, VIEWS, sample

from seqjepa.evaluate.results import format_table, read_results
from seqjepa.evaluate.run import STUDIES, evaluate_run
from seqjepa.evaluate.studies import SUITES, EvalContext, Study, merged
from seqjepa.paper.metrics import METRICS
from shards.errors import UsageError
from shards.schema import THREE_DIEBENCH_PARAMS, ViewSpec
from shards.writer import SetBuilder

QUICK = {"device": "cpu", "m_val": (1, 2), "probe_epochs": 2, "path": False, "progress": False}


@pytest.fixture
def cases(monkeypatch: pytest.MonkeyPatch) -> list[EvalContext]:
    """Three studies in place of the real ones; the cases that were taken."""
    seen: list[EvalContext] = []

    def take(case: EvalContext) -> dict:
        seen.append(case)
        return {"retrieval": {"mrr": 0.5}, "intervals": {"retrieval": {"mrr": [0.25, 0.75]}}}

    found = Study("retrieval", why_not=lambda case: "", take=take)
    absent = Study("umap", why_not=lambda case: "no map today", take=take)
    ood = Study("ood", why_not=lambda case: "", take=lambda case: {"ood": {"top1_z": 0.1}})
    monkeypatch.setattr("seqjepa.evaluate.run.STUDIES", (found, absent, ood))
    return seen


def test_a_suite_takes_its_studies_and_says_why_others_are_missing(run: Path, shards: Path, cases: list[EvalContext]):
    found = evaluate_run(run, shards, suite="3diebench", **QUICK)
    assert found["retrieval"] == {"mrr": 0.5}
    assert found["intervals"]["retrieval"] == {"mrr": [0.25, 0.75]}
    assert "top1_z" in found["intervals"]
    assert found["protocol"]["suite"] == "3diebench"
    assert found["protocol"]["skipped"]["umap"] == "no map today"
    (case,) = cases
    assert (case.run, case.config.untrained, case.ood) == (run, False, None)
    assert case.bench.heads["top1_z"](case.splits.val.z[:2, 0]).shape == (2, 3)


def test_the_default_takes_none_of_them_but_shards_of_other_rotations_ask_for_theirs(
    run: Path, shards: Path, cases: list[EvalContext], tmp_path: Path
):
    assert "retrieval" not in evaluate_run(run, shards, **QUICK)
    rng, spec = np.random.default_rng(9), ViewSpec(VIEWS, SIZE, SIZE, "jpeg", THREE_DIEBENCH_PARAMS)
    with SetBuilder(tmp_path / "ood", name="turned", spec=spec, classes=CLASSES, fingerprint={"by": "test"}) as builder:
        with builder.open_shard("ood", 0) as writer:
            writer.add(*sample(0, rng))
        builder.finish({"command": "test"})
    found = evaluate_run(run, shards, ood=tmp_path / "ood", **QUICK)
    assert found["ood"] == {"top1_z": 0.1}
    assert found["protocol"]["ood"] == "turned"
    assert not cases


def test_a_suite_that_is_none_is_refused_at_once(run: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"--suite is 'imagenet'; allowed are probes, 3diebench, stl10"):
        evaluate_run(run, tmp_path / "no shards", suite="imagenet", **QUICK)


def test_suites_name_studies_that_there_are():
    names = {study.name for study in STUDIES}
    for name, suite in SUITES.items():
        assert set(suite.studies) <= names, name
    assert set(SUITES["all"].studies) == names


def test_the_registry_knows_numbers_of_every_study():
    for study in STUDIES:
        assert any(key.startswith(f"{study.name}.") for key in METRICS), study.name


def test_costs_are_in_every_evaluation(run: Path, shards: Path):
    (run / "metrics.jsonl").write_text('{"seconds": 1800, "device": "cpu", "devices": 1}\n' * 3)
    costs = evaluate_run(run, shards, **QUICK)["costs"]
    assert costs["hours"] == 1.5
    assert costs["device"] == "cpu"
    assert "gpu_hours" not in costs
    assert set(costs["macs_g"]) == {"1", "2"}
    assert "hours" not in evaluate_run(run, shards, untrained=True, **QUICK)["costs"]
    assert "h of training (" in format_table(read_results(run))


def test_two_numbers_of_one_name_are_refused():
    assert merged({"a": {"b": 1}}, {"a": {"c": 2}, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}
    with pytest.raises(ValueError, match="'b'"):
        merged({"a": {"b": 1}}, {"a": {"b": 2}})


def test_a_table_shows_half_the_interval_beside_its_number(run: Path, shards: Path):
    evaluate_run(run, shards, **QUICK)
    results = read_results(run)
    low, high = results["trained"]["intervals"]["top1_z"]
    line = next(line for line in format_table(results).splitlines() if line.startswith("top-1, z "))
    assert line.split()[2:] == [f"{results['trained']['top1_z']:.3f}", "±", f"{(high - low) / 2:.3f}"]
