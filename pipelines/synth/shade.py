"""Light and colour: the floor per pixel, the object per sample.

Surfaces see a white sky (brighter from above), a white light at the camera, and the coloured spot light, with a soft
highlight. Every object wears the same iridescent coat over its paint, as thick as `Solid.coat`: redder where the
surface faces the object's front, greener to its left, bluer to its top. It is what makes rotation visible on any part
of any object, also on one never seen before. Colours are RGB planes in [0, 1], first axis the channel; red and blue
are swapped in render.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial, reduce

import numpy as np
import torch
from torch import Tensor

from pipelines.synth.geometry import MISS, bar_radius, gradient
from pipelines.synth.parts import Kind
from pipelines.synth.pose import Pose
from pipelines.synth.scene import CAMERA_DISTANCE, FLOOR_Z, Rays, floor_points, hsv
from pipelines.synth.stage import Stage
from pipelines.synth.tiles import Grid

SKY, SKY_FROM_ABOVE, HEADLIGHT, SPOT, SHINE = 0.5, 0.3, 0.3, 0.15, 0.1
FLOOR_AMBIENT, FLOOR_SPOT = 0.5, 0.3
_BEAM = (0.86, 0.995)  # cosines from the beam's axis: dark at its rim, full in its middle


def floor(latents: np.ndarray, light: np.ndarray, lit: Tensor, size: int, stage: Stage | None = None) -> Tensor:
    """Latents [V, 7], light [V, 3], lit [V, S, S] (1: no shadow) → RGB planes float32 [3, V, S, S]."""
    put = partial(to_device, device=lit.device)
    points = put(floor_points(size))
    x, y = points[..., 0], points[..., 1]
    lx, ly, lz = put(light.T[:, :, None, None])
    dx, dy, dz = lx - x, ly - y, lz - FLOOR_Z
    distance = (dx * dx).add_(dy * dy).add_(dz * dz).sqrt_()
    far = put(np.linalg.norm(light, axis=1)[:, None, None])
    along = (dx * lx).add_(dy * ly).add_(dz * lz).div_(distance * far)
    low, high = _BEAM
    beam = along.sub_(low).div_(high - low).clamp_(0, 1)
    spot = (beam * beam).mul_(3 - 2 * beam).mul_(dz / distance).mul_(lit)
    paint = put(hsv(latents[:, 3], 0.6, 0.6).T[:, :, None, None])
    glow = put(hsv(latents[:, 6], 1.0, 0.8).T[:, :, None, None])
    if stage is None:
        return (glow * spot.mul_(FLOOR_SPOT)).add_(FLOOR_AMBIENT).mul_(paint)
    spot.mul_(put(stage.floor_spot[:, None, None]))
    paint = torch.lerp(
        paint, put(stage.second.T[:, :, None, None]), _pattern(x, y, put(stage.wave.T[:, :, None, None]))
    )
    return (glow * spot).add_(put(stage.floor_ambient[:, None, None])).mul_(paint)


def _pattern(x: Tensor, y: Tensor, wave: Tensor) -> Tensor:
    """Stripes, waves, checks or blotches on the floor points x, y [S, S]: 0 to 1, float32 [V, S, S]."""
    scale, turn, shift_u, shift_v, bend, cross, sharpness, depth = wave
    along, across = scale * turn.cos(), scale * turn.sin()
    u = (along * x).add_(across * y).add_(shift_u)
    v = (along * y).sub_(across * x).add_(shift_v)
    wavy_u = (v.sin().mul_(bend)).add_(u).sin_()
    wavy_v = (u.sin_().mul_(bend)).add_(v).sin_()
    tone = wavy_u.mul_(wavy_v.sub_(1).mul_(cross).add_(1))
    return tone.mul_(sharpness).add_(1).mul_(0.5).clamp_(0, 1).mul_(depth)


def veil(image: Tensor, stage: Stage) -> Tensor:
    """The picture [3, V, S, S] behind the stage's haze."""
    put = partial(to_device, device=image.device)
    return image.mul_(put(stage.clear[:, None, None])).add_(put((stage.haze * (1 - stage.clear))[:, None, None]))


