"""`seqjepa-data get`: public data sets from their publishers, when asked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from shards.console import AsJson, print_json


def get_command(
    name: Annotated[str, typer.Argument(help="stl10, cifar100, tiny-imagenet or 3diebench.", metavar="SET")],
    to: Annotated[Path, typer.Option(help="Folder for the files; made if missing.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    unpack: Annotated[
        bool, typer.Option("--unpack", help="stl10: also unpack the five files that shards are made of.")
    ] = False,
    lists_only: Annotated[bool, typer.Option("--lists-only", help="3diebench: only the split lists, 2 MB.")] = False,
    mirror: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="A mirror's folder: URL/NAME instead of the publisher.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Download a public data set. Says what, from where, how much and under which licence, and asks first.

    \b
    Examples:
      seqjepa-data get cifar100 --to data/
      seqjepa-data get stl10 --to data/ --unpack --yes
      seqjepa-data get 3diebench --to data/3die --lists-only

    Interrupted, the same command goes on where it was. Sizes and checksums are checked.
    """
    from pipelines.get.fetch_set import Request, fetch_set, space_needed
    from pipelines.get.published import published_set

    request = Request(published_set(name), to, unpack=unpack, lists_only=lists_only, mirror=mirror)
    for line in request.describe():
        _say(line)
    if space_needed(request) and not yes:
        _ask()
    files = fetch_set(request, _say)
    if as_json:
        print_json({"set": name, "files": [str(file) for file in files], "next": request.next_commands()})
    else:
        typer.echo("\n".join(["next:", *(f"  {command}" for command in request.next_commands())]))


def _say(line: str) -> None:
    """On standard error, above a bar that may be there."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)


def _ask() -> None:
    """Typer's Exit unless the answer is yes. UsageError where there is nobody to ask."""
    from shards.errors import UsageError

    if not _at_a_terminal():
        raise UsageError("nothing is downloaded unasked, and this is no terminal to ask at; add --yes")
    if not typer.confirm("Download?", err=True):
        _say("nothing was downloaded")
        raise typer.Exit(1)


def _at_a_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()
