"""Things that are held, played or wound up. The working end points up or to +x."""

from __future__ import annotations

from math import cos, radians, sin

from pipelines.synth.dice import Dice
from pipelines.synth.parts import Part, box, cone, cylinder, ellipsoid, strut


def hammer(r: Dice) -> list[Part]:
    long, head, metal = r(1.2, 1.5), r(0.3, 0.38), r.paint()
    parts = [cylinder((0, 0, long / 2), (0.13, 0.16, long), r.paint())]
    parts += [cylinder((0, 0, long * 0.17), (0.18, 0.2, long * 0.34), r.paint())]
    parts += [box((0, 0, long), (r(0.4, 0.5), 0.24, 0.24), metal)]
    parts += [cylinder((0.32, 0, long), (0.26, head, head), r.paint(), axis="x")]
    return [*parts, cone((-0.4, 0, long), (0.45, 0.24, 0.24), metal, axis="-x", turn=(0, -12, 0))]


def axe(r: Dice) -> list[Part]:
    long, blade, steel = r(1.3, 1.6), r(0.5, 0.75), r.pale()
    parts = [cylinder((0, 0, long / 2), (0.11, 0.15, long), r.paint(), turn=(0, r(-4, 4), 0))]
    parts += [cylinder((0, 0, 0.14), (0.15, 0.19, 0.28), r.paint())]
    parts += [cone((0.3, 0, long * 0.88), (0.5, 0.12, blade), steel, axis="-x", tip=0.35)]
    return [*parts, box((0, 0, long * 0.88), (0.24, 0.2, blade * 0.36), r.paint())]


def guitar(r: Dice) -> list[Part]:
    wood, neck, lower, upper = r.paint(), r.paint(), r(0.7, 0.85), r(0.5, 0.62)
    long = r(0.75, 0.95)
    parts = [cylinder((0, 0, 0), (0.2, lower, lower * 0.9), wood, r.paint(), axis="x")]
    parts += [cylinder((0, 0, 0.48), (0.2, upper, upper * 0.9), wood, r.paint(), axis="x")]
    parts += [cylinder((0.1, 0, 0.24), (0.03, 0.25, 0.25), r.dark(), axis="x")]
    parts += [box((0.1, 0, 0.6 + long / 2), (0.07, 0.12, long), neck), box((0.12, 0, -0.14), (0.06, 0.3, 0.07), neck)]
    parts += [box((0.09, 0, 0.7 + long), (0.07, 0.22, 0.28), r.paint())]
    parts += [ellipsoid((0.09, s * 0.16, 0.7 + long), (0.06, 0.12, 0.2), r.pale()) for s in (1, -1)]
    return parts


def camera(r: Dice) -> list[Part]:
    wide, tall, deep = r(1.1, 1.4), r(0.65, 0.8), r(0.35, 0.45)
    body, lens, reach = r.paint(), r(0.5, 0.62), r(0.3, 0.55)
    parts = [box((0, 0, 0), (deep, wide, tall), body, r.paint())]
    parts += [cylinder((deep / 2 + reach / 2, 0, -0.03), (reach, lens, lens), r.paint(), axis="x")]
    parts += [cylinder((deep / 2 + reach, 0, -0.03), (0.06, lens * 0.8, lens * 0.8), (0.15, 0.2, 0.35), axis="x")]
    parts += [box((0.02, 0, tall / 2 + 0.08), (deep * 0.8, 0.36, 0.18), r.paint())]
    parts += [cylinder((0, wide * 0.36, tall / 2 + 0.05), (0.2, 0.2, 0.12), r.paint())]
    return [*parts, box((deep * 0.25, -wide * 0.44, 0), (deep * 0.9, 0.2, tall * 1.02), r.dark())]


def robot(r: Dice) -> list[Part]:
    body, limb, head, eye = r.paint(), r.paint(), r(0.36, 0.5), r.pale()
    raised = r(-60, 60)
    parts = [box((0, 0, 0.85), (0.38, 0.6, 0.65), body, r.paint())]
    parts += [box((0, 0, 1.42), (head, head, head * 0.85), r.paint())]
    parts += [ellipsoid((head / 2, s * head * 0.24, 1.46), (0.09, 0.13, 0.13), eye) for s in (1, -1)]
    for side, tilt in ((1, raised), (-1, -15)):
        parts += [cylinder((0, side * 0.17, 0.28), (0.2, 0.2, 0.5), limb)]
        parts += [box((0.06, side * 0.17, 0.04), (0.36, 0.22, 0.1), r.paint())]
        parts += [cylinder((0.25, side * 0.4, 0.98), (0.6, 0.16, 0.16), limb, axis="x", turn=(0, -tilt, 0))]
    parts += [cylinder((0, 0.08, 1.75), (0.05, 0.05, 0.35), limb)]
    parts += [ellipsoid((0, 0.08, 1.92), (0.13, 0.13, 0.13), r.paint())]
    return [*parts, cylinder((0.2, 0.12, 0.95), (0.05, 0.18, 0.18), r.paint(), axis="x")]


def scissors(r: Dice) -> list[Part]:
    long, spread, ring, steel, grip = r(0.9, 1.2), r(10, 28), r(0.36, 0.48), r.pale(), r.paint()
    parts = [cylinder((0.02, 0, 0), (0.14, 0.13, 0.13), r.dark(), axis="x")]
    for side in (1, -1):
        across, up = sin(radians(side * spread)), cos(radians(spread))
        tip = (side * 0.03, across * long, up * long)
        middle, turn = (tip[0], tip[1] / 2, tip[2] / 2), (-side * spread, 0, 0)
        parts += [cone(middle, (0.05, 0.2, long), steel, turn=turn, tip=0.15)]
        end = (side * 0.03, -across * long * 0.55, -up * long * 0.45)
        parts += [strut((side * 0.03, 0, 0), end, 0.11, grip)]
        eye = (side * 0.03, end[1] - side * ring * 0.25, end[2] - ring * 0.4)
        parts += [cylinder(eye, (0.1, ring * 0.8, ring), grip, axis="x")]
        parts += [cylinder(eye, (0.12, ring * 0.5, ring * 0.65), r.dark(), axis="x")]
    return parts


def sword(r: Dice) -> list[Part]:
    long, wide, guard, grip, brass = r(1.3, 1.7), r(0.14, 0.22), r(0.5, 0.75), r(0.3, 0.42), r.paint()
    parts = [box((0, 0, long * 0.45), (0.05, wide, long * 0.9), r.pale())]
    parts += [cone((0, 0, long * 0.9 + wide * 0.6), (0.05, wide, wide * 1.2), r.pale())]
    parts += [box((0, 0, 0), (0.12, guard, 0.09), brass)]
    parts += [ellipsoid((0, s * guard / 2, 0), (0.14, 0.14, 0.14), brass) for s in (1, -1)]
    parts += [cylinder((0, 0, -grip / 2), (0.1, 0.12, grip), r.paint())]
    parts += [ellipsoid((0, 0, -grip - 0.05), (0.16, 0.16, 0.16), brass)]
    return [*parts, ellipsoid((0.05, 0, 0), (0.1, 0.12, 0.12), r.paint())]
