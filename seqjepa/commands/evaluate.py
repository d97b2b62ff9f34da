"""`seqjepa evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shards.console import AsJson, Device, Shards, print_json


def evaluate_command(
    run: Annotated[Path, typer.Argument(help="Run directory.", metavar="RUN")],
    shards: Shards,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="The same model at its initial weights, as the floor.")
    ] = False,
    probe_epochs: Annotated[
        int | None, typer.Option(min=1, help="Default: the paper's 300, and 50 for linear regressors.")
    ] = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the probes and of their draws.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train probes on frozen features: top-1, R² of rotation and hue. Written to RUN/results.json.

    \b
    Examples:
      seqjepa evaluate runs/3die-rot-M3 --shards shards/3die
      seqjepa evaluate runs/3die-rot-M3 --shards shards/3die --untrained --json
    """
    from seqjepa.evaluate.results import format_table, read_results
    from seqjepa.evaluate.suite import evaluate_run

    results = evaluate_run(
        run, shards, untrained=untrained, device=device, probe_epochs=probe_epochs, seed=seed, out=run
    )
    if as_json:
        print_json(results)
    else:
        typer.echo(format_table(read_results(run)))
