"""Families of objects: the classes of 3DIE-Synth. `FAMILIES` is ordered: a family's place is its label.

To add one: write a function `name(r: Dice) -> list[Part]` of about ten lines in one of these files (README.md beside
this folder has an example) and append its name to FAMILIES. Appending leaves every existing object's pixels as they
were as long as the number of families in use is given; inserting renumbers the classes. The first eight are the demo's.
"""

from __future__ import annotations

from collections.abc import Callable

from pipelines.synth.dice import Dice
from pipelines.synth.families import animals, buildings, furniture, household, round, tools, vehicles
from pipelines.synth.parts import Part

Family = Callable[[Dice], list[Part]]


def _named(names: str) -> tuple[Family, ...]:
    """The functions of these names, whichever file they are in."""
    files = (animals, buildings, furniture, household, round, tools, vehicles)
    known = {name: function for file in files for name, function in vars(file).items()}
    return tuple(known[name] for name in names.split())


FAMILIES = _named("""
    aircraft chair mug car lamp dog hammer fish table guitar pot_plant ship sofa bird bottle locomotive bed turtle
    camera helicopter teapot house motorbike giraffe bookshelf spider rocket umbrella windmill robot axe castle
""")

# Round about z but for one small mark, so that their rotation is hard to see.
NEAR_SYMMETRIC = _named("vase ball bowl barrel candle goblet spinning_top mushroom ice_cream light_bulb drum")

_ONLY_HARD = _named("truck tractor sailboat wheelbarrow elephant rabbit crab piano bench scissors sword church")


def _every_fifth(others: tuple[Family, ...], fifth: tuple[Family, ...]) -> tuple[Family, ...]:
    """Four of `others`, then one of `fifth`, and so on: any first n families hold near-symmetric ones alike."""
    return tuple(family for k, last in enumerate(fifth) for family in (*others[4 * k : 4 * k + 4], last))


# The 55 kinds of the preset `hard`, one in five near-symmetric: fixed, whatever is appended to FAMILIES.
HARD_FAMILIES = _every_fifth(FAMILIES[:32] + _ONLY_HARD, NEAR_SYMMETRIC)
