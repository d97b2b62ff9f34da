"""Presets: which kinds a set has, how much its objects vary, and what stage they stand on.

plain  32 kinds in the colours of their families, under one light, on a bare floor: easy to learn from in minutes
hard   55 kinds, one in five near-symmetric, whose objects vary in proportions, details and colours, on patterned floors
       with clutter, under lights that hide edges: tells methods apart after long training
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipelines.synth.dice import Dice, Stream, stream
from pipelines.synth.families import FAMILIES, HARD_FAMILIES, NEAR_SYMMETRIC, Family
from pipelines.synth.parts import Solid, assemble
from pipelines.synth.scene import OBJECT_RADIUS
from pipelines.synth.vary import WideDice, varied

THIN_COAT = 0.3  # of hard objects; a near-symmetric one wears none, for that would show its turns


@dataclass(frozen=True)
class Preset:
    """name; version: raised whenever the same seed would give other pixels; families by label; hard: see above."""

    name: str
    version: int
    families: tuple[Family, ...]
    hard: bool

    def class_names(self, count: int) -> tuple[str, ...]:
        """Names of the first `count` families, by label."""
        return tuple(family.__name__ for family in self.families[:count])

    def solid(self, seed: int, index: int, families: int) -> Solid:
        """The shape and the paint of object `index` of a set of that many families, the same in every view."""
        label = index % families
        family, generator = self.families[label], stream(seed, index, Stream.SHAPE)
        if not self.hard:
            return assemble(family(Dice(generator, label)), OBJECT_RADIUS)
        parts = family(WideDice(generator, label))
        near_symmetric, dice = family in NEAR_SYMMETRIC, Dice(stream(seed, index, Stream.VARIATION))
        solid = assemble(varied(parts, dice, near_symmetric), OBJECT_RADIUS)
        return replace(solid, coat=0.0 if near_symmetric else THIN_COAT)


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("plain", 1, FAMILIES, hard=False),
        Preset("hard", 1, HARD_FAMILIES, hard=True),
    )
}
