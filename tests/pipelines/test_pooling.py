"""Pooling of densities against brute force and torch's own interpolation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pipelines.saliency.deepgaze_fast import area_matrix, area_pool, author_pool

SIZES = [(12, 4), (12, 5), (7, 12), (16, 16), (1, 3), (512, 96), (375, 96)]


def densities(height: int, width: int) -> torch.Tensor:
    p = torch.rand(2, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return p / p.sum((1, 2), keepdim=True)


def brute_force(values: torch.Tensor, cells: int) -> torch.Tensor:
    """[n] → [cells]: every pixel cut into `cells` equal splinters, splinters summed in runs of n."""
    splinters = values.repeat_interleave(cells) / cells
    return splinters.view(cells, len(values)).sum(1)


@pytest.mark.parametrize(("pixels", "cells"), SIZES)
def test_area_matrix_integrates_every_pixel_over_every_cell(pixels: int, cells: int) -> None:
    values = densities(1, pixels)[0, 0]
    torch.testing.assert_close(area_matrix(pixels, cells) @ values, brute_force(values, cells), rtol=1e-12, atol=0)


@pytest.mark.parametrize("size", [(96, 96), (4, 5), (40, 3)])
def test_area_pool_keeps_the_mass_where_it_was(size: tuple[int, int]) -> None:
    p = densities(37, 23)
    pooled = area_pool(p, size)
    assert pooled.shape == (2, *size)
    torch.testing.assert_close(pooled.sum((1, 2)), torch.ones(2, dtype=torch.float64))
    rows = torch.stack([brute_force(row, size[1]) for row in p[1]])
    expected = torch.stack([brute_force(column, size[0]) for column in rows.T], dim=1)
    torch.testing.assert_close(pooled[1], expected)


def test_area_pool_of_a_point_next_to_a_corner_stays_in_its_cells() -> None:
    p = torch.zeros(1, 5, 5, dtype=torch.float64)
    p[0, 0, 2] = 1  # the middle column of five lies half in each of two cells
    assert area_pool(p, (2, 2))[0].tolist() == [[0.5, 0.5], [0.0, 0.0]]


def test_author_pool_is_bilinear_on_the_log_density() -> None:
    log = densities(64, 48).log().float()
    exp = F.interpolate(log[:, None], (24, 24), mode="bilinear", align_corners=False)[:, 0].exp()
    torch.testing.assert_close(author_pool(log, (24, 24)), exp / exp.sum((1, 2), keepdim=True))
