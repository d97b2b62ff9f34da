"""What a report knows of a run: settings, numbers, epochs, and where it comes from. Run directories are only read."""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seqjepa.config import RunConfig
from seqjepa.data.actions import DECLARED, action_name
from seqjepa.evaluate.checkpoints import Checkpoint, read_checkpoints
from seqjepa.evaluate.results import RESULTS_FILE, protocol_lines, read_results
from seqjepa.paper.measures import value_at
from seqjepa.paper.sets import paper_set
from seqjepa.recipes import flatten
from seqjepa.training.metrics_log import read_epochs
from seqjepa.training.run import read_run_config, read_run_json
from seqjepa.training.run_files import CONFIG, METRICS, RUN
from shards.errors import ConfigError, DamageError, FormatError, UsageError

logger = logging.getLogger(__name__)

DEEPEST = 4
"""Folders below one that is given in which runs are looked for."""
DEFAULTS = "the defaults, which are the paper’s for 3DIEBench"


@dataclass(frozen=True)
class RunRecord:
    """One run.

    name       of its folder
    results    results.json: {"trained": …, "untrained": …}; empty if it was not evaluated
    epochs     metrics.jsonl, a mapping a line
    dataset    name of the set it was evaluated on, else trained on, as its shards say it
    transfers  results-*.json by file name without "results-" and ".json": other images, other patches
    identity   run.json: shards, versions, finished_epochs
    on_the_way  numbers of weights that were kept (train.keep_epochs), ascending
    """

    path: Path
    name: str
    config: RunConfig
    results: Mapping[str, Any]
    epochs: Sequence[Mapping[str, Any]]
    dataset: str
    transfers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    on_the_way: Sequence[Checkpoint] = ()

    @property
    def trained(self) -> Mapping[str, Any]:
        """The numbers of the trained weights; empty without any."""
        return self.results.get("trained", {})

    @property
    def untrained(self) -> Mapping[str, Any]:
        """The numbers of the weights that it began with; empty without any."""
        return self.results.get("untrained", {})

    @property
    def protocol(self) -> Mapping[str, Any]:
        """The account of how those were measured; empty without any."""
        return self.trained.get("protocol", {})

    @property
    def paper_set(self) -> str:
        """The paper's data set that the run was trained and evaluated on ("3DIEBench" …); empty if it was another.

        Told by the names of its classes; of runs from before these were noted at training, by the name of the set.
        """
        trained_on = self.identity.get("shards", {})
        if "classes_sha256" in trained_on:
            same = trained_on["classes_sha256"] == self.protocol.get("classes_sha256")
        else:
            same = trained_on.get("name", self.dataset) == self.protocol.get("dataset")
        return paper_set(self.protocol) if same else ""

    @property
    def is_own(self) -> bool:
        """Whether its data are somebody's own, none of the paper's kinds: then a report says nothing of the paper.

        Actions are declared, or columns are (results.json has their `targets`), or views have neither.
        """
        data, views = self.config.data, value_at(self.identity, "data.kind") == "views"
        without = data.action == "none" and views and not data.patch
        return "targets" in self.protocol or action_name(data.action) == DECLARED or (without and not self.paper_set)

    @property
    def epochs_done(self) -> int:
        """As many as were logged; without a log (imported weights) those that were evaluated, else those planned."""
        return len(self.epochs) or int(self.protocol.get("trained_epochs", self.config.optim.epochs))

    @property
    def epochs_measured(self) -> float:
        """Of the weights that were evaluated, as far as that was noted."""
        return float(self.protocol.get("trained_epochs", self.epochs_done))

    @property
    def epochs_said(self) -> str:
        """ "1000", or "2.5 of 1000" where the weights that were evaluated are some on the way."""
        planned, measured = self.config.optim.epochs, self.epochs_measured
        return f"{measured:g} of {planned}" if measured < planned else f"{planned}"


def read_records(paths: Sequence[Path]) -> list[RunRecord]:
    """Runs of `paths`, each of which is a run directory or a folder that holds some; each run once, in this order.

    Of several runs in a folder those whose files cannot be read are left out, with a warning each; one that is given
    by its own path is not. UsageError: no runs. FormatError, DamageError, ConfigError: none that can be read.
    """
    found: dict[Path, RunRecord] = {}
    unread: FormatError | DamageError | ConfigError | None = None
    for path in paths:
        runs = [path] if (path / RUN).is_file() else sorted(_runs_below(path))
        if not runs:
            what = "holds no run directories" if path.is_dir() else "is not there" if not path.exists() else "is a file"
            raise UsageError(f"{path} {what}; give folders that `seqjepa train` wrote, or a folder of such folders")
        for run in runs:
            if run.resolve() in found:
                continue
            try:
                found[run.resolve()] = read_record(run)
            except (FormatError, DamageError, ConfigError) as error:
                if len(runs) == 1:
                    raise
                logger.warning("%s is left out: %s", run, error)
                unread = error
    if not found and unread:
        raise unread
    return list(found.values())


