from __future__ import annotations

from itertools import islice

import pytest
import torch
from loaders import endless, stored_loader
from train_helpers import SACCADES, make_saliency_shards, make_shards, metrics, tiny_config

from seqjepa.data.device import feed
from seqjepa.training.train import load_run, train
from shards.reader import ShardSet

pytestmark = pytest.mark.gpu
RESNET = "model.backbone=resnet18"
"""Where devices are compared: its convolutions are what a card computes by other ways."""


@pytest.fixture
def shards(tmp_path):
    return make_shards(tmp_path / "set", objects=40)


def test_batches_arrive_unchanged(shards):
    index = ShardSet.open(shards).split("train")
    mean, std = (0.5, 0.4, 0.3), (0.1, 0.2, 0.3)
    devices, settings = ("cpu", "cuda"), {"views": 3, "action": "rotation", "batch_size": 8, "seed": 0, "workers": 2}
    loaders = [stored_loader(index, device=device, **settings) for device in devices]
    steps = 3 * len(loaders[0])
    cpu, gpu = (
        feed(islice(endless(loader), steps), torch.device(d), mean, std)
        for loader, d in zip(loaders, devices, strict=True)
    )
    for a, b in zip(cpu, gpu, strict=True):
        assert b.views.is_cuda
        assert a.keys == b.keys
        torch.testing.assert_close(a.views, b.views.cpu(), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(a.actions, b.actions.cpu())
        assert torch.equal(a.labels, b.labels.cpu())
    for loader in loaders:
        loader.close()


@pytest.mark.parametrize("overrides", [[], ["train.compile=true"], ["train.precision=fp32"]])
def test_a_run_on_cuda_is_close_to_the_cpus(shards, tmp_path, overrides):
    settings = [RESNET, "optim.epochs=2", "model.dropout=0.0", *overrides]
    train(tiny_config(*settings), shards, tmp_path / "gpu", device="cuda", workers=2, progress=False)
    train(tiny_config(*settings), shards, tmp_path / "cpu", device="cpu", workers=0, progress=False)
    for gpu, cpu in zip(metrics(tmp_path / "gpu"), metrics(tmp_path / "cpu"), strict=True):
        assert gpu["loss"] == pytest.approx(cpu["loss"], abs=0.03)
    loaded = load_run(tmp_path / "gpu", "cuda")
    assert next(loaded.method.parameters()).is_cuda  # type: ignore[call-overload]


def test_a_cuda_run_goes_on_after_its_end(shards, tmp_path):
    train(tiny_config("optim.epochs=1"), shards, tmp_path / "r", device="cuda", workers=2, progress=False)
    done = train(tiny_config(), shards, tmp_path / "r", device="cuda", workers=2, extend_epochs=2, progress=False)
    assert done["epoch"] == 2


@pytest.mark.parametrize("settings", [SACCADES, ["data.augment=equimod", "data.action=augmentation"]])
def test_views_made_on_the_gpu_train_as_those_made_on_the_cpu(tmp_path, settings):
    images = make_saliency_shards(tmp_path / "set", images=40)
    settings = [*settings, RESNET, "optim.epochs=2", "model.dropout=0.0", "train.precision=fp32"]
    for device in ("cuda", "cpu"):
        train(tiny_config(*settings), images, tmp_path / device, device=device, workers=0, progress=False)
    for gpu, cpu in zip(metrics(tmp_path / "cuda"), metrics(tmp_path / "cpu"), strict=True):
        assert gpu["loss"] == pytest.approx(cpu["loss"], abs=0.03)
