"""Trackio: project "seqjepa", or TRACKIO_PROJECT, in trackio's local database; `trackio show` opens it.

TRACKIO_SPACE_ID or TRACKIO_SERVER_URL log to a Space or a server instead; without them nothing leaves the machine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from seqjepa.training.loggers import Status, kept
from shards.extras import missing

REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
if not any(os.environ.get(name) for name in REMOTE):
    os.environ["HF_HUB_OFFLINE"] = "1"  # or it asks the hub for the user's name; read when it is imported

try:
    trackio: Any = import_module("trackio")  # not a statement: types are checked where it is not installed too
except ImportError as error:
    raise missing("trackio") from error


class Trackio:
    """See Logger. Its run is called as the run directory, with the id that is kept: names are what it resumes by."""

    rewinds = False

    def start(self, run: Path, config: Mapping[str, Any], resumed_at: int) -> str:
        project = os.environ.get("TRACKIO_PROJECT", "seqjepa")
        self.run = trackio.init(
            project=project,
            name=f"{run.name}-{kept(run, 'trackio')['id'][:6]}",
            config=dict(config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return f"trackio show --project {project}"

    def scalars(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        self.run.log({"epoch": epoch, **values}, step=step)

    def picture(self, name: str, step: int, png: Path) -> None:
        self.run.log({name: trackio.Image(str(png))}, step=step)

    def finish(self, status: Status) -> None:
        self.run.finish()
