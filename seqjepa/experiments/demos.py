"""The three demos of `seqjepa demo`: the paper's three experiments at a size of minutes on two cores.

Each draws a set, writes it in the files of the set that the paper uses, and goes on as with the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pipelines.build.images import shard_images
from pipelines.build.views import shard_views
from pipelines.saliency.build import build_saliency
from pipelines.saliency.models import ModelChoice
from pipelines.sources import open_source
from pipelines.sources.three_diebench import ThreeDIEBenchSource
from pipelines.synth import SynthConfig, synth_shards, synth_tree
from pipelines.synth.config import check_config
from pipelines.synth.glances.write import GlancesConfig, synth_stl10
from pipelines.synth.objects import plan_objects
from pipelines.synth.patterns.write import PatternsConfig, synth_cifar100
from seqjepa.data.fixations import Fixating, fixations_on
from seqjepa.experiments.demo import Ablation, Demo, DemoFolder
from shards.preview import contact_sheet

STL10_SIDE = 96


@dataclass(frozen=True)
class ObjectsDemo(Demo):
    """`seqjepa demo`: objects seen from several sides, in 3DIEBench's folders (first experiment)."""

    recipe: ClassVar[str] = "synth-tiny"
    trained: ClassVar[str] = "seq-JEPA"
    objects: int = 1280
    views: int = 16
    size: int = 48
    families: int = 8
    m_val: tuple[int, ...] = (1, 2, 3, 4, 5)
    probe_epochs: int = 200
    agg_draws: int = 8
    val_draws: int = 8

    def settings(self) -> tuple[str, ...]:
        return (*super().settings(), f"data.image_size={self.size}")

    def make_shards(self, folder: DemoFolder, workers: int | None) -> None:
        tree = folder.path / "synth"
        config = SynthConfig(self.objects, self.views, self.size, seed=self.seed, families=self.families)
        with folder.phase("synth", f"render {self.objects} objects, {self.views} views each, to 3DIEBench's folders"):
            synth_tree(config, tree)
        with folder.phase("shard", "resize and re-encode into shards"):
            shard_views(
                ThreeDIEBenchSource(tree), folder.path / "shards", size=self.size, samples_per_shard=64, workers=workers
            )

    def page(self, shards: Path, sheet: Path) -> dict[str, Any]:
        return {
            "title": "seq-JEPA on 3DIE-Synth",
            "lead": f"A small ResNet learned from {self.objects} rendered objects of {self.families} kinds, without "
            "labels. Below: what it knows of objects that it has never seen, beside the same network untrained.",
            "sheet": contact_sheet(shards, "val", sheet, samples=4, views=6, seed=self.seed).read_bytes(),
            "sheet_alt": "Four validation objects, a row each, with the parameters of every view under it.",
        }


@dataclass(frozen=True)
class SaccadesDemo(Demo):
    """`seqjepa demo saccades`: glances at salient places, in STL-10's binary files (second experiment)."""

    recipe: ClassVar[str] = "saccades-tiny"
    trained: ClassVar[str] = "seq-JEPA on glances"
    ablations: ClassVar[tuple[Ablation, ...]] = (
        Ablation("no_inhibition", 'data.inhibition="none"', "inhibition of return"),
    )
    train: int = 1500
    test: int = 1000
    unlabeled: int = 4000
    m_val: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    probe_epochs: int = 120
    train_draws: int = 4
    val_draws: int = 4

    def make_shards(self, folder: DemoFolder, workers: int | None) -> None:
        binaries, maps = folder.path / "stl10_binary", folder.path / "maps"
        pictures = self.unlabeled + self.train + self.test
        with folder.phase("synth", f"draw {pictures} pictures to STL-10's binary files"):
            synth_stl10(GlancesConfig(self.seed, self.train, self.test, self.unlabeled), binaries)
        source = open_source("stl10", binaries)
        with folder.phase("saliency", "where one looks: spectral residual, not DeepGaze"):
            build_saliency(source, maps, ModelChoice("spectral-residual", out_size=STL10_SIDE), device="cpu")
        with folder.phase("shard", "images with their maps into shards"):
            shard_images(source, folder.path / "shards", maps=maps, encoding="raw", workers=workers)

    def page(self, shards: Path, sheet: Path) -> dict[str, Any]:
        looks = partial(fixations_on, count=4, how=Fixating(), seed=self.seed)
        drawn = contact_sheet(shards, "test", sheet, samples=6, seed=self.seed, fixations=looks)
        return {
            "title": "seq-JEPA on glances",
            "lead": f"A small ResNet learned from {self.unlabeled} pictures of {STL10_SIDE} pixels, seen through "
            "32-pixel glances at salient places, without labels. The class of a picture is the pair of sticker kinds "
            "in it: one glance cannot tell it, several can.",
            "sheet": drawn.read_bytes(),
            "sheet_alt": "Six test pictures with their saliency maps and four glances each, in order.",
        }

    def summary(self, results: Mapping[str, Any]) -> str:
        scores = ", ".join(f"M_val {m} {score:.3f}" for m, score in results["no_inhibition"]["top1_agg"].items())
        return f"without inhibition of return, top-1 on z_AGG: {scores}"


