"""Small methods and toy batches for the tests of all methods."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqjepa.config import ContextSSLConfig, DataConfig, ModelConfig, OptimConfig, RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.methods import build_method

TWO_VIEWS = ("byol", "conditional_byol", "equimod", "sen", "sie", "simclr", "vicreg")
BASELINES = (*TWO_VIEWS, "vicreg_traj")
BYOL_LIKE = ("byol", "conditional_byol")
CONDITIONED = ("conditional_byol", "equimod", "sen", "sie")
NO_PROJECTOR = ("seq_jepa", "context_ssl")
A, D, P, SIZE = 4, 64, 7, 16


def views_of(name: str) -> int:
    return 3 if name == "vicreg_traj" else 2


def small_config(name: str, kind: str = "mlp", fidelity: Any = "paper", **model: Any) -> RunConfig:
    """ResNet-18 at an eighth of its width (D = 64); projector 64 → 32 or one transformer layer without dropout."""
    sizes: dict[str, Any] = {"action_dim": 8, "predictor_hidden": 64, "layers": 1, "ff_mult": 1, "dropout": 0.0}
    if kind == "mlp" and name not in NO_PROJECTOR:
        sizes["projector"] = (64, 32)
    action = "position" if name == "conv_jepa" else "rotation"
    return RunConfig(
        method=name,
        fidelity=fidelity,
        data=DataConfig(context=views_of(name) - 1, action=action),
        model=ModelConfig(**{"width": 0.125, "projector_kind": kind, **sizes, **model}),
        context_ssl=ContextSSLConfig(width=32, pairs=4, mask=0.5),
        optim=OptimConfig(ema_tau=0.9),
    )


def small(name: str, kind: str = "mlp", fidelity: Any = "paper", seed: int = 0, **model: Any) -> Any:
    torch.manual_seed(seed)
    return build_method(small_config(name, kind, fidelity, **model), A)


def shaken(module: nn.Module) -> nn.Module:
    """In float64 and away from the start, where residual branches do nothing and targets equal what is trained."""
    torch.manual_seed(7)
    for parameter in module.double().parameters():  # type: ignore[arg-type]
        parameter.data += 0.1 * torch.randn_like(parameter)
    return module


def noise(views: int, batch: int = 6, seed: int = 0, dtype: torch.dtype = torch.float32) -> ViewSequence:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(batch, views, 3, SIZE, SIZE, generator=generator, dtype=dtype)
    actions = F.normalize(torch.randn(batch, views - 1, A, generator=generator, dtype=dtype), dim=-1)
    params = torch.randn(batch, views, P, generator=generator, dtype=dtype)
    return ViewSequence(pixels, actions, params, torch.full((batch,), -1), [""] * batch)


def rows_of(seq: ViewSequence, rows: slice) -> ViewSequence:
    return ViewSequence(seq.views[rows], seq.actions[rows], seq.params[rows], seq.labels[rows], seq.keys[rows])


def stripes(views: int, batch: int, seed: int) -> ViewSequence:
    """Class 0 is striped one way and class 1 the other. Phase, contrast, brightness and noise differ in every view."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(batch) % 2
    phase = 2 * math.pi * torch.rand(batch, views, 1, generator=generator)
    wave = torch.cos(torch.arange(SIZE) * math.pi / 2 + phase)
    across, along = (wave.unsqueeze(axis).expand(batch, views, SIZE, SIZE) for axis in (-1, -2))
    image = torch.where(labels.view(-1, 1, 1, 1) == 0, across, along).unsqueeze(2)
    pixels = image + 0.5 * torch.randn(batch, views, 3, SIZE, SIZE, generator=generator)
    contrast, brightness = torch.rand(2, batch, views, 1, 1, 1, generator=generator)
    actions = F.normalize(torch.randn(batch, views - 1, A, generator=generator), dim=-1)
    params = torch.randn(batch, views, P, generator=generator)
    return ViewSequence(pixels * (0.5 + contrast) + brightness, actions, params, labels, [""] * batch)


@torch.no_grad()
def separability(method: Any) -> float:
    """Share of 256 unseen views that a least-squares line through the features of 256 others gets right."""
    method = copy.deepcopy(method).eval()
    seen, unseen = (stripes(2, 256, seed) for seed in (1001, 1002))
    with_bias = [F.pad(method.embed(seq.views[:, 0]), (0, 1), value=1.0).double() for seq in (seen, unseen)]
    signs = seen.labels * 2.0 - 1.0
    line = torch.linalg.lstsq(with_bias[0], signs.double().unsqueeze(1), driver="gelsd").solution
    return float(((with_bias[1] @ line).squeeze(1).sign() == signs).float().mean())


def frozen(method: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in method.named_parameters() if not p.requires_grad}
