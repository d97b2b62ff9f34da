"""In which precision numbers come about, and where autocast must not round: sums over many rows, and numbers whose
digits are data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast on `device`. The meta device, on which flops.py counts, has none to begin with.

    An exported graph (export/) has none either, and runs on other devices than it was made on.
    """
    plain = device.type == "meta" or torch.compiler.is_exporting()
    return nullcontext() if plain else torch.autocast(device.type, enabled=False)


def exact_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear with float32's digits on a GPU too, forward and backward, where TF32 is allowed: for few inputs.

    x float32 [..., I], weight [O, I] → [..., O]. TF32 keeps ten bits of a factor. Float64 has no such mode, and what is
    compiled, or runs backward, knows no context around a product.
    """
    if not x.is_cuda:
        return F.linear(x, weight, bias)
    return F.linear(x.double(), weight.double(), None if bias is None else bias.double()).to(x.dtype)


def at_least_float32(x: Tensor) -> Tensor:
    """`x` itself where it is float32 or float64, else in float32."""
    return x.float() if x.dtype.itemsize < 4 else x


FULL = "fp32"


def is_bf16(precision: str, device_type: str) -> bool:
    """Whether train.precision means bf16 autocast on a device ("cuda", "cpu")."""
    return precision == "bf16" or (precision == "auto" and device_type == "cuda")


def training_precision(precision: str, devices: Sequence[str]) -> str:
    """In words, of train.precision on devices as metrics.jsonl names them ("cpu" or a GPU's name).

    TF32: on GPUs cuDNN's convolutions use it unless told otherwise, products of matrices with "auto" alone.
    """
    known = dict.fromkeys(device for device in devices if device)
    if not known:
        return FULL if precision == "fp32" else "bf16 autocast" if precision == "bf16" else "not noted"
    return ", then ".join(dict.fromkeys(_on(precision, device) for device in known))


def _on(precision: str, device: str) -> str:
    gpu = device != "cpu"
    bf16 = "bf16 autocast" if is_bf16(precision, "cuda" if gpu else "cpu") else FULL
    return f"{bf16}, TF32" if gpu and precision == "auto" else f"{bf16}, TF32 convolutions" if gpu else bf16


@contextmanager
def full_float32() -> Iterator[None]:
    """float32 without TF32, whatever the process did before, so that a GPU finds what a CPU does.

    Not for what is trained or compiled: products backward, or of a compiled graph, come later (see exact_linear).
    torch has older names for this and newer ones, and the older cannot be read where a process has used the newer: both
    are set, so that either can be read meanwhile, and put back.
    """
    backends = torch.backends
    kinds: list[Any] = [backends.cuda.matmul, backends.mkldnn.matmul, backends.cudnn.conv, backends.cudnn.rnn]  # type: ignore[attr-defined]
    before = [kind.fp32_precision for kind in kinds]
    products, convolutions = "highest", True  # torch's own, where the older names cannot be read
    with suppress(RuntimeError):
        products = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        convolutions = backends.cudnn.allow_tf32
    _set_float32("highest", False, kinds, ["ieee"] * len(kinds))
    try:
        yield
    finally:
        _set_float32(products, convolutions, kinds, before)


def _set_float32(products: str, convolutions: bool, kinds: Sequence[Any], precisions: Sequence[str]) -> None:
    """The newer names last, as the older ones write to them."""
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions
    for kind, precision in zip(kinds, precisions, strict=True):
        kind.fp32_precision = precision
