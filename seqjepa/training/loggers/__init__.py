"""Where a run is watched beside metrics.jsonl: `train.loggers`, by name.

    run ── process.py ──(a pipe)──► child.py ──► tensorboard.py | wandb.py | trackio.py | mlflow.py | csv.py | a plugin

Each logger works in a process of its own, so that nothing that it does – import, wait for a network, fail, crash, hang,
print, seed – reaches the training. That process keeps RUN/loggers/NAME.json: the run's id there, and the last step that
was logged. What metrics.jsonl holds beyond that step is logged when a run goes on; nothing is logged twice.

A logger of one's own is a class as below in an entry point of the group "seqjepa.loggers".
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from seqjepa.plugins import load_plugin, plugin_names
from shards.errors import ConfigError
from shards.machine.files import write_atomic

FOLDER = "loggers"
BUILT_IN = {
    "csv": "CSV",
    "mlflow": "MLflow",
    "tensorboard": "TensorBoard",
    "trackio": "Trackio",
    "wandb": "WandB",
}
"""Name, which is its module's here → class."""

Status = Literal["finished", "interrupted", "failed"]


class Logger(Protocol):
    """One place that a run is logged to. Whatever a method raises switches the logger off, with one warning.

    rewinds  whether start() takes back what was logged after the step `resumed_at`; where not, those epochs stay as
             they were logged first
    """

    rewinds: bool

    def start(self, run: Path, config: Mapping[str, Any], resumed_at: int) -> str | None:
        """Open or go on with the log of the run directory `run`. → where to look at it, for one line on the terminal.

        config: every setting by its dotted key, values of JSON. resumed_at: the optimizer step the run goes on from, 0
        of a new one.
        """
        ...

    def scalars(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """The numbers of an epoch by their names in metrics.jsonl, at the optimizer step `step`, both ascending."""
        ...

    def picture(self, name: str, step: int, png: Path) -> None:
        """A picture of that name: "sequences", "curves" or "features"."""
        ...

    def finish(self, status: Status) -> None:
        """Write what is held back, and close."""
        ...


def logger_names() -> tuple[str, ...]:
    """All that `train.loggers` may name."""
    return (*BUILT_IN, *(name for name in plugin_names("seqjepa.loggers") if name not in BUILT_IN))


def check_names(names: Iterable[str]) -> None:
    """ConfigError for the first that there is no logger of."""
    for name in names:
        if name not in BUILT_IN and name not in logger_names():
            raise ConfigError(f"train.loggers: there is no logger {name!r:.40}; there are: {', '.join(logger_names())}")


def build_logger(name: str) -> Logger:
    """Import it and make one. ImportError, ConfigError or whatever a stranger's module raises."""
    if name in BUILT_IN:
        return getattr(import_module(f"{__name__}.{name}"), BUILT_IN[name])()
    return load_plugin("seqjepa.loggers", name)()


def folder_of(run: Path) -> Path:
    """RUN/loggers, made where it is missing."""
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    return folder


def kept(run: Path, name: str) -> dict[str, Any]:
    """What is remembered of a run in a logger: {"id": an id, "step": last step that was logged, −1 at first}."""
    with suppress(OSError, ValueError, KeyError, TypeError):  # a new run, or a file that is not ours any more
        found = json.loads((folder_of(run) / f"{name}.json").read_text(encoding="utf-8"))
        if isinstance(found["id"], str) and isinstance(found["step"], int):
            return found
    return {"id": uuid.uuid4().hex[:12], "step": -1}


def keep(run: Path, name: str, values: Mapping[str, Any]) -> None:
    """Remember `values`, for the next time that the run goes on."""
    write_atomic(folder_of(run) / f"{name}.json", (json.dumps(values) + "\n").encode())
