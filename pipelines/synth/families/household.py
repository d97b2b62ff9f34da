"""Kitchen, balcony and hall. Handles, spouts and labels break the round shapes' symmetry."""

from __future__ import annotations

from math import cos, pi, sin

from pipelines.synth.dice import Dice
from pipelines.synth.parts import Colour, Part, box, cone, cylinder, ellipsoid, strut


def handle(x: float, low: float, high: float, reach: float, thick: float, colour: Colour) -> list[Part]:
    """A square handle that stands out from x towards −x, between two heights."""
    middle, size = (low + high) / 2, (reach, thick, thick)
    return [
        box((x - reach / 2, 0, low), size, colour),
        box((x - reach / 2, 0, high), size, colour),
        box((x - reach, 0, middle), (thick, thick, high - low + thick), colour),
    ]


def mug(r: Dice) -> list[Part]:
    wide, tall, tip = r(0.7, 0.95), r(0.8, 1.15), r(0.8, 1.0)
    paint, band = r.paint(), r.paint()
    parts = [cone((0, 0, 0), (wide, wide, tall), paint, axis="-z", tip=tip)]
    parts += [cylinder((0, 0, tall / 2), (wide * 0.86, wide * 0.86, 0.03), r.dark())]
    parts += [cylinder((0, 0, tall * r(-0.1, 0.2)), (wide * 1.02, wide * 1.02, tall * 0.16), band)]
    return parts + handle(-wide * 0.42, -tall * 0.25, tall * 0.27, r(0.26, 0.36), 0.11, r.paint())


def bottle(r: Dice) -> list[Part]:
    wide, tall, neck = r(0.45, 0.6), r(0.8, 1.05), r(0.3, 0.45)
    glass, label = r.paint(), r.paint()
    parts = [cylinder((0, 0, tall / 2), (wide, wide, tall), glass)]
    parts += [cone((0, 0, tall + 0.12), (wide, wide, 0.24), glass, tip=0.4)]
    parts += [cylinder((0, 0, tall + 0.2 + neck / 2), (wide * 0.38, wide * 0.38, neck), glass)]
    parts += [cylinder((0, 0, tall + 0.2 + neck), (wide * 0.46, wide * 0.46, 0.12), r.paint())]
    parts += [cylinder((0, 0, tall * 0.5), (wide * 1.04, wide * 1.04, tall * r(0.4, 0.6)), label, r.paint())]
    return [*parts, ellipsoid((wide * 0.5, 0, tall * 0.5), (0.08, wide * 0.4, wide * 0.4), r.paint())]


def teapot(r: Dice) -> list[Part]:
    wide, tall, paint, trim = r(0.95, 1.15), r(0.7, 0.95), r.paint(), r.paint()
    parts = [ellipsoid((0, 0, 0), (wide, wide, tall), paint)]
    parts += [strut((wide * 0.35, 0, -0.1), (wide * 0.78, 0, tall * 0.42), 0.22, trim, tip=0.5)]
    parts += handle(-wide * 0.4, -tall * 0.2, tall * 0.28, r(0.3, 0.4), 0.1, r.paint())
    parts += [ellipsoid((0, 0, tall * 0.42), (wide * 0.5, wide * 0.5, 0.18), trim)]
    parts += [ellipsoid((0, 0, tall * 0.42 + 0.14), (0.16, 0.16, 0.16), r.paint())]
    return [*parts, cylinder((0, 0, -tall * 0.46), (wide * 0.55, wide * 0.55, 0.12), trim)]


def pot_plant(r: Dice) -> list[Part]:
    wide, tall, leaf = r(0.5, 0.7), r(0.4, 0.6), r.paint()
    parts = [cone((0, 0, 0), (wide, wide, tall), r.paint(), r.paint(), axis="-z", tip=0.7)]
    parts += [cylinder((0, 0, tall / 2), (wide * 1.12, wide * 1.12, 0.1), r.paint())]
    turn, count = r(0, 2 * pi), 6
    for k in range(count):
        angle, tilt, size = turn + 2 * pi * k / count, r(38, 62), r(0.6, 0.85)
        reach, lift = sin(tilt * pi / 180) * size / 2, cos(tilt * pi / 180) * size / 2
        at = (cos(angle) * reach, sin(angle) * reach, tall / 2 + lift)
        paint = leaf if k else r.paint()
        parts += [ellipsoid(at, (0.07, 0.26, size), paint, turn=(0, tilt, angle * 180 / pi))]
    parts += [strut((0, 0, tall / 2), (0.05, 0.05, tall / 2 + 0.75), 0.06, leaf)]
    return [*parts, ellipsoid((0.05, 0.05, tall / 2 + 0.8), (0.28, 0.28, 0.24), r.paint(), r.paint())]


def umbrella(r: Dice) -> list[Part]:
    wide, tall, dome, stick = r(1.4, 1.7), r(1.2, 1.5), r(0.32, 0.5), r.dark()
    parts = [cone((0, 0, tall), (wide, wide, dome), r.paint(), r.paint(), tip=0.1)]
    parts += [cylinder((0, 0, tall / 2), (0.08, 0.08, tall), stick)]
    parts += [cone((0, 0, tall + dome / 2 + 0.06), (0.08, 0.08, 0.2), r.paint())]
    parts += [box((0.12, 0, 0.02), (0.3, 0.1, 0.09), r.paint()), box((0.26, 0, 0.12), (0.09, 0.1, 0.28), r.paint())]
    return parts
