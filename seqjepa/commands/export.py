"""`seqjepa export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shards.console import AsJson, Overwrite, print_json

if TYPE_CHECKING:
    from seqjepa.export.run import Exported


def export_command(
    run: Annotated[
        str, typer.Argument(help="Run directory, hf://USER/REPO, or an address as s3://bucket/run.", metavar="RUN")
    ],
    to: Annotated[
        str,
        typer.Option(
            help="pt2: a graph of torch.export. onnx: for any runtime. safetensors: torchvision's state dict."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    part: Annotated[
        str,
        typer.Option(
            help="encoder: images to z. aggregate: z, actions to z_AGG. project: z to y. predict: z_AGG or y, and an "
            "action, to what comes next."
        ),
    ] = "encoder",
    weights: Annotated[
        str, typer.Option(help="Weights of the encoder: online, or target, their moving average.")
    ] = "online",
    batch: Annotated[str, typer.Option(help="Batch size: dynamic, or a fixed number.")] = "dynamic",
    context: Annotated[str, typer.Option(help="Views that aggregate takes: dynamic, or a fixed number.")] = "dynamic",
    opset: Annotated[int | None, typer.Option(help="Opset of ONNX. Default: 18.")] = None,
    normalise: Annotated[
        bool | None,
        typer.Option(
            "--normalise/--no-normalise",
            help="Take images in 0 to 1 and normalise inside, as the run does (default), or take normalised images.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a network of a run for use without seqjepa. Encoder, aggregator, projector or predictor.

    The file is loaded again and compared with the run on random inputs before it gets its name; exit code 1 if it is
    not the run's equal. It holds the run's method, sizes, normalisation and actions as metadata.

    \b
    Examples:
      seqjepa export runs/3die-rot-M3 --to pt2 -o encoder.pt2
      seqjepa export runs/3die-rot-M3 --to onnx -o encoder.onnx --batch 1
      seqjepa export runs/3die-rot-M3 --to onnx --part aggregate -o aggregate.onnx
      seqjepa export runs/3die-rot-M3 --to onnx --part predict -o predict.onnx
      seqjepa export runs/3die-rot-M3 --to safetensors -o encoder.safetensors
    """
    from dataclasses import asdict

    from seqjepa.export.run import ExportOptions, export_run
    from shards.stores.store import require_no_address

    sizes = _size("--batch", batch), _size("--context", context)
    options = ExportOptions(to, part, weights, *sizes, opset, normalise)  # pyright: ignore[reportArgumentType] it checks them
    require_no_address(out, "--out")
    exported = export_run(run, out, options, overwrite=overwrite)
    if as_json:
        print_json(asdict(exported))
    else:
        typer.echo(_summary(exported))


def _size(option: str, text: str) -> int | None:
    """None: any. UsageError: neither "dynamic" nor a number from 1."""
    from shards.errors import UsageError

    if text == "dynamic":
        return None
    if not (text.isdecimal() and 1 <= int(text) <= 2**20):
        raise UsageError(f"{option} is {text!r:.40}; give dynamic or a number from 1")
    return int(text)


def _summary(exported: Exported) -> str:
    from shards.describe import human_bytes

    def said(shapes: dict[str, list[int | str]]) -> str:
        return ", ".join(f"{name} [{', '.join(map(str, shape))}]" for name, shape in shapes.items())

    graph = f"{said(exported.inputs)} → {said(exported.outputs)}"
    size = f"{exported.parameters:,} parameters, {human_bytes(exported.bytes)}"
    return f"{exported.file}: {graph}; {size}; largest difference from the run {exported.difference:.1e}"
