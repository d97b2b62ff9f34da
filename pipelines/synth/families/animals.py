"""Creatures looking towards +x."""

from __future__ import annotations

from math import cos, radians, sin

from pipelines.synth.dice import Dice
from pipelines.synth.parts import Colour, Part, box, cone, cylinder, ellipsoid, strut

BLACK: Colour = (0.06, 0.06, 0.06)


def eyes(x: float, spread: float, z: float, size: float) -> list[Part]:
    return [ellipsoid((x, side * spread, z), (size, size, size), BLACK) for side in (1, -1)]


def paws(length: float, width: float, height: float, thick: float, front: Colour, rear: Colour) -> list[Part]:
    """Four round legs under a trunk whose belly is at `height`."""
    spots = [(x, y, paint) for x, paint in ((length, front), (-length, rear)) for y in (width, -width)]
    return [cylinder((x / 2, y / 2, height / 2), (thick, thick, height), paint) for x, y, paint in spots]


def dog(r: Dice) -> list[Part]:
    coat, head, ear = r.paint(), r.paint(), r.paint()
    length, leg, fat = r(0.9, 1.3), r(0.35, 0.55), r(0.36, 0.48)
    top = leg + fat * 0.4
    parts = paws(length * 0.72, fat * 0.6, leg + 0.1, 0.15, r.paint(), coat)
    parts += [ellipsoid((0, 0, top), (length, fat, fat), coat)]
    parts += [ellipsoid((length * 0.5, 0, top + 0.3), (0.42, 0.36, 0.36), head)]
    parts += [ellipsoid((length * 0.5 + 0.24, 0, top + 0.22), (0.3, 0.18, 0.16), ear)]
    for s in (1, -1):
        parts += [ellipsoid((length * 0.46, s * 0.17, top + 0.42), (0.12, 0.08, 0.32), ear, turn=(s * 25, 0, 0))]
    parts += eyes(length * 0.5 + 0.16, 0.1, top + 0.36, 0.08)
    return [*parts, strut((-length * 0.45, 0, top), (-length * 0.45 - 0.3, 0, top + r(0.15, 0.4)), 0.1, ear)]


def fish(r: Dice) -> list[Part]:
    body, fin, length, tall = r.paint(), r.paint(), r(1.2, 1.6), r(0.6, 0.95)
    parts = [ellipsoid((0, 0, 0), (length, r(0.28, 0.38), tall), body, r.paint())]
    parts += [cone((-length * 0.58, 0, 0), (0.5, 0.08, tall * r(0.75, 1.0)), fin, axis="x", tip=0.1)]
    parts += [cone((-0.05, 0, tall * 0.5), (length * 0.5, 0.07, 0.35), fin, turn=(0, -20, 0), tip=0.3)]
    parts += [box((0.1, s * 0.2, -0.1), (0.34, 0.04, 0.2), r.paint(), turn=(s * 35, 30, 0)) for s in (1, -1)]
    parts += [ellipsoid((length * 0.33, s * 0.11, tall * 0.13), (0.15, 0.1, 0.15), (0.95, 0.95, 0.95)) for s in (1, -1)]
    return parts + eyes(length * 0.35, 0.15, tall * 0.14, 0.09)


def bird(r: Dice) -> list[Part]:
    coat, wing, beak = r.paint(), r.paint(), r.paint()
    span, lift = r(0.7, 1.0), r(10, 35)
    parts = [ellipsoid((0, 0, 0), (0.9, 0.4, 0.38), coat, turn=(0, -12, 0))]
    parts += [ellipsoid((0.48, 0, 0.22), (0.32, 0.3, 0.3), r.paint())]
    parts += [cone((0.74, 0, 0.2), (0.28, 0.12, 0.12), beak, axis="x")]
    for side in (1, -1):
        across, up = cos(radians(lift)) * span / 2, sin(radians(lift)) * span / 2
        at = (-0.05, side * (0.12 + across), 0.1 + up)
        parts += [ellipsoid(at, (0.45, span, 0.07), wing, r.paint(), turn=(side * lift, 0, side * 12))]
    parts += [box((-0.58, 0, -0.06), (0.45, r(0.25, 0.4), 0.05), wing, turn=(0, 10, 0))]
    return parts + eyes(0.56, 0.11, 0.28, 0.07)


def turtle(r: Dice) -> list[Part]:
    shell, skin, length, dome = r.paint(), r.paint(), r(1.0, 1.25), r(0.5, 0.7)
    parts = [ellipsoid((0, 0, 0.12), (length, length * 0.85, dome), shell, r.paint())]
    parts += [cylinder((0, 0, 0.06), (length * 1.06, length * 0.92, 0.12), r.paint())]
    parts += [ellipsoid((length * 0.68, 0, 0.16), (0.4, 0.26, 0.24), skin)]
    for x in (0.4, -0.4):
        for side in (1, -1):
            at, turn = (x * length, side * length * 0.42, 0), (0, 0, 45 * side * (x / 0.4))
            parts += [ellipsoid(at, (0.36, 0.24, 0.16), skin, turn=turn)]
    parts += [cone((-length * 0.6, 0, 0.04), (0.25, 0.1, 0.1), skin, axis="-x")]
    return parts + eyes(length * 0.68 + 0.13, 0.09, 0.22, 0.07)


