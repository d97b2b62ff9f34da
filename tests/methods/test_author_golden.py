"""Author mode equals the authors' released SeqJEPA_Transforms, on the same weights and inputs.

golden_author.json holds numbers from one run of their repository (commit 73e0550) in float64 with every dropout at
zero; weights and inputs come from the formula below, keyed by their state-dict names. None of their code is here.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from seqjepa.config import ModelConfig, RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.methods.seq_jepa import SeqJEPA
from seqjepa.released.seq_jepa import author_key

GOLDEN = json.loads((Path(__file__).parent / "golden_author.json").read_text())
CASES = [(mode, context) for mode in ("eval", "train") for context in (1, 3)]
BATCH, SIDE, ACTION = 6, 32, 4


def hashed(shape: tuple[int, ...] | torch.Size, salt: str) -> Tensor:
    """float64 in [-1, 1): a 32-bit integer hash of (position, salt), exact on every machine."""
    mask = 2**32 - 1
    x = (torch.arange(math.prod(shape)) * 2654435761 + zlib.crc32(salt.encode())) & mask
    x = ((x ^ (x >> 16)) * 0x45D9F3B) & mask
    return ((x ^ (x >> 16)).double() / 2**31 - 1).reshape(shape)


def formula_weight(key: str, like: Tensor) -> Tensor:
    """Value of the released entry `key`: unit-variance layers, norms near the identity."""
    if not like.is_floating_point():
        return torch.zeros_like(like)
    value = hashed(like.shape, key)
    if key == "agg_token":
        return 0.5 * value
    if like.ndim >= 2:
        return value * math.sqrt(3.0 / like[0].numel())
    if key.endswith("running_var"):
        return 1.0 + 0.2 * value
    is_norm = key.endswith(".weight")
    return (1.0 if is_norm else 0.0) + 0.1 * value


def formula_inputs(context: int) -> tuple[Tensor, Tensor]:
    """views [B, M + 1, 3, 32, 32] and unit quaternions [B, M, 4], float64."""
    views = 1.5 * hashed((BATCH, context + 1, 3, SIDE, SIDE), f"views {context}")
    actions = hashed((BATCH, context, ACTION), f"actions {context}")
    return views, actions / actions.norm(dim=-1, keepdim=True)


def summary(values: Tensor) -> dict:
    """What the golden file keeps of a tensor: shape, norm, sum, and eight values of its first and last rows."""
    rows = values.detach().double().reshape(-1, values.shape[-1]) if values.ndim else values.reshape(1, 1)
    return {
        "shape": list(values.shape),
        "norm": rows.norm().item(),
        "sum": rows.sum().item(),
        "first": rows[0, :8].tolist(),
        "last": rows[-1, -8:].tolist(),
    }


@pytest.fixture(scope="module")
def released_weights() -> dict[str, Tensor]:
    """State dict of ours with the formula's values, float64."""
    ours = SeqJEPA(RunConfig(model=ModelConfig(dropout=0.0)), ACTION).state_dict()
    return {name: formula_weight(author_key(name), value) for name, value in ours.items()}


def author_model(weights: dict[str, Tensor], dtype: torch.dtype) -> SeqJEPA:
    with torch.device("meta"):
        model = SeqJEPA(RunConfig(model=ModelConfig(dropout=0.0), fidelity="author"), ACTION)
    model.load_state_dict({name: value.to(dtype, copy=True) for name, value in weights.items()}, assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith("target_encoder."))
    return model


def run_case(model: SeqJEPA, mode: str, context: int) -> dict[str, Tensor]:
    """Everything that the golden file has for one case, under the released names."""
    outputs: dict[nn.Module, Tensor] = {}
    for module in (model.target_encoder, model.predictor):
        module.register_forward_hook(lambda module, _inputs, output: outputs.update({module: output}))
    views, actions = (x.to(next(model.parameters()).dtype) for x in formula_inputs(context))
    empty = torch.zeros(BATCH, dtype=torch.long)
    out = model.train(mode == "train").step(ViewSequence(views, actions, actions, empty, [""] * BATCH))
    found = {
        "z": out.features["z"],
        "z_agg": out.features["z_agg"],
        "prediction": outputs[model.predictor],
        "target": outputs[model.target_encoder],
        "loss": out.loss,
    }
    if mode == "train":
        out.loss.backward()
        found |= {f"grad {author_key(k)}": p.grad for k, p in model.named_parameters() if p.grad is not None}
        found |= {author_key(k): b for k, b in model.named_buffers() if "running" in k}
    return found


def assert_matches(found: Tensor, expected: dict, tolerance: float, name: str) -> None:
    assert list(found.shape) == expected["shape"], name
    scale = max(1.0, expected["norm"])
    for field, value in summary(found).items():
        if field != "shape":
            allowed = tolerance * (scale if field in ("norm", "sum") else 1.0)
            assert value == pytest.approx(expected[field], rel=tolerance, abs=allowed), f"{name}: {field}"


@pytest.mark.parametrize(("mode", "context"), CASES)
def test_outputs_equal_the_released_model(released_weights: dict[str, Tensor], mode: str, context: int) -> None:
    found = run_case(author_model(released_weights, torch.float64), mode, context)
    expected = GOLDEN[f"{mode} M={context}"]
    assert len(expected) >= 5
    for name, values in expected.items():
        assert_matches(found[name], values, 1e-8, name)


@pytest.mark.parametrize(("mode", "context"), CASES[1::2])
def test_float32_adds_only_rounding(released_weights: dict[str, Tensor], mode: str, context: int) -> None:
    # Batch norm over as few as six rows of one pixel amplifies float32 rounding in train mode.
    tolerance = 1e-5 if mode == "eval" else 1e-4
    found = run_case(author_model(released_weights, torch.float32), mode, context)
    expected = GOLDEN[f"{mode} M={context}"]
    for name in ("z", "z_agg", "prediction", "target", "loss"):
        assert_matches(found[name], expected[name], tolerance, name)


def test_paper_mode_is_the_same_function_in_eval_mode_only(released_weights: dict[str, Tensor]) -> None:
    model = author_model(released_weights, torch.float64)
    model.two_calls = False
    expected = GOLDEN["eval M=3"]["prediction"]
    assert_matches(run_case(model, "eval", 3)["prediction"], expected, 1e-8, "prediction")
    trained = summary(run_case(model, "train", 3)["prediction"])["first"]
    assert trained != pytest.approx(GOLDEN["train M=3"]["prediction"]["first"], abs=1e-3)
