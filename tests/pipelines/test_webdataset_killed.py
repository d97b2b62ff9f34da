"""Builds from tars and streams that are killed at any moment: the same command goes on and ends as if nothing was."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from foreign_tars import some_samples, write_tar
from python_path import python_path
from small_3die import same_folders

pytest.importorskip("webdataset")

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "from cli import seqjepa_data_app; seqjepa_data_app()"


def start(source: str, out: Path) -> subprocess.Popen:
    words = ["shard", "webdataset", "--source", source, "--samples-per-shard", "2", "--encoding", "raw", "--out"]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words, str(out)],
        env={**os.environ, "PYTHONPATH": python_path()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tar", "pipe"])
def test_killed_at_any_moment(tmp_path: Path, kind: str) -> None:
    for number in range(4):
        write_tar(tmp_path / f"in/s-{number}.tar", some_samples(10, 10 * number))
    names = str(tmp_path / "in/s-{0..3}.tar")
    source = names if kind == "tar" else f"pipe:cat {names}; sleep 0.2"
    began = time.monotonic()
    process = start(source, tmp_path / "whole")
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    seconds, rng = time.monotonic() - began, random.Random(0)
    for _ in range(2):
        process = start(source, tmp_path / "out")
        time.sleep(rng.uniform(0.4, 1.05) * seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for path in (tmp_path / "out").glob("*.tar"):
            assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()
        process = start(source, tmp_path / "out")
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said
        assert same_folders(tmp_path / "out", tmp_path / "whole")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "whole"]
        shutil.rmtree(tmp_path / "out")
