"""Weights & Biases: project "seqjepa", or WANDB_PROJECT; a run by the run directory's name.

Online after `wandb login`; WANDB_MODE=offline writes to RUN/loggers/wandb/ alone, for `wandb sync` later.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from seqjepa.training.loggers import Status, folder_of, kept
from shards.extras import missing

try:
    wandb: Any = import_module("wandb")  # not a statement: types are checked where it is not installed too
except ImportError as error:
    raise missing("wandb") from error


class WandB:
    """See Logger. A run that goes on has the same id, whether it was online or not."""

    rewinds = False  # steps only ever ascend there

    def start(self, run: Path, config: Mapping[str, Any], resumed_at: int) -> str | None:
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "seqjepa"),
            id=kept(run, "wandb")["id"],
            name=run.name,
            dir=str(folder_of(run)),
            config=dict(config),
            resume="allow",
            settings=wandb.Settings(console="off", silent=True),
        )
        here = f"offline: wandb sync {shlex.quote(str(folder_of(run) / 'wandb'))}/offline-run-*"
        return here if self.run.offline else self.run.url

    def scalars(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        self.run.log({"epoch": epoch, **values}, step=step)

    def picture(self, name: str, step: int, png: Path) -> None:
        self.run.log({name: wandb.Image(str(png))}, step=step)

    def finish(self, status: Status) -> None:
        self.run.finish(exit_code=0 if status == "finished" else 1)
