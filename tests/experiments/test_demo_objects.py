from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqjepa.experiments.demos import ObjectsDemo, run_demo
from shards.errors import UsageError

SMALL = ObjectsDemo(objects=24, views=5, size=32, families=4, m_val=(1, 3), probe_epochs=3, agg_draws=2, val_draws=2)
SHORT = ("optim.epochs=2", "optim.warmup_epochs=1", "optim.batch_size=8", "model.width=0.125")


def run(out: Path, settings: ObjectsDemo = SMALL) -> tuple[dict, list[str]]:
    said: list[str] = []
    return run_demo(settings, out, recipe_settings=SHORT, workers=1, say=said.append), said


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, list[str]]:
    out = tmp_path_factory.mktemp("demo") / "demo"
    return out, *run(out)


def test_every_phase_says_what_it_does_and_leaves_its_part(finished):
    out, _, said = finished
    phases = ["synth", "shard", "verify", "train", "evaluate", "report"]
    assert [line.split()[0] for line in said if line[0:1].isalpha() and line.split()[0] in phases] == phases
    assert (out / "synth" / "val_images.npy").exists()
    assert {path.name for path in (out / "shards").glob("*.tar")} == {"train-000000.tar", "val-000000.tar"}
    assert (out / "run" / "model.safetensors").exists()
    assert (out / "report.html").read_text().startswith("<!doctype html>")


def test_results_hold_both_and_the_time(finished):
    out, results, _ = finished
    assert json.loads((out / "results.json").read_text()) == results
    for weights in ("trained", "untrained"):
        assert {"top1_z", "top1_agg", "r2_rel_rot_avg", "r2_rel_rot_pool", "seconds"} <= set(results[weights])
        assert list(results[weights]["top1_agg"]) == ["1", "3"]
    assert results["trained"]["protocol"]["val_samples"] + results["trained"]["protocol"]["train_samples"] == 24
    spent = dict(results["seconds"])
    assert spent.pop("total") == pytest.approx(sum(spent.values()), abs=0.05)


def test_again_changes_nothing(finished):
    out, results, _ = finished
    before = {
        path: path.stat().st_mtime_ns for path in out.rglob("*") if path.suffix in (".tar", ".jpg", ".safetensors")
    }
    again, said = run(out)
    assert again == results
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sum("done before" in line for line in said) == 5


def test_what_is_missing_is_done_again(finished):
    out, results, _ = finished
    (out / "report.html").unlink()
    (out / "run" / "results.json").unlink()
    again, _ = run(out)
    for weights in ("trained", "untrained"):
        assert {**again[weights], "seconds": 0} == {**results[weights], "seconds": 0}
    assert (out / "report.html").exists()


def test_another_demo_in_the_folder_is_refused(finished):
    with pytest.raises(UsageError, match=r"another demo \(seed 0 there, 1 asked\)"):
        run(finished[0], ObjectsDemo(**{**SMALL.__dict__, "seed": 1}))


def test_a_folder_that_is_not_ours_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="was not made by"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(UsageError, match="is a file"):
        run(tmp_path / "thesis.txt")


def test_a_marker_of_someone_else_is_refused(tmp_path):
    (tmp_path / "demo.json").write_text("[1, 2]")
    with pytest.raises(UsageError, match="not readable"):
        run(tmp_path)
