"""The stage of the preset `hard` against plain formulas: patterns, lights, haze, and where clutter lies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipelines.synth import shade
from pipelines.synth.dice import Stream, stream
from pipelines.synth.latents import draw_latents
from pipelines.synth.parts import assemble, ellipsoid
from pipelines.synth.render import render_views
from pipelines.synth.scene import FLOOR_Z, floor_points, hsv, project
from pipelines.synth.stage import CLUTTER, CLUTTER_SHOWN, DRAWS, draw_stages, set_stage

SIZE = 48
GREY = [ellipsoid((0, 0, 0), (1, 1, 1), (0.8, 0.8, 0.8))]
BALL, SPECK = (replace(assemble(GREY, radius), coat=0.0) for radius in (0.4, 1e-4))


def draws(views: int = 1, ambient: float = 0.999) -> np.ndarray:
    """Stages without clutter, haze and almost without a pattern."""
    u = np.full((views, DRAWS), 0.5)
    u[:, 1], u[:, 5] = ambient, 1.0
    u[:, 18::10] = 0.999
    return u


def latents(views: int = 1, theta: float = 0.0, phi: float = 0.0) -> np.ndarray:
    values = np.zeros((views, 7))
    values[:, 4], values[:, 5] = theta, phi
    return values


def test_more_views_begin_with_the_same_stages():
    few, many = (draw_stages(stream(1, 5, Stream.STAGE), n) for n in (3, 30))
    assert np.array_equal(few, many[:3])


def test_stages_stay_in_their_ranges():
    stage = set_stage(draw_stages(stream(0, 0, Stream.STAGE), 4000))
    for light in (stage.sky, stage.from_above, stage.headlight, stage.spot, stage.floor_ambient, stage.floor_spot):
        assert light.min() >= 0
        assert light.max() <= 1.2
    assert ((stage.clear > 0.3) & (stage.clear <= 1)).all()
    assert ((stage.colour >= 0) & (stage.colour <= 1)).all()
    shown = np.abs(stage.centre[..., 1]) < 1
    assert np.allclose(shown.mean(1), CLUTTER_SHOWN, atol=0.04)
    assert np.allclose(stage.centre[..., 2] - stage.half[..., 2], FLOOR_Z)  # all lie on the floor
    assert (stage.half[1:, :, 0] == stage.half[1:, :, 1]).all()


@pytest.mark.parametrize("kind", range(4), ids=["stripes", "waves", "checks", "blotches"])
def test_the_floor_pattern_is_its_formula(kind: int):
    u = draws()
    u[:, 10] = (kind + 0.5) / 4
    scale, turn, shift_u, shift_v, bend, cross, sharp, depth = wave = set_stage(u).wave[0]
    x, y = floor_points(SIZE)[..., 0], floor_points(SIZE)[..., 1]
    along = scale * (np.cos(turn) * x + np.sin(turn) * y) + shift_u
    across = scale * (np.cos(turn) * y - np.sin(turn) * x) + shift_v
    first, second = np.sin(along + bend * np.sin(across)), np.sin(across + bend * np.sin(along))
    value = first * (second if cross else 1)
    expected = depth * np.clip((1 + sharp * value) / 2, 0, 1)
    found = shade._pattern(*(torch.tensor(a, dtype=torch.float32) for a in (x, y, wave[:, None, None, None])))
    assert np.allclose(found[0].numpy(), expected, atol=1e-4)
    assert np.ptp(expected) > 0.05


def test_under_an_even_sky_a_ball_is_a_flat_disc_and_under_the_spot_it_is_not():
    flat = render_views(BALL, latents(theta=0.7), SIZE, stages=draws(ambient=1.0))[0].astype(float)
    round_ = render_views(BALL, latents(theta=0.7), SIZE, stages=draws(ambient=0.0))[0].astype(float)
    inside = np.hypot(*(np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2)) < SIZE * 0.2
    assert np.ptp(flat[inside].mean(-1)) < 2
    assert np.ptp(round_[inside].mean(-1)) > 15


def test_the_spot_lights_the_side_it_shines_on():
    """From the camera's right (+y), then from its left."""
    lit = [
        render_views(BALL, latents(theta=np.pi / 4, phi=phi), SIZE, stages=draws(ambient=0.0))[0].astype(float).sum(-1)
        for phi in (np.pi / 2, -np.pi / 2)
    ]
    middle = slice(SIZE // 2 - 6, SIZE // 2 + 6)
    left, right = slice(SIZE // 2 - 8, SIZE // 2 - 3), slice(SIZE // 2 + 3, SIZE // 2 + 8)
    assert lit[0][middle, right].mean() > lit[0][middle, left].mean() + 10
    assert lit[1][middle, left].mean() > lit[1][middle, right].mean() + 10


def test_haze_takes_a_picture_to_grey():
    u = draws(2)
    u[1, 5] = 0.0
    clear, hazy = render_views(BALL, latents(2), SIZE, stages=u).astype(float)
    stage = set_stage(u)
    expected = clear * stage.clear[1] + 255 * stage.haze[1] * (1 - stage.clear[1])
    assert np.abs(hazy - expected).max() < 2


@pytest.mark.parametrize("piece", range(len(CLUTTER)), ids=[kind for kind, _ in CLUTTER])
def test_clutter_appears_where_it_lies(piece: int):
    u = draws()
    without = render_views(SPECK, latents(), 96, stages=u)[0].astype(int)
    own = slice(14 + 10 * piece, 24 + 10 * piece)
    u[0, own] = [0.3, 0.3, 0.3, 0.55, 0.0, 0.7, 0.0, 0.3, 1.0, 1.0]
    seen = render_views(SPECK, latents(), 96, stages=u)[0].astype(int)
    v, across = np.nonzero(np.abs(seen - without).max(-1) > 40)
    middle = np.array([across.min() + across.max() + 1, v.min() + v.max() + 1]) / 2
    stage = set_stage(u)
    assert np.abs(middle - project(stage.centre[piece, 0], 96)).max() < 2.5
    paint = stage.colour[piece, 0][::-1] * stage.sky[0] * 255
    assert np.abs(seen[int(middle[1]), int(middle[0])] - paint).max() < 12


def test_the_first_colour_of_the_floor_is_its_hue():
    u = draws(8)
    u[:, 11] = 0.0
    values = latents(8)
    values[:, 3] = np.arange(8) / 8
    found = render_views(SPECK, values, SIZE, stages=u).astype(float).max((1, 2))[:, ::-1]
    assert (found.argmax(1) == hsv(values[:, 3], 0.6, 0.6).argmax(1)).sum() >= 7


def test_views_of_an_object_share_nothing_of_their_stages():
    stage = set_stage(draw_stages(stream(3, 2, Stream.STAGE), 16))
    for quantity in (stage.sky, stage.haze, stage.clear, stage.wave[:, 0], stage.second[:, 0], stage.half[0, :, 0]):
        assert len(np.unique(quantity)) == 16


def test_a_view_does_not_depend_on_its_companions():
    values, u = draw_latents(stream(4, 3, Stream.VIEWS), 7), draw_stages(stream(4, 3, Stream.STAGE), 7)
    together = render_views(BALL, values, 50, stages=u)
    alone = [render_views(BALL, values[k : k + 1], 50, stages=u[k : k + 1])[0] for k in range(7)]
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.gpu
def test_a_gpu_renders_the_same_picture():
    values, u = draw_latents(stream(4, 1, Stream.VIEWS), 8), draw_stages(stream(4, 1, Stream.STAGE), 8)
    here, there = (render_views(BALL, values, 64, device, u).astype(int) for device in ("cpu", "cuda"))
    assert (np.abs(here - there) > 2).mean() < 1e-3
