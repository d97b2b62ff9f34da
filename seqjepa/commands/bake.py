"""`seqjepa-data bake`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shards.console import Address, AsJson, Device, Engine, Out, Overwrite, ShardFolder, Workers, show_contents

if TYPE_CHECKING:
    from seqjepa.data.augment.recipes import Recipe
    from seqjepa.data.bake import OfStored
    from seqjepa.data.fixations import Fixating


def bake_command(
    shards: ShardFolder,
    out: Out,
    sequences: Annotated[int, typer.Option(min=1, help="E: sequences made of each image, one for each epoch.")],
    views: Annotated[int, typer.Option(min=1, help="T: views of a sequence; the last is the target.")] = 5,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed; with the seed of a run the same sequences as in that run.")
    ] = 0,
    augment: Annotated[
        str | None,
        typer.Option(help="Augmented views (equimod, simclr, colour, crop, none) instead of patches at fixations."),
    ] = None,
    patch: Annotated[int | None, typer.Option(min=1, help="Side of a patch in pixels. Default: 32.")] = None,
    inhibition: Annotated[
        str | None, typer.Option(help="Inhibition of return: disc, square or none. Default: by fidelity.")
    ] = None,
    fixations: Annotated[
        str | None, typer.Option(help="Fixations are drawn from: saliency (default) or uniform.")
    ] = None,
    fill: Annotated[str | None, typer.Option(help="Colour outside the image: black (default) or mean.")] = None,
    fidelity: Annotated[
        str | None, typer.Option(help="paper (default: disc), or author: as the released code cuts patches (square).")
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(help="Sets of views: random, or window. Default: window if the set is ordered, else random."),
    ] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Sets of views: steps to the next view. Default: 1.")
    ] = None,
    encoding: Annotated[
        str, typer.Option(help="raw: exact pixels. jpeg: smaller. Stored views keep their encoding.")
    ] = "raw",
    split: Annotated[list[str] | None, typer.Option(help="Split to take. Repeatable. Default: all.")] = None,
    device: Device = "cpu",
    workers: Workers = None,
    engine: Engine = "local",
    address: Address = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write sequences of views as tars, for any code base. Patches at fixations, augmented images, or windows.

    Several commands at once, on machines that share a disk, share the work.

    \b
    Examples:
      seqjepa-data bake shards/stl10 --out shards/stl10-baked --sequences 20 --views 5 --patch 32 --seed 42
      seqjepa-data bake shards/stl10 --out shards/stl10-uniform --sequences 20 --fixations uniform --split unlabeled
      seqjepa-data bake shards/cifar100 --out shards/cifar100-baked --sequences 20 --views 4 --augment equimod --seed 42
      seqjepa-data bake shards/walks --out shards/walks-baked --sequences 10 --views 4 --stride 4
    """
    from seqjepa.data.bake import Baking, bake
    from seqjepa.devices import stage_device
    from shards.engines.ray_engine import engine_of

    names = {"patch": patch, "inhibition": inhibition, "fixations": fixations, "fill": fill, "fidelity": fidelity}
    stored = {name: value for name, value in {"order": order, "stride": stride}.items() if value is not None}
    how = _how(shards, augment, {name: value for name, value in names.items() if value is not None}, stored)
    baking = Baking(sequences, views, how, seed, encoding)  # pyright: ignore[reportArgumentType] it checks them
    with engine_of(engine, address):
        bake(shards, out, baking, splits=split or (), device=stage_device(device), workers=workers, overwrite=overwrite)
    show_contents(Path(out), as_json)


def _how(
    shards: Path, augment: str | None, patches: dict[str, Any], stored: dict[str, Any]
) -> Fixating | Recipe | OfStored:
    """patches, stored: the options that were given about patches, and about stored views. ConfigError: they are about
    another kind of set, or about patches beside --augment."""
    from seqjepa.data.augment.recipes import build_recipe
    from seqjepa.data.bake import OfStored
    from seqjepa.data.fixations import fixating_as
    from shards.errors import ConfigError
    from shards.reader import ShardSet

    opened = ShardSet.open(shards)
    kind = opened.info.kind
    wrong = [*(["augment"] if augment else []), *patches] if kind == "views" else list(stored)
    if wrong:
        given = ", ".join(f"--{name}" for name in wrong)
        other = "images" if kind == "views" else "sets of views"
        raise ConfigError(f"{given} is for {other}, and {opened.place} holds {kind} shards; leave it out")
    if kind == "views":
        return OfStored(**stored)
    if augment is None:
        return fixating_as(**{"fidelity": "paper", **patches})
    if patches:
        given = ", ".join(f"--{name}" for name in patches)
        raise ConfigError(f"{given} is for patches, --augment {augment} for whole images; leave out one")
    return build_recipe(augment)
