"""`synth` on a full disk: a line that says what to do; doing it ends in the very same files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import seqjepa_data_app

SETS = {
    "3die": ["--objects", "2", "--families", "2", "--views", "6", "--size", "32"],
    "stl10": ["--train", "4", "--test", "2", "--unlabeled", "4"],
    "cifar100": ["--train", "60", "--test", "20"],
}


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A few blocks of memory as a disk."""
    (disk := tmp_path / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def synth(which: str, out: Path) -> tuple[int, str]:
    done = CliRunner().invoke(seqjepa_data_app, ["synth", which, "--out", str(out), *SETS[which]])
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    return done.exit_code, done.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("which", SETS)
def test_a_full_disk_and_then_a_larger_one(tiny_disk: Path, tmp_path: Path, which: str) -> None:
    for size in ("4k", "12k", "24k", "48k"):
        subprocess.run(["mount", "-o", f"remount,size={size}", str(tiny_disk)], check=True)
        code, said = synth(which, tiny_disk / "set")
        assert code == 1, (size, said)
        assert "no space left" in said.lower()
        assert "free some" in said
        assert said.count("\n") == 1
    subprocess.run(["mount", "-o", "remount,size=8m", str(tiny_disk)], check=True)
    assert synth(which, tiny_disk / "set") == (0, "")
    assert synth(which, tmp_path / "reference") == (0, "")
    assert contents(tiny_disk / "set") == contents(tmp_path / "reference")
