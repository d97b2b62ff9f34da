"""Which objects a set has, and making one of them. Each depends on (seed, index) alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Literal, TypeVar

import numpy as np

from pipelines.build.pool import map_in_order
from pipelines.synth.config import SynthConfig, check_config
from pipelines.synth.dice import Stream, stream
from pipelines.synth.latents import draw_latents
from pipelines.synth.parts import Solid
from pipelines.synth.presets import PRESETS
from pipelines.synth.stage import draw_stages
from shards.machine.environment import usable_cores

Result = TypeVar("Result")

FIRST_SYNSET = 90_000_000
# Below this many pixels, one process is done before others have started (importing torch takes them seconds).
_POOL_FROM_PIXELS = 20_000 * 64 * 64


@dataclass(frozen=True)
class PlannedObject:
    """An object before it is made. `object_id` is 32 hexadecimal digits, as long as 3DIEBench's: seed and index."""

    index: int
    label: int
    synset: str
    object_id: str
    split: Literal["train", "val"]


@dataclass(frozen=True)
class SynthObject:
    """One object, rendered.

    synset   8 digits, ascending with the label       object_id  32 hexadecimal digits
    images   uint8 [V, H, W, 3], the RGB that a reader of the JPEGs sees: red and blue swapped, as in 3DIEBench
    latents  float64 [V, 7], in the order of shards.schema.THREE_DIEBENCH_PARAMS
    """

    synset: str
    object_id: str
    split: Literal["train", "val"]
    images: np.ndarray
    latents: np.ndarray


def plan_objects(cfg: SynthConfig) -> list[PlannedObject]:
    """All objects of a set in the order of their index; out-of-distribution sets have the validation objects only."""
    planned = []
    for index in range(cfg.objects):
        turn, label = divmod(index, cfg.family_count)
        split = "val" if _is_val(turn, cfg.val_fraction) else "train"
        if split == "val" or not cfg.ood:
            planned.append(PlannedObject(index, label, synset_id(label), f"{cfg.seed:016x}{index:016x}", split))
    return planned


def synset_id(label: int) -> str:
    return f"{FIRST_SYNSET + label:08d}"


def object_solid(seed: int, index: int, families: int, preset: str = "plain") -> Solid:
    """The shape and the paint of object `index`, the same in every view and in the out-of-distribution set."""
    return PRESETS[preset].solid(seed, index, families)


def make_object(item: PlannedObject, cfg: SynthConfig) -> SynthObject:
    from pipelines.synth.render import render_views

    purpose = Stream.VIEWS_OOD if cfg.ood else Stream.VIEWS
    latents = draw_latents(stream(cfg.seed, item.index, purpose), cfg.views, cfg.ood)
    stages = None
    if PRESETS[cfg.preset].hard:
        of_stages = Stream.STAGE_OOD if cfg.ood else Stream.STAGE
        stages = draw_stages(stream(cfg.seed, item.index, of_stages), cfg.views)
    solid = object_solid(cfg.seed, item.index, cfg.family_count, cfg.preset)
    images = render_views(solid, latents, cfg.size, cfg.device, stages)
    return SynthObject(item.synset, item.object_id, item.split, images, latents)


def iter_objects(cfg: SynthConfig) -> Iterator[SynthObject]:
    """All objects of a set, in order. UsageError for a bad configuration, before anything is rendered."""
    check_config(cfg)
    return (made for _, made in work_through(partial(make_object, cfg=cfg), plan_objects(cfg), cfg))


def work_through(
    work: Callable[[PlannedObject], Result],
    items: Sequence[PlannedObject],
    cfg: SynthConfig,
    workers: int | None = None,
) -> Iterator[tuple[PlannedObject, Result]]:
    """(item, work(item)) in order: over all cores where there is much to do, else here, and on a GPU always here."""
    if workers is None:
        much = len(items) * cfg.views * cfg.size**2 >= _POOL_FROM_PIXELS and cfg.device == "cpu"
        workers = usable_cores() if much else 1
    return map_in_order(work, items, workers, lambda item: f"object {item.index}")


def _is_val(turn: int, fraction: float) -> bool:
    """Whether the `turn`-th object of a family is validation: a `fraction` of any run of them, the second one first.

    Two objects of a family are thus enough for a class to be in both splits, and adding objects moves none.
    """

    def validation_before(count: int) -> int:
        return ceil(round((count - 1) * fraction, 9))

    return turn > 0 and validation_before(turn + 1) > validation_before(turn)
