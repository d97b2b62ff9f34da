"""Families of objects: the classes of 3DIE-Synth. `FAMILIES` is ordered: a family's place is its label.

To add one: write a function `name(r: Dice) -> list[Part]` of about ten lines in one of these files (README.md beside
this folder has an example) and append it to FAMILIES. Appending leaves every existing object's pixels as they were as
long as the number of families in use is given; inserting renumbers the classes. The first eight are the demo's.
"""

from __future__ import annotations

from collections.abc import Callable

from pipelines.synth.dice import Dice
from pipelines.synth.families import animals, buildings, furniture, household, tools, vehicles
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


def class_names(count: int) -> tuple[str, ...]:
    """Names of the first `count` families, by label."""
    return tuple(family.__name__ for family in FAMILIES[:count])
