"""Turned and thrown things: round about z but for one small mark at +x. Their rotation is hard to see, by design."""

from __future__ import annotations

from pipelines.synth.dice import Dice
from pipelines.synth.parts import Part, cone, cylinder, ellipsoid


def mark(x: float, z: float, size: float, r: Dice) -> Part:
    """A sticker: all that tells one side of a round thing from another."""
    return ellipsoid((x, 0, z), (size * 0.5, size, size), r.paint())


def vase(r: Dice) -> list[Part]:
    wide, tall, lip, neck = r(0.6, 0.9), r(0.8, 1.2), r(0.35, 0.6), r(0.25, 0.45)
    glaze = r.paint()
    parts = [ellipsoid((0, 0, 0), (wide, wide, tall), glaze)]
    parts += [cylinder((0, 0, -tall * 0.46), (wide * 0.55, wide * 0.55, tall * 0.12), glaze)]
    parts += [cone((0, 0, tall * 0.42 + neck / 2), (lip, lip, neck), glaze, axis="-z", tip=r(0.45, 0.8))]
    parts += [cylinder((0, 0, tall * 0.42 + neck), (lip * 0.9, lip * 0.9, 0.03), r.dark())]
    return [*parts, mark(wide * 0.47, tall * 0.1, wide * 0.24, r)]


def ball(r: Dice) -> list[Part]:
    wide, band = r(0.9, 1.1), r(0.12, 0.3)
    parts = [ellipsoid((0, 0, 0), (1, 1, wide), r.paint())]
    parts += [ellipsoid((0, 0, s * wide * 0.3), (0.84, 0.84, wide * 0.44), r.paint()) for s in (1, -1)]
    parts += [cylinder((0, 0, 0), (1.01, 1.01, band), r.paint())]
    return [*parts, mark(0.47, r(0.1, 0.2), 0.2, r)]


def bowl(r: Dice) -> list[Part]:
    wide, tall, foot = r(1.1, 1.4), r(0.35, 0.6), r(0.4, 0.6)
    clay = r.paint()
    parts = [cone((0, 0, 0), (wide, wide, tall), clay, axis="-z", tip=foot)]
    parts += [cylinder((0, 0, tall / 2), (wide * 0.9, wide * 0.9, 0.03), r.dark())]
    parts += [cylinder((0, 0, -tall * 0.55), (wide * foot * 0.8, wide * foot * 0.8, tall * 0.2), clay)]
    return [*parts, mark(wide * 0.42, tall * 0.12, tall * 0.4, r)]


def barrel(r: Dice) -> list[Part]:
    wide, tall, waist, wood, hoop = r(0.7, 0.9), r(1.0, 1.3), r(0.7, 0.85), r.paint(), r.paint()
    parts = [cone((0, 0, tall / 4), (wide, wide, tall / 2), wood, tip=waist)]
    parts += [cone((0, 0, -tall / 4), (wide, wide, tall / 2), wood, axis="-z", tip=waist)]
    for height in (0.3, -0.3):
        ring = wide * (1.03 - 1.2 * (1 - waist) * abs(height))
        parts += [cylinder((0, 0, tall * height), (ring, ring, 0.08), hoop)]
    parts += [cylinder((0, 0, tall / 2), (wide * waist * 0.85, wide * waist * 0.85, 0.04), r.dark())]
    return [*parts, mark(wide * 0.49, 0, 0.16, r)]


def candle(r: Dice) -> list[Part]:
    wide, tall, dish = r(0.25, 0.4), r(0.7, 1.1), r(0.6, 0.9)
    wax = r.paint()
    parts = [cylinder((0, 0, tall / 2), (wide, wide, tall), wax), cylinder((0, 0, tall), (0.04, 0.04, 0.16), r.dark())]
    parts += [ellipsoid((0, 0, tall + 0.2), (0.13, 0.13, r(0.24, 0.34)), r.paint())]
    parts += [cone((0, 0, 0), (dish, dish, 0.12), r.paint(), axis="-z", tip=0.7)]
    return [*parts, ellipsoid((wide * 0.48, 0, tall * 0.75), (0.08, 0.1, tall * 0.3), wax)]


