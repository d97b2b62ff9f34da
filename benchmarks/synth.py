"""Images per second of 3DIE-Synth's renderer at 64 pixels, beside a plain one that casts every ray at every part.

    python benchmarks/synth.py [--objects 128] [--views 16] [--presets]

`ours` renders whole objects in one process per core, as `seqjepa-data synth 3die` does for large sets, timed from the
first object on (starting the processes is not in it). `one_core` is one process, `at_128` all cores at 128 pixels.
`hard_one_core` is the preset `hard`, in turns with `plain`, so that a shared machine slows both alike; `hard_of_plain`
is the median of the turns' ratios; `--presets` measures nothing else. The peer renders the same scenes view by view,
with the same intersections, samples and light, without tiles. It draws no shadows, which spares it a fifth of the rays.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from common import emit, versions  # noqa: E402

from pipelines.build.pool import map_in_order  # noqa: E402
from pipelines.synth.config import SynthConfig  # noqa: E402
from pipelines.synth.families import FAMILIES  # noqa: E402
from pipelines.synth.objects import make_object, object_solid, plan_objects, work_through  # noqa: E402
from shards.machine.environment import usable_cores  # noqa: E402

PEER_WARM, PEER_VIEWS = 6, 64
TURNS = 7


def presets(size: int, objects: int, views: int) -> tuple[float, float]:
    """Images per second of `hard` in this process, the best of TURNS, and the median ratio of its rate to plain's."""
    made = {}
    for preset in ("plain", "hard"):
        cfg = SynthConfig(objects=objects, views=views, size=size, preset=preset)
        made[preset] = [partial(make_object, item, cfg) for item in plan_objects(cfg)]
    rates: dict[str, list[float]] = {preset: [] for preset in made}
    for turn in range(TURNS + 1):  # the first turn warms up
        for preset, jobs in made.items():
            start = time.perf_counter()
            for job in jobs:
                job()
            if turn:
                rates[preset].append(objects * views / (time.perf_counter() - start))
    ratios = [hard / plain for hard, plain in zip(rates["hard"], rates["plain"], strict=True)]
    return max(rates["hard"]), float(np.median(ratios))


def ours(size: int, objects: int, views: int, workers: int) -> float:
    """Images per second, the better of two runs through one pool: the machine may be shared."""
    cfg = SynthConfig(objects=objects, views=views, size=size)
    planned = plan_objects(cfg)
    made = work_through(partial(make_object, cfg=cfg), planned * 3, cfg, workers)
    for _ in range(8 * workers):  # the processes are up and warm
        next(made)
    rates = []
    for _ in range(2):
        start = time.perf_counter()
        for _ in range(len(planned)):
            next(made)
        rates.append(len(planned) * views / (time.perf_counter() - start))
    return max(rates)


def plain(size: int, workers: int) -> float:
    """Images per second of one view at a time, all rays against all parts, over as many processes as ours."""
    rendered = map_in_order(partial(plain_job, size=size), range(workers * (PEER_WARM + PEER_VIEWS)), workers, str)
    for _ in range(workers * PEER_WARM):
        next(rendered)
    start = time.perf_counter()
    return len(list(rendered)) / (time.perf_counter() - start)


def plain_job(index: int, size: int) -> np.ndarray:
    import torch

    from pipelines.synth.dice import Stream, stream
    from pipelines.synth.latents import draw_latents

    torch.set_num_threads(1)
    with torch.inference_mode():
        latents = draw_latents(stream(0, index, Stream.VIEWS), 1)[0]
        return plain_view(object_solid(0, index, len(FAMILIES)), latents, size)


def plain_view(solid, latents: np.ndarray, size: int) -> np.ndarray:
    """One picture uint8 [size, size, 3]: for every part, every sample of every pixel; the nearest one is coloured."""
    import torch

    from pipelines.synth.geometry import ENTER, MISS, bar_radius, field_weights, gradient
    from pipelines.synth.latents import rotation_matrix
    from pipelines.synth.scene import camera_rays, hsv, light_position

    step = torch.arange(2 * size) / 2 + 0.25
    v, u = torch.meshgrid(step, step, indexing="ij")
    rays, rotation = camera_rays(size, 1), rotation_matrix(latents[:3])
    basis = torch.tensor(rays.basis[0], dtype=torch.float32)
    d = basis[0] + u[..., None] * basis[1] + v[..., None] * basis[2]
    light = light_position(latents[4:5], latents[5:6])[0]
    depth = torch.full(u.shape, MISS)
    colour = torch.tensor(hsv(latents[3], 0.6, 0.6), dtype=torch.float32).expand(*u.shape, 3).clone()
    glow = torch.tensor(hsv(latents[6], 1.0, 0.8), dtype=torch.float32)
    for k, (kind, tip) in enumerate(zip(solid.kind, solid.tip.tolist(), strict=True)):
        frame = rotation @ solid.turn[k]
        eye = (rays.eye[0] - rotation @ solid.at[k]) @ frame / solid.half[k]
        local = d @ torch.tensor(frame / solid.half[k], dtype=torch.float32)
        weights = torch.tensor(field_weights(kind, eye[None], np.array([tip]))[0], dtype=torch.float32)
        fields = torch.movedim(local @ weights.T, -1, 0)
        origin = torch.tensor(eye[:, None, None], dtype=torch.float32)
        t = ENTER[kind](fields, origin, tip)
        nearer = t < depth
        points = torch.tensor(eye, dtype=torch.float32) + t[..., None] * local
        mean, slope = (torch.full(u.shape, value) for value in bar_radius(tip))
        normal = torch.stack(gradient(kind, *points.unbind(-1), mean, slope), dim=-1)
        normal = normal @ torch.tensor((frame / solid.half[k]).T, dtype=torch.float32)
        normal = torch.nn.functional.normalize(normal, dim=-1)
        toward = (normal @ torch.tensor(light / np.linalg.norm(light), dtype=torch.float32)).clamp(min=0)
        paint = torch.tensor(solid.colour[k], dtype=torch.float32) * (0.6 + toward[..., None] * glow)
        depth = torch.where(nearer, t, depth)
        colour = torch.where(nearer[..., None], paint, colour)
    picture = colour.view(size, 2, size, 2, 3).mean((1, 3)).clamp(0, 1)
    return (picture * 255).to(torch.uint8).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=128)
    parser.add_argument("--views", type=int, default=16)
    parser.add_argument("--presets", action="store_true", help="only hard beside plain, in one process")
    args = parser.parse_args()
    hard, hard_of_plain = presets(64, args.objects, args.views)
    if args.presets:
        emit("synth-presets", "images/s", hard, {}, versions=versions("torch", "numpy"), hard_of_plain=hard_of_plain)
        return
    cores = usable_cores()
    emit(
        "synth",
        "images/s",
        ours(64, args.objects, args.views, cores),
        {"plain per-view loop": plain(64, cores)},
        versions=versions("torch", "numpy"),
        one_core=round(ours(64, args.objects, args.views, 1), 1),
        at_128=round(ours(128, args.objects // 2, args.views, cores), 1),
        plain_at_128=round(plain(128, cores), 1),
        hard_one_core=round(hard, 1),
        hard_of_plain=round(hard_of_plain, 3),
    )


if __name__ == "__main__":
    import synth  # under its own name, for the pool's workers do not run this script

    synth.main()