def read_record(run: Path) -> RunRecord:
    """One run directory. FormatError, DamageError: it is none, or its files cannot be read."""
    if not (run / CONFIG).exists():
        raise FormatError(f"{run} has no {CONFIG}: the run has not begun; let `seqjepa train` go on")
    identity, results = read_run_json(run), read_results(run)
    trained = results.get("trained", {})
    dataset = trained.get("protocol", {}).get("dataset") or identity.get("shards", {}).get("name", "")
    return RunRecord(
        path=run,
        name=run.resolve().name,
        config=read_run_config(run),
        results=results,
        epochs=read_epochs(run / METRICS),
        dataset=str(dataset),
        transfers=_transfers(run),
        identity=identity,
        on_the_way=read_checkpoints(run),
    )


def _transfers(run: Path) -> dict[str, Mapping[str, Any]]:
    beginning, _, ending = RESULTS_FILE.partition(".")
    files = sorted(run.glob(f"{beginning}-*.{ending}"))
    return {file.stem.removeprefix(f"{beginning}-"): read_results(run, file.name) for file in files}


def _runs_below(folder: Path) -> Iterator[Path]:
    """Run directories in a folder and in its folders, and what links there lead to; not inside runs. A run that was
    killed before it had its settings has not begun."""
    for here, inner, files in os.walk(folder):
        depth = len(Path(here).relative_to(folder).parts)
        links = [link for name in inner if (link := Path(here) / name).is_symlink()]
        yield from (run for run in (Path(here), *links) if (run / RUN).is_file() and (run / CONFIG).is_file())
        if RUN in files or depth >= DEEPEST:
            inner.clear()
        inner[:] = [name for name in inner if not name.startswith(".")]


@dataclass(frozen=True)
class Fact:
    """Something about where a run comes from, in one or several texts. code: whether a shell or a file has them."""

    name: str
    texts: list[str]
    code: bool = False


def provenance(record: RunRecord) -> list[Fact]:
    """Settings that are not as usual, data, versions, machine, protocol; what is not known is left out."""
    identity = record.identity
    changed = differences_from_defaults(record.config)
    extended = [f"from {e['from']} to {e['to']} epochs" for e in identity.get("extended") or ()]
    facts = [
        Fact("Folder", [str(record.path)], code=True),
        Fact("Recipe", [record.config.name]),
        Fact("Differs from the defaults in", changed or [DEFAULTS], code=bool(changed)),
        Fact("Command", [_command(record)], code=True),
        Fact("Epochs", [f"{len(record.epochs)} of {record.config.optim.epochs} logged"]),
        Fact("Shards", [", ".join(f"{k} {v}" for k, v in identity.get("shards", {}).items())]),
        Fact("Versions", [", ".join(f"{k} {v}" for k, v in identity.get("versions", {}).items())]),
        Fact("Hardware", [_hardware(record)]),
        Fact("Extended", ["; ".join(extended)]),
        Fact("Protocol", protocol_lines(dict(record.results))),
        Fact("Weights evaluated", [str(record.protocol.get("model_sha256", ""))], code=True),
    ]
    return [fact for fact in facts if fact.code or any(fact.texts)]


def differences_from_defaults(config: RunConfig) -> list[str]:
    """Settings as `--set` takes them, without the run's name."""
    usual = flatten(RunConfig().model_dump())
    changed = {k: v for k, v in flatten(config.model_dump()).items() if k != "name" and v != usual.get(k)}
    return [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in changed.items()]


def _command(record: RunRecord) -> str:
    """As noted, else what trains the same again; of the shards no folder is known, but their fingerprint."""
    noted = record.identity.get("command")
    again = f"seqjepa train --shards SHARDS --recipe {shlex.quote(str(record.path / CONFIG))} --out ANOTHER_FOLDER"
    return noted if isinstance(noted, str) else again


def _hardware(record: RunRecord) -> str:
    devices = dict.fromkeys(
        f"{line.get('devices', 1)} × {line['device']}" for line in record.epochs if line.get("device")
    )
    seconds = sum(float(line.get("seconds", 0)) for line in record.epochs)
    took = f", {seconds / 3600:.2f} h of training" if seconds else ""
    return f"{', '.join(devices) or 'not recorded'}{took}"
