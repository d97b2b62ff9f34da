"""Pixels against independent pinhole optics: where a marker, a shadow and a colour must appear."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from pipelines.synth import render as rendering
from pipelines.synth.dice import Stream, stream
from pipelines.synth.latents import draw_latents, rotation_matrix
from pipelines.synth.objects import object_solid
from pipelines.synth.parts import Solid, box, ellipsoid
from pipelines.synth.pose import pose
from pipelines.synth.render import depth_buffer, render_views, shadow
from pipelines.synth.scene import FLOOR_Z, HALF_VIEW, camera_rays, hsv, light_position, shadow_rays
from pipelines.synth.tiles import CENTRE, ROTATED_GRID, grid

WHITE, BLACK = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)


def solid_of(*parts) -> Solid:
    """As assemble(), without centring and scaling."""
    return Solid(
        kind=tuple(part.kind for part in parts),
        at=np.array([part.at for part in parts], float),
        half=np.array([part.half for part in parts]),
        turn=np.array([part.turn for part in parts]),
        tip=np.array([part.tip for part in parts]),
        colour=np.array([part.colour for part in parts]),
        behind=np.array([part.behind for part in parts]),
    )


def pinhole(point: np.ndarray, size: int) -> np.ndarray:
    """(u, v) in pixels of a world point: a camera 2.5 away at 45°, looking at the origin, +y to its right."""
    s = np.sqrt(0.5)
    eye, forward, right, up = (
        2.5 * np.array([s, 0, s]),
        np.array([-s, 0, -s]),
        np.array([0, 1, 0]),
        np.array([-s, 0, s]),
    )
    ray = point - eye
    x, y = ray @ right / (ray @ forward), ray @ up / (ray @ forward)
    return np.array([(x / HALF_VIEW + 1) / 2, (1 - y / HALF_VIEW) / 2]) * size


def centroid(weight: np.ndarray) -> np.ndarray:
    """(u, v) of the centre of mass, in pixels; a pixel's own centre is at a half."""
    v, u = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
    return np.array([(u * weight).sum(), (v * weight).sum()]) / weight.sum()


def test_a_marker_appears_where_its_rotation_puts_it():
    """Painting the marker changes pixels where it is and nowhere else."""
    size, spot = 96, (0.3, 0.25, 0.35)
    latents = draw_latents(stream(0, 0, Stream.VIEWS), 12)
    body = ellipsoid((0, 0, 0), (0.05, 0.05, 0.05), BLACK)
    bright, dark = (
        render_views(solid_of(body, ellipsoid(spot, (0.08,) * 3, paint)), latents, size) for paint in (WHITE, BLACK)
    )
    for k, angles in enumerate(latents[:, :3]):
        world = Rotation.from_euler("xyz", angles).apply(spot)
        seen = centroid((bright[k].astype(int) - dark[k]).sum(-1) > 60)
        assert np.abs(seen - pinhole(world, size)).max() < 0.8


def test_the_shadow_falls_where_the_light_throws_it():
    size, latents = 64, draw_latents(stream(0, 1, Stream.VIEWS), 10)
    posed = pose(solid_of(ellipsoid((0, 0, -0.35), (0.16,) * 3, WHITE)), np.broadcast_to(np.eye(3), (10, 3, 3)))
    light = light_position(latents[:, 4], latents[:, 5])
    mask = shadow(posed, shadow_rays(camera_rays(size, 10), light), grid(size, 8, CENTRE), "cpu").numpy()
    for k in range(10):
        to_ball = np.array([0, 0, -0.35]) - light[k]
        on_floor = light[k] + to_ball * (FLOOR_Z - light[k, 2]) / to_ball[2]
        assert np.abs(centroid(mask[k]) - pinhole(on_floor, size)).max() < 0.8


def test_light_angles_are_polar_from_the_zenith_and_azimuth():
    assert np.allclose(light_position(np.zeros(1), np.ones(1)) / 3, [[0, 0, 1]])
    assert np.allclose(light_position(np.full(1, np.pi / 4), np.full(1, np.pi / 2)) / 3, [[0, 0.5**0.5, 0.5**0.5]])


def test_hsv_equals_the_standard_library():
    from colorsys import hsv_to_rgb

    hues = np.linspace(0, 1, 37)
    assert np.allclose(hsv(hues, 0.6, 0.6), [hsv_to_rgb(h, 0.6, 0.6) for h in hues])


def test_red_and_blue_are_swapped_as_in_3diebench():
    """A floor of hue 0 is red in the renderer and so blue in the files; a green one is green in both."""
    latents = np.zeros((2, 7))
    latents[:, 3] = [0, 1 / 3]
    latents[:, 6] = [0, 1 / 3]
    corner = render_views(solid_of(box((0, 0, 0), (0.1,) * 3, WHITE)), latents, 32)[:, 0, 0].astype(int)
    assert corner[0, 2] > 1.5 * corner[0, 0]
    assert corner[1].argmax() == 1
    assert np.abs(corner[1, 0] - corner[1, 2]) <= 1


