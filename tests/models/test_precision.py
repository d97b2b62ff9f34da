"""Where float32 has to keep its digits on a GPU that may use TF32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from seqjepa.data.augment.apply import augment
from seqjepa.data.augment.parameters import draw_parameters
from seqjepa.data.augment.recipes import RECIPES
from seqjepa.methods.context_ssl.transformer import ContextTransformer
from seqjepa.models.heads import ActionEmbedding
from seqjepa.precision import exact_linear, full_float32


@pytest.fixture
def tf32() -> Iterator[None]:
    """As training sets it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


def test_on_a_cpu_it_is_the_plain_product() -> None:
    x, weight, bias = torch.randn(5, 4), torch.randn(3, 4), torch.randn(3)
    assert torch.equal(exact_linear(x, weight, bias), F.linear(x, weight, bias))


def test_augmentation_asks_for_no_tf32_and_leaves_the_setting_as_it_was(tf32: None, monkeypatch) -> None:
    """Resampling in TF32 changes 2.8 % of the pixels, by up to six levels."""
    seen = []
    product = torch.bmm
    monkeypatch.setattr(
        torch, "bmm", lambda *parts: seen.append(torch.get_float32_matmul_precision()) or product(*parts)
    )
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    augment(images, draw_parameters(RECIPES["equimod"], range(4), 2, height=16, width=16, seed=0, epoch=0), 16)
    assert set(seen) == {"highest"}
    assert torch.get_float32_matmul_precision() == "high"


BACKENDS: Any = torch.backends
KINDS = (BACKENDS.cuda.matmul, BACKENDS.mkldnn.matmul, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn)


@pytest.fixture
def torchs_own() -> Iterator[None]:
    """The settings that torch begins with, before and afterwards."""

    def begin() -> None:
        torch.set_float32_matmul_precision("highest")
        BACKENDS.cudnn.allow_tf32 = True
        for general in (BACKENDS, BACKENDS.cudnn):
            general.fp32_precision = "none"
        for kind, precision in zip(KINDS, ("none", "none", "tf32", "tf32"), strict=True):
            kind.fp32_precision = precision

    begin()
    yield
    begin()


def settings() -> list[str]:
    """By all names; torch refuses to say the older ones where they do not fit the newer."""

    def said(ask: Callable[[], object]) -> str:
        try:
            return str(ask())
        except RuntimeError:
            return "refused"

    older = (
        torch.get_float32_matmul_precision,
        lambda: BACKENDS.cuda.matmul.allow_tf32,
        lambda: BACKENDS.cudnn.allow_tf32,
    )
    return [said(ask) for ask in older] + [kind.fp32_precision for kind in KINDS]


@pytest.mark.parametrize(
    "before",
    [
        "pass",
        "torch.set_float32_matmul_precision('high')",
        "torch.set_float32_matmul_precision('medium')",
        "BACKENDS.cudnn.allow_tf32 = False",
        "BACKENDS.fp32_precision = 'tf32'",
        "BACKENDS.fp32_precision = 'ieee'",
        "BACKENDS.cuda.matmul.fp32_precision = 'tf32'",
        "BACKENDS.cudnn.conv.fp32_precision = 'ieee'",
        "torch.set_float32_matmul_precision('high'); BACKENDS.cuda.matmul.fp32_precision = 'ieee'",
    ],
)
def test_full_float32_by_whatever_names_a_process_has_set_its_precision(torchs_own: None, before: str) -> None:
    exec(before)
    found = settings()
    with full_float32():
        assert settings() == ["highest", "False", "False", *["ieee"] * 4]
    assert settings() == found


@pytest.mark.gpu
def test_on_a_gpu_products_and_gradients_are_those_of_float64(tf32: None) -> None:
    x, weight = torch.randn(512, 6, device="cuda"), torch.randn(128, 6, device="cuda", requires_grad=True)
    slope = torch.randn(512, 128, device="cuda")
    exact_linear(x, weight).backward(slope)
    torch.testing.assert_close(exact_linear(x, weight).double(), F.linear(x.double(), weight.double()))
    torch.testing.assert_close(weight.grad.double(), slope.double().T @ x.double(), rtol=1e-6, atol=1e-6)  # type: ignore[union-attr]


@pytest.mark.gpu
def test_a_gpu_embeds_actions_as_a_cpu_does(tf32: None) -> None:
    """To float32's digits: TF32's rounding of a quaternion is a hundred times larger than what is allowed here."""
    torch.manual_seed(0)
    embedding, transformer = ActionEmbedding(4, 128), ContextTransformer(8, 6, 64, 1, 2, 2)
    actions, tokens = torch.randn(64, 4), torch.zeros(1, 4, 14)
    tokens[..., 8:] = torch.randn(4, 6)
    expected = embedding(actions), transformer._read(tokens)
    found = embedding.cuda()(actions.cuda()), transformer.cuda()._read(tokens.cuda())
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-5, atol=1e-5)
