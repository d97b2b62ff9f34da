from __future__ import annotations

import numpy as np

from pipelines.synth.dice import Dice, Stream, stream
from pipelines.synth.families import FAMILIES
from pipelines.synth.latents import draw_latents
from pipelines.synth.objects import object_solid
from pipelines.synth.parts import MAX_PARTS, assemble, box, cone, ellipsoid, strut, surface_points
from pipelines.synth.render import render_views
from pipelines.synth.scene import OBJECT_RADIUS

COUNT = len(FAMILIES)


def silhouettes(index: int, views: int, size: int = 24) -> np.ndarray:
    """What paint cannot hide: where the picture differs from that of the same scene with a speck for an object."""
    latents = draw_latents(stream(0, index, Stream.VIEWS), views)
    latents[:, :3] *= 0.35
    latents[:, 3:] = 0.0
    speck = assemble([box((0, 0, 0), (1, 1, 1), (0, 0, 0))], 1e-4)
    seen = render_views(object_solid(0, index, COUNT), latents, size).astype(int)
    return (np.abs(seen - render_views(speck, latents, size)).max(-1) > 12).reshape(views, -1)


def test_there_are_enough_families_and_their_names_differ():
    assert COUNT >= 24
    assert len({family.__name__ for family in FAMILIES}) == COUNT


def test_every_instance_fits_its_sphere_and_differs_from_the_next():
    for index in range(3 * COUNT):
        family = FAMILIES[index % COUNT]
        parts = family(Dice(stream(0, index, Stream.SHAPE)))
        assert 3 <= len(parts) <= MAX_PARTS
        solid = object_solid(0, index, COUNT)
        other = object_solid(0, index + COUNT, COUNT)
        assert solid.half.shape != other.half.shape or not np.allclose(solid.half, other.half)
        assert (solid.half > 0).all()
        assert np.abs(solid.at).max() < OBJECT_RADIUS
        assert len({tuple(c) for c in solid.colour}) >= 3


def test_families_can_be_told_apart_by_their_outline():
    """Nearest centroid of silhouettes, on objects that it has not seen: ten times better than chance."""
    train = np.stack([np.mean([silhouettes(i + COUNT * k, 4).mean(0) for k in range(2)], axis=0) for i in range(COUNT)])
    right = []
    for label in range(COUNT):
        for view in silhouettes(label + COUNT * 2, 4):
            right.append(np.square(train - view).sum(1).argmin() == label)
    assert np.mean(right) > 10 / COUNT


def test_rotation_shows():
    """No family looks the same from behind, upside down or turned by a quarter."""
    turns = np.zeros((4, 7))
    turns[1, 2], turns[2, 2], turns[3, 0] = np.pi, np.pi / 2, np.pi
    for index in range(COUNT):
        images = render_views(object_solid(0, index, COUNT), turns, 48).astype(int)
        differ = (np.abs(images[1:] - images[0]).max(-1) > 25).mean((1, 2))
        assert differ.min() > 0.01, FAMILIES[index].__name__


def test_a_strut_ends_where_it_should():
    start, end = np.array([0.1, -0.4, 0.2]), np.array([0.5, 0.6, 1.3])
    points = surface_points(strut(tuple(start), tuple(end), 0.2, (1, 1, 1)))
    axis = (end - start) / np.linalg.norm(end - start)
    along = (points - start) @ axis
    assert np.isclose(along.min(), 0)
    assert np.isclose(along.max(), np.linalg.norm(end - start))
    across = np.linalg.norm(points - start - along[:, None] * axis, axis=1)
    assert np.allclose(across, 0.1)


def test_a_cone_points_along_its_axis():
    for axis, column, sign in (("x", 0, 1), ("-x", 0, -1), ("y", 1, 1), ("-y", 1, -1), ("z", 2, 1), ("-z", 2, -1)):
        points = surface_points(cone((0, 0, 0), (1, 2, 3), (1, 1, 1), axis=axis, tip=0.01))
        extent = points.max(0) - points.min(0)
        assert np.allclose(extent, (1, 2, 3))
        top = points[(sign * points[:, column]).argsort()[-16:]]
        assert np.ptp(top, axis=0).max() < 0.05


def test_assemble_centres_and_scales():
    solid = assemble([box((3, 0, 0), (2, 2, 2), (1, 1, 1)), ellipsoid((6, 0, 0), (1, 1, 1), (1, 1, 1))], 2.0)
    assert solid.kind == ("box", "ellipsoid")
    # the whole runs from x = 2 to 6.5: its centre is at 4.25, its farthest points are the box's corners
    scale = 2.0 / np.sqrt(2.25**2 + 2)
    assert np.allclose(solid.at[0], [(3 - 4.25) * scale, 0, 0], atol=1e-3)
