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

from pipelines.build.images import shard_images
from pipelines.saliency.build import build_saliency
from pipelines.saliency.models import ModelChoice
from pipelines.sources.open_source import open_source
from pipelines.synth.glances.write import GlancesConfig, synth_stl10
from seqjepa.data.fixations import Fixating, fixations_on
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

RECIPE = "saccades-tiny"
SIDE = 96


@dataclass(frozen=True)
class SaccadeSettings:
    """What decides the demo's numbers, beside the recipe. Kept in demo.json, so that one folder holds one demo."""

    seed: int = 0
    train: int = 1500
    test: int = 1000
    unlabeled: int = 4000
    m_val: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    probe_epochs: int = 120
    train_draws: int = 4
    val_draws: int = 4

    @property
    def probing(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("m_val", "probe_epochs", "train_draws", "val_draws", "seed")}


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
    folder.claim()
    shards, run, without = (folder.path / name for name in ("shards", "run", "run-no_inhibition"))
    changes = [f"seed={s.seed}", *recipe_settings]
    _make_shards(folder, s, workers)
    verify_shards(folder, shards)
    with folder.phase("train", f"seq-JEPA on glances, recipe {RECIPE}"):
        train_run(RECIPE, changes, shards, run, workers)
    with folder.phase("ablate", "the same without inhibition of return"):
        train_run(RECIPE, ['data.inhibition="none"', *changes], shards, without, workers)
    with folder.phase("evaluate", "probes on frozen features, trained, untrained and without inhibition"):
        evaluate_weights(run, shards, ("untrained", "trained"), s.probing)
        evaluate_weights(without, shards, ("trained",), s.probing)
    results = gathered(folder, run, no_inhibition=without)
    publish(folder, results, _page(folder, s, results))
    scores = ", ".join(f"M_val {m} {score:.3f}" for m, score in results["no_inhibition"]["top1_agg"].items())
    folder.say(f"without inhibition of return, top-1 on z_AGG: {scores}")
    return results


def _make_shards(folder: DemoFolder, s: SaccadeSettings, workers: int | None) -> None:
    binaries, maps = folder.path / "stl10_binary", folder.path / "maps"
    with folder.phase("synth", f"draw {s.unlabeled + s.train + s.test} pictures to STL-10's binary files"):
        synth_stl10(GlancesConfig(s.seed, s.train, s.test, s.unlabeled), binaries)
    source = open_source("stl10", binaries)
    with folder.phase("saliency", "where one looks: spectral residual, not DeepGaze"):
        build_saliency(source, maps, ModelChoice("spectral-residual", out_size=SIDE), device="cpu")
    with folder.phase("shard", "images with their maps into shards"):
        shard_images(source, folder.path / "shards", maps=maps, encoding="raw", workers=workers)


def _page(folder: DemoFolder, s: SaccadeSettings, results: dict[str, Any]) -> Page:
    looks = partial(fixations_on, count=4, how=Fixating(), seed=s.seed)
    sheet = contact_sheet(
        folder.path / "shards", "test", folder.path / "sheet.png", samples=6, seed=s.seed, fixations=looks
    )
    return Page(
        title="seq-JEPA on glances",
        lead=f"A small ResNet learned from {s.unlabeled} pictures of {SIDE} pixels, seen through 32-pixel glances at "
        "salient places, without labels. The class of a picture is the pair of sticker kinds in it: "
        "one glance cannot tell it, several can.",
        sheet=sheet.read_bytes(),
        sheet_alt="Six test pictures with their saliency maps and four glances each, in order.",
        epochs=read_epochs(folder.path / "run" / "metrics.jsonl"),
        results=results,
        notes=made_by(results, RECIPE, s.seed),
        others={"without inhibition of return": results["no_inhibition"]},
    )
