"""Tests that need a GPU pass on an emulated one, in a process of its own: torch looks for cards once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from python_path import ROOT, python_path

FEWEST = {"gpu": 25, "emulated": 45}


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real GPU")
@pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler")
@pytest.mark.parametrize("mark", ["gpu", "emulated"])
def test_on_an_emulated_gpu(mark: str, tmp_path) -> None:
    """`make test-emulated` runs both."""
    command = [sys.executable, "-m", "pytest", "-p", "gpu_emulated", "-m", mark, "--no-header", "tests"]
    environment = os.environ | {"PYTHONPATH": python_path(ROOT, ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*command, f"--basetemp={tmp_path / 'emulated'}"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-2000:]
    passed = re.search(r"(\d+) passed", ended.stdout)
    assert passed, ended.stdout[-500:]
    assert int(passed[1]) >= FEWEST[mark]
