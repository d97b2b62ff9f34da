"""metrics.jsonl: one JSON object a line, one line an epoch.

The keys in TIMING differ from run to run; all others are the same bits whenever the same run is repeated or resumed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from seqjepa.files import write_atomic
from shards.environment import pass_environment_on
from shards.errors import DamageError

TIMING = ("views_per_s", "seconds", "device", "devices")


def append_epoch(path: Path, line: Mapping[str, object]) -> None:
    """Add one line and sync it, so that a checkpoint written afterwards never knows more epochs than the file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def keep_epochs(path: Path, epochs: int) -> None:
    """Cut the file to its first `epochs` lines: what was logged after the checkpoint is about to be done again."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    if len(whole) < epochs:
        raise DamageError(f"{path} has {len(whole)} epochs but the checkpoint has done {epochs}; was it edited?")
    if len(lines) > epochs:
        write_atomic(path, b"".join(whole[:epochs]))


def read_epochs(path: Path) -> list[dict[str, object]]:
    """All lines of metrics.jsonl, oldest first; a last line that was cut by a kill is left out. DamageError: others."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        epochs = [json.loads(line) for line in lines if line.endswith("\n")]
    except (OSError, ValueError) as error:
        pass_environment_on(error)
        raise DamageError(f"{path} cannot be read ({error}); restore it, or train the run again") from None
    if not all(isinstance(epoch, dict) for epoch in epochs):
        raise DamageError(f"{path} holds lines that are no JSON objects; restore it, or train the run again")
    return epochs
