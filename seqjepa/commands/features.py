"""`seqjepa-data features`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from shards.console import Address, AsJson, Device, Engine, Out, Overwrite, ShardFolder, show_contents


def features_command(
    shards: ShardFolder,
    out: Out,
    backbone: Annotated[
        str | None, typer.Option(help='As model.backbone: "timm:vit_small_patch16_224", resnet18 …')
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Instead of --backbone: a run, whose trained encoder is taken.")
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help='Weights: a file, or "timm", which downloads them. Default: random.')
    ] = None,
    pool: Annotated[str | None, typer.Option(help="Of timm's encoders: avg, token … Default: timm's own.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another setting: data.normalisation=encoder …. Repeatable."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="float16, or float32: twice as large, no rounding.")] = "float16",
    seed: Annotated[int, typer.Option(min=0, help="Seed of random weights.")] = 42,
    split: Annotated[list[str] | None, typer.Option(help="Split to take. Repeatable. Default: all.")] = None,
    device: Device = "auto",
    engine: Engine = "local",
    address: Address = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Run a frozen encoder over every view once. Training and evaluation then read its features.

    Several commands at once, on machines that share a disk, share the work.

    \b
    Examples:
      seqjepa-data features shards/3die --out shards/dino --backbone timm:vit_small_patch14_dinov2 --pretrained timm
      seqjepa-data features shards/3die --out shards/vit --backbone timm:vit_tiny_patch16_224 --seed 1
      seqjepa-data features shards/3die --out shards/3die-features --run runs/rot-M3 --dtype float32
      seqjepa-data features shards/3die --out shards/3die-features --run runs/rot-M3 --engine ray --address auto
      seqjepa train --shards shards/3die-features --set data.context=16
    """
    from seqjepa.devices import stage_device
    from seqjepa.embedding.feature_sets import encoder_of_config, encoder_of_run, make_features, require_views
    from seqjepa.recipes import load_recipe
    from shards.engines.ray_engine import engine_of
    from shards.errors import ConfigError
    from shards.reader import ShardSet
    from shards.vectors import DTYPES

    if dtype not in DTYPES:
        raise ConfigError(f"--dtype is {dtype!r}; allowed are {', '.join(DTYPES)}")
    if (backbone is None) == (run is None):
        raise ConfigError("give the encoder: either --backbone NAME, or --run RUN")
    given = [name for name, value in (("pretrained", pretrained), ("pool", pool), ("set", set_)) if value]
    if run and given:
        raise ConfigError(f"--{given[0]} is for --backbone; a run's encoder stays as it was trained: leave it out")
    source = ShardSet.open(shards)
    require_views(source)
    if run:
        encoder = encoder_of_run(run, source)
    else:
        settings = {"model.backbone": backbone, "model.pretrained": pretrained, "model.pool": pool}
        own = [f"{key}={json.dumps(value)}" for key, value in settings.items() if value]
        encoder = encoder_of_config(load_recipe("", [f"seed={seed}", *own, *(set_ or [])]), source)
    with engine_of(engine, address):
        make_features(
            source,
            out,
            encoder,
            dtype=dtype,  # pyright: ignore[reportArgumentType]
            splits=split or (),
            device=stage_device(device),
            overwrite=overwrite,
        )
    show_contents(Path(out), as_json)
