"""`seqjepa import-seq-jepa`, `seqjepa import-context-ssl`: runs from weights that authors released."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from shards.console import AsJson, Overwrite, print_json

RunOut = Annotated[Path, typer.Option("--out", "-o", help="Run directory to make.")]


def import_seq_jepa_command(
    file: Annotated[Path, typer.Argument(help="A checkpoint of hafezgh/seq-jepa (.pth).", metavar="CKPT")],
    out: RunOut,
    recipe: Annotated[
        str, typer.Option(help="Recipe of the run. Default: recognised by the shapes of the weights.")
    ] = "",
    shards: Annotated[
        Path | None, typer.Option(help="Shards that the run is to be fed with. Default: as the recipe's data set.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of the recipe. Repeatable."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make a run of a checkpoint of seq-JEPA's authors. It is evaluated and used like any other.

    Weights alone are read, with weights_only=True: optimizer states and probes in the file are left out.

    \b
    Examples:
      seqjepa import-seq-jepa seqjepa-3die-rot.pth --out runs/rot-authors
      seqjepa evaluate runs/rot-authors --shards shards/3die
      seqjepa import-seq-jepa ckpt_epoch_2000.pth --out runs/pls-authors --recipe stl-pls-M4 --shards shards/stl10
    """
    from seqjepa.released.seq_jepa import import_weights

    imported = import_weights(
        file, out, recipe=recipe, settings=tuple(settings or ()), shards=shards, overwrite=overwrite
    )
    if as_json:
        print_json(asdict(imported))
    else:
        left = f"; left out: {', '.join(imported.unused)}" if imported.unused else ""
        epochs = f"{imported.epochs} epochs" + ("" if imported.epochs_known else " (the recipe's; the file says none)")
        told = f"{imported.parameters:,} parameters, {epochs}, settings of {imported.recipe}"
        typer.echo(f"{imported.run}: {told}{left}")


def import_context_ssl_command(
    file: Annotated[Path, typer.Argument(help="The released simclr_resnet18_epoch1000.pt.", metavar="FILE")],
    out: RunOut,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make a run of the weights of ContextSSL's authors. It is evaluated like any other.

    \b
    Examples:
      seqjepa import-context-ssl simclr_resnet18_epoch1000.pt --out runs/context-ssl-authors
      seqjepa evaluate runs/context-ssl-authors --shards shards/3die --contexts 0,2,6,14,30,126
    """
    from seqjepa.released.context_ssl import import_weights

    imported = import_weights(file, out, overwrite=overwrite)
    if as_json:
        print_json(asdict(imported))
    else:
        left = f"; left out, as nothing uses them: {', '.join(imported.unused)}" if imported.unused else ""
        typer.echo(f"{imported.run}: {imported.parameters:,} parameters{left}")
