"""Views that go through a network in one call are what calls one by one are: loss, gradients and running statistics.

On one rank; test_two_ranks.py has several, and the way that CUDA takes there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from methods_lab import TWO_VIEWS, noise, shaken, small
from torch import Tensor, nn

from seqjepa.data.sequence import ViewSequence
from seqjepa.models.batch_norm import convert_sync_batch_norm, of_each, takes_groups

TWICE = [name for name in TWO_VIEWS if name != "conditional_byol"]
"""Methods that have the same network look at two views."""


def sharing(method: Any) -> Any:
    method.normalise_globally()
    return method


def pair(last: bool = False, size: int = 0) -> ViewSequence:
    seq = noise(2, dtype=torch.float64)
    views = seq.views.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3) if last else seq.views
    return replace(seq, views=views.repeat(1, 1, 1, size, size) if size else views)


def learned(method: Any, seq: ViewSequence, step: Any = None) -> tuple[dict[str, Tensor], list[int]]:
    """All that a step makes, and of how many rows its calls of the encoder were."""
    rows: list[int] = []
    hook = method.encoder.register_forward_hook(lambda _module, inputs, _output: rows.append(len(inputs[0])))
    out = (step or method.step)(seq)
    hook.remove()
    out.loss.backward()
    grads = {f"grad {k}": p.grad for k, p in method.named_parameters() if p.grad is not None}
    return {"loss": out.loss.detach(), **out.features, **grads, **dict(method.named_buffers())}, rows


def assert_alike(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-8, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize(
    ("kind", "last", "fidelity"),
    [("mlp", False, "paper"), ("mlp", True, "paper"), ("transformer", True, "paper"), ("mlp", True, "author")],
)
@pytest.mark.parametrize("name", TWICE)
def test_one_call_is_two(name: str, kind: str, last: bool, fidelity: str) -> None:
    method, plain = (shaken(small(name, kind, fidelity)) for _ in range(2))
    if last:
        method = method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found, rows = learned(sharing(method), pair(last))
    expected, apart = learned(plain, pair())
    assert (rows, apart) == ([12], [6, 6])
    assert expected["encoder.bn1.num_batches_tracked"] == 2
    assert_alike(found, expected)


@pytest.mark.parametrize("backbone", ["timm:test_vit", "timm:test_efficientnet"])
def test_so_it_is_of_encoders_with_layer_norms_and_of_norms_with_activations(backbone: str) -> None:
    models = (shaken(small("byol", backbone=backbone, width=1.0, input_size=32)) for _ in range(2))
    (found, rows), (expected, _) = learned(sharing(next(models)), pair()), learned(next(models), pair())
    assert rows == [12]
    assert_alike(found, expected)


@pytest.mark.parametrize("freeze", [False, True])
def test_in_eval_mode_and_frozen_too(freeze: bool) -> None:
    methods = [shaken(small("sie", freeze=freeze)).train(freeze) for _ in range(2)]
    (found, rows), (expected, _) = learned(sharing(methods[0]), pair()), learned(methods[1], pair())
    assert rows == [12]
    assert_alike(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["byol", "sie"])
def test_a_compiled_step_of_one_rank_is_one_graph_with_one_call(name: str) -> None:
    method, plain = (shaken(small(name)) for _ in range(2))
    convolutions: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        convolutions.append(sum("conv" in str(node.target) for node in graph.graph.nodes if node.op != "placeholder"))
        return graph.forward

    torch._dynamo.reset()
    step = torch.compile(sharing(method).step, backend=backend, fullgraph=True, dynamic=False)
    found, _ = learned(method, pair(), step)
    expected, apart = learned(plain, pair())
    assert_alike(found, expected)
    assert apart == [6, 6]
    assert convolutions == [20 * (2 if name == "byol" else 1)]


def test_a_step_of_a_method_that_looks_at_one_view_at_a_time_is_torchs_to_the_bit() -> None:
    methods = [shaken(small("conditional_byol")) for _ in range(2)]
    (found, _), (expected, _) = learned(sharing(methods[0]), pair()), learned(methods[1], pair())
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def test_momentum_of_all_batches_counts_them_one_after_the_other() -> None:
    norms = [nn.BatchNorm1d(3, momentum=None) for _ in range(2)]
    batches = torch.randn(3, 8, 3).unbind(0)
    ours = convert_sync_batch_norm(norms[0])
    for found, expected in zip(of_each(ours, *batches), map(norms[1], batches), strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours.state_dict(), norms[1].state_dict())


class Own(nn.BatchNorm2d):
    pass


class Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


def test_layers_that_look_at_a_batch_in_another_way_are_called_one_by_one() -> None:
    from timm.layers.evo_norm import EvoNorm2dB0

    def takes(*layers: nn.Module) -> bool:
        return takes_groups(convert_sync_batch_norm(nn.Sequential(nn.Conv2d(3, 4, 3), *layers)))

    assert takes(nn.BatchNorm2d(4), nn.LayerNorm(4))
    assert not takes(Centred())  # nobody knows
    assert not takes(Own(4))
    assert not takes(EvoNorm2dB0(4))
    assert not takes(nn.BatchNorm2d(4, track_running_stats=False))
    assert not takes_groups(nn.Sequential(nn.BatchNorm2d(4)))


def test_a_failed_call_leaves_no_groups_behind() -> None:
    norm = convert_sync_batch_norm(nn.BatchNorm1d(3))
    with pytest.raises(RuntimeError):
        of_each(norm, torch.ones(4, 2), torch.ones(4, 2))
    seen = int(norm.num_batches_tracked)  # type: ignore[arg-type]
    norm(torch.randn(4, 3))
    assert norm.num_batches_tracked == seen + 1