def goblet(r: Dice) -> list[Part]:
    wide, cup, stem, foot = r(0.55, 0.75), r(0.45, 0.65), r(0.4, 0.6), r(0.45, 0.65)
    metal = r.paint()
    parts = [cone((0, 0, stem + cup / 2), (wide, wide, cup), metal, axis="-z", tip=r(0.45, 0.75))]
    parts += [cylinder((0, 0, stem + cup), (wide * 0.88, wide * 0.88, 0.03), r.dark())]
    parts += [cylinder((0, 0, stem / 2), (0.1, 0.1, stem), metal)]
    parts += [ellipsoid((0, 0, stem / 2), (0.18, 0.18, 0.14), metal)]
    parts += [cone((0, 0, 0.04), (foot, foot, 0.12), metal, tip=0.3)]
    return [*parts, mark(wide * 0.45, stem + cup * 0.6, 0.14, r)]


def spinning_top(r: Dice) -> list[Part]:
    wide, low, high, stem = r(0.9, 1.1), r(0.45, 0.65), r(0.15, 0.3), r(0.3, 0.5)
    parts = [cone((0, 0, -low / 2), (wide, wide, low), r.paint(), axis="-z", tip=0.08)]
    parts += [cone((0, 0, high / 2), (wide, wide, high), r.paint(), tip=0.35)]
    parts += [cylinder((0, 0, 0), (wide * 1.03, wide * 1.03, 0.09), r.paint())]
    parts += [cylinder((0, 0, high + stem / 2), (0.13, 0.13, stem), r.paint())]
    return [*parts, mark(wide * 0.34, high * 0.6, 0.18, r)]


def mushroom(r: Dice) -> list[Part]:
    wide, dome, stem, thick = r(0.9, 1.2), r(0.5, 0.8), r(0.6, 0.9), r(0.28, 0.42)
    stalk = r.pale()
    parts = [ellipsoid((0, 0, stem), (wide, wide, dome), r.paint())]
    parts += [cylinder((0, 0, stem - dome * 0.14), (wide * 0.97, wide * 0.97, dome * 0.12), stalk)]
    parts += [cone((0, 0, stem / 2), (thick, thick, stem), stalk, tip=r(0.6, 0.9))]
    parts += [cylinder((0, 0, stem * 0.6), (thick * 1.3, thick * 1.3, 0.05), stalk)]
    return [*parts, mark(wide * 0.36, stem + dome * 0.3, 0.2, r)]


def ice_cream(r: Dice) -> list[Part]:
    wide, tall, scoops = r(0.55, 0.7), r(0.9, 1.2), r.pick(1, 2, 3)
    parts = [cone((0, 0, -tall / 2), (wide, wide, tall), r.paint(), axis="-z")]
    parts += [cylinder((0, 0, 0), (wide * 1.08, wide * 1.08, 0.1), r.paint())]
    for k in range(scoops):
        size = wide * (1.1 - 0.12 * k)
        parts += [ellipsoid((0, 0, 0.2 + k * wide * 0.6), (size, size, size * 0.95), r.paint())]
    return [*parts, mark(wide * 0.5, 0.25, 0.14, r)]


def light_bulb(r: Dice) -> list[Part]:
    wide, tall, screw = r(0.75, 0.95), r(0.8, 1.0), r(0.3, 0.42)
    glass, metal = r.paint(), r.paint()
    parts = [ellipsoid((0, 0, 0), (wide, wide, tall), glass)]
    parts += [cone((0, 0, -tall * 0.48), (wide * 0.78, wide * 0.78, tall * 0.5), glass, axis="-z", tip=0.55)]
    parts += [cylinder((0, 0, -tall * 0.8), (screw, screw, tall * 0.3), metal)]
    parts += [cylinder((0, 0, -tall * z), (screw * 1.15, screw * 1.15, 0.05), metal) for z in (0.72, 0.82, 0.92)]
    parts += [cone((0, 0, -tall), (screw * 0.8, screw * 0.8, 0.1), r.dark(), axis="-z", tip=0.4)]
    return [*parts, mark(wide * 0.46, tall * 0.15, 0.16, r)]


def drum(r: Dice) -> list[Part]:
    wide, tall = r(0.9, 1.2), r(0.45, 0.8)
    rim = r.paint()
    parts = [cylinder((0, 0, 0), (wide, wide, tall), r.paint())]
    parts += [cylinder((0, 0, s * tall * 0.46), (wide * 1.06, wide * 1.06, tall * 0.12), rim) for s in (1, -1)]
    parts += [cylinder((0, 0, s * tall * 0.53), (wide * 0.92, wide * 0.92, 0.02), r.pale()) for s in (1, -1)]
    return [*parts, mark(wide * 0.48, 0, 0.18, r)]
