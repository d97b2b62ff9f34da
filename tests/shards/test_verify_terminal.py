"""What only a terminal shows."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from shard_sets import build

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("progress", [True, False])
def test_verify_shows_a_bar_on_a_terminal(tmp_path: Path, progress: bool) -> None:
    build(tmp_path / "set")
    code = f"from shards.verify import verify; assert verify({str(tmp_path / 'set')!r}, progress={progress}).ok"
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (25, 80))
    result = subprocess.run([sys.executable, "-c", code], stderr=end, cwd=ROOT)
    # The kernel keeps what was written; a mark of ours makes the read return even if that is nothing.
    os.write(end, b"|")
    shown = os.read(terminal, 10_000)
    os.close(end)
    os.close(terminal)
    assert result.returncode == 0, shown
    assert (b"verify: 100%" in shown and b"B/s" in shown) if progress else shown == b"|"
