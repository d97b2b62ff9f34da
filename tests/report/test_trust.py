from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_runs import protocol_of, write_run

from seqjepa.report.groups import groups_of
from seqjepa.report.overview import RunWarning, at_scale, warnings_of
from seqjepa.report.runs import read_record

GOOD = {"samples": 41_920, "z_rank": 90.0, "z_std": 0.9}


def found(folder: Path, *, epochs: int = 1000, line: dict | None = None, untrained: dict | None = None, **other):
    """Doubts of a run of Table 1 that logged `line` at every epoch."""
    other = {"scores": {"top1_z": 0.8}, **other}
    write_run(folder, epochs=epochs, **other)
    lines = [json.dumps({"epoch": e, **(GOOD if line is None else line)}) for e in range(1, epochs + 1)]
    (folder / "metrics.jsonl").write_text("".join(f"{text}\n" for text in lines))
    if untrained is not None:
        results = json.loads((folder / "results.json").read_text())
        (folder / "results.json").write_text(json.dumps({**results, "untrained": untrained}))
    record = read_record(folder)
    (group,) = groups_of([record])
    return warnings_of(group), at_scale(record)


def test_a_whole_run_at_the_papers_scale_is_trusted(tmp_path):
    assert found(tmp_path / "a", untrained={"top1_z": 0.3}) == ([], True)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ({"protocol": protocol_of(trained_epochs=2)}, "evaluated at epoch 2 of 1000; evaluate again"),
        ({"epochs": 12}, "training stopped at epoch 12 of 1000"),
        ({"scores": None}, "not evaluated"),
        ({"line": {**GOOD, "z_rank": 1.25}}, "z has collapsed: effective rank 1.25"),
        ({"line": {**GOOD, "z_std": 0.002}}, "z has collapsed: spread 0.0020"),
        ({"line": {**GOOD, "agg_rank": 1.0}}, "z_AGG has collapsed: effective rank 1.00"),
        ({"untrained": {"top1_z": 0.8}}, "top-1 of z is no better than before training (80.0% against 80.0%)"),
    ],
)
def test_what_makes_numbers_worthless_comes_first(tmp_path, case, said):
    assert found(tmp_path / "a", **case)[0][0] == RunWarning(said, grave=True)


@pytest.mark.parametrize(
    ("protocol", "line", "said"),
    [
        (protocol_of(resolution=64), GOOD, "64 px (paper 128)"),
        (protocol_of(), {**GOOD, "samples": 4192}, "4,192 training samples (paper 41,920)"),
        (protocol_of("synth", resolution=48), {**GOOD, "samples": 8}, "other data: 48 px, 1000 epochs, 8 samples"),
    ],
)
def test_a_smaller_scale_is_said_and_is_not_grave(tmp_path, protocol, line, said):
    assert found(tmp_path / "a", protocol=protocol, line=line) == ([RunWarning(said)], False)


def test_fewer_epochs_than_the_papers_are_said(tmp_path):
    assert found(tmp_path / "a", epochs=40, settings=["optim.epochs=40"])[0] == [RunWarning("40 epochs (paper 1,000)")]