def giraffe(r: Dice) -> list[Part]:
    coat, spots, leg, neck, lean = r.paint(), r.paint(), r(0.65, 0.85), r(0.75, 1.05), r(0.15, 0.35)
    parts = paws(0.62, 0.24, leg + 0.1, 0.11, r.paint(), coat)
    parts += [ellipsoid((0, 0, leg + 0.15), (0.85, 0.36, 0.42), coat, spots)]
    head = (0.32 + lean, 0.0, leg + 0.2 + neck)
    parts += [strut((0.3, 0, leg + 0.15), head, 0.18, coat, tip=0.7)]
    parts += [ellipsoid((head[0] + 0.12, 0, head[2]), (0.42, 0.18, 0.2), spots, turn=(0, 18, 0))]
    for s in (1, -1):
        parts += [strut((head[0], s * 0.05, head[2]), (head[0] - 0.04, s * 0.08, head[2] + 0.2), 0.06, BLACK)]
    return [*parts, strut((-0.4, 0, leg + 0.2), (-0.55, 0, leg - 0.15), 0.06, spots)]


def spider(r: Dice) -> list[Part]:
    body, leg, reach, knee = r.paint(), r.paint(), r(0.75, 0.95), r(0.3, 0.45)
    parts = [ellipsoid((-0.35, 0, 0.1), (0.75, 0.58, 0.5), body)]
    parts += [ellipsoid((0.15, 0, 0.05), (0.42, 0.36, 0.3), r.paint())]
    for angle in (35, 68, 105, 140):
        for side in (1, -1):
            x, y = cos(radians(angle)), side * sin(radians(angle))
            middle = (0.1 + x * reach * 0.55, y * reach * 0.55, knee)
            parts += [strut((0.1, 0, 0.05), middle, 0.08, leg)]
            parts += [strut(middle, (0.1 + x * reach, y * reach, -0.25), 0.07, leg, tip=0.5)]
    return parts + eyes(0.34, 0.08, 0.14, 0.09)


def elephant(r: Dice) -> list[Part]:
    skin, length, fat, leg, ear = r.paint(), r(1.1, 1.4), r(0.75, 0.95), r(0.5, 0.7), r(0.45, 0.65)
    top, front = leg + fat * 0.35, length * 0.55
    parts = paws(length * 0.6, fat * 0.6, leg + 0.15, 0.26, skin, skin)
    parts += [ellipsoid((0, 0, top), (length, fat, fat), skin)]
    parts += [ellipsoid((front, 0, top + 0.2), (0.58, 0.5, 0.56), skin)]
    parts += [strut((front + 0.2, 0, top + 0.15), (front + 0.42, 0, top - 0.3), 0.2, skin, tip=0.75)]
    parts += [strut((front + 0.42, 0, top - 0.3), (front + r(0.4, 0.7), 0, top - r(0.4, 0.65)), 0.14, skin, tip=0.7)]
    for side in (1, -1):
        at = (front - 0.08, side * 0.38, top + 0.22)
        parts += [ellipsoid(at, (0.1, ear, ear * 1.1), r.paint(), turn=(0, 0, -side * 25))]
        parts += [cone((front + 0.36, side * 0.16, top - 0.06), (0.4, 0.08, 0.08), (0.95, 0.95, 0.9), axis="x")]
    parts += eyes(front + 0.22, 0.17, top + 0.32, 0.07)
    return [*parts, strut((-length / 2, 0, top), (-length * 0.58, 0, top - 0.4), 0.06, skin)]


def rabbit(r: Dice) -> list[Part]:
    fur, inner, length, ear = r.paint(), r.paint(), r(0.75, 0.95), r(0.5, 0.8)
    parts = [ellipsoid((0, 0, 0.35), (length, 0.55, 0.6), fur, turn=(0, -15, 0))]
    parts += [ellipsoid((length * 0.48, 0, 0.72), (0.42, 0.36, 0.38), fur)]
    parts += [ellipsoid((-length * 0.52, 0, 0.28), (0.2, 0.2, 0.2), (0.95, 0.95, 0.95))]
    for side in (1, -1):
        at = (length * 0.4, side * 0.12, 0.9 + ear * 0.4)
        parts += [ellipsoid(at, (0.09, 0.16, ear), inner, turn=(side * -10, -r(5, 25), 0))]
        parts += [ellipsoid((-length * 0.2, side * 0.24, 0.14), (0.5, 0.16, 0.26), fur)]
        parts += [ellipsoid((length * 0.36, side * 0.14, 0.12), (0.16, 0.13, 0.36), fur)]
    return [*parts, *eyes(length * 0.48 + 0.14, 0.13, 0.78, 0.07)]


def crab(r: Dice) -> list[Part]:
    shell, leg, wide, reach = r.paint(), r.paint(), r(0.8, 1.1), r(0.3, 0.45)
    parts = [ellipsoid((0, 0, 0), (wide * 0.7, wide, r(0.3, 0.42)), shell, r.paint())]
    for side in (1, -1):
        elbow = (wide * 0.45, side * wide * 0.55, 0.05)
        parts += [strut((wide * 0.2, side * wide * 0.35, 0), elbow, 0.12, leg)]
        claw = (wide * 0.7, side * wide * 0.45, 0.06)
        parts += [ellipsoid(claw, (0.48, 0.26, 0.2), r.paint(), turn=(0, 0, -side * 20))]
        for x in (0.12, -0.08, -0.28):
            knee = (x * wide * 1.3, side * (wide * 0.5 + reach * 0.5), 0.12)
            parts += [strut((x * wide, side * wide * 0.4, 0), knee, 0.08, leg)]
            parts += [strut(knee, (x * wide * 1.6, side * (wide * 0.5 + reach), -0.28), 0.07, leg, tip=0.4)]
        parts += [strut((wide * 0.3, side * 0.1, 0.1), (wide * 0.36, side * 0.13, 0.3), 0.05, leg)]
    return parts + eyes(wide * 0.37, 0.13, 0.32, 0.1)
