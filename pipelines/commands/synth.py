"""`seqjepa-data synth …`: data sets that need no download."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipelines.commands import with_options
from shards.console import Device, Option, Out, Overwrite, new_app, option

synth_app = new_app(
    "Write a procedural data set: no download, no licence.", "seqjepa-data synth 3die --out shards/synth --shards"
)


OBJECTS: dict[str, Option] = {
    "objects": option(int, "How many objects; families take turns.", 384),
    "preset": option(str, "plain: 32 kinds, easy. hard: 55 kinds, some near-symmetric, on patterned floors.", "plain"),
    "views": option(int, "Views of an object.", 16),
    "size": option(int, "Side in pixels.", 64),
    "seed": (Annotated[int, typer.Option(min=0, help="Seed of every object and view.")], 0),
    "ood": option(bool, "Validation objects only, with every angle 90 to 180 degrees either way.", False, "--ood"),
    "families": option(int | None, "Only the first so many object families. Default: all."),
    "val_fraction": option(float, "Share of objects in the validation split.", 0.2, min=0.0, max=1.0),
    "shards": option(bool, "Write shards instead of 3DIEBench's own folders.", False, "--shards"),
    "device": (Device, "cpu"),
    "overwrite": (Overwrite, False),
}


@synth_app.command("3die")
@with_options(OBJECTS)
def synth_3die_command(out: Out, **given: Any) -> None:
    """3DIE-Synth: rendered objects, as 3DIEBench has them. With its latents, in its own layout on disk.

    \b
    Examples:
      seqjepa-data synth 3die --out synth/ --objects 384 --views 16 --size 64 --seed 0
      seqjepa-data synth 3die --out synth-ood/ --objects 384 --views 16 --size 64 --seed 0 --ood
      seqjepa-data synth 3die --out shards/hard --preset hard --objects 2750 --views 16 --size 48 --shards
      seqjepa-data synth 3die --out shards/synth --objects 4000 --views 50 --size 128 --shards --device cuda
    """
    from pipelines.synth import SynthConfig, synth_shards, synth_tree
    from pipelines.synth.objects import plan_objects

    write, overwrite = synth_shards if given.pop("shards") else synth_tree, given.pop("overwrite")
    config = SynthConfig(**given)
    write(config, out, overwrite=overwrite)
    typer.echo(f"{out}: {len(plan_objects(config))} objects, {config.views} views each at {config.size}×{config.size}")


@synth_app.command("stl10")
def synth_stl10_command(
    out: Out,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every picture.")] = 0,
    train: Annotated[int, typer.Option(help="Labelled training pictures.")] = 1000,
    test: Annotated[int, typer.Option(help="Labelled test pictures.")] = 500,
    unlabeled: Annotated[int, typer.Option(help="Training pictures without labels.")] = 4000,
    overwrite: Overwrite = False,
) -> None:
    """Glances-Synth: pictures that need looking around. In STL-10's own binary files.

    \b
    Examples:
      seqjepa-data synth stl10 --out glances/ --seed 0
      seqjepa-data synth stl10 --out glances/ --train 5000 --test 2000 --unlabeled 0

    Each picture shows stickers of two kinds on clutter; the pair is its class.
    """
    from pipelines.synth.glances.write import GlancesConfig, synth_stl10

    synth_stl10(GlancesConfig(seed, train, test, unlabeled), out, overwrite=overwrite)
    typer.echo(f"{out}: {train} training, {test} test and {unlabeled} unlabelled pictures, 96×96")


@synth_app.command("cifar100")
def synth_cifar100_command(
    out: Out,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every picture.")] = 0,
    train: Annotated[int, typer.Option(help="Training pictures.")] = 5000,
    test: Annotated[int, typer.Option(help="Test pictures.")] = 1000,
    classes: Annotated[int, typer.Option(help="Only the first so many of the 100 fine classes.")] = 100,
    overwrite: Overwrite = False,
) -> None:
    """Patterns-Synth: shapes filled with patterns. In CIFAR-100's own files, for augmented views.

    \b
    Examples:
      seqjepa-data synth cifar100 --out patterns/ --seed 0
      seqjepa-data synth cifar100 --out patterns/ --train 4000 --test 1000 --classes 10

    A class is a shape with a pattern.
    """
    from pipelines.synth.patterns.write import PatternsConfig, synth_cifar100

    synth_cifar100(PatternsConfig(seed, train, test, classes), out, overwrite=overwrite)
    typer.echo(f"{out}: {train} training and {test} test pictures of {classes} classes, 32×32")
