"""The folder of a demo: whose it is, which phases are done and how long they took.

The steps that every demo takes on the CPU, each of which does nothing where it was done before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqjepa.evaluate.results import format_table, read_results
from seqjepa.evaluate.run import evaluate_run
from seqjepa.files import write_file
from seqjepa.recipes import load_recipe
from seqjepa.report.render.run_page import Page, render
from seqjepa.training.train import train
from shards.errors import DamageError, UsageError
from shards.json_fields import strict_json
from shards.verify import verify

MARKER = "demo.json"
Say = Callable[[str], object]


@dataclass(frozen=True)
class DemoFolder:
    """One folder holds one demo, told by its identity: JSON values that decide the demo's numbers.

    say hears a line before and after each phase.
    """

    path: Path
    identity: Mapping[str, Any]
    say: Say

    @classmethod
    def at(cls, path: Path, identity: Mapping[str, Any], say: Say | None) -> DemoFolder:
        """With the identity as JSON gives it back, so that it equals what is read from the folder."""
        return cls(Path(path), json.loads(json.dumps(identity)), say or (lambda line: None))

    def claim(self) -> None:
        """Makes the folder ours, or recognises it; UsageError otherwise, and then nothing is written."""
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file; --out needs a folder")
        if (self.path / MARKER).exists():
            self._recognise()
            return
        if self.path.exists() and any(self.path.iterdir()):
            raise UsageError(f"{self.path} is not empty and was not made by `seqjepa demo`; choose another --out")
        self.path.mkdir(parents=True, exist_ok=True)
        self.write(MARKER, {"kind": "seqjepa-demo", "settings": self.identity, "seconds": {}})

    @contextmanager
    def phase(self, name: str, what: str) -> Iterator[None]:
        """Announces a phase and keeps how long its first complete pass took."""
        self.say(f"{name:9} {what}")
        started = time.monotonic()
        yield
        spent = round(time.monotonic() - started, 1)
        marker = self._read_marker()
        note = ", done before" if name in marker["seconds"] else ""
        known = marker["seconds"].setdefault(name, spent)
        self.write(MARKER, marker)
        self.say(f"{'':9} {known:.1f} s{note}")

    def seconds(self) -> dict[str, float]:
        """How long each phase took, and "total"."""
        spent = self._read_marker()["seconds"]
        return {**spent, "total": round(sum(spent.values()), 1)}

    def write(self, name: str, value: object) -> None:
        """`value` as JSON in the folder, atomically."""
        write_file(self.path / name, (json.dumps(value, indent=2) + "\n").encode())

    def _recognise(self) -> None:
        try:
            there = dict(self._read_marker()["settings"])
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"{self.path / MARKER} is not readable; choose another --out") from None
        differ = [f"{k} {there.get(k)} there, {v} asked" for k, v in self.identity.items() if there.get(k) != v]
        if differ:
            raise UsageError(f"{self.path} holds another demo ({', '.join(differ)}); choose another --out")

    def _read_marker(self) -> dict[str, Any]:
        return strict_json((self.path / MARKER).read_bytes())


def verify_shards(folder: DemoFolder, shards: Path) -> None:
    """DamageError where a byte is not what it was."""
    with folder.phase("verify", "hold every byte against its checksum"):
        report = verify(shards, progress=True)
        if not report.ok:
            raise DamageError(f"{shards}: {report.problems[0]}; remove the folder and run again")


def train_run(recipe: str, changes: Sequence[str], shards: Path, run: Path, workers: int | None) -> None:
    train(load_recipe(recipe, changes), shards, run, device="cpu", workers=workers)


def evaluate_weights(run: Path, shards: Path, weights: Sequence[str], how: Mapping[str, Any]) -> None:
    """Those of "trained" and "untrained" that are asked for; `how` goes to evaluate_run."""
    for name in weights:
        if name not in read_results(run):
            # Regressors see standardised features: in the hundred steps of a demo the paper's do not get far.
            evaluate_run(run, shards, untrained=name == "untrained", device="cpu", standardise=True, **how)


def publish(folder: DemoFolder, results: dict[str, Any], page: Page) -> None:
    """results.json, report.html, and the table on the terminal."""
    folder.write("results.json", results)
    write_file(folder.path / "report.html", render(page).encode())
    folder.say(f"report    {folder.path / 'report.html'}, after {results['seconds']['total']:.0f} s in all\n")
    folder.say(format_table({weights: results[weights] for weights in ("trained", "untrained")}))


def made_by(results: Mapping[str, Any], recipe: str, seed: int) -> list[str]:
    """What a page says of how it was made."""
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in results["seconds"].items())
    return [f"time: {spent}", f"recipe {recipe}, seed {seed}; the same command gives the same numbers"]


def gathered(folder: DemoFolder, run: Path, **others: Path) -> dict[str, Any]:
    """What results.json of the demo holds: the run's results, the trained ones of other runs by name, the time."""
    return {
        **read_results(run),
        **{name: read_results(other)["trained"] for name, other in others.items()},
        "seconds": folder.seconds(),
        "settings": dict(folder.identity),
    }
