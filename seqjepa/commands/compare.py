"""`seqjepa compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shards.console import AsJson, Device, Shards, Workers, print_json


def compare_command(
    shards: Shards,
    methods: Annotated[str, typer.Option(help="all, or names with commas: seq_jepa,simclr,sie.")] = "all",
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of every method, rounded to whole passes.")] = 1200,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the runs, resumed if they are there.")] = Path(
        "runs/compare"
    ),
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="How many seeds, for mean and standard deviation.")] = 1,
    scale: Annotated[
        str,
        typer.Option(
            help="small: minutes on two cores. paper: the paper's widths, for a GPU. Or medium, or a TOML file."
        ),
    ] = "small",
    device: Device = "auto",
    workers: Workers = None,
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
) -> None:
    """Train every method on the same shards. Encoder, steps, views, seed and probes are the same; one table is printed.

    \b
    Examples:
      seqjepa demo --out demo && seqjepa compare --shards demo/shards
      seqjepa compare --shards demo/shards --methods seq_jepa,simclr,sie --steps 480 --json
      seqjepa report runs/compare --out comparison.html
    """
    from seqjepa.experiments.compare import Comparison, compare, parse_methods
    from seqjepa.experiments.compare_table import comparison_markdown, comparison_table
    from shards.errors import UsageError
    from shards.stores.store import require_no_address

    if as_json and markdown:
        raise UsageError("--json and --markdown are two forms of one table; give one of them")
    comparison = Comparison(shards, parse_methods(methods), steps, tuple(range(seed, seed + seeds)), scale)
    require_no_address(out, "--out")
    results = compare(comparison, out, device=device, workers=workers, say=lambda line: typer.echo(line, err=True))
    if as_json:
        print_json(results)
    else:
        typer.echo(comparison_markdown(results) if markdown else comparison_table(results))
