"""`seqjepa demo`: multi-view objects, the paper's first experiment, on the disk layout that the real archive has.

render → 3DIEBench's folders → shards → verify → train → evaluate (trained and untrained) → one page

Every phase picks up where it was, so the same command again goes on, or shows what is there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.build.views import shard_3diebench
from pipelines.synth import SynthConfig, synth_tree
from seqjepa.experiments.demo import (
    DemoFolder,
    Say,
    evaluate_weights,
    gathered,
    made_by,
    publish,
    train_run,
    verify_shards,
)
from seqjepa.report.render.run_page import Page
from seqjepa.training.loggers import read_epochs
from shards.preview import contact_sheet

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

    @property
    def probing(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("m_val", "probe_epochs", "agg_draws", "val_draws", "seed")}


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
    folder = DemoFolder.at(out, {**asdict(s), "recipe": RECIPE, "set": recipe_settings}, say)
    folder.claim()
    tree, shards, run = (folder.path / name for name in ("synth", "shards", "run"))
    with folder.phase("synth", f"render {s.objects} objects, {s.views} views each, to 3DIEBench's folders"):
        synth_tree(SynthConfig(objects=s.objects, views=s.views, size=s.size, seed=s.seed, families=s.families), tree)
    with folder.phase("shard", "resize and re-encode into shards"):
        shard_3diebench(tree, shards, size=s.size, samples_per_shard=64, workers=workers)
    verify_shards(folder, shards)
    with folder.phase("train", f"seq-JEPA, recipe {RECIPE}"):
        changes = [f"seed={s.seed}", f"data.image_size={s.size}", *recipe_settings]
        train_run(RECIPE, changes, shards, run, workers)
    with folder.phase("evaluate", "probes on frozen features, trained and untrained"):
        evaluate_weights(run, shards, ("untrained", "trained"), s.probing)
    results = gathered(folder, run)
    publish(folder, results, _page(folder, s, results))
    return results


def _page(folder: DemoFolder, s: DemoSettings, results: dict[str, Any]) -> Page:
    sheet = contact_sheet(folder.path / "shards", "val", folder.path / "sheet.png", samples=4, views=6, seed=s.seed)
    return Page(
        title="seq-JEPA on 3DIE-Synth",
        lead=f"A small ResNet learned from {s.objects} rendered objects of {s.families} kinds, without labels. "
        "Below: what it knows of objects that it has never seen, beside the same network untrained.",
        sheet=sheet.read_bytes(),
        sheet_alt="Four validation objects, a row each, with the parameters of every view under it.",
        epochs=read_epochs(folder.path / "run" / "metrics.jsonl"),
        results=results,
        notes=made_by(results, RECIPE, s.seed),
    )