def solids(
    pose: Pose,
    rays: Rays,
    latents: np.ndarray,
    light: np.ndarray,
    grid: Grid,
    keys: Tensor,
    stage: Stage | None = None,
) -> tuple[Tensor, Tensor]:
    """Depth keys [V · tiles, R] → coverage [V, S, S] and RGB planes [3, V, S, S], already weighted by coverage."""
    flat = keys.view(-1)
    miss = int(np.float32(MISS).view(np.int32))
    hit = _indices(flat < miss)
    key = flat.index_select(0, hit)
    part = (key & 63) - 1
    canvas = torch.zeros((4, flat.numel()), device=keys.device)
    canvas[0].scatter_(0, hit, 1.0)
    table = _table(pose, rays, latents, light, keys.device, stage)
    for kind, parts in pose.solid.groups():
        mine = _indices((part >= parts.start) & (part < parts.stop))
        where = hit.index_select(0, mine)
        depth = (key.index_select(0, mine) & -64).view(torch.float32)
        rgb = _shade(kind, table, where, part.index_select(0, mine), depth, pose, grid, staged=stage is not None)
        for plane, colour in zip(canvas[1:], rgb, strict=True):
            plane.scatter_(0, where, colour)
    planes = torch.stack([untile(plane, pose.views, grid) for plane in canvas])
    return planes[0], planes[1:]


def _shade(
    kind: Kind, table: Tensor, where: Tensor, part: Tensor, depth: Tensor, pose: Pose, grid: Grid, staged: bool
) -> list[Tensor]:
    """RGB [N] each of the samples `where` [N] that see parts `part` [N] of one kind at `depth` [N].

    staged: the lights are a stage's, their strengths in the table, in what normals are multiplied with; no highlight.
    """
    view, u, v = _positions(where, grid)
    number = part * pose.views + view
    get = iter(column.index_select(0, number) for column in table)
    x, y, z = (_along(get, u, v, depth) for _ in range(3))
    mean, slope = next(get), next(get)
    n = gradient(kind, x, y, z, mean, slope)
    length = _dot(get, *(c * c for c in n)).sqrt_()
    share = pose.solid.coat
    to_spot, to_sky, to_eye = (_dot(get, *n).div_(length) for _ in range(3))
    to_highlight = None if staged else _dot(get, *n).div_(length)
    coat = [_dot(get, *n).div_(length).add_(1).mul_(share / 2) for _ in range(3)]
    rear = (_dot(get, x, y, z) < 0).to(depth.dtype)

    spot = to_spot.clamp_(min=0)
    if staged:
        white = to_sky.add_(next(get)).add_(to_eye.clamp_(min=0))
    else:
        white = to_sky.add_(1).mul_(SKY_FROM_ABOVE / 2).add_(SKY).add_(to_eye.clamp_(min=0), alpha=HEADLIGHT)
        spot.mul_(SPOT)
    shine = None if to_highlight is None else _power_of_32(to_highlight.clamp_(min=0)).mul_(SHINE)
    rgb = []
    for tinge in coat:
        paint, change, glow = next(get), next(get), next(get)
        colour = paint.add_(change.mul_(rear)).mul_(1 - share).add_(tinge)
        diffuse = colour.mul_((glow * spot).add_(white))
        rgb.append(diffuse if shine is None else diffuse.add_(glow.mul_(shine)))
    return rgb


