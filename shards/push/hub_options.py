"""Options and lines that the commands for the Hugging Face hub share. Imports typer only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from shards.console import print_json

if TYPE_CHECKING:
    from shards.push.hub_push import Push, Pushed
    from shards.stores.hub import HubAddress

Public = Annotated[bool, typer.Option("--public/--private", help="Whether a new repository is public.")]
Licence = Annotated[
    str, typer.Option("--licence", "--license", help="Licence on the card: mit, cc-by-4.0, cc-by-nc-4.0, other …")
]
Message = Annotated[str, typer.Option(help="Message of the commit.")]
Verify = Annotated[bool, typer.Option("--verify/--no-verify", help="Read every byte before.")]
NewCard = Annotated[bool, typer.Option("--new-card", help="Replace a README.md that was edited on the hub.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the card and the files; push nothing.")]


def show_dry_run(address: HubAddress | str, card: str, sizes: Mapping[str, int], as_json: bool) -> None:
    """card: "" where none is pushed."""
    from shards.describe import human_bytes

    if as_json:
        shown = {"card": card} if card else {}
        return print_json({"address": str(address), "dry_run": True, "files": dict(sizes), **shown})
    lines = [*filter(None, [card]), *(f"{human_bytes(size):>10}  {name}" for name, size in sizes.items())]
    lines.append(f"{human_bytes(sum(sizes.values())):>10}  in {len(sizes)} files would go to {address}")
    return typer.echo("\n".join(lines))


def show_pushed(prepared: Push, pushed: Pushed, stays: bool, as_json: bool) -> None:
    from dataclasses import asdict

    from shards.describe import human_bytes

    if as_json:
        return print_json({"address": str(prepared.address), **asdict(pushed), "card_stays": stays})
    sizes = prepared.sizes
    size = human_bytes(sum(sizes[name] for name in pushed.sent))
    who = "private" if pushed.private else "public"
    typer.echo(
        f"{pushed.url} ({who}), commit {pushed.commit[:12]}: {len(pushed.sent)} files sent, {size}; "
        f"{pushed.unchanged} were there" + (f"; removed {', '.join(pushed.removed)}" if pushed.removed else "")
    )
    if stays:
        typer.echo("its README.md was edited on the hub and stays; --new-card replaces it")
    return None
