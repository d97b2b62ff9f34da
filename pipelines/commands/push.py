"""`seqjepa-data push` and `seqjepa-data pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shards.console import AsJson, ShardFolder, print_json
from shards.push.hub_options import DryRun, Licence, Message, NewCard, Public, Verify, show_dry_run, show_pushed


def push_set_command(
    folder: ShardFolder,
    address: Annotated[str, typer.Argument(help="hf://datasets/USER/REPO, or s3://, gs://, az://.", metavar="ADDRESS")],
    public: Public = False,
    licence: Licence = "",
    message: Message = "",
    verify: Verify = True,
    new_card: NewCard = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Push a shard set to the Hugging Face hub or a bucket. On the hub `datasets.load_dataset("USER/REPO")` opens it.

    A new repository is private unless --public makes it one that anybody can read; the licence of the images is for
    you to know. Every byte is verified before. Interrupted, the same command goes on where it was; what is there
    already is not sent again. --dry-run shows the card and the files, and asks the hub nothing. In a bucket nothing
    is ever overwritten.

    \b
    Examples:
      seqjepa-data push shards/3die hf://datasets/me/3die --dry-run
      seqjepa-data push shards/3die hf://datasets/me/3die --licence cc-by-nc-4.0
      seqjepa-data push shards/synth hf://datasets/me/3die-synth --public --licence mit
      seqjepa-data push shards/3die s3://bucket/shards/3die
    """
    if not address.startswith("hf:"):
        return _push_to_store(folder, address, verify, dry_run, as_json)
    from shards.push.hub_push import PushOptions, push_target, require_login
    from shards.push.hub_sets import prepare_set, push_set

    where = push_target(address, "dataset", folder)
    if not dry_run:
        require_login(where)
    options = PushOptions(public, licence, message, new_card)
    prepared = prepare_set(folder, address, options, check=verify)
    if dry_run:
        return show_dry_run(prepared.address, prepared.card, prepared.sizes, as_json)
    return show_pushed(prepared, *push_set(prepared, options), as_json)


def _push_to_store(folder: Path, address: str, check: bool, dry_run: bool, as_json: bool) -> None:
    from dataclasses import asdict

    from shards.describe import human_bytes
    from shards.push.store_push import files_of, push_to_store

    if dry_run:
        sizes = {name: path.stat().st_size for name, path in files_of(folder).items()}
        return show_dry_run(address, "", sizes, as_json)
    pushed = push_to_store(folder, address, check=check, progress=not as_json)
    if as_json:
        return print_json(asdict(pushed))
    return typer.echo(
        f"{pushed.address}: {len(pushed.sent)} files sent, {pushed.unchanged} were there; {human_bytes(pushed.bytes)}"
    )


def pull_set_command(
    address: Annotated[
        str, typer.Argument(help="hf://datasets/USER/REPO, or …@REVISION: a branch, tag or commit.", metavar="ADDRESS")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make; resumed if it is the same set.")],
    split: Annotated[list[str] | None, typer.Option(help="Split to download. Repeatable. Default: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Download a shard set from the Hugging Face hub. Every file is checked against its sha256.

    Interrupted, the same command goes on where it was. A folder that holds something else is left alone. With --split,
    shards of other splits are not loaded, and the folder is a set of those that are.

    \b
    Examples:
      seqjepa-data pull hf://datasets/me/3die --out shards/3die
      seqjepa-data pull hf://datasets/me/3die --split val --out shards/3die-val
      seqjepa train --shards shards/3die --out runs/3die
    """
    from dataclasses import asdict

    from shards.push.hub_sets import pull_set

    pulled = pull_set(address, out, split or ())
    if as_json:
        return print_json(asdict(pulled))
    edited = "; its card was edited on the hub" if pulled.card_edited else ""
    return typer.echo(f"{pulled.folder}: {address} at {pulled.commit[:12]}{edited}")
