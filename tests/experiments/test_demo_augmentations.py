from __future__ import annotations

import json
from pathlib import Path

import pytest
from demo_lab import assert_again_changes_nothing
from small_backbone import SMALL

from seqjepa.experiments.demos import AugmentationsDemo, run_demo

FEW = AugmentationsDemo(train=60, test=30, classes=4, m_val=(1, 2), probe_epochs=3, train_draws=1, val_draws=1)
SHORT = ("optim.epochs=1", "optim.warmup_epochs=1", "optim.batch_size=16", SMALL)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, list[str]]:
    out, said = tmp_path_factory.mktemp("demo") / "demo", []
    return out, run(out, said), said


def run(out: Path, said: list[str]) -> dict:
    return run_demo(FEW, out, recipe_settings=SHORT, workers=1, say=said.append)


def test_every_phase_says_what_it_does_and_leaves_its_part(finished):
    out, _, said = finished
    phases = ["synth", "shard", "verify", "train", "ablate", "evaluate", "report"]
    assert [line.split()[0] for line in said if line[:1].isalpha() and line.split()[0] in phases] == phases
    assert (out / "cifar" / "cifar-100-python" / "train").exists()
    assert {path.name for path in (out / "shards").glob("*.tar")} == {"train-000000.tar", "test-000000.tar"}
    assert "without actions" in (out / "report.html").read_text()


def test_results_hold_the_three_and_what_was_asked(finished):
    out, results, _ = finished
    assert json.loads((out / "results.json").read_text()) == results
    for name in ("trained", "untrained", "no_action"):
        assert {"top1_z_image", "top1_agg", "r2_crop_avg"} <= set(results[name])
        assert {"r2_jitter", "r2_blur"} <= set(results[name]["protocol"]["skipped"])  # crops alone differ
        assert results[name]["protocol"]["val_samples"] == 30
    assert results["trained"]["protocol"]["model_sha256"] != results["no_action"]["protocol"]["model_sha256"]


def test_again_changes_nothing(finished):
    out, results, _ = finished
    assert_again_changes_nothing(lambda said: run(out, said), out, results, done=6)
