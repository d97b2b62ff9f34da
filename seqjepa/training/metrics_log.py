"""metrics.jsonl: one JSON object a line, one line an epoch.

The keys in TIMING differ from run to run; all others are the same bits whenever the same run is repeated or resumed.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seqjepa.files import named_failures, warn_of_change, write_with_checksum
from shards.errors import DamageError, FailureError, reason_of
from shards.json_fields import strict_json
from shards.machine.environment import pass_environment_on

logger = logging.getLogger(__name__)

TIMING = ("views_per_s", "seconds", "monitor_seconds", "device", "devices")


def append_epoch(path: Path, line: Mapping[str, object]) -> bytes:
    """Add one line and sync it, so that a checkpoint written afterwards never knows more epochs than the file.

    Returns the line. FailureError: a number is not finite, or the disk does not take it.
    """
    try:
        written = (json.dumps(line, allow_nan=False) + "\n").encode()
    except ValueError:
        broken = [key for key, value in line.items() if isinstance(value, float) and not math.isfinite(value)]
        raise FailureError(
            f"epoch {line.get('epoch')}: {', '.join(broken)} not finite any more; lower optim.lr"
        ) from None
    with named_failures(path), path.open("ab") as file:
        file.write(written)
        file.flush()
        os.fsync(file.fileno())
    return written


def keep_epochs(path: Path, epochs: int) -> None:
    """Cut the file to its first `epochs` lines: what was logged after the checkpoint is about to be done again."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    if len(whole) < epochs:
        raise DamageError(f"{path} has {len(whole)} epochs but the checkpoint has done {epochs}; was it edited?")
    if len(lines) > epochs:
        write_with_checksum(path, b"".join(whole[:epochs]))


def restore(path: Path, log: bytes) -> None:
    """Make the file hold what the checkpoint knows of it. What was logged after the checkpoint is done again, so it
    goes without a word; anything else that differs is damage, and said."""
    there = path.read_bytes() if path.exists() else b""
    if there == log:
        return
    if not there.startswith(log):
        logger.warning("%s is not what the run logged; written anew from the checkpoint", path)
    write_with_checksum(path, log)


def read_epochs(path: Path) -> list[dict[str, object]]:
    """All lines of metrics.jsonl, oldest first; a last line that was cut by a kill is left out. DamageError: others."""
    warn_of_change(path, grows=True)
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        epochs = [strict_json(line) for line in lines if line.endswith("\n")]
    except (OSError, ValueError) as error:
        pass_environment_on(error)
        raise DamageError(f"{path} cannot be read ({reason_of(error)}); restore it, or train the run again") from None
    for number, epoch in enumerate(epochs, start=1):
        for problem in _wrong_values(epoch):
            again = "restore it, or train the run again"
            raise DamageError(f"{path} holds lines that are {problem} (line {number}); {again}")
    return epochs


def training_time(metrics: Path) -> dict[str, Any]:
    """Of the epochs in metrics.jsonl: "hours" by the clock, and "device" and "gpu_hours" where the file says them.

    An epoch that was interrupted counts from when it was resumed. Empty where there are no epochs.
    """
    epochs = read_epochs(metrics)
    hours = [float(str(line["seconds"])) / 3600 for line in epochs if "seconds" in line]
    if not hours:
        return {}
    devices = [str(line["device"]) for line in epochs if "device" in line]
    found: dict[str, Any] = {"hours": sum(hours)}
    if len(devices) == len(hours):
        counts = [int(str(line.get("devices", 1))) for line in epochs]
        found["device"] = ", ".join(dict.fromkeys(devices))
        if "cpu" not in devices:
            found["gpu_hours"] = sum(h * n for h, n in zip(hours, counts, strict=True))
    return found


_WORDS = ("device", "collapse")
_COUNTS = ("epoch", "step", "samples", "devices")
_LARGEST = 1e30


def _wrong_values(epoch: object) -> Iterator[str]:
    """Ends of the sentence "it holds lines that are …": what no epoch of ours says."""
    if not isinstance(epoch, dict):
        yield "no JSON objects"
        return
    for key, value in epoch.items():
        if not _fits(key, value):
            yield f"no epochs: {key} is {value!r:.40}"


def _fits(key: str, value: object) -> bool:
    if key in _WORDS:
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        return False
    return key not in _COUNTS or (value >= 0 and value == int(value))
