"""A ResNet whose batch norms are folded gives the features of the one that it was made of."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.resnet import ResNet

from seqjepa.config import ModelConfig
from seqjepa.models.backbone import build_backbone, fold_batch_norms


def with_statistics(net: nn.Module) -> nn.Module:
    """Norms that do something: means, variances, weights and biases of their own."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low in ((module.running_mean, -1.0), (module.running_var, 0.5), (module.bias.data, -1.0)):
                assert values is not None
                values.copy_(torch.rand(values.shape, generator=generator) + low)
            module.weight.data.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
    return net.eval()


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(backbone="resnet18"),
        ModelConfig(backbone="resnet18", stem="cifar", width=0.25),
        ModelConfig(backbone="resnet50", width=0.25),
    ],
    ids=["resnet18", "cifar-quarter", "bottlenecks"],
)
@torch.inference_mode()
def test_folded_resnets_give_the_same_features(config: ModelConfig) -> None:
    net = with_statistics(build_backbone(config)[0]).double()
    folded, images = fold_batch_norms(net), torch.rand(2, 3, 48, 48, dtype=torch.float64)
    assert isinstance(folded, ResNet)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(folded(images), net(images), rtol=1e-10, atol=1e-10)
    assert any(isinstance(m, nn.BatchNorm2d) for m in net.modules())  # the original is as it was


def test_other_networks_are_left_alone() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert fold_batch_norms(net) is net
