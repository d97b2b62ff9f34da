"""SIGKILL at random moments of `evaluate` and `sweep --run`: the same command again ends with the same numbers."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from noise_shards import noise_shards
from python_path import python_path
from sweep_lab import scale_file

ROOT = Path(__file__).resolve().parents[2]
TIMINGS = ("seconds", "views_per_s", "costs")
KILLS = 4


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_shards(tmp_path_factory.mktemp("killed") / "shards")


def start(words: list[object]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cli", *map(str, words)]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": python_path()}
    return subprocess.Popen(
        command, cwd=ROOT, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def finish(words: list[object]) -> float:
    """Seconds that it took."""
    began = time.monotonic()
    process = start(words)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    return time.monotonic() - began


def kill_at_random(words: list[object], seconds: float, rng: random.Random) -> None:
    for _ in range(KILLS):
        process = start(words)
        time.sleep(rng.uniform(0.3, 1.0) * seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)


def without_timings(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_timings(inner) for key, inner in value.items() if key not in TIMINGS}
    return [without_timings(inner) for inner in value] if isinstance(value, list) else value


def results(run: Path) -> Any:
    return without_timings(json.loads((run / "results.json").read_text()))


@pytest.fixture(scope="module")
def swept(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[object], float]:
    """Runs of an uninterrupted sweep, its command without --out, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("swept")
    words: list[object] = ["sweep", "table-6", "--run", "--shards", f"3diebench={shards}", "--device", "cpu"]
    words += ["--workers", 0, "--scale", scale_file(folder), "--untrained"]
    took = finish([*words, "--out", folder / "runs"])
    return folder / "runs", words, took


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_sweeps_end_with_the_same_numbers(swept, tmp_path: Path, seed: int) -> None:
    right, words, seconds = swept
    command = [*words, "--out", tmp_path / "runs"]
    kill_at_random(command, seconds, random.Random(seed))
    finish(command)
    for run in right.glob("3die-*"):
        again = tmp_path / "runs" / run.name
        assert (again / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
        assert results(again) == results(run)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_evaluations_end_with_the_same_numbers(swept, shards: Path, tmp_path: Path, seed: int) -> None:
    trained = next(swept[0].glob("3die-*"))
    right, cut = (Path(shutil.copytree(trained, tmp_path / name)) for name in ("right", "cut"))
    words: list[object] = ["--shards", shards, "--device", "cpu", "--m-val", "1", "--probe-epochs", 3, "--val-draws", 2]
    seconds = finish(["evaluate", right, *words])
    before = results(cut)
    kill_at_random(["evaluate", cut, *words], 0.9 * seconds, random.Random(seed))
    assert results(cut) in (before, results(right))
    finish(["evaluate", cut, *words])
    assert results(cut) == results(right)
    assert (cut / "state.pt").read_bytes() == (trained / "state.pt").read_bytes()
