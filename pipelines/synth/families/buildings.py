"""Houses and towers; the door is at +x."""

from __future__ import annotations

from math import cos, radians, sin

from pipelines.synth.dice import Dice
from pipelines.synth.parts import Part, box, cone, cylinder


def house(r: Dice) -> list[Part]:
    deep, wide, tall, pitch = r(0.8, 1.1), r(1.0, 1.4), r(0.55, 0.8), r(30, 45)
    wall, roof = r.paint(), r.paint()
    slope, run = deep * 0.62 / cos(radians(pitch)), deep / 2 * 0.5
    parts = [box((0, 0, tall / 2), (deep, wide, tall), wall, r.paint())]
    for front, paint in ((1, roof), (-1, r.paint())):
        at = (front * run, 0, tall + sin(radians(pitch)) * slope * 0.42)
        parts += [box(at, (slope, wide * 1.12, 0.08), paint, turn=(0, front * pitch, 0))]
    parts += [box((0, 0, tall + deep * 0.12), (deep * 0.55, wide * 0.96, deep * 0.3), wall)]
    parts += [box((deep / 2, -wide * 0.2, tall * 0.3), (0.05, 0.24, tall * 0.6), r.dark())]
    parts += [box((deep / 2, wide * 0.22, tall * 0.55), (0.05, 0.32, 0.24), (0.95, 0.9, 0.6))]
    return [*parts, box((-deep * 0.2, wide * 0.3, tall + 0.45), (0.18, 0.18, 0.5), r.paint())]


def windmill(r: Dice) -> list[Part]:
    wide, tall, sail, turn = r(0.55, 0.7), r(1.1, 1.3), r(0.65, 0.8), r(0, 90)
    parts = [cone((0, 0, tall / 2), (wide, wide, tall), r.paint(), r.paint(), tip=0.6)]
    parts += [cone((0, 0, tall + 0.15), (wide * 0.75, wide * 0.75, 0.35), r.paint())]
    parts += [cylinder((wide * 0.42, 0, tall), (0.3, 0.12, 0.12), r.dark(), axis="x")]
    paints = [r.paint(), r.pale(), r.pale(), r.pale()]
    for k, paint in enumerate(paints):
        angle = radians(turn + 90 * k)
        at = (wide * 0.55, sin(angle) * sail * 0.52, tall + cos(angle) * sail * 0.52)
        parts += [box(at, (0.05, 0.2, sail), paint, turn=(-(turn + 90 * k), 0, 0))]
    return [*parts, box((wide * 0.46, 0, 0.2), (0.1, 0.22, 0.36), r.dark())]


def castle(r: Dice) -> list[Part]:
    wide, wall, tower, stone = r(0.9, 1.1), r(0.4, 0.5), r(0.75, 1.0), r.paint()
    thick = r(0.3, 0.36)
    parts = [box((0, 0, wall / 2), (wide, wide, wall), stone)]
    for x in (1, -1):
        for y in (1, -1):
            at_x, at_y, roof = x * wide / 2, y * wide / 2, r.paint()
            parts += [cylinder((at_x, at_y, tower / 2), (thick, thick, tower), stone)]
            parts += [cone((at_x, at_y, tower + 0.15), (thick * 1.25, thick * 1.25, 0.36), roof)]
    parts += [box((wide / 2, 0, wall * 0.4), (0.06, 0.3, wall * 0.75), r.dark())]
    return [*parts, box((0, 0, wall + 0.15), (wide * 0.4, wide * 0.4, 0.35), r.paint())]


def church(r: Dice) -> list[Part]:
    long, wide, tall, tower, spire = r(1.0, 1.3), r(0.55, 0.7), r(0.45, 0.6), r(0.9, 1.2), r(0.45, 0.8)
    wall, roof, side = r.paint(), r.paint(), r(0.34, 0.44)
    parts = [box((-side / 2, 0, tall / 2), (long, wide, tall), wall)]
    for s in (1, -1):
        slope = (-side / 2, s * wide * 0.24, tall + wide * 0.2)
        parts += [box(slope, (long * 1.04, wide * 0.72, 0.06), roof, turn=(-s * 42, 0, 0))]
    parts += [box((long / 2 - side / 2, 0, tower / 2), (side, side, tower), wall, r.paint())]
    at = long / 2 - side / 2
    parts += [cone((at, 0, tower + spire / 2), (side * 1.2, side * 1.2, spire), roof)]
    parts += [box((at + side / 2, 0, 0.16), (0.05, 0.18, 0.32), r.dark())]
    parts += [cylinder((at + side / 2, 0, tower * 0.78), (0.05, 0.2, 0.2), r.pale(), axis="x")]
    for x in (-0.3, 0.0):
        for s in (1, -1):
            parts += [box((-side / 2 + x * long, s * wide / 2, tall * 0.55), (0.12, 0.04, 0.26), r.dark())]
    return parts
