"""A build that dies at any moment leaves nothing bad under a final name, and running it again ends as if it had not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LAB = Path(__file__).with_name("kill_lab.py")


def run(folder: Path, mode: str, *options: str, flavour: str = "raw") -> int:
    result = subprocess.run([sys.executable, LAB, mode, flavour, folder, *options], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_random_moments(memory_folder: Path, kills: int) -> None:
    assert run(memory_folder, "moments", str(kills)) >= kills


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_every_file_operation(memory_folder: Path, step: int) -> None:
    assert run(memory_folder, "operations", str(step)) > 60


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["saliency-jpeg", "image-raw", "maps-log8"])
def test_every_file_operation_of_other_kinds(memory_folder: Path, flavour: str) -> None:
    assert run(memory_folder, "operations", "1", flavour=flavour) > 60


@pytest.mark.slow
def test_every_file_operation_of_an_overwriting_build(memory_folder: Path) -> None:
    assert run(memory_folder, "overwriting", "1") > 60
