"""`seqjepa push` and `seqjepa pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shards.console import AsJson, print_json
from shards.push.hub_options import DryRun, Licence, Message, NewCard, Public, show_dry_run, show_pushed


def push_command(
    run: Annotated[Path, typer.Argument(help="Run directory.", metavar="RUN")],
    address: Annotated[str, typer.Argument(help="hf://USER/REPO.", metavar="ADDRESS")],
    public: Public = False,
    licence: Licence = "",
    message: Message = "",
    state: Annotated[
        bool, typer.Option("--state", help="Push state.pt too, from which training can go on; three times the size.")
    ] = False,
    new_card: NewCard = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Push a run to the Hugging Face hub. Settings, log, numbers, weights (safetensors), and a card made from them.

    A new repository is private unless --public makes it one that anybody can read. What is there already is not sent
    again. --dry-run shows the card and the files, and asks the hub nothing.

    \b
    Examples:
      seqjepa push runs/3die-rot-M3 hf://me/3die-rot-M3 --dry-run
      seqjepa push runs/3die-rot-M3 hf://me/3die-rot-M3 --licence cc-by-nc-4.0
      seqjepa push runs/3die-rot-M3 hf://me/3die-rot-M3 --public --message "300 epochs"
    """
    from shards.push.hub_push import PushOptions, push_target, require_login

    where = push_target(address, "model", run)
    if not dry_run:
        require_login(where)
    from seqjepa.push import prepare_run, push_run  # torch: after what can be refused at once

    options = PushOptions(public, licence, message, new_card)
    prepared = prepare_run(run, address, options, state=state)
    if dry_run:
        return show_dry_run(prepared.address, prepared.card, prepared.sizes, as_json)
    return show_pushed(prepared, *push_run(prepared, options), as_json)


def pull_command(
    address: Annotated[
        str, typer.Argument(help="hf://USER/REPO, or …@REVISION: a branch, tag or commit.", metavar="ADDRESS")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run directory to make. Default: the repository's name.")
    ] = None,
    state: Annotated[
        bool, typer.Option("--state", help="Pull state.pt too, from which training can go on, if it was pushed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Download a run from the Hugging Face hub. Every file is checked against its SHA256SUMS.

    Only a run's own files are loaded; weights are safetensors. Interrupted, the same command goes on where it was.
    Nothing that is in --out already is replaced.

    \b
    Examples:
      seqjepa pull hf://me/3die-rot-M3 --out runs/3die-rot-M3
      seqjepa pull hf://me/3die-rot-M3@v1 --state
    """
    from dataclasses import asdict

    from seqjepa.hub import pull_run

    pulled = pull_run(address, out, state=state)
    if as_json:
        return print_json(asdict(pulled))
    left = f"; left there: {', '.join(pulled.left_out)}" if pulled.left_out else ""
    return typer.echo(f"{pulled.run}: {address} at {pulled.commit[:12]}{left}")
