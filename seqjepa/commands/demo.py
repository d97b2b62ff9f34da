"""`seqjepa demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shards.console import AsJson, Workers, print_json


def demo_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the demo.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0)] = 0,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """The whole path in minutes: synthesise, shard, verify, train, evaluate against untrained, report.

    Example:  seqjepa demo && xdg-open demo/report.html
    """
    from seqjepa.demos.objects import run_demo

    results = run_demo(out, seed=seed, workers=workers, say=None if as_json else typer.echo)
    if as_json:
        print_json(results)
