"""Things that drive, float and fly, all towards +x."""

from __future__ import annotations

from pipelines.synth.dice import Dice
from pipelines.synth.parts import Colour, Part, box, cone, cylinder, ellipsoid, strut

GLASS: Colour = (0.25, 0.35, 0.45)
HEADLIGHT: Colour = (1.0, 0.95, 0.55)
TAILLIGHT: Colour = (0.9, 0.1, 0.1)


def wheels(places: list[float], track: float, size: float, width: float, tyre: Colour) -> list[Part]:
    """A pair of wheels, touching the ground, at each x of `places`."""
    spots = [(x, side * track / 2) for x in places for side in (1, -1)]
    return [cylinder((x, y, size / 2), (size, width, size), tyre, axis="y") for x, y in spots]


def aircraft(r: Dice) -> list[Part]:
    body, wing, span, sweep = r.paint(), r.paint(), r(1.7, 2.3), r(8, 28)
    thick = r(0.2, 0.28)
    parts = [ellipsoid((0, 0, 0), (2.0, thick, thick), body, r.paint())]
    for side in (1, -1):
        size = (r(0.3, 0.42), span / 2, 0.05)
        parts += [box((-0.1, side * span / 4, 0), size, wing, turn=(side * 4, 0, side * sweep))]
        parts += [box((-0.85, side * 0.22, 0.04), (0.2, 0.42, 0.04), wing, turn=(0, 0, side * sweep))]
        parts += [cylinder((0.05, side * span * 0.22, -0.1), (0.32, 0.13, 0.13), r.paint(), axis="x")]
    parts += [box((-0.87, 0, 0.22), (0.24, 0.05, r(0.35, 0.5)), r.paint(), turn=(0, -25, 0))]
    return [*parts, ellipsoid((0.72, 0, 0.06), (0.3, 0.16, 0.14), GLASS)]


def car(r: Dice) -> list[Part]:
    length, width, low, roof = r(1.6, 2.0), r(0.75, 0.9), r(0.26, 0.36), r(0.25, 0.36)
    body, tyre, back = r.paint(), r.dark(), r(-0.25, 0.0)
    parts = wheels([length * 0.31, -length * 0.31], width, r(0.34, 0.42), 0.16, tyre)
    parts += [box((0, 0, 0.2 + low / 2), (length, width, low), body)]
    parts += [box((back, 0, 0.2 + low + roof / 2), (length * 0.48, width * 0.86, roof), GLASS)]
    parts += [box((back, 0, 0.2 + low + roof), (length * 0.42, width * 0.88, 0.05), r.paint())]
    parts += [ellipsoid((length / 2, s * width * 0.33, 0.24 + low / 2), (0.1, 0.18, 0.14), HEADLIGHT) for s in (1, -1)]
    parts += [box((-length / 2, s * width * 0.36, 0.26 + low / 2), (0.05, 0.16, 0.1), TAILLIGHT) for s in (1, -1)]
    return parts


def ship(r: Dice) -> list[Part]:
    length, beam, side = r(1.8, 2.2), r(0.45, 0.6), r(0.28, 0.4)
    hull, cabin = r.paint(), r.paint()
    parts = [box((-length * 0.1, 0, 0), (length * 0.7, beam, side), hull)]
    parts += [cone((length * 0.39, 0, 0), (length * 0.32, beam, side), hull, axis="x")]
    parts += [box((-length * 0.18, 0, side * 0.9), (length * 0.4, beam * 0.75, side * 0.8), r.pale())]
    parts += [box((-length * 0.1, 0, side * 1.5), (length * 0.16, beam * 0.6, side * 0.6), cabin)]
    for x in (-0.2, -0.33):
        parts += [cylinder((length * x, 0, side * 1.7), (0.15, 0.15, r(0.4, 0.6)), r.paint(), turn=(0, -12, 0))]
    return [*parts, cylinder((length * 0.22, 0, side), (0.05, 0.05, side * 3), r.dark())]


