"""Families of objects: the classes of 3DIE-Synth. `FAMILIES` is ordered: a family's place is its label.

To add one: write a function `name(r: Dice) -> list[Part]` of about ten lines in one of these files (README.md beside
this folder has an example) and append it to FAMILIES. Appending leaves every existing object's pixels as they were as
long as the number of families in use is given; inserting renumbers the classes. The first eight are the demo's.
"""

from __future__ import annotations

from collections.abc import Callable

from pipelines.synth.dice import Dice
from pipelines.synth.families import animals, buildings, furniture, household, round, tools, vehicles
from pipelines.synth.parts import Part

Family = Callable[[Dice], list[Part]]

FAMILIES: tuple[Family, ...] = (
    vehicles.aircraft,
    furniture.chair,
    household.mug,
    vehicles.car,
    furniture.lamp,
    animals.dog,
    tools.hammer,
    animals.fish,
    furniture.table,
    tools.guitar,
    household.pot_plant,
    vehicles.ship,
    furniture.sofa,
    animals.bird,
    household.bottle,
    vehicles.locomotive,
    furniture.bed,
    animals.turtle,
    tools.camera,
    vehicles.helicopter,
    household.teapot,
    buildings.house,
    vehicles.motorbike,
    animals.giraffe,
    furniture.bookshelf,
    animals.spider,
    vehicles.rocket,
    household.umbrella,
    buildings.windmill,
    tools.robot,
    tools.axe,
    buildings.castle,
)

# Round about z but for one small mark, so that their rotation is hard to see.
NEAR_SYMMETRIC: tuple[Family, ...] = (
    round.vase,
    round.ball,
    round.bowl,
    round.barrel,
    round.candle,
    round.goblet,
    round.spinning_top,
    round.mushroom,
    round.ice_cream,
    round.light_bulb,
    round.drum,
)

_ONLY_HARD: tuple[Family, ...] = (
    vehicles.truck,
    vehicles.tractor,
    vehicles.sailboat,
    vehicles.wheelbarrow,
    animals.elephant,
    animals.rabbit,
    animals.crab,
    furniture.piano,
    furniture.bench,
    tools.scissors,
    tools.sword,
    buildings.church,
)


def _every_fifth(others: tuple[Family, ...], fifth: tuple[Family, ...]) -> tuple[Family, ...]:
    """Four of `others`, then one of `fifth`, and so on: any first n families hold near-symmetric ones alike."""
    return tuple(family for k, last in enumerate(fifth) for family in (*others[4 * k : 4 * k + 4], last))


# The 55 kinds of the preset `hard`, one in five near-symmetric: fixed, whatever is appended to FAMILIES.
HARD_FAMILIES = _every_fifth(FAMILIES[:32] + _ONLY_HARD, NEAR_SYMMETRIC)
