"""Chairs, tables, lamps and what else stands in a room. The front (where one sits, reads, opens) is +x."""

from __future__ import annotations

from pipelines.synth.dice import Dice
from pipelines.synth.parts import Colour, Part, box, cone, cylinder, ellipsoid, strut


def legs(length: float, width: float, height: float, thick: float, front: Colour, rear: Colour) -> list[Part]:
    """Four square legs under a length × width top at `height`; front and rear pairs in their own colours."""
    x, y = (length - thick) / 2, (width - thick) / 2
    corners = [(x, y, front), (x, -y, front), (-x, y, rear), (-x, -y, rear)]
    return [box((cx, cy, height / 2), (thick, thick, height), paint) for cx, cy, paint in corners]


def chair(r: Dice) -> list[Part]:
    depth, width, seat, rise = r(0.5, 0.65), r(0.5, 0.65), r(0.45, 0.6), r(0.55, 0.85)
    wood, cushion = r.paint(), r.paint()
    parts = legs(depth, width, seat, r(0.07, 0.1), r.paint(), wood)
    parts += [box((0, 0, seat), (depth, width, 0.09), cushion)]
    parts += [box((-depth / 2, 0, seat + rise / 2), (0.09, width, rise), wood, turn=(0, -r(0, 10), 0))]
    if r(0, 1) < 0.4:
        parts += [box((0, side * width / 2, seat + 0.25), (depth, 0.08, 0.07), wood) for side in (1, -1)]
    return parts


def table(r: Dice) -> list[Part]:
    length, width, height = r(0.7, 0.95), r(1.1, 1.7), r(0.5, 0.75)
    top, drawer = r.paint(), r.paint()
    parts = legs(length * 0.92, width * 0.92, height, r(0.08, 0.12), r.paint(), r.paint())
    parts += [box((0, 0, height), (length, width, 0.09), top, r.paint())]
    return [*parts, box((length * 0.3, width * 0.2, height - 0.14), (length * 0.4, width * 0.4, 0.2), drawer)]


def lamp(r: Dice) -> list[Part]:
    height, shade, foot = r(0.9, 1.3), r(0.55, 0.8), r(0.35, 0.55)
    metal = r.paint()
    parts = [cylinder((0, 0, 0.03), (foot, foot, 0.08), metal, r.paint())]
    parts += [cylinder((0, 0, height / 2), (0.09, 0.09, height), metal)]
    parts += [cone((0, 0, height), (shade, shade, r(0.4, 0.55)), r.pale(), r.paint(), tip=r(0.4, 0.65))]
    parts += [ellipsoid((0, 0, height - 0.25), (0.22, 0.22, 0.3), (1.0, 0.95, 0.6))]
    return [*parts, strut((foot * 0.3, 0, 0.05), (shade * 0.42, 0, height - 0.3), 0.04, r.paint())]


def sofa(r: Dice) -> list[Part]:
    width, depth, seat = r(1.4, 1.9), r(0.7, 0.85), r(0.3, 0.4)
    cloth, cushion = r.paint(), r.paint()
    parts = [box((0, 0, seat / 2), (depth, width, seat), cloth)]
    parts += [box((-depth * 0.42, 0, seat * 1.3), (depth * 0.25, width, seat * 1.9), cloth)]
    parts += [box((0, s * width / 2, seat * 0.8), (depth, 0.2, seat * 1.5), r.paint()) for s in (1, -1)]
    parts += [box((0.08, s * width * 0.22, seat + 0.06), (depth * 0.75, width * 0.4, 0.14), cushion) for s in (1, -1)]
    return [*parts, ellipsoid((0, width * 0.3, seat + 0.24), (0.2, 0.36, 0.32), r.paint(), turn=(0, -20, 0))]


def bed(r: Dice) -> list[Part]:
    length, width, height = r(1.7, 2.0), r(0.95, 1.4), r(0.25, 0.4)
    wood, blanket = r.paint(), r.paint()
    parts = legs(length, width, height, 0.12, wood, wood)
    parts += [box((0, 0, height), (length, width, 0.12), wood)]
    parts += [box((0, 0, height + 0.13), (length, width, 0.18), r.pale())]
    parts += [box((length * 0.14, 0, height + 0.15), (length * 0.7, width * 1.04, 0.2), blanket)]
    parts += [box((-length / 2, 0, height + 0.25), (0.1, width, r(0.6, 0.9)), wood)]
    for s in (1, -1):
        parts += [ellipsoid((-length * 0.36, s * width * 0.23, height + 0.27), (0.3, width * 0.4, 0.18), r.pale())]
    return parts


def bookshelf(r: Dice) -> list[Part]:
    width, depth, height, boards = r(0.7, 1.0), r(0.32, 0.42), r(1.4, 1.7), 4
    wood, gap = r.paint(), height / 4
    parts = [box((0, s * width / 2, height / 2), (depth, 0.07, height), wood) for s in (1, -1)]
    parts += [box((-depth / 2, 0, height / 2), (0.05, width, height), r.paint())]
    parts += [box((0, 0, gap * i), (depth, width, 0.07), wood) for i in range(boards + 1)]
    for i in range(boards):
        left, share = r.pick(1, -1), r(0.25, 0.7)
        at = (-0.02, left * width * (1 - share) / 2, gap * i + gap * 0.4)
        parts += [box(at, (depth * 0.8, width * share, gap * r(0.55, 0.8)), r.paint())]
    return parts


def piano(r: Dice) -> list[Part]:
    width, height, depth = r(1.3, 1.6), r(0.95, 1.25), r(0.3, 0.42)
    wood, desk = r.paint(), height * 0.5
    parts = [box((0, 0, height / 2), (depth, width, height), wood, r.paint())]
    parts += [box((depth * 0.5 + 0.16, 0, desk), (0.36, width, 0.14), wood)]
    parts += [box((depth * 0.5 + 0.18, 0, desk + 0.08), (0.28, width * 0.92, 0.04), (0.95, 0.95, 0.95))]
    parts += [box((depth * 0.5 + 0.12, 0, desk + 0.11), (0.14, width * 0.88, 0.04), (0.06, 0.06, 0.06))]
    parts += [box((depth * 0.5 + 0.28, s * width * 0.46, desk / 2), (0.1, 0.1, desk), wood) for s in (1, -1)]
    parts += [box((depth * 0.5 + 0.05, 0, desk + 0.26), (0.05, width * 0.5, 0.24), r.pale(), turn=(0, -15, 0))]
    return [*parts, box((0, 0, height), (depth * 1.15, width * 1.05, 0.06), r.paint())]


def bench(r: Dice) -> list[Part]:
    width, depth, seat, rise, wood = r(1.4, 1.9), r(0.4, 0.55), r(0.4, 0.5), r(0.4, 0.6), r.paint()
    slats = r.pick(2, 3, 4)
    parts = legs(depth, width * 0.85, seat, 0.09, r.paint(), r.paint())
    for k in range(slats):
        parts += [box((depth * ((k + 0.5) / slats - 0.5), 0, seat), (depth / slats * 0.8, width, 0.06), wood)]
    for k in range(slats):
        at = (-depth * 0.55 - 0.03 * k, 0, seat + rise * (k + 0.7) / slats)
        parts += [box(at, (0.06, width, rise / slats * 0.7), wood, turn=(0, -8, 0))]
    parts += [box((-depth * 0.55, s * width * 0.4, seat + rise * 0.4), (0.06, 0.08, rise), r.paint()) for s in (1, -1)]
    parts += [box((0, s * width * 0.45, seat + 0.24), (depth, 0.07, 0.05), r.paint()) for s in (1, -1)]
    return parts
