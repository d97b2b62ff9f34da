"""Numbers that no disk takes are shown, and options that mean nothing are refused before anything is measured."""

from __future__ import annotations

import errno
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from cli import seqjepa_app
from seqjepa.evaluate import run as run_module
from seqjepa.evaluate.results import CONFUSION, artefacts_folder, load_arrays, read_results
from seqjepa.evaluate.run import evaluate_run
from shards.errors import ConfigError
from shards.machine.files import AtomicFile


def test_a_disk_that_fills_while_a_run_is_evaluated_costs_no_number(run, shards, monkeypatch):
    def full(file: AtomicFile, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(file.path))

    monkeypatch.setattr(AtomicFile, "write", full)
    words = ["evaluate", str(run), "--shards", str(shards), "--device", "cpu", "--probe-epochs", "1", "--m-val", "1"]
    for form in ([], ["--json"]):
        done = CliRunner().invoke(seqjepa_app, [*words, *form])
        assert done.exit_code == 1
        assert f"error: measured, but in no file: no space left on {run}: free some" in done.stderr
    assert 0 <= json.loads(done.stdout)["top1_z"] <= 1
    assert not (run / "results.json").exists()


def test_figures_are_drawn_from_arrays_of_the_same_evaluation_or_from_none(run, shards, monkeypatch):
    options = {"device": "cpu", "probe_epochs": 1, "m_val": [1], "progress": False}
    merge, arrays = run_module.merge_results, []

    def confusion() -> dict[str, np.ndarray]:
        return load_arrays(artefacts_folder(run, "trained"), CONFUSION)

    def after_another(*given):
        monkeypatch.undo()
        arrays.append(given[-1][CONFUSION])
        evaluate_run(run, shards, seed=1, **options)
        arrays.append(confusion())
        return merge(*given)

    monkeypatch.setattr(run_module, "merge_results", after_another)
    evaluate_run(run, shards, seed=0, **options)
    mine, others = (counts["top1_z"] for counts in arrays)
    assert (mine != others).any()
    assert (confusion()["top1_z"] == mine).all()

    def full(file: AtomicFile, data: bytes) -> None:
        if file.path.suffix == ".npz":
            raise OSError(errno.ENOSPC, "No space left on device", str(file.path))
        write(file, data)

    write = AtomicFile.write
    monkeypatch.setattr(AtomicFile, "write", full)
    evaluate_run(run, shards, seed=2, **options)
    assert read_results(run)["trained"]["protocol"]["seed"] == 2
    assert confusion() == {}


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("probe_epochs", -1, "probe_epochs = -1 should be greater than or equal to 1"),
        ("probe_epochs", 0, "probe_epochs = 0 should"),
        ("agg_draws", 0, "agg_draws = 0 should"),
        ("val_draws", 0, "val_draws = 0 should"),
        ("m_val", [], "m_val = .. Tuple should have at least 1 item"),
        ("m_val", [0, 2], "m_val.0 = 0 should"),
        ("m_val", 5, "m_val = 5 should be a list in brackets"),
        ("probe_epoch", 1, "unknown key probe_epoch .did you mean 'probe_epochs'"),
    ],
)
def test_options_that_mean_nothing(run, shards, option, value, said):
    with pytest.raises(ConfigError, match=said):
        evaluate_run(run, shards, **{option: value})
    assert not (run / "results.json").exists()
