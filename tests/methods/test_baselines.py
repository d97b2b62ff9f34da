"""What baselines are made of: widths and coefficients by fidelity, SIE's parts, losses put together by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from methods_lab import D, noise, shaken, small, views_of
from torch import Tensor, nn

from seqjepa.config import ModelConfig, RunConfig
from seqjepa.losses import VicWeights, nt_xent, sie_loss, trajectory_loss, vicreg_loss
from seqjepa.methods.base import Halved
from seqjepa.methods.byol import BYOL
from seqjepa.methods.conditional_byol import ConditionalBYOL
from seqjepa.methods.equimod import EquiMod
from seqjepa.methods.sen import SEN
from seqjepa.methods.sie import SIE
from seqjepa.methods.simclr import SimCLR
from seqjepa.methods.vicreg import VICReg
from seqjepa.models.heads import Hypernetwork, TransformerProjector, build_expander, build_projector
from shards.errors import ConfigError


def shapes(net: Any) -> list[tuple[int, ...]]:
    return [tuple(m.weight.shape) for m in net.modules() if isinstance(m, nn.Linear)]


def predicted(m: Any, y: Tensor, action: Tensor) -> Tensor:
    embedding = m.predictor.embedding
    e = F.batch_norm(action @ embedding.proj.weight.T, None, None, training=True)
    return m.predictor.net(torch.cat((e, y), 1))


def distance(a: Tensor, b: Tensor) -> Tensor:
    """BYOL's loss as the squared distance of unit vectors, which 2 − 2 cos is."""
    return (F.normalize(a) - F.normalize(b)).square().sum(1).mean()


def _equimod(m: Any, x: list[Tensor], a: Tensor) -> Tensor:
    z1, z2 = m.encoder(x[0]), m.encoder(x[1])
    equivariant = nt_xent(predicted(m, m.equivariant_projector(z1), a), m.equivariant_projector(z2), 0.1)
    return equivariant + nt_xent(m.invariant_projector(z1), m.invariant_projector(z2), 0.1)


