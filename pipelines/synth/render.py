"""One object, many views → pixels. Tensors throughout; the same code runs on a CPU or a GPU.

Three passes over tiles of 64 to 256 rays: `depth_buffer` finds the nearest part of every sample (four a pixel),
`shadow` asks which floor pixels the light cannot see (one a pixel), and `shade` colours what was hit. Only tiles that
a part's bounds touch are visited. All arithmetic on rays is elementwise (no matrix products), so a view's bytes do not
depend on the views rendered with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pipelines.synth import shade
from pipelines.synth.geometry import ENTER, MISS, field_weights
from pipelines.synth.latents import rotation_matrix
from pipelines.synth.parts import Solid
from pipelines.synth.pose import Pose, pose, with_clutter
from pipelines.synth.scene import Rays, camera_rays, light_position, shadow_rays
from pipelines.synth.stage import set_stage
from pipelines.synth.tiles import CENTRE, ROTATED_GRID, Grid, bounds, grid, visits

_CHUNK_PIXELS = 1 << 17  # bounds the memory of a chunk to some 50 MB, whatever the number of views
_EMPTY = 2**31 - 1


def render_views(
    solid: Solid, latents: np.ndarray, size: int, device: str = "cpu", stages: np.ndarray | None = None
) -> np.ndarray:
    """Latents float64 [V, 7] → uint8 [V, size, size, 3], as a reader of 3DIEBench's JPEGs sees them.

    stages float64 [V, DRAWS]: of the preset `hard` (stage.py). None: the bare stage of scene.py, and the coat.

    3DIEBench's images were handed to OpenCV from an RGB buffer, so red and blue are swapped in its files
    (facebookresearch/SIE@54541cf data/main.py:180). So they are here: a floor of hue 0 is blue.
    """
    step = max(1, _CHUNK_PIXELS // size**2)
    with torch.inference_mode(), _one_thread():
        chunks = [
            _render(solid, latents[i : i + step], size, device, None if stages is None else stages[i : i + step])
            for i in range(0, len(latents), step)
        ]
    return np.concatenate(chunks)[..., ::-1].copy()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """The tensors are too small to be worth splitting, and threads that wait for each other stall a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _render(solid: Solid, latents: np.ndarray, size: int, device: str, draws: np.ndarray | None) -> np.ndarray:
    side = 4 if size <= 96 else 8
    fine, coarse = grid(size, side, ROTATED_GRID), grid(size, 2 * side, CENTRE)
    light = light_position(latents[:, 4], latents[:, 5])
    camera = camera_rays(size, len(latents))
    posed = pose(solid, rotation_matrix(latents[:, :3]))
    stage = None if draws is None else set_stage(draws)
    if stage:
        posed = with_clutter(posed, stage)

    keys = depth_buffer(posed, camera, fine, device)
    lit = 1 - shadow(posed, shadow_rays(camera, light), coarse, device)
    image = shade.floor(latents, light, lit, size, stage)
    coverage, colour = shade.solids(posed, camera, latents, light, fine, keys, stage)
    image = image * (1 - coverage) + colour
    if stage:
        image = shade.veil(image, stage)
    return (image.clamp_(0, 1) * 255).add_(0.5).to(torch.uint8).movedim(0, -1).cpu().numpy()


def depth_buffer(pose: Pose, rays: Rays, grid: Grid, device: str) -> Tensor:
    """The nearest part of every sample: int32 [V · tiles, R] keys.

    A key is the depth's float32 bits, which order as integers do, with the lowest six replaced by 1 + the part's
    number: one minimum keeps both, and two parts at the same depth are never both nearest. Untouched samples hold a
    value above that of MISS.
    """
    keys = torch.full((pose.views * grid.tiles, len(grid.u)), _EMPTY, dtype=torch.int32, device=device)
    for part, rows, t in cast(pose, rays, grid, device):
        key = t.view(torch.int32).bitwise_and_(-64).bitwise_or_(part + 1)
        keys.index_copy_(0, rows, torch.minimum(keys.index_select(0, rows), key))
    return keys


def shadow(pose: Pose, rays: Rays, grid: Grid, device: str) -> Tensor:
    """How much of the light is kept from each floor pixel, float32 [V, size, size], softened over 3 × 3 pixels."""
    blocked = torch.zeros((pose.views * grid.tiles, len(grid.u)), device=device)
    for _, rows, t in cast(pose, rays, grid, device):
        hit = (t < MISS).to(blocked.dtype)
        blocked.index_copy_(0, rows, torch.maximum(blocked.index_select(0, rows), hit))
    image = shade.untile(blocked, pose.views, grid)
    return torch.nn.functional.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)


def cast(pose: Pose, rays: Rays, grid: Grid, device: str) -> Iterator[tuple[int, Tensor, Tensor]]:
    """For each part: its number, the rows (view · tiles + tile) it may touch int64 [E], and depths float32 [E, R]."""
    solid = pose.solid
    u, v = shade.to_device(grid.u, device), shade.to_device(grid.v, device)
    eye, basis = pose.seen_from(rays)
    tiles = visits(*bounds(pose, rays), grid)
    rows = torch.as_tensor(tiles.view * grid.tiles + tiles.row * grid.across + tiles.column, device=device)
    for kind, parts in solid.groups():
        # At each visit of this kind: F fields at the tile's corner, their slopes along u and v (each [E, F]), the eye.
        start, stop = tiles.first[parts.start], tiles.first[parts.stop]
        place = tiles.part[start:stop] - parts.start, tiles.view[start:stop]
        weights = field_weights(kind, eye[parts], np.broadcast_to(solid.tip[parts, None], eye[parts].shape[:2]))
        at, along_u, along_v = np.moveaxis(np.einsum("pvfj,pvcj->pvcf", weights, basis[parts])[place], 1, 0)
        at = at + grid.side * (tiles.column[start:stop, None] * along_u + tiles.row[start:stop, None] * along_v)
        packed = np.concatenate([at, along_u, along_v, eye[parts][place]], axis=1).T[..., None]
        count = weights.shape[2]
        corner, across, down, origin = shade.to_device(packed, device).split([count, count, count, 3])
        for part in range(parts.start, parts.stop):
            mine = slice(tiles.first[part] - start, tiles.first[part + 1] - start)
            if mine.start < mine.stop:
                fields = (across[:, mine] * u).add_(down[:, mine] * v).add_(corner[:, mine])
                t = ENTER[kind](fields, origin[:, mine], float(solid.tip[part]))
                yield part, rows[tiles.first[part] : tiles.first[part + 1]], t
