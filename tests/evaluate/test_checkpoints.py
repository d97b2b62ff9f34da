"""Weights that were kept on the way, each evaluated as the run itself is; results.json stays the run's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import cli
from seqjepa.evaluate import checkpoints
from seqjepa.evaluate.checkpoints import (
    evaluate_checkpoints,
    folder_of,
    note_evaluation,
    numbers_of,
    read_checkpoints,
)
from seqjepa.evaluate.results import merge_results
from seqjepa.evaluate.run import evaluate_run
from seqjepa.report.figures import build_figures
from seqjepa.report.figures.runs import checkpoint_curves
from seqjepa.report.groups import groups_of
from seqjepa.report.runs import read_records
from seqjepa.training.checkpoint import load_run, save_weights
from seqjepa.training.run_files import kept_weights
from shards.errors import DamageError, UsageError

QUICK = {"device": "cpu", "m_val": (1, 4), "probe_epochs": 2, "progress": False}
COMMAND = ["--m-val", "1,4", "--probe-epochs", "2", "--device", "cpu"]


@pytest.fixture
def kept(run: Path) -> Path:
    """The run with other weights after 20 and 80 epochs, and a log that says how many steps those are."""
    for epoch in (20, 80):
        method = load_run(run).method
        with torch.no_grad():
            for values in method.parameters():
                values.mul_(1 + epoch / 100)
        save_weights(method, run / kept_weights(epoch), epoch)
    lines = [json.dumps({"epoch": epoch, "step": 15 * epoch, "loss": 1.0}) for epoch in range(1, 101)]
    (run / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return run


@pytest.fixture
def measured(monkeypatch) -> list[int]:
    """Epochs that evaluate_run is called for."""
    seen: list[int] = []

    def counted(*args, epoch: int, **options):
        seen.append(epoch)
        return evaluate_run(*args, epoch=epoch, **options)

    monkeypatch.setattr(checkpoints, "evaluate_run", counted)
    return seen


def numbers(results: dict) -> dict:
    return {key: value for key, value in results.items() if key != "seconds"}


def test_numbers_are_those_of_a_run_that_ended_there(kept, shards, tmp_path):
    evaluate_run(kept, shards, **QUICK)
    before, lines = (kept / "results.json").read_bytes(), []
    found = evaluate_checkpoints(kept, shards, say=lines.append, **QUICK)
    assert [(one.epoch, one.step) for one in found] == [(20, 300), (80, 1200)]
    assert lines == [str(one) for one in found]
    assert lines[1].startswith("epoch 80, step 1,200: top-1, z 0.")
    assert (kept / "results.json").read_bytes() == before
    for one in found:
        ended = shutil.copytree(kept, tmp_path / f"ended-{one.epoch}")
        shutil.copy(kept / kept_weights(one.epoch), ended / "model.safetensors")
        (ended / "SHA256SUMS").unlink()
        assert numbers(evaluate_run(ended, shards, **QUICK)) == numbers(one.results)
        assert one.results["protocol"]["trained_epochs"] == one.epoch
        assert json.loads((kept / folder_of(one.epoch) / "results.json").read_text()) == {"trained": one.results}
    assert read_checkpoints(kept) == found
    assert len({one.results["protocol"]["model_sha256"] for one in found}) == 2


def test_what_is_measured_is_not_measured_again(kept, shards, measured):
    once = evaluate_checkpoints(kept, shards, [80], **QUICK)
    assert evaluate_checkpoints(kept, shards, [80], **QUICK, seed=0, suite="probes") == once
    assert measured == [80]
    evaluate_checkpoints(kept, shards, **QUICK)
    assert measured == [80, 20]
    evaluate_checkpoints(kept, shards, [20], **{**QUICK, "probe_epochs": 3})
    assert measured == [80, 20, 20]
    save_weights(load_run(kept).method, kept / kept_weights(80), 80)  # the run was trained again
    assert evaluate_checkpoints(kept, shards, **{**QUICK, "probe_epochs": 3})[1].results != once[0].results
    assert measured == [80, 20, 20, 80]


def test_of_a_set_that_was_made_anew_since_nothing_is_known(run, shards, tmp_path):
    copy, asked = shutil.copytree(shards, tmp_path / "set"), {"seed": 1, "ood": tmp_path / "set"}
    merge_results(run, "trained", {"top1_z": 0.5, "protocol": {}})
    note_evaluation(run, "trained", asked, {"protocol": {}}, shards)
    assert numbers_of(run, "trained", asked, shards) == {"top1_z": 0.5, "protocol": {}}
    assert numbers_of(run, "trained", asked, copy.parent) is not None  # a set that is gone
    info = copy / "_meta" / "dataset.json"
    info.write_bytes(info.read_bytes() + b" ")
    assert numbers_of(run, "trained", asked, shards) is None
    assert numbers_of(run, "trained", {"seed": 1}, shards) is not None
    assert numbers_of(run, "trained", {"seed": 1}, copy) is None


def test_numbers_with_the_unpooled_map_are_those_without_it_too(run, shards):
    merge_results(run, "trained", {"top1_z": 0.5, "protocol": {}})
    note_evaluation(run, "trained", {"seed": 1, "unpooled": True}, {"protocol": {}}, shards)
    for asked, there in (({}, True), ({"unpooled": False}, True), ({"standardise": True}, False)):
        assert (numbers_of(run, "trained", {"seed": 1, **asked}, shards) is not None) is there
    note_evaluation(run, "trained", {"seed": 1, "unpooled": False}, {"protocol": {}}, shards)
    assert numbers_of(run, "trained", {"seed": 1, "unpooled": True}, shards) is None


def test_a_stopped_evaluation_goes_on(kept, shards, measured, monkeypatch):
    def stopped(*args, epoch: int, **options):
        if epoch == 80:
            raise KeyboardInterrupt
        return evaluate_run(*args, epoch=epoch, **options)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "evaluate_run", stopped)
        result = CliRunner().invoke(cli.seqjepa_app, command(kept, shards, "all"))
    assert result.exit_code == 130
    assert [one.epoch for one in read_checkpoints(kept)] == [20]
    result = CliRunner().invoke(cli.seqjepa_app, [*command(kept, shards, "20,80"), "--json"])
    assert result.exit_code == 0, result.output
    assert measured == [80]
    answer = json.loads(result.stdout)
    assert [(one["epoch"], one["step"]) for one in answer["checkpoints"]] == [(20, 300), (80, 1200)]
    assert numbers(answer["checkpoints"][0])["protocol"]["trained_epochs"] == 20
    first, second = CliRunner().invoke(cli.seqjepa_app, command(kept, shards, "all")).stdout.splitlines()
    assert first.startswith("epoch 20, step 300: top-1, z ")
    assert "; top-1, z_AGG, M_val = 4 " in second
    assert "; R² relative rotation, avg " in second
    assert measured == [80]


def command(run: Path, shards: Path, which: str) -> list[str]:
    return ["evaluate", str(run), "--shards", str(shards), "--checkpoints", which, *COMMAND]


def test_what_was_not_kept_is_said_and_nothing_is_written(kept, shards):
    for which, more, said in (
        ("20,40", [], "kept no weights after 40 epochs; there are those after 20, 80"),
        ("all", ["--untrained"], "--untrained evaluates the initial weights"),
        ("some", [], "--checkpoints is 'some'"),
    ):
        result = CliRunner().invoke(cli.seqjepa_app, [*command(kept, shards, which), *more])
        assert result.exit_code == 2
        assert said in result.output.replace("\n", " ")
    for epoch in (20, 80):
        (kept / kept_weights(epoch)).unlink()
    with pytest.raises(UsageError, match=r"kept no weights on the way; train with --set train\.keep_epochs"):
        evaluate_checkpoints(kept, shards, **QUICK)
    assert not (kept / "evaluation").exists()


def test_damaged_weights_are_refused_not_replaced_by_later_ones(kept, shards):
    (kept / kept_weights(20)).write_bytes(b"torn")
    with pytest.raises(DamageError, match="model-epoch-000020"):
        evaluate_checkpoints(kept, shards, **QUICK)


def test_the_report_draws_them_over_steps(kept, shards):
    evaluate_run(kept, shards, **QUICK, untrained=True)
    found = evaluate_checkpoints(kept, shards, **QUICK)
    floor = json.loads((kept / "results.json").read_text())["untrained"]
    figure = next(figure for figure in build_figures(read_records([kept])) if figure.key == "checkpoints")
    points = [tuple(row[3:5]) for row in figure.rows if str(row[0]).startswith("R² relative")]
    scores = [floor["r2_rel_rot_avg"], *(one.results["r2_rel_rot_avg"] for one in found)]
    assert points == list(zip([0.0, 300.0, 1200.0], scores, strict=True))
    assert [str(row[0]).split(",")[0] for row in figure.rows[3:]] == ["top-1 of z"] * 3
    assert len(figure.panels) == 2
    evaluate_run(kept, shards, **{**QUICK, "probe_epochs": 3}, untrained=True)  # not measured alike any more
    figure = checkpoint_curves(groups_of(read_records([kept])))
    assert [row[3] for row in figure.rows] == [300.0, 1200.0] * 2


def test_what_was_measured_before_a_run_was_extended_is_drawn_too(kept, shards):
    evaluate_run(kept, shards, **QUICK, untrained=True)
    evaluate_checkpoints(kept, shards, [20], **QUICK)
    config = kept / "config.toml"
    planned = load_run(kept).config.optim.epochs
    config.write_text(config.read_text().replace(f"\nepochs = {planned}\n", f"\nepochs = {2 * planned}\n"))
    evaluate_checkpoints(kept, shards, [80], **QUICK)
    figure = checkpoint_curves(groups_of(read_records([kept])))
    assert [row[3] for row in figure.rows] == [0.0, 300.0, 1200.0] * 2


def test_classes_of_a_checkpoint_have_their_own_confusions(kept, shards):
    evaluate_checkpoints(kept, shards, [20], **QUICK)
    there = kept / folder_of(20) / "evaluation" / "trained" / "confusion.npz"
    assert there.exists()
    assert not (kept / "evaluation" / "trained").exists()
