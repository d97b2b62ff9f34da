"""The three demos of `seqjepa demo`: the paper's three experiments at a size of minutes on two cores.

Each draws a set, writes it in the files of the set that the paper uses, and goes on as with the real one:

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
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

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
from seqjepa.evaluate.results import format_table, read_results
from seqjepa.experiments.job import Job, Say, evaluate_job, train_job
from seqjepa.files import write_file
from seqjepa.report.render.html import Page, render_run
from seqjepa.training.metrics_log import read_epochs
from seqjepa.training.run_files import METRICS
from shards.errors import DamageError, UsageError
from shards.json_fields import strict_json
from shards.preview.contact_sheet import contact_sheet
from shards.verify import verify

MARKER = "demo.json"
EVALUATION = ("m_val", "probe_epochs", "agg_draws", "train_draws", "val_draws", "seed")
"""Fields of a demo that are keyword arguments of evaluate_run."""


class Ablation(NamedTuple):
    """A second run with one setting changed. key: of its numbers in results.json. without: what it lacks, in words."""

    key: str
    setting: str
    without: str


@dataclass(frozen=True)
class Demo(ABC):
    """The fields decide a demo's numbers, beside its recipe; demo.json holds them, so that a folder holds one demo.

    Subclasses write shards to folder.path / "shards" in phases, and say what the page shows.
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
    with folder.phase("verify", "check every byte against its checksum"):
        report = verify(folder.path / "shards", progress=True)
        if not report.ok:
            raise DamageError(f"{folder.path / 'shards'}: {report.problems[0]}; remove the folder and run again")
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