def _positions(where: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """Flat sample numbers [N] → view int64 [N], and (u, v) in pixels float32 [N] each."""
    put = partial(to_device, device=where.device)
    row = where // len(grid.u)
    ray = where - row * len(grid.u)
    view = row // grid.tiles
    tile = row - view * grid.tiles
    down = tile // grid.across
    u = put(grid.u).index_select(0, ray).add_(tile - down * grid.across, alpha=grid.side)
    return view, u, put(grid.v).index_select(0, ray).add_(down, alpha=grid.side)


def _along(get: Iterator[Tensor], u: Tensor, v: Tensor, depth: Tensor) -> Tensor:
    """One coordinate of eye + depth · (d + u · d_u + v · d_v)."""
    eye, d, along_u, along_v = next(get), next(get), next(get), next(get)
    return eye.add_(d.add_(along_u.mul_(u)).add_(along_v.mul_(v)).mul_(depth))


def _dot(get: Iterator[Tensor], x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return next(get).mul_(x).add_(next(get).mul_(y)).add_(next(get).mul_(z))


def _power_of_32(x: Tensor) -> Tensor:
    return x.square_().square_().square_().square_().square_()


def _table(
    pose: Pose, rays: Rays, latents: np.ndarray, light: np.ndarray, device: torch.device, stage: Stage | None
) -> Tensor:
    """All that `_shade` needs about a (view, part), one row a quantity in the order it asks: float32 [rows, P · V]."""
    solid = pose.solid
    shape = (len(solid), pose.views)
    to_eye = rays.eye / CAMERA_DISTANCE
    half_way = _unit(_unit(light) + to_eye)
    sky = np.broadcast_to([0.0, 0.0, 1.0], to_eye.shape)
    eye, basis = pose.seen_from(rays)
    place = np.concatenate([eye[:, :, None], basis], axis=2).swapaxes(2, 3).reshape(*shape, 12)
    # gradients are covectors of the scaled frame: 1/half turns them, or what they are multiplied with, metric
    toward, level = [_unit(light), sky, to_eye, half_way], []
    if stage:
        strengths = (stage.spot, stage.from_above / 2, stage.headlight)
        toward = [strength[:, None] * way for strength, way in zip(strengths, toward[:3], strict=True)]
        level = [(stage.sky + stage.from_above / 2)[None]]
    normals = pose.to_local(np.stack(toward, axis=1)).reshape(*shape, 3 * len(toward))
    radius = [w[:, None] for w in bar_radius(solid.tip)]
    forward = solid.turn[:, None, 0] * pose.half
    glow = hsv(latents[:, 6], 1.0, 0.8)
    change = pose.behind - pose.colour
    paint = [w for c in range(3) for w in (pose.colour[..., c], change[..., c], glow[None, :, c])]
    rows = [*np.moveaxis(place, -1, 0), *radius, *np.moveaxis(pose.half, -1, 0) ** -2.0, *np.moveaxis(normals, -1, 0)]
    axes = solid.turn[:, None] / pose.half[:, :, None]  # of the object, as gradients are multiplied with
    axes = axes.reshape(*axes.shape[:2], 9)
    rows += [*np.moveaxis(axes, -1, 0), *np.moveaxis(forward, -1, 0), *level, *paint]
    return to_device(np.stack([np.broadcast_to(row, shape) for row in rows]).reshape(len(rows), -1), device)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def untile(samples: Tensor, views: int, grid: Grid) -> Tensor:
    """[V · tiles · R] in any shape → mean over each pixel's samples, [V, S, S]."""
    n, side = grid.across, grid.side
    tiled = samples.view(views, n, n, side, side, grid.samples)
    pixels = reduce(torch.add, tiled.unbind(-1)) / grid.samples  # sum(-1) over so few is three times slower
    image = pixels.permute(0, 1, 3, 2, 4).reshape(views, n * side, n * side)
    return image[:, : grid.size, : grid.size]


def _indices(mask: Tensor) -> Tensor:
    """Where a flat mask is true, int64. On the CPU numpy does it several times faster than torch."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero()[:, 0]


def to_device(array: np.ndarray, device: torch.device | str) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(array, dtype=np.float32), device=device)
