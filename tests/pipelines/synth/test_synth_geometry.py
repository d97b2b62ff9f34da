"""Every closed-form intersection against a slow march along the ray that only knows inside from outside."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.synth.geometry import ENTER, MISS, bar_radius, field_weights, gradient

SOLIDS = [("box", 1.0), ("ellipsoid", 1.0), ("bar", 1.0), ("bar", 0.4), ("bar", 0.0)]


def inside(kind: str, tip: float, p: np.ndarray) -> np.ndarray:
    if kind == "box":
        return np.abs(p).max(-1) <= 1
    if kind == "ellipsoid":
        return np.linalg.norm(p, axis=-1) <= 1
    radius = 1 + (tip - 1) * (p[..., 2] + 1) / 2
    return (np.abs(p[..., 2]) <= 1) & (np.linalg.norm(p[..., :2], axis=-1) <= radius)


def march(kind: str, tip: float, eye: np.ndarray, d: np.ndarray) -> np.ndarray:
    """First t at which the ray is inside, by even steps and then bisection; infinite if none is."""
    t = np.linspace(0, 2.2, 4000)
    hit = inside(kind, tip, eye + t[:, None] * d)
    if not hit.any():
        return np.array(np.inf)
    high = t[hit.argmax()]
    low = high - (t[1] - t[0])
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if inside(kind, tip, eye + middle * d) else (middle, high)
    return np.array(high)


def closed_form(kind: str, tip: float, eye: np.ndarray, d: np.ndarray) -> np.ndarray:
    """One tile, one eye, directions d [R, 3] → t [R]."""
    weights = field_weights(kind, eye[None], np.array([tip]))[0]
    fields = torch.tensor((weights @ d.T)[:, None, :], dtype=torch.float32)
    origin = torch.tensor(eye[:, None, None], dtype=torch.float32)
    return ENTER[kind](fields, origin, tip)[0].numpy()


@pytest.mark.parametrize(("kind", "tip"), SOLIDS)
def test_rays_enter_where_a_march_says(kind: str, tip: float):
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(25):
        eye = rng.normal(size=3)
        eye *= rng.uniform(2.5, 6) / np.linalg.norm(eye)
        d = rng.uniform(-1.2, 1.2, size=(12, 3)) - eye
        expected = np.array([march(kind, tip, eye, one) for one in d])
        found = closed_form(kind, tip, eye, d)
        hits += int((found < MISS).sum())
        # A march of 4000 steps overlooks what is thinner than a step: such a graze may differ, and nothing else.
        agree = np.isclose(found, expected, atol=2e-4) | ((found >= MISS) & np.isinf(expected))
        for ray in np.flatnonzero(~agree):
            point = eye + found[ray] * d[ray]
            assert np.isinf(expected[ray])
            assert found[ray] < MISS
            assert inside(kind, tip, point * 0.999) != inside(kind, tip, point * 1.001)
        assert agree.mean() > 0.9
    assert 100 < hits < 300


@pytest.mark.parametrize(("kind", "tip"), SOLIDS)
def test_a_thin_solid_seen_from_afar_is_hit_on_its_surface(kind: str, tip: float):
    """A needle 1/200 as thick as it is far away: where b² − ac would have lost all its digits."""
    rng = np.random.default_rng(6)
    eye = np.array([250.0, 31.0, 0.4])
    d = rng.uniform(-0.7, 0.7, size=(200, 3)) - eye
    t = closed_form(kind, tip, eye, d).astype(float)
    hit = t < MISS
    assert hit.sum() > 60
    points = eye + t[hit, None] * d[hit]
    shrink = inside(kind, tip, points * 0.995) & ~inside(kind, tip, points * 1.005)
    assert shrink.mean() > 0.97


@pytest.mark.parametrize(("kind", "tip"), SOLIDS)
def test_gradients_are_normals(kind: str, tip: float):
    """A small step along the gradient leaves the solid, and the opposite one enters it."""
    rng = np.random.default_rng(7)
    eye = np.array([3.0, 2.0, 2.5])
    d = rng.uniform(-0.9, 0.9, size=(400, 3)) - eye
    t = closed_form(kind, tip, eye, d).astype(float)
    points = (eye + t[:, None] * d)[t < MISS]
    points = points[~((kind == "bar") & (np.abs(np.abs(points[:, 2]) - 0.995) < 0.0049))]  # a hem counts as the cap
    mean, slope = (torch.full((len(points),), value) for value in bar_radius(tip))
    n = np.stack(gradient(kind, *torch.tensor(points.T, dtype=torch.float32), mean, slope), axis=-1)
    n /= np.linalg.norm(n, axis=1, keepdims=True)
    assert not inside(kind, tip, points + 1e-3 * n).any()
    assert inside(kind, tip, points - 1e-3 * n).mean() > 0.97  # the rest are within a step of an edge