def test_visiting_only_touched_tiles_loses_nothing(monkeypatch: pytest.MonkeyPatch):
    """Depth and shadow are the same as when every part is tried on every tile."""
    size, fine, coarse = 64, grid(64, 4, ROTATED_GRID), grid(64, 8, CENTRE)

    def both(index: int) -> tuple[torch.Tensor, torch.Tensor]:
        latents = draw_latents(stream(0, index, Stream.VIEWS), 2)
        posed = pose(object_solid(0, index, 32), rotation_matrix(latents[:, :3]))
        camera, light = camera_rays(size, 2), light_position(latents[:, 4], latents[:, 5])
        keys = depth_buffer(posed, camera, fine, "cpu")
        miss = int(np.float32(1e6).view(np.int32))
        return keys.clamp(max=miss), shadow(posed, shadow_rays(camera, light), coarse, "cpu")

    near = [both(index) for index in range(32)]

    def everywhere(posed, rays):
        shape = (len(posed.solid), posed.views, 2)
        return np.zeros(shape), np.full(shape, float(size))

    monkeypatch.setattr(rendering, "bounds", everywhere)
    for index, (keys, dark) in enumerate(near):
        all_keys, all_dark = both(index)
        assert torch.equal(keys, all_keys)
        assert torch.equal(dark, all_dark)


def test_the_nearer_part_hides_the_farther():
    latents = np.zeros((1, 7))
    eye = 2.5 * np.sqrt(0.5)
    near, far = (tuple(np.array([eye, 0, eye]) * s) for s in (0.15, -0.1))
    front, back = ellipsoid(near, (0.2,) * 3, WHITE), ellipsoid(far, (0.2,) * 3, BLACK)
    for order in ((front, back), (back, front)):
        assert render_views(solid_of(*order), latents, 32)[0, 16, 16].min() > 80


@pytest.mark.parametrize("size", [16, 50, 97])
def test_a_view_does_not_depend_on_its_companions(size: int):
    solid = object_solid(4, 3, 32)
    latents = draw_latents(stream(4, 3, Stream.VIEWS), 7)
    together = render_views(solid, latents, size)
    assert together.shape == (7, size, size, 3)
    assert together.dtype == np.uint8
    assert all(np.array_equal(render_views(solid, latents[k : k + 1], size)[0], together[k]) for k in range(7))


def test_many_views_are_rendered_in_chunks(monkeypatch: pytest.MonkeyPatch):
    solid, latents = object_solid(4, 9, 32), draw_latents(stream(4, 9, Stream.VIEWS), 5)
    whole = render_views(solid, latents, 32)
    monkeypatch.setattr(rendering, "_CHUNK_PIXELS", 2 * 32 * 32)
    assert np.array_equal(render_views(solid, latents, 32), whole)


def test_edges_are_smooth():
    """A white box before a dark floor: its outline has values in between."""
    latents = np.zeros((1, 7))
    latents[0, 2] = 0.3
    lit, unlit = (
        render_views(solid_of(box((0, 0, 0), (0.5,) * 3, paint)), latents, 64)[0].astype(float)
        for paint in (WHITE, BLACK)
    )
    share = (lit - unlit)[..., 1] / (lit - unlit)[..., 1].max()
    assert ((share > 0.15) & (share < 0.55)).sum() > 20


def test_threads_are_given_back():
    before = torch.get_num_threads()
    render_views(object_solid(0, 0, 32), np.zeros((1, 7)), 16)
    assert torch.get_num_threads() == before


@pytest.mark.gpu
def test_a_gpu_renders_the_same_picture():
    solid, latents = object_solid(4, 1, 32), draw_latents(stream(4, 1, Stream.VIEWS), 8)
    here, there = (render_views(solid, latents, 64, device).astype(int) for device in ("cpu", "cuda"))
    assert (np.abs(here - there) > 2).mean() < 1e-3


@pytest.mark.parametrize("axis", range(3), ids=["front", "left", "top"])
def test_the_coat_tells_which_side_of_an_object_faces_the_camera(axis: int):
    rng = np.random.default_rng(axis)
    latents = np.zeros((400, 7))
    latents[:, :3] = rng.uniform(-np.pi, np.pi, (400, 3))
    to_camera = np.array([1.0, 0.0, 1.0]) / np.sqrt(2)
    facing = Rotation.from_euler("xyz", latents[:, :3]).inv().apply(to_camera)[:, axis]
    chosen = latents[[facing.argmax(), facing.argmin()]]
    grey = ellipsoid((0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5))
    towards, away = render_views(solid_of(grey), chosen, 64)[:, 32, 32, ::-1].astype(float)  # RGB again
    others = [channel for channel in range(3) if channel != axis]
    assert towards[axis] > towards[others].max() + 20
    assert away[axis] < away[others].min() - 20
