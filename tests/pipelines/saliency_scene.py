"""Small folders of photographs for the tests of saliency maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np


def photo(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """uint8 [H, W, 3]: a soft background with one sharp blob."""
    small = rng.integers(0, 255, (4, 4, 3)).astype(np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    centre = int(rng.integers(8, width - 8)), int(rng.integers(8, height - 8))
    return cv2.circle(image, centre, 5, [int(value) for value in rng.integers(0, 255, 3)], -1)


def make_photos(
    folder: Path, count: int, sizes: Sequence[tuple[int, int]] = ((40, 48), (48, 40), (40, 40)), seed: int = 0
) -> Path:
    """PNGs 00.png …, sizes (H, W) in turns."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(count):
        assert cv2.imwrite(str(folder / f"{number:02d}.png"), photo(rng, *sizes[number % len(sizes)]))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