def locomotive(r: Dice) -> list[Part]:
    boiler, cab, size = r.paint(), r.paint(), r(0.45, 0.55)
    parts = wheels([0.6, 0.2, -0.2, -0.6], 0.46, r(0.26, 0.32), 0.1, r.dark())
    parts += [box((0, 0, 0.3), (1.7, 0.5, 0.14), r.paint())]
    parts += [cylinder((0.25, 0, 0.3 + size / 2), (1.1, size, size), boiler, axis="x")]
    parts += [box((-0.55, 0, 0.66), (0.5, 0.56, 0.75), cab), box((-0.55, 0, 1.06), (0.62, 0.66, 0.08), r.paint())]
    parts += [cone((0.6, 0, 0.45 + size), (0.26, 0.26, r(0.3, 0.45)), r.paint(), axis="-z", tip=0.55)]
    parts += [ellipsoid((0.1, 0, 0.32 + size), (0.24, 0.24, 0.24), HEADLIGHT)]
    return [*parts, cone((0.95, 0, 0.22), (0.3, 0.5, 0.22), r.paint(), axis="x", tip=0.3)]


def helicopter(r: Dice) -> list[Part]:
    body, blade, span = r.paint(), r.dark(), r(1.6, 2.0)
    turn = r(0, 90)
    parts = [ellipsoid((0.2, 0, 0), (0.85, 0.5, 0.52), body), ellipsoid((0.38, 0, 0.05), (0.55, 0.44, 0.4), GLASS)]
    parts += [cone((-0.5, 0, 0.06), (1.0, 0.2, 0.2), body, axis="-x", tip=0.35)]
    parts += [box((-0.98, 0, 0.2), (0.2, 0.05, 0.4), r.paint()), cylinder((0.15, 0, 0.3), (0.1, 0.1, 0.2), r.paint())]
    parts += [box((0.15, 0, 0.4), (span, 0.1, 0.035), blade, r.paint(), turn=(0, 0, turn + k)) for k in (0, 90)]
    for side in (1, -1):
        parts += [cylinder((0.2, side * 0.24, -0.38), (0.9, 0.06, 0.06), r.paint(), axis="x")]
        parts += [box((0.2, side * 0.2, -0.28), (0.06, 0.06, 0.2), blade)]
    return parts


def motorbike(r: Dice) -> list[Part]:
    size, body, tyre = r(0.55, 0.68), r.paint(), r.dark()
    reach = r(0.62, 0.75)
    parts = [cylinder((x, 0, size / 2), (size, 0.14, size), tyre, axis="y") for x in (reach, -reach)]
    parts += [cylinder((x, 0, size / 2), (size * 0.5, 0.16, size * 0.5), r.pale(), axis="y") for x in (reach, -reach)]
    parts += [ellipsoid((0.12, 0, 0.72), (0.6, 0.26, 0.3), body), box((-0.4, 0, 0.72), (0.6, 0.2, 0.12), r.paint())]
    parts += [box((0, 0, 0.42), (0.5, 0.22, 0.36), r.paint())]
    parts += [box((reach - 0.12, 0, 0.62), (0.08, 0.16, 0.75), body, turn=(0, -22, 0))]
    parts += [cylinder((reach - 0.28, 0, 0.98), (0.07, r(0.6, 0.8), 0.07), tyre, axis="y")]
    parts += [ellipsoid((reach - 0.1, 0, 0.85), (0.16, 0.22, 0.22), HEADLIGHT)]
    return [*parts, cylinder((-0.35, -0.16, 0.3), (0.8, 0.1, 0.1), r.paint(), axis="x")]


def rocket(r: Dice) -> list[Part]:
    body, fin, wide, tall = r.paint(), r.paint(), r(0.36, 0.5), r(1.0, 1.3)
    parts = [cylinder((0, 0, 0), (wide, wide, tall), body, r.pale())]
    parts += [cone((0, 0, tall / 2 + 0.25), (wide, wide, 0.5), r.paint())]
    parts += [cone((0, 0, -tall / 2 - 0.1), (wide * 0.9, wide * 0.9, 0.2), r.dark(), tip=0.5)]
    for x, y, paint in ((1, 0, r.paint()), (-1, 0, fin), (0, 1, fin), (0, -1, fin)):
        size = (0.34 if x else 0.06, 0.34 if y else 0.06, r(0.35, 0.5))
        parts += [box((x * wide * 0.75, y * wide * 0.75, -tall * 0.42), size, paint)]
    return [*parts, ellipsoid((wide * 0.46, 0, tall * 0.22), (0.12, 0.26, 0.26), GLASS)]


