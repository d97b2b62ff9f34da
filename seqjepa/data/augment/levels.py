"""Grey levels: what torchvision's tensor operations do to the two kinds of pixels, and we do to a float copy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Levels:
    """Pixels from 0 to `top`. whole: every operation ends in whole grey levels, as it does on uint8 tensors.

    Both methods work in place on float32 and return what they were given.
    """

    top: float
    whole: bool

    def truncate(self, x: Tensor) -> Tensor:
        """Clamp; whole levels by dropping the fraction, as a cast to uint8 does (blends, grayscale)."""
        x.clamp_(0.0, self.top)
        return x.floor_() if self.whole else x

    def nearest(self, x: Tensor) -> Tensor:
        """Clamp; whole levels by rounding half to even (resampling, blur)."""
        if self.whole:
            x.round_()
        return x.clamp_(0.0, self.top)


BYTES = Levels(top=255.0, whole=True)
UNIT = Levels(top=1.0, whole=False)


def levels_of(dtype: torch.dtype) -> Levels:
    return BYTES if dtype == torch.uint8 else UNIT
