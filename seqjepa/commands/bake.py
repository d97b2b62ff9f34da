"""`seqjepa-data bake`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shards.console import AsJson, Device, Out, Overwrite, ShardFolder, Workers, show_contents


def bake_command(
    shards: ShardFolder,
    out: Out,
    sequences: Annotated[int, typer.Option(min=1, help="E: sequences of each image, one for each epoch.")],
    views: Annotated[int, typer.Option(min=1, help="T: patches of a sequence; the last is the target.")] = 5,
    patch: Annotated[int, typer.Option(min=1, help="Pixels a side of a patch.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="The run's: baked and made on the fly are then the same.")] = 0,
    inhibition: Annotated[str, typer.Option(help="Of return: disc, square or none.")] = "disc",
    fixations: Annotated[str, typer.Option(help="Drawn from: saliency or uniform.")] = "saliency",
    fill: Annotated[str, typer.Option(help="Outside the image: black or mean.")] = "black",
    fidelity: Annotated[str, typer.Option(help="paper, or author: as the released code cuts patches.")] = "paper",
    encoding: Annotated[str, typer.Option(help="raw: bit-equal. jpeg: smaller.")] = "raw",
    split: Annotated[list[str] | None, typer.Option(help="Repeatable. Default: all splits.")] = None,
    device: Device = "cpu",
    workers: Workers = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Cut patches at fixations once and write them as views, for any code base that reads webdataset.

    \b
    Examples:
      seqjepa-data bake shards/stl10 --out shards/stl10-baked --sequences 20 --views 5 --patch 32 --seed 42
      seqjepa-data bake shards/stl10 --out shards/stl10-uniform --sequences 20 --fixations uniform --split unlabeled
    """
    from seqjepa.bake import Baking, bake
    from seqjepa.data.fixations import Fixating
    from seqjepa.devices import pick_device
    from shards.errors import ConfigError

    if encoding not in ("raw", "jpeg"):
        raise ConfigError(f"encoding is {encoding!r}; allowed are raw, jpeg")
    how = Fixating(patch, inhibition, fixations, fill, fidelity)  # pyright: ignore[reportArgumentType] it checks them
    baking = Baking(sequences, views, how, seed, encoding)
    bake(shards, out, baking, splits=split or (), device=pick_device(device), workers=workers, overwrite=overwrite)
    show_contents(Path(out), as_json)
