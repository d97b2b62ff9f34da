"""What all demos share: a folder that holds one demo, and the way from a set's files to a page.

files as published → shards → verify → train (and ablations) → evaluate (all, and untrained) → results.json, report.html

Every phase is done once, so the same command again goes on where it was, or shows what is there.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from seqjepa.evaluate.results import format_table, read_results
from seqjepa.experiments.job import Job, evaluate_job, train_job
from seqjepa.files import write_file
from seqjepa.report.render.html import Page, render_run
from seqjepa.training.metrics_log import read_epochs
from seqjepa.training.run_files import METRICS
from shards.errors import DamageError, UsageError
from shards.json_fields import strict_json
from shards.verify import verify

MARKER = "demo.json"
EVALUATION = ("m_val", "probe_epochs", "agg_draws", "train_draws", "val_draws", "seed")
"""Fields of a demo that are keyword arguments of evaluate_run."""
Say = Callable[[str], object]


class Ablation(NamedTuple):
    """A second run with one setting changed. key: of its numbers in results.json. without: what it lacks, in words."""

    key: str
    setting: str
    without: str


@dataclass(frozen=True)
class Demo(ABC):
    """The fields decide a demo's numbers, beside its recipe; demo.json holds them, so that a folder holds one demo.

    Subclasses (demos.py) write shards to folder.path / "shards" in phases, and say what the page shows.
    """

    recipe: ClassVar[str]
    trained: ClassVar[str]
    ablations: ClassVar[tuple[Ablation, ...]] = ()
    seed: int = 0

    def settings(self) -> tuple[str, ...]:
        """What is changed in the recipe, "a.b=c" each."""
        return (f"seed={self.seed}",)

    @abstractmethod
    def make_shards(self, folder: DemoFolder, workers: int | None) -> None:
        """Write the set as its publishers do, and from there the shards, each in a phase of the folder."""

    @abstractmethod
    def page(self, shards: Path, sheet: Path) -> dict[str, Any]:
        """title, lead, sheet and sheet_alt of Page. The contact sheet is drawn to the PNG file `sheet`."""

    def summary(self, results: Mapping[str, Any]) -> str:
        """A last line on the terminal, or nothing."""
        return ""


@dataclass(frozen=True)
class DemoFolder:
    """One folder holds one demo. identity: the JSON values that decide the demo's numbers. say: hears every phase."""

    path: Path
    identity: Mapping[str, Any]
    say: Say

    def claim(self) -> None:
        """Make the folder ours, or recognise it; UsageError otherwise, and then nothing is written."""
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
        """Announce a phase, and keep how long its first complete pass took."""
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


def run_demo(
    demo: Demo, out: Path, *, workers: int | None = None, say: Say | None = None, recipe_settings: Sequence[str] = ()
) -> dict[str, Any]:
    """Run what is left to run of `demo` in `out`, on the CPU, and return what its results.json holds.

    {"trained": …, "untrained": …} and the numbers of each ablation's trained weights by its key, as `evaluate_run`
    returns them; "seconds" of each phase and in all; "settings". say is called with a line before and after each phase.
    recipe_settings ("optim.epochs=2") are for trying out.

    Raises UsageError if `out` holds something else or another demo; whatever a phase raises.
    """
    identity = {**asdict(demo), "recipe": demo.recipe, "set": recipe_settings}
    folder = DemoFolder(Path(out), json.loads(json.dumps(identity)), say or (lambda line: None))
    folder.claim()
    demo.make_shards(folder, workers)
    with folder.phase("verify", "hold every byte against its checksum"):
        _verify(folder.path / "shards")
    run, *others = jobs = _jobs(demo, folder.path / "shards", recipe_settings)
    with folder.phase("train", f"{demo.trained}, recipe {demo.recipe}"):
        train_job(run, folder.path, device="cpu", workers=workers)
    for ablation, job in zip(demo.ablations, others, strict=True):
        with folder.phase("ablate", f"the same without {ablation.without}"):
            train_job(job, folder.path, device="cpu", workers=workers)
    sides = ["trained", "untrained", *(f"without {ablation.without}" for ablation in demo.ablations)]
    with folder.phase("evaluate", f"probes on frozen features, {', '.join(sides[:-1])} and {sides[-1]}"):
        for job in jobs:
            evaluate_job(job, folder.path, device="cpu")
    return _publish(demo, folder)


def _verify(shards: Path) -> None:
    """DamageError where a byte is not what it was."""
    report = verify(shards, progress=True)
    if not report.ok:
        raise DamageError(f"{shards}: {report.problems[0]}; remove the folder and run again")


def _jobs(demo: Demo, shards: Path, recipe_settings: Sequence[str]) -> list[Job]:
    """The run, evaluated untrained too, and one for each ablation."""
    asked = {name: value for name, value in asdict(demo).items() if name in EVALUATION}
    # Regressors see standardised features: in the hundred steps of a demo the paper's do not get far.
    evaluation = {"standardise": True, **asked}
    settings = (*demo.settings(), *recipe_settings)
    run = Job("run", demo.recipe, settings, shards, evaluation, untrained=True)
    return [run] + [
        Job(f"run-{ablation.key}", demo.recipe, (ablation.setting, *settings), shards, evaluation)
        for ablation in demo.ablations
    ]


def _publish(demo: Demo, folder: DemoFolder) -> dict[str, Any]:
    """results.json, report.html, and the table on the terminal."""
    others = {a.key: read_results(folder.path / f"run-{a.key}")["trained"] for a in demo.ablations}
    own = read_results(folder.path / "run")
    results = {**own, **others, "seconds": folder.seconds(), "settings": dict(folder.identity)}
    folder.write("results.json", results)
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in results["seconds"].items())
    seed = f"recipe {demo.recipe}, seed {demo.seed}; the same command gives the same numbers"
    page = Page(
        epochs=read_epochs(folder.path / "run" / METRICS),
        results=results,
        notes=[f"time: {spent}", seed],
        others={f"without {ablation.without}": others[ablation.key] for ablation in demo.ablations},
        **demo.page(folder.path / "shards", folder.path / "sheet.png"),
    )
    write_file(folder.path / "report.html", render_run(page).encode())
    folder.say(f"report    {folder.path / 'report.html'}, after {results['seconds']['total']:.0f} s in all\n")
    folder.say(format_table({weights: results[weights] for weights in ("trained", "untrained")}))
    if line := demo.summary(results):
        folder.say(line)
    return results
