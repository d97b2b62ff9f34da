"""A training step of every method on an emulated GPU: nothing waits, and what comes out is what the CPU computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from seqjepa.config import ContextSSLConfig, DataConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.methods import METHODS
from seqjepa.methods.base import StepOutput
from seqjepa.training.checkpoint import initial_method
from seqjepa.training.distributed import World
from seqjepa.training.learner import Learner
from seqjepa.training.monitor import EpochMeter, OnlineProbes

pytestmark = pytest.mark.emulated
MORE_VIEWS = {"seq_jepa": 4, "conv_jepa": 4, "vicreg_traj": 3}
B, A, CLASSES = 6, 4, 3


def small_config(name: str, precision: Any) -> RunConfig:
    return RunConfig(
        method=name,
        data=DataConfig(context=MORE_VIEWS.get(name, 2) - 1, action="position" if name == "conv_jepa" else "rotation"),
        model=ModelConfig(width=0.125, action_dim=8, predictor_hidden=64, layers=1, ff_mult=1, dropout=0.0),
        context_ssl=ContextSSLConfig(width=32, pairs=4, mask=0.5),
        optim=OptimConfig(ema_tau=0.9, clip_norm=1.0),
        train=TrainConfig(precision=precision, compile=False),
    )


def batch(name: str) -> ViewSequence:
    views, generator = MORE_VIEWS.get(name, 2), torch.Generator().manual_seed(0)
    pixels = torch.randn(B, views, 3, 16, 16, generator=generator)
    actions = F.normalize(torch.randn(B, views - 1, A, generator=generator), dim=-1)
    return ViewSequence(pixels, actions, torch.randn(B, views, 7), torch.arange(B) % CLASSES, [""] * B)


class Steps:
    """What the trainer does with a batch: the method's step, the online probes', and the meter."""

    def __init__(self, name: str, device: str, precision: str) -> None:
        config, self.seq = small_config(name, precision), batch(name)
        method = initial_method(config, A)
        method.eval()
        with torch.no_grad():
            widths = {name: value.shape for name, value in method.step(self.seq).features.items()}
        self.seq = self.seq.to(torch.device(device))
        self.learner = Learner(method, config, World(), torch.device(device))
        torch.manual_seed(0)
        self.probes = OnlineProbes(widths, CLASSES, A, device)
        self.meter = EpochMeter(widths, A, device)

    def step(self, number: int) -> StepOutput:
        output = self.learner.update(self.seq, number, 1e-3, 0.1)
        self.meter.update(output, self.probes.learn(output.features, self.seq, World()), len(self.seq))
        return output


def test_a_card_without_bf16_is_told_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    for precision, told in (("fp32", 0), ("auto", 1)):
        Steps("simclr", "cuda", precision)
        assert caplog.text.count("has no bf16") == told


def weights(steps: Steps) -> torch.Tensor:
    """All of the method's, one after the other, on the CPU."""
    return torch.cat([p.detach().cpu().flatten() for p in steps.learner.method.parameters()])


@pytest.mark.parametrize("precision", ["auto", "fp32"])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_step_never_waits(gpu, name: str, precision: str):
    steps = Steps(name, "cuda", precision)
    steps.step(0)  # what is made once and kept may wait
    gpu.reset()
    assert steps.step(1).loss.is_cuda
    assert not gpu.syncs
    assert not gpu.waits
    assert gpu.launches.total() > 100


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_step_is_the_cpus(name: str):
    if name == "context_ssl":
        pytest.skip("its environments are drawn by the GPU's generator")
    here, there = (Steps(name, device, "fp32") for device in ("cpu", "cuda"))
    start = weights(here)
    for number in range(2):
        expected, found = here.step(number), there.step(number)
        torch.testing.assert_close(found.loss.cpu(), expected.loss, rtol=1e-3, atol=1e-4)
    assert there.meter.summary()["samples"] == here.meter.summary()["samples"] == 2 * B
    assert F.cosine_similarity(weights(there) - start, weights(here) - start, dim=0) > 0.95, "moved otherwise"


def test_an_epochs_line_takes_two_waits(gpu):
    """One to refuse losses that are not finite, on every rank, and one copy of all sums."""
    steps = Steps("seq_jepa", "cuda", "fp32")
    steps.step(0)
    gpu.reset()
    steps.meter.collect(World())
    line = steps.meter.summary()
    assert line["samples"] == B
    assert {"z_std", "z_rank", "agg_std", "agg_rank", "probe_top1"} <= line.keys()
    assert gpu.syncs.total() == 2, gpu.syncs


def test_a_step_that_is_compiled_pads_the_stem(gpu, monkeypatch) -> None:
    losses, pads = [], []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        steps = Steps("seq_jepa", "cuda", "fp32")
        gpu.reset()
        losses.append(steps.step(0).loss.cpu())
        pads.append(gpu.launches["constant_pad_nd"])
    assert pads[1] - pads[0] == 5, "pixels and weights of either encoder, and the gradient of the one's weights"
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
