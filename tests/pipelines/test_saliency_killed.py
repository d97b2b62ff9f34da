"""Builds of maps that are killed go on to the very same bytes, and leave no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from forked_ranks import RunForked
from python_path import python_path
from saliency_kill_lab import kill_builds
from saliency_scene import contents, make_photos
from test_killed_builds import running, wait_until, workers_of

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


@pytest.mark.parametrize("wanted", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_builds_resume_to_the_same_bytes(run_forked: RunForked, tmp_path: Path, wanted: int) -> None:
    code, said = run_forked(kill_builds, str(tmp_path), wanted)
    assert code == 0, said
    assert int(said.splitlines()[-1]) >= wanted


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