def truck(r: Dice) -> list[Part]:
    load, cab, width, tall = r(1.0, 1.5), r(0.4, 0.55), r(0.6, 0.75), r(0.6, 0.95)
    front, tyre = load / 2 + cab / 2 + 0.06, r.dark()
    parts = wheels([front, -load * 0.15, -load * 0.4], width, r(0.28, 0.36), 0.14, tyre)
    parts += [box((0, 0, 0.26 + tall / 2), (load, width, tall), r.paint(), r.paint())]
    parts += [box((cab / 2, 0, 0.24), (load + cab, width * 0.7, 0.12), tyre)]
    high = tall * r(0.6, 0.9)
    parts += [box((front, 0, 0.22 + high / 2), (cab, width * 0.95, high), r.paint())]
    parts += [box((front + cab * 0.46, 0, 0.22 + high * 0.7), (0.08, width * 0.8, high * 0.3), GLASS)]
    parts += [ellipsoid((front + cab / 2, s * width * 0.34, 0.3), (0.08, 0.12, 0.12), HEADLIGHT) for s in (1, -1)]
    return parts


def tractor(r: Dice) -> list[Part]:
    big, small, hood, paint = r(0.75, 0.95), r(0.38, 0.5), r(0.75, 1.0), r.paint()
    parts = wheels([-0.4], 0.85, big, 0.24, r.dark()) + wheels([hood * 0.6], 0.62, small, 0.16, r.dark())
    parts += [box((hood * 0.35, 0, 0.62), (hood, 0.38, 0.34), paint), box((-0.38, 0, 0.6), (0.5, 0.5, 0.3), paint)]
    parts += [box((-0.4, 0, 1.02), (0.44, 0.46, 0.5), GLASS), box((-0.4, 0, 1.3), (0.6, 0.58, 0.07), r.paint())]
    parts += [cylinder((hood * 0.6, 0, 0.95), (0.08, 0.08, r(0.35, 0.55)), r.dark())]
    return [*parts, box((hood * 0.86, 0, 0.6), (0.05, 0.3, 0.26), r.pale())]


def sailboat(r: Dice) -> list[Part]:
    length, beam, mast = r(1.2, 1.6), r(0.36, 0.5), r(1.2, 1.7)
    hull, sail = r.paint(), r.pale()
    parts = [box((-length * 0.15, 0, 0), (length * 0.6, beam, 0.24), hull, r.paint())]
    parts += [cone((length * 0.33, 0, 0), (length * 0.36, beam, 0.24), hull, axis="x")]
    parts += [cylinder((0.05, 0, mast / 2), (0.05, 0.05, mast), r.dark())]
    parts += [cone((-length * 0.2, 0, mast * 0.55), (length * 0.5, 0.03, mast * 0.8), sail, turn=(0, 8, 0))]
    parts += [cone((length * 0.22, 0, mast * 0.45), (length * 0.3, 0.03, mast * 0.6), r.paint(), turn=(0, -12, 0))]
    return [*parts, box((-length * 0.25, 0, 0.16), (length * 0.25, beam * 0.7, 0.12), r.paint())]


def wheelbarrow(r: Dice) -> list[Part]:
    wide, deep, wheel, metal = r(0.6, 0.8), r(0.3, 0.42), r(0.4, 0.5), r.paint()
    parts = [cone((0, 0, 0.62), (r(0.9, 1.15), wide, deep), metal, axis="-z", tip=r(0.5, 0.7))]
    parts += [box((0, 0, 0.62 + deep / 2), (0.85, wide * 0.75, 0.03), r.dark())]
    parts += [cylinder((0.62, 0, wheel / 2), (wheel, 0.14, wheel), r.dark(), axis="y")]
    wood = r.paint()
    for side in (1, -1):
        parts += [strut((0.62, side * 0.1, wheel / 2), (-0.95, side * wide * 0.42, 0.72), 0.08, wood)]
        parts += [strut((-0.3, side * wide * 0.32, 0.5), (-0.38, side * wide * 0.36, 0), 0.07, metal)]
        parts += [strut((-0.85, side * wide * 0.4, 0.7), (-1.08, side * wide * 0.45, 0.74), 0.12, r.paint())]
    return parts
