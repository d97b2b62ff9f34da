"""The steps that every demo takes on the CPU, each of which does nothing where it was done before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqjepa.demos.folder import DemoFolder
from seqjepa.evaluate.results import format_table, read_results
from seqjepa.evaluate.run import evaluate_run
from seqjepa.files import write_atomic
from seqjepa.recipes import load_recipe
from seqjepa.report.html import Page, render
from seqjepa.training.train import train
from shards.errors import DamageError
from shards.verify import verify


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
    write_atomic(folder.path / "report.html", render(page).encode())
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
