"""What only a terminal shows."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from shard_sets import build, builder, sample_of

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@pytest.mark.parametrize("progress", [True, False])
def test_verify_shows_a_bar_on_a_terminal(tmp_path: Path, progress: bool) -> None:
    build(tmp_path / "set")
    shown = on_a_terminal(
        f"from shards.verify import verify; assert verify({str(tmp_path / 'set')!r}, progress={progress}).ok"
    )
    assert (b"verify: 100%" in shown and b"B/s" in shown) if progress else shown == b"|"


def test_resuming_shows_a_bar_on_a_terminal(tmp_path: Path) -> None:
    """Finished shards are hashed again, which takes minutes for a large set."""
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); from pathlib import Path; from shard_sets import builder; "
    code += f"builder(Path({str(tmp_path)!r})).close()"
    assert on_a_terminal(code) == b"|", "nothing to check yet"
    with builder(tmp_path) as target, target.open_shard("train", 0) as writer:
        writer.add(sample_of("train", 0, 0)[0])
    shown = on_a_terminal(code)
    assert b"check finished shards: 100%" in shown
    assert b"B/s" in shown


def on_a_terminal(code: str) -> bytes:
    """What `code` writes to standard error, a terminal of 80 columns; a mark of ours at the end."""
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (25, 80))
    result = subprocess.run([sys.executable, "-c", code], stderr=end, cwd=ROOT)
    # The kernel keeps what was written; the mark makes the read return even if that is nothing.
    os.write(end, b"|")
    shown = os.read(terminal, 10_000)
    os.close(end)
    os.close(terminal)
    assert result.returncode == 0, shown
    return shown
