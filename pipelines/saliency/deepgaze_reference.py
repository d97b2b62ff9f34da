"""The package's own forward pass behind the same three methods as FastDeepGaze: `forward="package"`."""

from __future__ import annotations

from torch import Tensor, nn

from pipelines.saliency.pooling import area_pool
from shards.errors import FailureError


class PackageDeepGaze(nn.Module):
    """model: deepgaze_pytorch's DeepGazeIIE. Shapes and units as FastDeepGaze's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._dtype = next(model.parameters()).dtype  # backbones take no other; a centre bias may be finer

    def forward(self, images: Tensor, centre_bias: Tensor) -> Tensor:
        """Log density [B, H, W], nats. FailureError if the package gives another shape than [B, 1, H, W]."""
        log = self.model(images.to(self._dtype), centre_bias[None])
        if tuple(log.shape) != (len(images), 1, *centre_bias.shape):
            wanted = [len(images), 1, *centre_bias.shape]
            raise FailureError(f"deepgaze_pytorch gave {list(log.shape)} instead of {wanted}: another version?")
        return log[:, 0]

    def density(self, images: Tensor, centre_bias: Tensor) -> Tensor:
        """[B, H, W], sums to 1."""
        return self(images, centre_bias).exp()

    def pooled(self, images: Tensor, centre_bias: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, *size], sums to 1."""
        return area_pool(self.density(images, centre_bias), size)
