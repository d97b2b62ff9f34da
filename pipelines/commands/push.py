"""`seqjepa-data push` and `seqjepa-data pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shards.console import AsJson, ShardFolder, print_json
from shards.hub_options import DryRun, Licence, Message, NewCard, Public, Verify, show_dry_run, show_pushed


def push_set_command(
    folder: ShardFolder,
    address: Annotated[str, typer.Argument(help="hf://datasets/USER/REPO.", metavar="ADDRESS")],
    public: Public = False,
    licence: Licence = "",
    message: Message = "",
    verify: Verify = True,
    new_card: NewCard = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Push a shard set to the Hugging Face hub, where `datasets.load_dataset("USER/REPO")` opens it.

    A new repository is private unless --public makes it one that anybody can read; the licence of the images is for
    you to know. Every byte is verified before. Stopped, the same command goes on; what is there already is not sent
    again. --dry-run shows the card and the files, and asks the hub nothing.

    \b
    Examples:
      seqjepa-data push shards/3die hf://datasets/me/3die --dry-run
      seqjepa-data push shards/3die hf://datasets/me/3die --licence cc-by-nc-4.0
      seqjepa-data push shards/synth hf://datasets/me/3die-synth --public --licence mit
    """
    from shards.hub_push import PushOptions
    from shards.hub_sets import prepare_set, push_set

    options = PushOptions(public, licence, message, new_card)
    prepared = prepare_set(folder, address, options, check=verify)
    sizes = prepared.sizes()
    if dry_run:
        return show_dry_run(prepared.address, prepared.card.decode(), sizes, as_json)
    pushed, stays = push_set(prepared, options)
    return show_pushed(prepared.address, pushed, sizes, stays, as_json)


def pull_set_command(
    address: Annotated[str, typer.Argument(help="hf://datasets/USER/REPO, or @REVISION.", metavar="ADDRESS")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make; resumed if it is the same set.")],
    as_json: AsJson = False,
) -> None:
    """Load a shard set from the Hugging Face hub into a folder, every file held against its sha256.

    Stopped, the same command goes on. A folder that holds something else is left alone.

    \b
    Example:
      seqjepa-data pull hf://datasets/me/3die --out shards/3die
      seqjepa train --shards shards/3die --out runs/3die
    """
    from dataclasses import asdict

    from shards.hub_sets import pull_set

    pulled = pull_set(address, out)
    if as_json:
        return print_json(asdict(pulled))
    edited = "; its card was edited on the hub" if pulled.card_edited else ""
    return typer.echo(f"{pulled.folder}: {address} at {pulled.commit[:12]}{edited}")
