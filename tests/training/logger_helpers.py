"""Runs that are watched, and loggers of a stranger's package that go wrong in every way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from train_helpers import train_killed_at

from seqjepa import plugins
from seqjepa.config import RunConfig
from seqjepa.training.loggers import process

BROKEN = """
import os, sys, time
class Fine:
    rewinds = False
    def start(self, run, config, resumed_at): return "nowhere"
    def scalars(self, step, epoch, values): pass
    def picture(self, name, step, png): pass
    def finish(self, status): pass
class Recorder(Fine):
    def start(self, run, config, resumed_at):
        self.file = (run / "recorded.txt").open("a")
        self.note("start", resumed_at, config["optim.epochs"])
        print("a library prints on standard output")
    def scalars(self, step, epoch, values): self.note("scalars", step, epoch, values["loss"])
    def picture(self, name, step, png): self.note("picture", name, step, png.read_bytes()[:4] == b"\\x89PNG")
    def finish(self, status): self.note("finish", status)
    def note(self, *what):
        self.file.write(" ".join(map(str, what)) + "\\n")
        self.file.flush()
class NoNetwork(Fine):
    def start(self, run, config, resumed_at): raise ConnectionError("no route\\nto host")
class FullDisk(Fine):
    def scalars(self, step, epoch, values): raise OSError(28, "No space left on device")
class Exits(Fine):
    def start(self, run, config, resumed_at): sys.exit("give me a key")
class Crashes(Fine):
    def scalars(self, step, epoch, values): os.abort()
class BadPicture(Fine):
    def picture(self, name, step, png): raise ValueError("not square")
class Unfinished(Fine):
    def finish(self, status): raise RuntimeError("upload failed")
class Hangs(Fine):
    def scalars(self, step, epoch, values): time.sleep(3600)
"""
NAMES = ("Recorder", "NoNetwork", "FullDisk", "Exits", "Crashes", "BadPicture", "Unfinished", "Hangs")


def install_loggers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package in `folder` that adds a logger for each of NAMES, and one whose module is not there."""
    info = folder / "broken_loggers-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "broken_loggers.py").write_text(BROKEN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-loggers\nVersion: 1.0\n")
    lines = [f"{name.lower()} = broken_loggers:{name}" for name in NAMES]
    gone = "gone = module_that_is_not_there:Gone"
    (info / "entry_points.txt").write_text("\n".join(["[seqjepa.loggers]", *lines, gone, ""]))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    plugins._found.cache_clear()


def epochs_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def scalars_of(run: Path, name: str) -> list[tuple[int, float]]:
    """(step, value) in metrics.jsonl."""
    return [(line["step"], line[name]) for line in epochs_of(run) if name in line]


def killed_after_two_epochs(config: RunConfig, shards: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the third of three epochs (of two steps), before anything was saved, and trained to its end.

    Loggers import their packages meanwhile, for which the ten seconds that one has after a failure may not do.
    """
    monkeypatch.setattr(process, "SECONDS_TO_FINISH", dict.fromkeys(process.SECONDS_TO_FINISH, 600.0))
    train_killed_at(5, config, shards, run, monkeypatch)
