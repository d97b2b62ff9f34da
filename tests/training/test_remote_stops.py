"""Ctrl-C at random moments of a run from S3: nothing is left behind, and the run ends as if it had been left alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).resolve().parents[2] / "benchmarks" / "remote_soak.py"
TIMES = 5


@pytest.mark.slow
@pytest.mark.tools
@pytest.mark.parametrize("cache", [[], ["--cache-share", "0.6"]], ids=["it fits", "larger than the cache"])
def test_interrupts_leave_nothing_behind(tmp_path: Path, cache: list[str]) -> None:
    """The benchmark itself holds the weights against those of a run that was left alone."""
    command = [sys.executable, str(SOAK), "interrupts", "--times", str(TIMES), "--work", str(tmp_path), *cache]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as soak:
        try:
            said, errors = soak.communicate(timeout=3600)
        finally:
            soak.terminate()  # it ends what it has started
    assert soak.returncode == 0, errors[-2000:]
    found = json.loads(said.splitlines()[-1])
    assert {found["leaked"][kind] for kind in ("processes", "files")} == {0}  # shared memory: others' too
    assert not found["tracebacks"]
