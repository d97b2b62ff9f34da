"""`seqjepa demo augmentations`: the paper's third experiment, augmented views, on CIFAR-100's own disk layout.

draw → CIFAR-100's pickles → shards → verify → train (with actions, and without) → evaluate (both, and untrained) → page

Every phase picks up where it was, so the same command again goes on, or shows what is there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.build.images import shard_images
from pipelines.sources.open_source import open_source
from pipelines.synth.patterns.write import PatternsConfig, synth_cifar100
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

RECIPE = "cifar-tiny"


@dataclass(frozen=True)
class AugmentationSettings:
    """What decides the demo's numbers, beside the recipe. Kept in demo.json, so that one folder holds one demo."""

    seed: int = 0
    train: int = 4000
    test: int = 1000
    classes: int = 10
    m_val: tuple[int, ...] = (1, 2, 3, 4, 5)
    probe_epochs: int = 40
    train_draws: int = 4
    val_draws: int = 2

    @property
    def probing(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("m_val", "probe_epochs", "train_draws", "val_draws", "seed")}


def run_augmentation_demo(
    out: Path = Path("demo-augmentations"),
    *,
    seed: int = 0,
    workers: int | None = None,
    say: Say | None = None,
    settings: AugmentationSettings | None = None,
    recipe_settings: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Runs what is left to run in `out` and returns what its results.json holds.

    {"trained": …, "untrained": …, "no_action": …} as `evaluate_run` returns them (the last one trained without action
    conditioning), "seconds" of each phase and in all, "settings". say hears a line before and after each phase.
    settings and recipe_settings ("optim.epochs=2") are for trying out.

    Raises UsageError if `out` holds something else or another demo; anything a phase raises.
    """
    s = settings or AugmentationSettings(seed=seed)
    folder = DemoFolder.at(out, {**asdict(s), "recipe": RECIPE, "set": recipe_settings}, say)
    folder.claim()
    pickles, shards, run, without = (folder.path / name for name in ("cifar", "shards", "run", "run-no_action"))
    changes = [f"seed={s.seed}", *recipe_settings]
    with folder.phase("synth", f"draw {s.train + s.test} pictures of {s.classes} classes to CIFAR-100's files"):
        synth_cifar100(PatternsConfig(s.seed, s.train, s.test, s.classes), pickles)
    with folder.phase("shard", "pictures into lossless shards"):
        shard_images(open_source("cifar100", pickles), shards, encoding="raw", workers=1)
    verify_shards(folder, shards)
    with folder.phase("train", f"seq-JEPA on crops, recipe {RECIPE}"):
        train_run(RECIPE, changes, shards, run, workers)
    with folder.phase("ablate", "the same without action conditioning"):
        train_run(RECIPE, ['model.condition="none"', *changes], shards, without, workers)
    with folder.phase("evaluate", "probes on frozen features, trained, untrained and without actions"):
        evaluate_weights(run, shards, ("untrained", "trained"), s.probing)
        evaluate_weights(without, shards, ("trained",), s.probing)
    results = gathered(folder, run, no_action=without)
    publish(folder, results, _page(folder, s, results))
    with_, none = (results[name]["r2_crop_avg"] for name in ("trained", "no_action"))
    folder.say(f"R² of the crop between two views, with actions {with_:.3f}, without {none:.3f}")
    return results


def _page(folder: DemoFolder, s: AugmentationSettings, results: dict[str, Any]) -> Page:
    sheet = contact_sheet(folder.path / "shards", "test", folder.path / "sheet.png", samples=24, seed=s.seed)
    return Page(
        title="seq-JEPA on augmented views",
        lead=f"A small ResNet learned from crops of {s.train} pictures and from where one crop lies to another, "
        f"without labels. There are {s.classes} classes, told by shape and pattern.",
        sheet=sheet.read_bytes(),
        sheet_alt="Twenty-four test pictures with their classes.",
        epochs=read_epochs(folder.path / "run" / "metrics.jsonl"),
        results=results,
        notes=made_by(results, RECIPE, s.seed),
        others={"without actions": results["no_action"]},
    )
