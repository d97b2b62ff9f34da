"""Graphs of a network in a file: .pt2 of torch.export, .onnx; written to bytes, and run again from a file.

Neither needs seqjepa to run. Both keep the weights in the file, and what is known of the run as text.
"""

from __future__ import annotations

import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from seqjepa.export.parts import BATCH, MOVES, VIEWS, RunPart
from shards.errors import FailureError, UsageError, reason_of
from shards.extras import missing

Run = Callable[[Mapping[str, Tensor]], Tensor]
"""Inputs by name → the output, of an exported file."""

EXTRA = "seqjepa.json"
"""The member of a .pt2 that holds what is known of the run, as JSON."""
MAKER = "seqjepa export"
OLDEST_OPSET = 18  # what torch's exporter is written in; older ones fail for what came in it
MOST_ONNX_BYTES = 2**31 - 1  # of one protobuf message


def trace(part: RunPart) -> ExportedProgram:
    """A part as a graph; sizes that are names in its shapes stay free. FailureError: no graph can say what it does."""
    moves = Dim("moves", min=0)
    free: dict[int | str, Any] = {BATCH: Dim("batch"), VIEWS: moves + 1, MOVES: moves}
    shapes = [{axis: free[size] for axis, size in enumerate(shape) if size in free} for shape in part.inputs.values()]
    example = tuple(part.draw(batch=2, views=3).values())
    try:
        with _quiet(), _plain_attention():
            program = torch.export.export(part.network, example, dynamic_shapes=tuple(shapes))
    except Exception as error:  # whatever a stranger's encoder does to a tracer
        raise FailureError(f"torch.export cannot trace the {part.name}: {reason_of(error):.300}") from error
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            node.meta.pop("stack_trace", None)  # which lines of which files it comes from: paths of this machine
    return program


def pt2_bytes(program: ExportedProgram, about: Mapping[str, str]) -> bytes:
    """A .pt2 archive; `about` is its extra file seqjepa.json."""
    buffer = io.BytesIO()
    with _quiet():
        torch.export.save(program, buffer, extra_files={EXTRA: json.dumps(about, indent=2)})
    return buffer.getvalue()


def open_pt2(path: Path, part: RunPart) -> Run:
    with _quiet(), path.open("rb") as file:
        network = torch.export.load(file).module()
    return lambda inputs: network(*(inputs[name] for name in part.inputs))


def need_onnx() -> None:
    """UsageError: a package that writes, checks or runs ONNX is not installed."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise missing(name, "--to onnx") from error


def check_opset(opset: int) -> None:
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise UsageError(f"--opset is {opset}; this onnx and torch write {OLDEST_OPSET} to {newest}")


def onnx_bytes(program: ExportedProgram, part: RunPart, about: Mapping[str, str], opset: int) -> bytes:
    """An .onnx file; `about` is its metadata_props. FailureError: no such operators, or larger than ONNX files are."""
    import onnx

    names = [{axis: size for axis, size in enumerate(s) if isinstance(size, str)} for s in part.inputs.values()]
    try:
        with _quiet():
            made = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=opset,
                external_data=False,
                input_names=list(part.inputs),
                output_names=[part.output[0]],
                dynamic_shapes=tuple(names) if any(names) else None,
            )
    except Exception as error:  # of an operator that ONNX has not, for instance
        raise FailureError(f"the {part.name} cannot be written as ONNX: {reason_of(error):.300}") from error
    assert made is not None
    model = made.model_proto
    model.producer_name = MAKER
    onnx.helper.set_model_props(model, dict(about))
    if model.ByteSize() > MOST_ONNX_BYTES:
        raise FailureError(f"the {part.name} is larger than the 2 GiB of one .onnx file; use --to pt2")
    if (found := model.opset_import[0].version) != opset:
        raise FailureError(f"the {part.name} needs opset {found}, not {opset}; give --opset {found}")
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def open_onnx(path: Path, part: RunPart) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    asked = {known.name for known in session.get_inputs()}  # an input that nothing reads may be gone

    def run(inputs: Mapping[str, Tensor]) -> Tensor:
        fed = {name: value.numpy() for name, value in inputs.items() if name in asked}
        return torch.from_numpy(session.run([part.output[0]], fed)[0])

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch and onnxscript say of their own insides."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention in operators that every runtime has: not the fused layer that torch takes in eval mode."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
