"""The stage every object stands on: camera, floor and spot light, in metres-like units, z up.

As in 3DIEBench (facebookresearch/SIE@54541cf data/main.py:112-180) the camera is 2.5 away, 45° above the horizon and
looks at the object; the floor is HSV(hue, 0.6, 0.6); the spot light sits at polar angle θ from the zenith and azimuth φ
and is HSV(hue, 1, 0.8). The distance of the light, the height of the floor and the field of view are our own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CAMERA_DISTANCE = 2.5
CAMERA_ELEVATION = np.pi / 4
HALF_VIEW = 0.26  # tangent of half the field of view
OBJECT_RADIUS = 0.62
FLOOR_Z = -0.66
LIGHT_DISTANCE = 3.0


@dataclass(frozen=True)
class Rays:
    """A pencil of rays: all start at `eye` [V, 3], and the one through (u, v) runs along basis · (1, u, v).

    basis [V, 3, 3] is indexed [view, coefficient, xyz]; u counts columns and v rows, in pixels from the top left.
    """

    eye: np.ndarray
    basis: np.ndarray


def camera_rays(size: int, views: int) -> Rays:
    """The camera's rays, the same for every view: float64 eye [V, 3], basis [V, 3, 3]."""
    forward = -np.array([np.cos(CAMERA_ELEVATION), 0.0, np.sin(CAMERA_ELEVATION)])
    right = np.array([0.0, 1.0, 0.0])
    down = np.cross(forward, right)
    step = 2 * HALF_VIEW / size
    basis = np.stack([forward - HALF_VIEW * (right + down), step * right, step * down])
    eye = -CAMERA_DISTANCE * forward
    return Rays(np.broadcast_to(eye, (views, 3)), np.broadcast_to(basis, (views, 3, 3)))


def shadow_rays(camera: Rays, light: np.ndarray) -> Rays:
    """Rays from the light [V, 3] to the floor point that each camera ray sees.

    The floor point is F = eye + d/w, where w = −d_z / (eye_z − floor) is affine in (u, v), as d is. Hence
    w·(F − light) = w·(eye − light) + d is affine too: the shadow is one more picture through the same window.
    """
    w = -camera.basis[:, :, 2] / (camera.eye[:, None, 2] - FLOOR_Z)
    return Rays(light, w[:, :, None] * (camera.eye - light)[:, None, :] + camera.basis)


def floor_points(size: int) -> np.ndarray:
    """Where the ray through each pixel's centre meets the floor: float64 [size, size, 3]."""
    rays = camera_rays(size, 1)
    centre = np.arange(size) + 0.5
    u, v = centre[None, :, None], centre[:, None, None]
    d = rays.basis[0, 0] + u * rays.basis[0, 1] + v * rays.basis[0, 2]
    return rays.eye[0] + d * ((FLOOR_Z - rays.eye[0, 2]) / d[..., 2:])


def light_position(theta: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Polar angle from the zenith and azimuth (rad, [V]) → position [V, 3]."""
    across = np.sin(theta)
    return LIGHT_DISTANCE * np.stack([across * np.cos(phi), across * np.sin(phi), np.cos(theta)], axis=-1)


def hsv(hue: np.ndarray, saturation: float, value: float) -> np.ndarray:
    """Hue in [0, 1] of any shape → RGB [..., 3] in [0, 1]."""
    k = (np.array([5.0, 3.0, 1.0]) + 6 * np.asarray(hue)[..., None]) % 6
    return value * (1 - saturation * np.clip(np.minimum(k, 4 - k), 0, 1))


def project(points: np.ndarray, size: int) -> np.ndarray:
    """World points [..., 3] → pixel positions (u, v) [..., 2] of the camera's image."""
    rays = camera_rays(size, 1)
    s = np.linalg.solve(rays.basis[0].T, (points - rays.eye[0])[..., None])[..., 0]
    return s[..., 1:] / s[..., :1]
