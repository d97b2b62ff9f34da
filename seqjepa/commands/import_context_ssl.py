"""`seqjepa import-context-ssl`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shards.console import AsJson, Overwrite, print_json


def import_context_ssl_command(
    file: Annotated[Path, typer.Argument(help="The released simclr_resnet18_epoch1000.pt.", metavar="FILE")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run directory to make.")],
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make a run directory from the weights that ContextSSL's authors released, to evaluate it like any other.

    \b
    Example:
      seqjepa import-context-ssl simclr_resnet18_epoch1000.pt --out runs/context-ssl-authors
      seqjepa evaluate runs/context-ssl-authors --shards shards/3die --contexts 0,2,6,14,30,126
    """
    from dataclasses import asdict

    from seqjepa.methods.context_ssl.import_weights import import_weights

    imported = import_weights(file, out, overwrite=overwrite)
    if as_json:
        print_json(asdict(imported))
    else:
        left = f"; left out, as nothing uses them: {', '.join(imported.unused)}" if imported.unused else ""
        typer.echo(f"{imported.run}: {imported.parameters:,} parameters{left}")