@dataclass(frozen=True)
class AugmentationsDemo(Demo):
    """`seqjepa demo augmentations`: crops of pictures, in CIFAR-100's pickles (third experiment)."""

    recipe: ClassVar[str] = "cifar-tiny"
    trained: ClassVar[str] = "seq-JEPA on crops"
    ablations: ClassVar[tuple[Ablation, ...]] = (Ablation("no_action", 'model.condition="none"', "actions"),)
    train: int = 4000
    test: int = 1000
    classes: int = 10
    m_val: tuple[int, ...] = (1, 2, 3, 4, 5)
    probe_epochs: int = 40
    train_draws: int = 4
    val_draws: int = 2

    def make_shards(self, folder: DemoFolder, workers: int | None) -> None:
        pickles = folder.path / "cifar"
        pictures = f"draw {self.train + self.test} pictures of {self.classes} classes to CIFAR-100's files"
        with folder.phase("synth", pictures):
            synth_cifar100(PatternsConfig(self.seed, self.train, self.test, self.classes), pickles)
        with folder.phase("shard", "pictures into lossless shards"):
            shard_images(open_source("cifar100", pickles), folder.path / "shards", encoding="raw", workers=1)

    def page(self, shards: Path, sheet: Path) -> dict[str, Any]:
        return {
            "title": "seq-JEPA on augmented views",
            "lead": f"A small ResNet learned from crops of {self.train} pictures and from where one crop lies to "
            f"another, without labels. There are {self.classes} classes, told by shape and pattern.",
            "sheet": contact_sheet(shards, "test", sheet, samples=24, seed=self.seed).read_bytes(),
            "sheet_alt": "Twenty-four test pictures with their classes.",
        }

    def summary(self, results: Mapping[str, Any]) -> str:
        with_actions, without = (results[name]["r2_crop_avg"] for name in ("trained", "no_action"))
        return f"R² of the crop between two views, with actions {with_actions:.3f}, without {without:.3f}"


RENDERED_PER_S = 1000
"""Images of 64 pixels that a machine of two cores is thought to render, at least (README: 2,150)."""
BYTES_OF_48_PX = 3300
"""Of a JPEG of a rendered view, about."""


def render_set(fields: Mapping[str, Any], out: Path, say: Callable[[str], object]) -> None:
    """Shards of 3DIE-Synth in `out`; killed, the same call goes on. say: hears disk and time before anything is done.

    fields: of SynthConfig, by name. UsageError for a bad configuration, or a folder that holds something else.
    """
    config = SynthConfig(**fields)
    check_config(config)
    images, pixels = config.objects * config.views, (config.size / 48) ** 2
    minutes = max(1, round(images * pixels / RENDERED_PER_S / 60))
    say(
        f"{out}: renders {config.objects:,} objects, {config.views} views each at {config.size} px: about "
        f"{max(1, round(images * BYTES_OF_48_PX * pixels / 2**20))} MB and {minutes} minutes"
    )
    synth_shards(config, out)


def training_objects(fields: Mapping[str, Any]) -> int:
    """Of a set that need not be there yet. fields: of SynthConfig. UsageError for a bad configuration."""
    config = SynthConfig(**fields)
    check_config(config)
    return sum(item.split == "train" for item in plan_objects(config))


DEMOS: dict[str, type[Demo]] = {
    "objects": ObjectsDemo,
    "saccades": SaccadesDemo,
    "augmentations": AugmentationsDemo,
}
