"""An image and its saliency map, cropped and resized together, so that what is salient stays where it is seen.

Both go through PIL's bilinear resize with antialiasing, of the same part; a map as probabilities, which then sum to 1
again (docs/fidelity.md #55).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

Fit = Literal["squash", "crop"]


@dataclass(frozen=True)
class Frame:
    """What all images become: height × width pixels.

    fit  "squash": the whole image, whatever its proportions; "crop": its largest centred part of these proportions;
         None: no resampling, images have to have this size
    """

    height: int
    width: int
    fit: Fit | None = None

    def keeps(self, height: int, width: int) -> bool:
        """Whether an image of that size stays as it is."""
        return (height, width) == (self.height, self.width)


def fit_image(rgb: np.ndarray, frame: Frame) -> np.ndarray:
    """uint8 [h, w, 3] → [H, W, 3]; the very same array where it has that size. ValueError: it has not, and must."""
    if frame.keeps(rgb.shape[0], rgb.shape[1]):
        return rgb
    part = np.ascontiguousarray(rgb[_part(rgb.shape[0], rgb.shape[1], frame)])
    return np.asarray(Image.fromarray(part).resize((frame.width, frame.height), Image.Resampling.BILINEAR))


def fit_map(p: np.ndarray, frame: Frame) -> np.ndarray:
    """float32 [h, w] → [H, W], summing to 1 if there is any mass in the part that is kept. ValueError as fit_image."""
    if not frame.keeps(p.shape[0], p.shape[1]):
        part = np.ascontiguousarray(p[_part(p.shape[0], p.shape[1], frame)], np.float32)
        p = np.asarray(Image.fromarray(part).resize((frame.width, frame.height), Image.Resampling.BILINEAR))
    return p / (p.sum() or 1)


def _part(height: int, width: int, frame: Frame) -> tuple[slice, slice]:
    """Rows and columns that are kept."""
    if frame.fit is None:
        raise ValueError(f"{width}×{height} pixels, the others have {frame.width}×{frame.height}; give --size")
    if frame.fit == "squash":
        return slice(0, height), slice(0, width)
    scale = min(height / frame.height, width / frame.width)
    kept_height, kept_width = max(1, round(frame.height * scale)), max(1, round(frame.width * scale))
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    return slice(top, top + kept_height), slice(left, left + kept_width)
