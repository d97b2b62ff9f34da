"""Numbers that no disk takes are shown."""

from __future__ import annotations

import errno
import json

from typer.testing import CliRunner

from cli import seqjepa_app
from seqjepa.evaluate.results import CONFUSION, artefacts_folder
from shards.machine.files import AtomicFile


def test_a_disk_that_fills_while_a_run_is_evaluated_costs_no_number(run, shards, monkeypatch):
    stale = artefacts_folder(run, "trained") / f"{CONFUSION}.npz"
    stale.parent.mkdir(parents=True)
    stale.touch()

    def full(file: AtomicFile, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(file.path))

    monkeypatch.setattr(AtomicFile, "write", full)
    words = ["evaluate", str(run), "--shards", str(shards), "--device", "cpu", "--probe-epochs", "1", "--m-val", "1"]
    for form in ([], ["--json"]):
        done = CliRunner().invoke(seqjepa_app, [*words, *form])
        assert done.exit_code == 1
        assert f"error: measured, but in no file: no space left on {run}: free some" in done.stderr
    assert 0 <= json.loads(done.stdout)["top1_z"] <= 1
    assert not stale.exists()
    assert not (run / "results.json").exists()
