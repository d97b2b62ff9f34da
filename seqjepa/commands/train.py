"""`seqjepa train`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shards.console import AsJson, Device, Overwrite, Shards, Workers, print_json
from shards.errors import counted

if TYPE_CHECKING:
    from seqjepa.config import RunConfig

logger = logging.getLogger(__name__)


def train_command(
    shards: Shards,
    recipe: Annotated[
        str | None,
        typer.Option(help="A name from `seqjepa recipes ls`, or a path to a TOML file. Default: what fits the shards."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Run directory, or an address, as s3://bucket/run. Default: runs/RECIPE."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting. Repeatable.")
    ] = None,
    fidelity: Annotated[
        str | None, typer.Option(help="paper, or author: as the released code behaves. Default: the recipe's.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of weights, order and draws. Default: the recipe's.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the data. Default: the recipe's.")] = None,
    extend_epochs: Annotated[
        int | None, typer.Option(min=1, help="Train a finished run on to this many epochs; replans the schedule.")
    ] = None,
    logger: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Log to tensorboard, wandb, trackio, mlflow or csv as well. Repeatable."),
    ] = None,
    device: Device = "auto",
    workers: Workers = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train a method from shards. Interrupted, the same command goes on where it was.

    \b
    Examples:
      seqjepa train --shards shards/3die
      seqjepa train --shards shards/3die --recipe 3die-rot-M3
      seqjepa train --shards shards/3die --recipe 3die-rot-M3 --out runs/b256 --set optim.batch_size=256
      seqjepa train --shards shards/3die --logger tensorboard --set train.monitor_epochs=5
      seqjepa train --shards s3://bucket/3die --recipe 3die-rot-M3 --out s3://bucket/runs/rot-M3
      torchrun --nproc-per-node 4 --no-python seqjepa train --shards shards/3die --recipe 3die-rot-M3
    """
    from seqjepa.recipes import load_recipe
    from seqjepa.training.distributed import World
    from seqjepa.training.progress import say_beside_bars
    from seqjepa.training.recipe_choice import choose_recipe
    from seqjepa.training.train import train

    _refuse_inside(out, shards)
    everyday = {"fidelity": fidelity, "seed": seed, "optim.epochs": epochs, "train.loggers": logger}
    everyday = {key: value for key, value in everyday.items() if value is not None}
    _refuse_contradictions(everyday, set_ or [])
    settings = [f"{key}={json.dumps(value)}" for key, value in everyday.items()]
    chosen: list[str] = []
    if recipe is None:
        choice = choose_recipe(shards, set_ or []).without(set_ or [])
        recipe, chosen = choice.recipe, list(choice.settings)
        if World.from_environment().main:
            typer.echo(str(choice), err=True)
    config = load_recipe(recipe, [*chosen, *settings, *(set_ or [])])
    if World.from_environment().main:
        _say_idle(set_ or [], config)
    run = out or Path("runs") / config.name
    say = None if as_json else say_beside_bars
    summary = train(
        config, shards, run, device=device, workers=workers, extend_epochs=extend_epochs, overwrite=overwrite, say=say
    )
    if not World.from_environment().main:
        return  # of several ranks one speaks
    if as_json:
        print_json(summary)
    else:
        typer.echo(f"{summary['run']}: trained {counted(summary['epochs'], 'epoch')}, last loss {summary['loss']:.4f}")


def _refuse_contradictions(everyday: Mapping[str, object], set_: Sequence[str]) -> None:
    """UsageError where an option says one thing of a setting (everyday: by its key) and --set another."""
    from seqjepa.recipes import toml_value
    from shards.errors import UsageError

    for text in set_:
        key, _, value = text.partition("=")
        said = everyday.get(key.strip())
        if said is not None and toml_value(value.strip()) != said:
            option = f"--{key.strip().rpartition('.')[2].replace('loggers', 'logger')}"
            raise UsageError(f"{option} says {json.dumps(said)}, and --set says {text}; give one of them")


def _say_idle(set_: Sequence[str], config: RunConfig) -> None:
    """A warning of what --set says in vain."""
    from seqjepa.methods import is_idle

    keys = dict.fromkeys(text.partition("=")[0].strip() for text in set_)
    if idle := [key for key in keys if is_idle(key, config)]:
        of = f"method {config.method}, data.patch = {config.data.patch}, optim.schedule = {config.optim.schedule}"
        logger.warning("--set %s: nothing in such a run looks at that (%s)", ", ".join(idle), of)


def _refuse_inside(out: Path | None, shards: Path) -> None:
    """UsageError: a run within a set, which other readers would take for a part of it."""
    from shards.errors import UsageError
    from shards.stores.store import as_address

    if out is None or as_address(out) or as_address(shards):
        return
    if out.resolve().is_relative_to(shards.resolve()) and out.resolve() != shards.resolve():
        raise UsageError(f"--out {out} lies within the shard set {shards}; choose another --out, as runs/{out.name}")
