"""`seqjepa demo saccades`: the paper's second experiment, glances at salient places, on STL-10's own disk layout.

draw → STL-10's binary files → saliency maps → shards → verify → train (with inhibition of return, and without) →
evaluate (both, and untrained) → one page

Every phase picks up where it was, so the same command again goes on, or shows what is there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.images.source import open_source
from pipelines.saliency.build import build_saliency
from pipelines.saliency.models import ModelChoice
from pipelines.shard_images import shard_images
from pipelines.synth.glances.write import GlancesConfig, synth_stl10
from seqjepa.data.fixations import Fixating, fixations_on
from seqjepa.demos.folder import DemoFolder, Say
from seqjepa.evaluate.results import format_table, read_results
from seqjepa.evaluate.suite import evaluate_run
from seqjepa.files import write_atomic
from seqjepa.recipes import load_recipe
from seqjepa.report.html import Page, render
from seqjepa.training.runlog import read_epochs
from seqjepa.training.train import train
from shards.errors import DamageError
from shards.preview import contact_sheet
from shards.verify import verify

RECIPE = "saccades-tiny"
SIDE = 96
WITHOUT = "no_inhibition"
RUNS = {"run": (), f"run-{WITHOUT}": ('data.inhibition="none"',)}
"""Run folders, and what each changes in the recipe."""


@dataclass(frozen=True)
class SaccadeSettings:
    """What decides the demo's numbers, beside the recipe. Kept in demo.json, so that one folder holds one demo."""

    seed: int = 0
    train: int = 1500
    test: int = 1000
    unlabeled: int = 4000
    m_val: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    probe_epochs: int = 120
    fixation_draws: int = 4
    val_draws: int = 4


def run_saccade_demo(
    out: Path = Path("demo-saccades"),
    *,
    seed: int = 0,
    workers: int | None = None,
    say: Say | None = None,
    settings: SaccadeSettings | None = None,
    recipe_settings: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Runs what is left to run in `out` and returns what its results.json holds.

    {"trained": …, "untrained": …, "no_inhibition": …} as `evaluate_run` returns them (the last one trained and
    evaluated without inhibition of return), "seconds" of each phase and in all, "settings". say hears a line before and
    after each phase. settings and recipe_settings ("optim.epochs=2") are for trying out.

    Raises UsageError if `out` holds something else or another demo; anything a phase raises.
    """
    s = settings or SaccadeSettings(seed=seed)
    folder = DemoFolder.at(out, {**asdict(s), "recipe": RECIPE, "set": recipe_settings}, say)
    demo = _Demo(folder, s, recipe_settings, workers)
    folder.claim()
    with folder.phase("synth", f"draw {s.unlabeled + s.train + s.test} pictures to STL-10's binary files"):
        synth_stl10(GlancesConfig(s.seed, s.train, s.test, s.unlabeled), demo.source)
    with folder.phase("saliency", "where one looks: spectral residual, not DeepGaze"):
        demo.saliency()
    with folder.phase("shard", "images with their maps into shards"):
        demo.shard()
    with folder.phase("verify", "hold every byte against its checksum"):
        demo.verify()
    with folder.phase("train", f"seq-JEPA on glances, recipe {RECIPE}"):
        demo.train("run")
    with folder.phase("ablate", "the same without inhibition of return"):
        demo.train(f"run-{WITHOUT}")
    with folder.phase("evaluate", "probes on frozen features, trained, untrained and without inhibition"):
        demo.evaluate()
    results = demo.report()
    folder.say(f"report    {folder.path / 'report.html'}, after {results['seconds']['total']:.0f} s in all\n")
    folder.say(format_table({weights: results[weights] for weights in ("trained", "untrained")}))
    folder.say(_ablation_line(results))
    return results


def _ablation_line(results: dict[str, Any]) -> str:
    scores = results[WITHOUT]["top1_agg"]
    return "without inhibition of return, top-1 on z_AGG: " + ", ".join(f"M_val {m} {v:.3f}" for m, v in scores.items())


@dataclass(frozen=True)
class _Demo:
    folder: DemoFolder
    settings: SaccadeSettings
    recipe_settings: tuple[str, ...]
    workers: int | None

    @property
    def out(self) -> Path:
        return self.folder.path

    @property
    def source(self) -> Path:
        return self.out / "stl10_binary"

    def saliency(self) -> None:
        choice = ModelChoice("spectral-residual", out_size=SIDE)
        build_saliency(open_source("stl10", self.source), self.out / "maps", choice, device="cpu")

    def shard(self) -> None:
        source, maps = open_source("stl10", self.source), self.out / "maps"
        shard_images(source, self.out / "shards", maps=maps, encoding="raw", workers=self.workers)

    def verify(self) -> None:
        report = verify(self.out / "shards", progress=True)
        if not report.ok:
            raise DamageError(f"{self.out / 'shards'}: {report.problems[0]}; remove the folder and run again")

    def train(self, run: str) -> None:
        config = load_recipe(RECIPE, [f"seed={self.settings.seed}", *RUNS[run], *self.recipe_settings])
        train(config, self.out / "shards", self.out / run, device="cpu", workers=self.workers)

    def evaluate(self) -> None:
        for run, weights in (("run", "untrained"), ("run", "trained"), (f"run-{WITHOUT}", "trained")):
            if weights not in read_results(self.out / run):
                self._evaluate(run, untrained=weights == "untrained")

    def _evaluate(self, run: str, untrained: bool) -> None:
        s = self.settings
        evaluate_run(
            self.out / run,
            self.out / "shards",
            untrained=untrained,
            device="cpu",
            m_val=s.m_val,
            probe_epochs=s.probe_epochs,
            train_draws=s.fixation_draws,
            val_draws=s.val_draws,
            seed=s.seed,
        )

    def report(self) -> dict[str, Any]:
        results = {
            **read_results(self.out / "run"),
            WITHOUT: read_results(self.out / f"run-{WITHOUT}")["trained"],
            "seconds": self.folder.seconds(),
            "settings": dict(self.folder.identity),
        }
        self.folder.write("results.json", results)
        write_atomic(self.out / "report.html", render(self._page(results)).encode())
        return results

    def _page(self, results: dict[str, Any]) -> Page:
        s = self.settings
        looks = partial(fixations_on, count=4, how=Fixating(), seed=s.seed)
        sheet = contact_sheet(
            self.out / "shards", "test", self.out / "sheet.png", samples=6, seed=s.seed, fixations=looks
        )
        spent = ", ".join(f"{name} {value:.0f} s" for name, value in results["seconds"].items())
        return Page(
            title="seq-JEPA on glances",
            lead=f"A small ResNet learned from {s.unlabeled} pictures of {SIDE} pixels, seen through 32-pixel glances at "
            "salient places, without labels. The class of a picture is the pair of sticker kinds in it: "
            "one glance cannot tell it, several can.",
            sheet=sheet.read_bytes(),
            sheet_alt="Six test pictures with their saliency maps and four glances each, in order.",
            epochs=read_epochs(self.out / "run" / "metrics.jsonl"),
            results=results,
            others={"without inhibition of return": results[WITHOUT]},
            notes=[f"time: {spent}", f"recipe {RECIPE}, seed {s.seed}; the same command gives the same numbers"],
        )
