"""`seqjepa export`: a part of a run as a file that others load without seqjepa, held against the run before it stands.

The file is written under a temporary name, loaded again by whoever would load it, and compared with the run on random
inputs of several sizes; it gets its name only if the two are the same to 1e-4.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from seqjepa.export.graphs import (
    EXTRA,
    MAKER,
    Run,
    check_opset,
    need_onnx,
    onnx_bytes,
    open_onnx,
    open_pt2,
    pt2_bytes,
    trace,
)
from seqjepa.export.parts import BATCH, PARTS, VIEWS, PartName, RunPart, WhichWeights, build_part, view_encoder
from seqjepa.export.state_dict import open_state, state_bytes
from seqjepa.files import named_failures
from seqjepa.model import Model, load
from seqjepa.models.timm_encoder import is_timm, timm_call
from seqjepa.precision import full_float32
from shards.errors import FailureError, UsageError
from shards.machine.files import AtomicFile, refuse_foreign

Form = Literal["pt2", "onnx", "safetensors"]
FORMS: tuple[Form, ...] = get_args(Form)
TOLERANCE = 1e-4
BATCHES, CONTEXTS = (1, 2, 5), (1, 2, 3, 5)
"""Sizes that a file is tried with, where they are free."""
DEFAULT_OPSET = 18


@dataclass(frozen=True)
class ExportOptions:
    """What to export. batch, context: fixed sizes, None: any; normalise, opset: None where not said."""

    to: Form
    part: PartName = "encoder"
    weights: WhichWeights = "online"
    batch: int | None = None
    context: int | None = None
    opset: int | None = None
    normalise: bool | None = None

    def check(self) -> None:
        """UsageError: options of another form or part."""
        for value, allowed, what in ((self.to, FORMS, "--to"), (self.part, PARTS, "--part")):
            if value not in allowed:
                raise UsageError(f"{what} is {value!r:.40}; allowed are {', '.join(allowed)}")
        if self.weights not in get_args(WhichWeights):
            raise UsageError(f"--weights is {self.weights!r:.40}; allowed are online, target")
        graph, encoder = self.to != "safetensors", self.part == "encoder"
        for given, fits, what in (
            (self.opset is not None, self.to == "onnx", "--opset is for --to onnx"),
            (not encoder, graph, "--to safetensors is of the encoder; --to pt2 and onnx take other parts"),
            (self.weights != "online", encoder, "--weights is for --part encoder"),
            (self.normalise is not None, graph and encoder, "--normalise is of an encoder in --to pt2 or onnx"),
            (self.batch is not None, graph, "--batch is for --to pt2 and onnx"),
            (self.context is not None, self.part == "aggregate", "--context is for --part aggregate"),
        ):
            if given and not fits:
                raise UsageError(f"{what}; leave it out")


@dataclass(frozen=True)
class Exported:
    """difference: the largest between the file's numbers and the run's, over the largest number where that is above 1.

    inputs, outputs: shapes, with "batch", "views" and "views - 1" for sizes that are free.
    """

    file: str
    to: str
    part: str
    bytes: int
    parameters: int
    inputs: dict[str, list[int | str]]
    outputs: dict[str, list[int | str]]
    difference: float
    about: dict[str, str]


def export_run(run: str | Path, out: Path, options: ExportOptions, *, overwrite: bool = False) -> Exported:
    """A part of the run at `run` → the file `out`, written whole or not at all.

    UsageError: options that do not fit the run or each other, a package that is not installed, or `out` is there (with
    `overwrite`: and was not made by us). FailureError: the part cannot be written in this form, or the file does not
    give the run's numbers; nothing is kept.
    """
    options.check()
    if (form := out.suffix.removeprefix(".")) != options.to and form in FORMS:
        raise UsageError(f"{out} ends as --to {form} does, and --to is {options.to}; give another name")
    _refuse_taken(out, overwrite)
    if options.to == "onnx":
        need_onnx()
        check_opset(options.opset or DEFAULT_OPSET)
    model = load(run, "cpu")
    inside = options.to != "safetensors" and options.normalise is not False
    part = build_part(model, options.part, normalised=inside, weights=options.weights).fixed(
        options.batch, options.context
    )
    about = describe(model, part, options.weights, Path(run).name)
    data = _encode(model, part, options, about)
    with named_failures(out):
        difference = _write_checked(out, data, part, options.to)
    parameters = sum(parameter.numel() for parameter in part.network.parameters())
    inputs = {name: list(shape) for name, shape in part.inputs.items()}
    outputs = {part.output[0]: list(part.output[1])}
    return Exported(str(out), options.to, part.name, len(data), parameters, inputs, outputs, difference, about)


def describe(model: Model, part: RunPart, weights: WhichWeights, run: str) -> dict[str, str]:
    """What is known of the run, as every form keeps it: name → text, JSON of lists and numbers."""
    config, net, data, action = model.config, model.config.model, model.data, model.action_spec
    known: dict[str, Any] = {
        "made_by": f"{MAKER} {version('seqjepa')}",
        "run": run,
        "method": config.method,
        "fidelity": config.fidelity,
        "part": part.name,
        "inputs": part.inputs,
        "outputs": dict([part.output]),
        "backbone": net.backbone,
        "width": net.width,
        "stem": net.stem,
        **({"timm": timm_call(net), "pool": net.pool, "input_size": net.input_size} if is_timm(net) else {}),
        "weights": weights,
        "mean": data.mean,
        "std": data.std,
        "normalises": part.pixels,
        "view_size": (data.height, data.width),
        "patch": data.patch,
        "context": config.data.context,
        "action_size": action.size,
        "action_columns": action.columns,
        "action": action.spec.to_json(),
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in known.items()}


def largest_difference(network: Run, part: RunPart) -> float:
    """The largest difference between a file's numbers and the run's, over the largest number where that is above 1."""
    largest = 0.0
    for batch in BATCHES if part.is_free(BATCH) else BATCHES[:1]:
        for views in CONTEXTS if part.is_free(VIEWS) else CONTEXTS[:1]:
            inputs = part.draw(batch, views, seed=batch + views)
            with torch.inference_mode(), full_float32():
                expected = part.expected(*inputs.values())
                difference = (network(inputs) - expected).abs().max() / expected.abs().max().clamp(min=1)
            largest = max(largest, float(difference.nan_to_num(torch.inf)))
    return largest


def _encode(model: Model, part: RunPart, options: ExportOptions, about: dict[str, str]) -> bytes:
    if options.to == "safetensors":
        return state_bytes(view_encoder(model.method, options.weights), model.config.model, about)
    program = trace(part)
    if options.to == "pt2":
        return pt2_bytes(program, about)
    return onnx_bytes(program, part, about, options.opset or DEFAULT_OPSET)


def _write_checked(out: Path, data: bytes, part: RunPart, to: Form) -> float:
    """`data` → `out`, if what it holds gives the run's numbers; the difference."""
    with AtomicFile(out, shared=True) as file:
        file.write(data)
        file.seal()
        difference = largest_difference(_open(file.staged, part, to), part)
        if difference > TOLERANCE:
            raise FailureError(
                f"{out} is not written: its numbers are {difference:.1e} from the run's, more than {TOLERANCE:g}; "
                "choose another form (--to)"
            )
    return difference


def _open(path: Path, part: RunPart, to: Form) -> Run:
    if to == "safetensors":
        network = open_state(path)
        return lambda inputs: network(*inputs.values())
    return open_pt2(path, part) if to == "pt2" else open_onnx(path, part)


def _refuse_taken(out: Path, overwrite: bool) -> None:
    """UsageError: a file is there, and is not ours or was not to be replaced; or the folder is not there."""
    if out.exists() and not overwrite:
        raise UsageError(f"{out} is there; give another name, or --overwrite to replace an export of before")
    refuse_foreign(out, b"" if _is_pt2_of_ours(out) else MAKER.encode(), f"`{MAKER}`")


def _is_pt2_of_ours(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(f"/{EXTRA}") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):  # not there, or something else
        return False
