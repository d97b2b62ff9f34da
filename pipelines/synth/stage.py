"""The stage of the preset `hard`, drawn for every view: light, haze, the floor's pattern, and clutter that lies on it.

None of it is among the seven latents; nothing of it is shared by the views of an object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.synth.latents import rotation_matrix
from pipelines.synth.parts import Kind
from pipelines.synth.scene import FLOOR_Z, hsv

CLUTTER: tuple[tuple[Kind, float], ...] = (("box", 1.0), ("ellipsoid", 1.0), ("bar", 0.6))  # kind and tip
CLUTTER_SHOWN = 0.25  # how often each piece is there
_AWAY = 100.0  # beside the picture, where a piece costs nothing
_PER_PIECE = 10
DRAWS = 14 + _PER_PIECE * len(CLUTTER)  # uniform numbers a view


@dataclass(frozen=True)
class Stage:
    """V views. Lights [V]: sky + from_above·(1 + n·up)/2, headlight, spot; floor_ambient, floor_spot. haze [V] is the
    grey that `clear` [V] of the picture is left of. wave [V, 8]: scale, turn, shifts, bend, cross, sharpness, depth;
    second [V, 3]: the pattern's other colour. Clutter, C pieces: half, centre, colour [C, V, 3], frame [C, V, 3, 3].
    """

    sky: np.ndarray
    from_above: np.ndarray
    headlight: np.ndarray
    spot: np.ndarray
    floor_ambient: np.ndarray
    floor_spot: np.ndarray
    haze: np.ndarray
    clear: np.ndarray
    wave: np.ndarray
    second: np.ndarray
    half: np.ndarray
    centre: np.ndarray
    colour: np.ndarray
    frame: np.ndarray


def draw_stages(generator: np.random.Generator, views: int) -> np.ndarray:
    """What the stages of an object's views are made from: float64 [V, DRAWS]; a longer draw begins with the shorter."""
    return generator.random((views, DRAWS))


def set_stage(draws: np.ndarray) -> Stage:
    """Draws [V, DRAWS], uniform in [0, 1) → the stages."""
    u = draws[:, :14].T
    level = _between(u[0], 0.7, 1.1)
    # 0: the spot alone, grazing and with hard shadows; 1: a sky alike from all sides, which leaves flat silhouettes
    ambient = u[1] ** 1.5
    sky = level * _between(ambient, 0.4, 1.0)
    directed = level * (1 - ambient)
    scale, depth = _between(u[6], 4.0, 14.0), _between(u[11], 0.05, 0.3)
    wave = np.stack([scale, 2 * np.pi * u[7], 20 * u[8], 20 * u[9], *_pattern(u[10]), depth], 1)
    pieces = draws[:, 14:].reshape(-1, len(CLUTTER), _PER_PIECE).transpose(2, 1, 0)
    return Stage(
        sky=sky,
        from_above=directed * 0.5 * u[2],
        headlight=directed * 0.5 * u[3],
        spot=directed * 0.5,
        floor_ambient=0.9 * sky,
        floor_spot=directed * 0.6,
        haze=_between(u[4], 0.2, 0.65),
        clear=_between(u[5], 0.85, 1.0),
        wave=wave,
        second=hsv(u[12], 0.5, 1.0) * _between(u[13], 0.2, 0.8)[:, None],
        **_pieces(pieces),
    )


def _pattern(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """bend, cross and sharpness [V] of stripes, waves, checks and blotches, one in four each."""
    kind, within = np.divmod(4 * u, 1)
    bend = np.where(kind == 1, 1.0 + within, np.where(kind == 3, 1.5 + within, 0.0))
    return bend, (kind >= 2).astype(float), 0.5 + 2 * within


def _pieces(u: np.ndarray) -> dict[str, np.ndarray]:
    """u [_PER_PIECE, C, V] → half, centre, colour [C, V, 3] and frame [C, V, 3, 3] of upright pieces on the floor."""
    half = _between(u[:3], 0.05, 0.17)
    half[1] = np.where(np.arange(half.shape[1])[:, None] == 0, half[1], half[0])  # only boxes are oblong
    y = np.where(u[4] < CLUTTER_SHOWN, _between(u[5], -0.8, 0.8), _AWAY)
    centre = np.stack([_between(u[3], -1.4, 0.15), y, FLOOR_Z + half[2]])
    turn = np.zeros((*u.shape[1:], 3))
    turn[..., 2] = 2 * np.pi * u[6]
    colour = hsv(u[7], 1.0, 1.0) * u[8][..., None] + (1 - u[8][..., None])
    return {
        "half": np.moveaxis(half, 0, -1),
        "centre": np.moveaxis(centre, 0, -1),
        "colour": colour * _between(u[9], 0.2, 0.9)[..., None],
        "frame": rotation_matrix(turn),
    }


def _between(u: np.ndarray, low: float, high: float) -> np.ndarray:
    return low + (high - low) * u
