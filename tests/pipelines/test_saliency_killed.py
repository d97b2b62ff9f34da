"""Builds of maps that are killed go on to the very same bytes, and leave no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from python_path import python_path
from saliency_scene import contents, make_photos
from test_killed_builds import running, wait_until, workers_of

LAB = Path(__file__).with_name("saliency_kill_lab.py")
CREW = """
import sys
from pathlib import Path
from pipelines.sources import open_source
from pipelines.saliency.build import build_saliency
from pipelines.saliency.models import ModelChoice
source = open_source("folder", Path(sys.argv[1]))
options = {"samples_per_shard": 4, "device": "cpu", "processes": 2, "workers": 4}
build_saliency(source, Path(sys.argv[2]), ModelChoice("spectral-residual"), **options)
"""


def lab(folder: Path, kills: int) -> int:
    done = subprocess.run([sys.executable, str(LAB), str(folder), str(kills)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_killed_builds_resume_to_the_same_bytes(tmp_path: Path) -> None:
    assert lab(tmp_path, 2) >= 2


@pytest.mark.slow
def test_a_hundred_kills(tmp_path: Path) -> None:
    assert lab(tmp_path, 100) >= 100


def start_crew(photos: Path, out: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": python_path()}
    return subprocess.Popen([sys.executable, "-c", CREW, str(photos), str(out)], env=environment, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_crew_ends_with_its_parent_and_resumes(tmp_path: Path, number: signal.Signals) -> None:
    photos = make_photos(tmp_path / "photos", 60, sizes=((400, 500), (500, 400)))
    assert start_crew(photos, tmp_path / "whole").wait(120) == 0
    process = start_crew(photos, tmp_path / "out")
    assert wait_until(lambda: any((tmp_path / "out").glob("*.tar")))
    children = workers_of(process.pid)
    assert len(children) >= 4  # two members, each with workers of its own
    process.send_signal(number)
    assert process.wait(60) != 0
    assert wait_until(lambda: not any(running(pid) for pid in children), 20)
    assert start_crew(photos, tmp_path / "out").wait(120) == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
