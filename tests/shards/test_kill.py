"""A build that dies at any moment leaves nothing bad under a final name, and running it again ends as if it had not."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

LAB = Path(__file__).with_name("kill_lab.py")


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where there is such a place: a thousand fsyncs on a disk are most of the time."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as path:
        yield Path(path)


def run(folder: Path, mode: str, *options: str) -> int:
    result = subprocess.run([sys.executable, LAB, mode, folder, *options], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


def test_fifty_random_moments(folder: Path) -> None:
    assert run(folder, "moments", "50") >= 50


def test_every_file_operation(folder: Path) -> None:
    assert run(folder, "operations") > 60


@pytest.mark.slow
def test_every_file_operation_of_an_overwriting_build(folder: Path) -> None:
    assert run(folder, "overwriting") > 60
