from __future__ import annotations

import json
from pathlib import Path

import pytest
from demo_lab import assert_again_changes_nothing
from small_backbone import SMALL

from seqjepa.experiments.demos import ObjectsDemo, SaccadesDemo, run_demo
from shards.errors import UsageError

FEW = SaccadesDemo(
    train=40, test=20, unlabeled=48, m_val=(1, 3), probe_epochs=3, train_draws=1, val_draws=1
)  # fmt: skip
SHORT = ("optim.epochs=1", "optim.warmup_epochs=1", "optim.batch_size=16", SMALL)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, list[str]]:
    out, said = tmp_path_factory.mktemp("demo") / "demo", []
    return out, run(out, said), said


def run(out: Path, said: list[str], settings: SaccadesDemo = FEW) -> dict:
    return run_demo(settings, out, recipe_settings=SHORT, workers=1, say=said.append)


def test_every_phase_says_what_it_does_and_leaves_its_part(finished):
    out, _, said = finished
    phases = ["synth", "saliency", "shard", "verify", "train", "ablate", "evaluate", "report"]
    assert [line.split()[0] for line in said if line[:1].isalpha() and line.split()[0] in phases] == phases
    assert any("not DeepGaze" in line for line in said)
    assert (out / "stl10_binary" / "unlabeled_X.bin").stat().st_size == 48 * 3 * 96 * 96
    assert {path.name for path in (out / "shards").glob("*.tar")} == {
        f"{split}-000000.tar" for split in ("train", "test", "unlabeled")
    }
    assert "without inhibition of return" in (out / "report.html").read_text()


def test_results_hold_the_three_and_they_saw_what_they_should(finished):
    out, results, _ = finished
    assert json.loads((out / "results.json").read_text()) == results
    inhibition = {name: results[name]["protocol"]["fixating"]["inhibition"] for name in ("trained", "no_inhibition")}
    assert inhibition == {"trained": "disc", "no_inhibition": "none"}
    for name in ("trained", "untrained", "no_inhibition"):
        assert list(results[name]["top1_agg"]) == ["1", "3"]
        assert results[name]["protocol"]["val_samples"] == 20
    assert results["trained"]["protocol"]["model_sha256"] != results["untrained"]["protocol"]["model_sha256"]


def test_again_changes_nothing(finished):
    out, results, _ = finished
    assert_again_changes_nothing(lambda said: run(out, said), out, results, done=7)


def test_the_folder_of_the_other_demo_is_refused(finished):
    with pytest.raises(UsageError, match="another demo"):
        run_demo(ObjectsDemo(), finished[0])
