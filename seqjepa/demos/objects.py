"""`seqjepa demo`: multi-view objects, the paper's first experiment, on the disk layout that the real archive has.

render → 3DIEBench's folders → shards → verify → train → evaluate (trained and untrained) → one page

Every phase picks up where it was, so the same command again goes on, or shows what is there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.synth import SynthConfig, synth_tree
from pipelines.three_diebench import shard_3diebench
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

RECIPE = "synth-tiny"


@dataclass(frozen=True)
class DemoSettings:
    """What decides the demo's numbers, beside the recipe. Kept in demo.json, so that one folder holds one demo."""

    seed: int = 0
    objects: int = 1280
    views: int = 16
    size: int = 48
    families: int = 8
    m_val: tuple[int, ...] = (1, 2, 3, 4, 5)
    probe_epochs: int = 200
    agg_draws: int = 8
    val_draws: int = 8


def run_demo(
    out: Path = Path("demo"),
    *,
    seed: int = 0,
    workers: int | None = None,
    say: Say | None = None,
    settings: DemoSettings | None = None,
    recipe_settings: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Runs what is left to run in `out` and returns what demo/results.json holds.

    {"trained": …, "untrained": …} as `evaluate_run` returns them, "seconds" of each phase and in all, "settings".
    say hears a line before and after each phase. settings and recipe_settings ("optim.epochs=2") are for trying out.

    Raises UsageError if `out` holds something else or another demo; anything a phase raises.
    """
    s = settings or DemoSettings(seed=seed)
    identity = {**asdict(s), "recipe": RECIPE, "set": recipe_settings}
    folder = DemoFolder.at(out, identity, say)
    demo = _Demo(folder, s, recipe_settings, workers)
    folder.claim()
    with folder.phase("synth", f"render {s.objects} objects, {s.views} views each, to 3DIEBench's folders"):
        demo.synthesise()
    with folder.phase("shard", "resize and re-encode into shards"):
        demo.shard()
    with folder.phase("verify", "hold every byte against its checksum"):
        demo.verify()
    with folder.phase("train", f"seq-JEPA, recipe {RECIPE}"):
        demo.train()
    with folder.phase("evaluate", "probes on frozen features, trained and untrained"):
        demo.evaluate()
    results = demo.report()
    folder.say(f"report    {folder.path / 'report.html'}, after {results['seconds']['total']:.0f} s in all\n")
    folder.say(format_table({weights: results[weights] for weights in ("trained", "untrained")}))
    return results


@dataclass(frozen=True)
class _Demo:
    folder: DemoFolder
    settings: DemoSettings
    recipe_settings: tuple[str, ...]
    workers: int | None

    @property
    def out(self) -> Path:
        return self.folder.path

    def synthesise(self) -> None:
        s = self.settings
        config = SynthConfig(objects=s.objects, views=s.views, size=s.size, seed=s.seed, families=s.families)
        synth_tree(config, self.out / "synth")

    def shard(self) -> None:
        shard_3diebench(
            self.out / "synth",
            self.out / "shards",
            size=self.settings.size,
            samples_per_shard=64,
            workers=self.workers,
        )

    def verify(self) -> None:
        report = verify(self.out / "shards", progress=True)
        if not report.ok:
            raise DamageError(f"{self.out / 'shards'}: {report.problems[0]}; remove the folder and run again")

    def train(self) -> None:
        s = self.settings
        config = load_recipe(RECIPE, [f"seed={s.seed}", f"data.image_size={s.size}", *self.recipe_settings])
        train(config, self.out / "shards", self.out / "run", device="cpu", workers=self.workers)

    def evaluate(self) -> None:
        s = self.settings
        for weights in ("untrained", "trained"):
            if weights in read_results(self.out / "run"):
                continue
            evaluate_run(
                self.out / "run",
                self.out / "shards",
                untrained=weights == "untrained",
                device="cpu",
                m_val=s.m_val,
                probe_epochs=s.probe_epochs,
                agg_draws=s.agg_draws,
                val_draws=s.val_draws,
                seed=s.seed,
            )

    def report(self) -> dict[str, Any]:
        results = {
            **read_results(self.out / "run"),
            "seconds": self.folder.seconds(),
            "settings": dict(self.folder.identity),
        }
        self.folder.write("results.json", results)
        write_atomic(self.out / "report.html", render(self._page(results)).encode())
        return results

    def _page(self, results: dict[str, Any]) -> Page:
        s = self.settings
        sheet = contact_sheet(self.out / "shards", "val", self.out / "sheet.png", samples=4, views=6, seed=s.seed)
        spent = ", ".join(f"{name} {value:.0f} s" for name, value in results["seconds"].items())
        return Page(
            title="seq-JEPA on 3DIE-Synth",
            lead=f"A small ResNet learned from {s.objects} rendered objects of {s.families} kinds, without labels. "
            "Below: what it knows of objects that it has never seen, beside the same network untrained.",
            sheet=sheet.read_bytes(),
            sheet_alt="Four validation objects, a row each, with the parameters of every view under it.",
            epochs=read_epochs(self.out / "run" / "metrics.jsonl"),
            results=results,
            notes=[f"time: {spent}", f"recipe {RECIPE}, seed {s.seed}; the same command gives the same numbers"],
        )
