from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from seqjepa.models.ema import MovingAverage, cosine_tau, schedule_progress, update_average


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_update_is_the_convex_combination_of_parameters_only() -> None:
    online, target = net(), net()
    online(torch.randn(2, 3, 8, 8))
    before = {name: value.clone() for name, value in target.state_dict().items()}
    update_average(target, online, 0.004)
    for name, parameter in target.named_parameters():
        wanted = 0.996 * before[name].double() + 0.004 * online.get_parameter(name).double()
        torch.testing.assert_close(parameter.double(), wanted, rtol=1e-6, atol=1e-8)
    for name, buffer in target.named_buffers():
        assert torch.equal(buffer, before[name])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_share_that_is_on_the_device_moves_averages_as_a_number_does(device: str) -> None:
    online, once, again = (net().to(device, memory_format=torch.channels_last) for _ in range(3))  # pyright: ignore
    again.load_state_dict(once.state_dict())
    weights = [parameter.clone() for parameter in online.parameters()]
    for share in (0.1, 0.004, 3e-9):
        update_average(once, online, share)
        update_average(again, online, torch.tensor(share, device=device))
        rounding = 0.0 if device == "cpu" else 1e-6
        found, wanted = ([p.detach() for p in module.parameters()] for module in (again, once))
        torch.testing.assert_close(found, wanted, rtol=rounding, atol=rounding)
    assert all(torch.equal(p, before) for p, before in zip(online.parameters(), weights, strict=True))


class Averaging(MovingAverage):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.projector = net(), nn.Conv2d(4, 2, 1)
        self.start_averages(0.9, "encoder", "projector")


def test_a_moving_average_is_a_frozen_part_of_its_own() -> None:
    module = Averaging()
    start = {name: value.clone() for name, value in module.state_dict().items()}
    assert {name for name in start if name.startswith("target_")} == {
        f"target_{name}" for name in start if not name.startswith("target_")
    }
    assert all(p.requires_grad != name.startswith("target_") for name, p in module.named_parameters())
    with torch.no_grad():
        for parameter in (*module.encoder.parameters(), *module.projector.parameters()):
            parameter += 1
    module.after_step(0.5)
    for name, parameter in module.named_parameters():
        moved = 1 - cosine_tau(0.9, 0.5) if name.startswith("target_") else 1.0
        torch.testing.assert_close(parameter.detach(), start[name] + moved)
    views = torch.randn(2, 3, 8, 8, requires_grad=True)
    module.eval()
    embedded = module.embed_target(views)
    assert not embedded.requires_grad
    torch.testing.assert_close(embedded, module.target_projector(module.target_encoder(views)).detach())


def test_tau_rises_along_half_a_cosine() -> None:
    assert cosine_tau(0.996, 0.0) == pytest.approx(0.996, abs=1e-15)
    assert cosine_tau(0.996, 0.5) == pytest.approx(0.998, abs=1e-15)
    assert 1.0 - cosine_tau(0.996, 999 / 1000) == pytest.approx(1e-8, rel=0.02)  # last of 1000 epochs
    assert cosine_tau(0.996, 1.0) == 1.0


def test_paper_schedule_moves_every_step() -> None:
    assert [schedule_progress(step, 4, 2, "paper") for step in (1, 4, 8)] == [1 / 8, 1 / 2, 1.0]
    for step in range(1, 9):
        by_step, by_epoch = (schedule_progress(step, 4, 2, fidelity) for fidelity in ("paper", "author"))
        for fidelity in ("paper", "author"):
            assert schedule_progress(step, 4, 2, fidelity, "step") == by_step
            assert schedule_progress(step, 4, 2, fidelity, "epoch") == by_epoch


def test_author_schedule_equals_assigning_tau_after_each_update() -> None:
    epochs, steps, tau, used = 5, 3, 0.996, []
    for epoch in range(epochs):
        for _ in range(steps):
            used.append(tau)
            tau = 1 - (1 - 0.996) * ((math.cos(math.pi * epoch / epochs) + 1) / 2)
    ours = [cosine_tau(0.996, schedule_progress(k + 1, steps, epochs, "author")) for k in range(epochs * steps)]
    assert ours == pytest.approx(used, abs=1e-15)