def _sie(m: Any, x: list[Tensor], a: Tensor) -> Tensor:
    left, right = zip(*((z[:, : D // 2], z[:, D // 2 :]) for z in map(m.encoder, x)), strict=True)
    inv = m.invariant_projector(left[0]), m.invariant_projector(left[1])
    y1, y2 = m.equivariant_projector(right[0]), m.equivariant_projector(right[1])
    by_row = [sum(a_k * w for a_k, w in zip(row, m.hypernetwork.weight, strict=True)) for row in a]
    moved = torch.stack([w @ y for w, y in zip(by_row, y1, strict=True)])
    return sie_loss(inv, (y1, y2), moved, VicWeights(10, 10, 1, 4.5))


def _vicreg_traj(m: Any, x: list[Tensor], a: Tensor) -> Tensor:
    left, centre, right = m.projector(m.encoder(torch.cat(x))).chunk(3)
    return vicreg_loss(left, centre, VicWeights(10, 10, 1)) + 0.01 * trajectory_loss(left, centre, right)


BY_HAND: dict[str, Callable[[Any, list[Tensor], Tensor], Tensor]] = {
    "simclr": lambda m, x, a: nt_xent(*(m.projector(m.encoder(v)) for v in x), 0.5),
    "vicreg": lambda m, x, a: vicreg_loss(*(m.projector(m.encoder(v)) for v in x), VicWeights(10, 10, 1)),
    "vicreg_traj": _vicreg_traj,
    "byol": lambda m, x, a: sum(
        (
            distance(m.predictor(m.projector(m.encoder(x[i]))), m.target_projector(m.target_encoder(x[1 - i])))
            for i in (0, 1)
        ),
        torch.zeros(()),
    ),
    "conditional_byol": lambda m, x, a: distance(
        predicted(m, m.projector(m.encoder(x[0])), a), m.target_projector(m.target_encoder(x[1]))
    ),
    "sen": lambda m, x, a: nt_xent(predicted(m, m.projector(m.encoder(x[0])), a), m.projector(m.encoder(x[1])), 0.5),
    "equimod": _equimod,
    "sie": _sie,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_loss_is_that_of_the_parts_put_together_by_hand(name: str) -> None:
    method = shaken(small(name))
    seq = noise(views_of(name), dtype=torch.float64)
    expected = BY_HAND[name](method, list(seq.views.unbind(1)), seq.actions[:, 0])
    torch.testing.assert_close(method.step(seq).loss, expected, rtol=1e-9, atol=1e-9)


def test_widths_are_the_papers_or_the_released_ones() -> None:
    wide = [(2048, 512), (2048, 2048), (2048, 2048)]
    paper, author = RunConfig(), RunConfig(fidelity="author")
    with torch.device("meta"):
        for net in (method(paper, 4) for method in (SimCLR, VICReg, SEN, BYOL)):
            assert shapes(net.projector) == wide
        assert shapes(BYOL(paper, 4).predictor) == [(512, 2048), (2048, 512)]
        released = BYOL(author, 4)
        assert shapes(released.projector) == [(2048, 512), (128, 2048)]
        assert shapes(released.predictor) == [(2048, 128), (128, 2048)]
        assert shapes(ConditionalBYOL(author, 4).predictor.net) == [(2048, 256), (128, 2048)]
        assert shapes(SEN(paper, 6).predictor) == [(128, 6), (2048, 2176)]
        equimod, sie = EquiMod(paper, 4), SIE(paper, 4)
        assert shapes(equimod.equivariant_projector) == [(1024, 512), (1024, 1024), (128, 1024)]
        assert shapes(sie.invariant_projector) == [(1024, 256), (1024, 1024), (1024, 1024)]
        plus = SEN(RunConfig(model=ModelConfig(projector_kind="transformer")), 4)
    assert sie.hypernetwork.weight.numel() == 1_048_576 * 4
    assert isinstance(plus.projector, TransformerProjector)
    assert shapes(plus.predictor) == [(128, 4), (512, 640)]
    assert sum(p.numel() for p in plus.projector.parameters()) == 9_458_176 + 512  # aggregator and token of d = 512


def test_released_coefficients_come_with_author_fidelity() -> None:
    assert small("vicreg", fidelity="author").weights == VicWeights(25, 25, 1)
    assert small("sie", fidelity="author").weights == VicWeights(25, 25, 1, 25)
    trajectories = [small("vicreg_traj", fidelity=fidelity) for fidelity in ("paper", "author")]
    assert [(method.trajectory, method.normalised) for method in trajectories] == [(0.01, True), (1.0, False)]
    assert (small("equimod").temperature, small("equimod", fidelity="author").temperature) == (0.1, 0.5)


def test_projectors_have_biases_and_a_last_norm_where_the_released_ones_have_them() -> None:
    projector, expander = build_projector(8, (6, 5)), build_expander(8, (6, 5))
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in expander] == kinds
    assert [type(layer) for layer in projector] == [*kinds, nn.BatchNorm1d]
    assert (expander[0].bias is None, expander[3].bias is None) == (False, True)
    assert (projector[0].bias, projector[3].bias, projector[4].weight) == (None, None, None)


def test_basis_vectors_give_the_slices_of_the_hypernetwork() -> None:
    net, y = Hypernetwork(4, 9), torch.randn(4, 9)
    torch.testing.assert_close(
        net(y, torch.eye(4)), torch.stack([w @ row for w, row in zip(net.weight, y, strict=True)])
    )
    assert net.weight.abs().max() <= 0.5
    assert net.weight.abs().max() > 0.4


def test_the_halves_of_sie_are_what_its_parts_see() -> None:
    method, seq = small("sie").eval(), noise(2)
    assert isinstance(method, Halved)
    assert not isinstance(small("equimod"), Halved)
    assert method.halves == {"invariant": slice(0, 32), "equivariant": slice(32, 64)}
    z = method.embed(seq.views[:, 0])
    changed = z.clone()
    changed[:, method.halves["invariant"]] += 1
    assert torch.equal(method.project(z), method.project(changed))
    with pytest.raises(ConfigError, match="gives 51 of them"):
        small("sie", width=0.1)


def test_a_transformer_takes_no_widths_and_needs_heads_that_divide() -> None:
    with pytest.raises(ConfigError, match=r"leave it out, or set model\.projector_kind=mlp"):
        small("simclr", "transformer", projector=(8,))
    with pytest.raises(ConfigError, match=r"64 inputs are not a multiple of model\.heads = 5; set .* 1, 2, 4, 8, 16"):
        small("simclr", "transformer", heads=5)
    with pytest.raises(ConfigError, match="seq_jepa has no projector"):
        small("seq_jepa", "transformer")
