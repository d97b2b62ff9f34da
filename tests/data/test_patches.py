from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from seqjepa.data.actions import actions_between
from seqjepa.data.fixations import (
    Fixating,
    cut_patches,
    fill_colour,
    fixation_numbers,
    looks_of,
    positions,
    reach_of,
    sample_fixations,
)
from shards.errors import ConfigError


def coordinate_image(height: int, width: int) -> torch.Tensor:
    """uint8 [1, 3, H, W]: each pixel says its row and its column, both from 1, and 7."""
    row, col = torch.meshgrid(torch.arange(1, height + 1), torch.arange(1, width + 1), indexing="ij")
    return torch.stack([row, col, torch.full_like(row, 7)]).to(torch.uint8)[None]


def random_images(count: int, height: int, width: int) -> torch.Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


@pytest.mark.parametrize("patch", [1, 2, 5, 8, 20])
@pytest.mark.parametrize("fill", ["black", "mean"])
def test_a_patch_holds_the_pixels_around_its_fixation(patch, fill):
    height, width, mean = 20, 27, (0.2, 0.5, 0.8)
    outside = [0, 0, 0] if fill == "black" else [51, 128, 204]
    fixations = torch.cartesian_prod(torch.arange(height), torch.arange(width))[None]
    how = Fixating(patch=patch, fill=fill)
    patches = cut_patches(coordinate_image(height, width), fixations, how, mean)
    assert patches.dtype == torch.uint8
    assert patches.shape == (1, height * width, 3, patch, patch)
    for (r, c), seen in zip(fixations[0].tolist(), patches[0], strict=True):
        for i, j in np.ndindex(patch, patch):
            row, col = r - patch // 2 + i, c - patch // 2 + j
            inside = 0 <= row < height and 0 <= col < width
            assert seen[:, i, j].tolist() == ([row + 1, col + 1, 7] if inside else outside)


def test_each_image_gets_its_own_patches_however_it_lies_in_memory(monkeypatch):
    images, how = random_images(9, 24, 24), Fixating(patch=8)
    fixations = torch.from_numpy(np.random.default_rng(1).integers(0, 24, (9, 4, 2)))
    whole = cut_patches(images, fixations, how)
    for b in range(9):
        assert torch.equal(cut_patches(images[b : b + 1], fixations[b : b + 1], how), whole[b : b + 1])
    assert torch.equal(cut_patches(images.contiguous(), fixations, how), whole)
    monkeypatch.setattr("seqjepa.data.fixations._PADDED_PIXELS_AT_ONCE", 2 * 32 * 32)
    assert torch.equal(cut_patches(images, fixations, how), whole)
    assert whole.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def f32(value: Any) -> np.float32:
    return np.float32(value)


def released_patch(image: np.ndarray, row: int, col: int, p: int, mean: np.ndarray | None) -> np.ndarray:
    """The released cut at one fixation, written out pixel by pixel from docs/fidelity.md #9–12.

    image uint8 [S, S, 3]. Every number is float32, and every product and sum in the order of the formulas, because
    truncation to 8 bits shows the last bit.
    """
    side, one = image.shape[0], f32(1)
    line = torch.linspace(-1, 1, p).numpy()
    pixels = image.astype(np.float32) / f32(255)
    if mean is not None:
        pixels = pixels - mean

    def coordinate(t: np.floating, centre: int) -> np.float32:
        middle = f32(centre) * f32(2) / f32(side) - one
        return ((t * f32(p / side) + middle + one) * f32(side) - one) / f32(2)

    def at(y: int, x: int) -> np.ndarray:
        return pixels[y, x] if 0 <= y < side and 0 <= x < side else np.zeros(3, np.float32)

    patch = np.empty((p, p, 3), np.float32)
    for i, j in np.ndindex(p, p):
        y, x = coordinate(f32(line[i]), col), coordinate(f32(line[j]), row)  # the released swap
        top, left = int(np.floor(y)), int(np.floor(x))
        south, east = y - f32(top), x - f32(left)
        north, west = one - south, one - east
        patch[i, j] = (
            at(top, left) * (north * west)
            + at(top, left + 1) * (north * east)
            + at(top + 1, left) * (south * west)
            + at(top + 1, left + 1) * (south * east)
        )
    if mean is not None:
        return (patch + mean) * f32(255)
    return np.trunc(patch * f32(255)).astype(np.uint8)


CASES = [(48, 48), (30, 60), (60, 30), (0, 0), (95, 95), (0, 95), (95, 0), (16, 79), (47, 1), (13, 90)]


@pytest.mark.parametrize("patch", [32, 31, 20, 84])
def test_author_patches_are_bit_equal_to_the_released_grid_written_out(patch):
    image, how = random_images(1, 96, 96), Fixating(patch=patch, fidelity="author")
    patches = cut_patches(image, torch.tensor([CASES]), how)
    assert patches.dtype == torch.uint8
    for (row, col), seen in zip(CASES, patches[0], strict=True):
        expected = released_patch(image[0].permute(1, 2, 0).numpy(), row, col, patch, None)
        assert np.array_equal(seen.permute(1, 2, 0).numpy(), expected), (row, col)


def test_author_patches_are_what_grid_sample_makes_of_the_released_grid():
    """Up to fused multiply-adds, which move a value that is almost a whole level to the other side of it."""
    images, how = random_images(3, 96, 96), Fixating(fidelity="author")
    fixations = torch.from_numpy(np.random.default_rng(1).integers(0, 96, (3, 20, 2)))
    line = torch.linspace(-1, 1, 32) * (32 / 96)
    centre = fixations * 2 / 96 - 1
    grid = torch.empty(3, 20, 32, 32, 2)
    grid[..., 0] = line + centre[..., 0, None, None]
    grid[..., 1] = line[:, None] + centre[..., 1, None, None]
    pixels = images.float() / 255
    expected = torch.nn.functional.grid_sample(pixels, grid.flatten(1, 2), align_corners=False) * 255
    patches = cut_patches(images, fixations, how).transpose(1, 2).flatten(2, 3)
    difference = expected.byte().int() - patches.int()
    assert (difference != 0).float().mean() < 1e-3
    assert (expected - patches).min() > -1e-3
    assert (expected - patches).max() < 1 + 1e-3


def test_author_patches_over_the_mean_keep_their_fractions():
    image, mean = random_images(1, 64, 64), (0.485, 0.456, 0.406)
    how, cases = Fixating(patch=20, fidelity="author", fill="mean"), [(32, 20), (0, 63), (63, 10)]
    patches = cut_patches(image, torch.tensor([cases]), how, mean)
    assert patches.dtype == torch.float32
    for (row, col), seen in zip(cases, patches[0], strict=True):
        expected = released_patch(image[0].permute(1, 2, 0).numpy(), row, col, 20, np.array(mean, np.float32))
        np.testing.assert_allclose(seen.permute(1, 2, 0).numpy(), expected, atol=2e-3)
    assert torch.allclose(patches[0, 1, :, 19, 0], torch.tensor(mean) * 255, atol=1e-3)


def test_an_author_patch_is_seen_at_the_transposed_place():
    """Fixation (30, 60): the patch's centre is row 59.5, column 29.5 (docs/fidelity.md #9), in upright orientation."""
    patch = cut_patches(coordinate_image(96, 96), torch.tensor([[[30, 60]]]), Fixating(fidelity="author"))[0, 0].float()
    rows, cols = patch[0] - 1, patch[1] - 1
    assert abs(float(rows.mean()) - 59.5) < 0.6  # truncated
    assert abs(float(cols.mean()) - 29.5) < 0.6
    assert (rows.diff(dim=0) > 0).all()
    assert (rows.diff(dim=1) == 0).all()
    assert (cols.diff(dim=1) > 0).all()


def test_a_corner_fixation_is_mostly_padding_in_author_mode():
    """73 % (docs/fidelity.md #10), over the four corners: the window lies half a pixel towards (0, 0)."""
    white, corners = (
        torch.full((1, 3, 96, 96), 255, dtype=torch.uint8),
        torch.tensor([[[0, 0], [0, 95], [95, 0], [95, 95]]]),
    )
    patches = cut_patches(white, corners, Fixating(fidelity="author"))
    assert abs(1 - float(patches.float().mean()) / 255 - 0.73) < 0.01


def test_positions_are_fractions_of_the_image_and_say_what_is_seen():
    fixations = torch.tensor([[[30, 60], [0, 0], [11, 95]]])
    paper = positions(fixations, (48, 96), Fixating())
    assert paper.dtype == torch.float32
    assert torch.equal(paper, torch.tensor([[[60 / 96, 30 / 48], [0, 0], [95 / 96, 11 / 48]]]))
    author = positions(fixations, (96, 96), Fixating(fidelity="author"))
    assert torch.equal(author, torch.tensor([[[30 / 96, 60 / 96], [0, 0], [11 / 96, 95 / 96]]]))


def test_position_actions_are_differences_of_neighbours():
    params = np.random.default_rng(0).random((5, 4, 3), np.float32)
    actions = actions_between(params, ["y", "other", "x"], "position")
    assert actions.dtype == np.float32
    assert np.array_equal(actions, (params[:, 1:] - params[:, :-1])[..., [2, 0]])
    with pytest.raises(ConfigError, match="no parameter x, y"):
        actions_between(params, ["a", "b", "c"], "position")


@pytest.mark.parametrize("fidelity", ["paper", "author"])
def test_a_patch_larger_than_the_image_is_refused_in_one_line(fidelity):
    with pytest.raises(ConfigError, match=r"^patches of 33 pixels do not fit images of 40×32; use a patch of 32 or le"):
        cut_patches(coordinate_image(40, 32), torch.zeros(1, 1, 2).long(), Fixating(patch=33, fidelity=fidelity))


def test_released_patches_of_oblong_images_are_refused():
    with pytest.raises(ConfigError, match="takes square images, and these are 40×32"):
        cut_patches(coordinate_image(40, 32), torch.zeros(1, 1, 2).long(), Fixating(patch=8, fidelity="author"))


SQUARE = pytest.param({"fill": "mean", "inhibition": "square"}, marks=pytest.mark.slow)


@pytest.mark.parametrize("how", [{}, SQUARE, {"fixations": "uniform", "patch": 9}])
def test_what_a_gpus_compiler_is_given_sees_the_same(how):
    """Without the compiler's own rounding: one graph."""
    fixating, mean = Fixating(**{"patch": 8, **how}), (0.2, 0.5, 0.8)
    images, maps = random_images(6, 20, 27), torch.rand(6, 20, 27) ** 4
    maps[2] = 0  # used up at once
    numbers = fixation_numbers(1, 2, np.arange(6), 5)
    expected = sample_fixations(maps, numbers, fixating)
    cpu = torch.device("cpu")
    around = torch.tensor(fill_colour(fixating, mean), dtype=torch.uint8)
    torch._dynamo.reset()
    graph = torch.compile(looks_of, dynamic=False, fullgraph=True, backend="aot_eager")
    for looks in (looks_of, graph):
        fixations, patches = looks(images, maps, numbers, fixating, reach_of(fixating, cpu), around)
        assert torch.equal(fixations, expected)
        assert torch.equal(patches, cut_patches(images, expected, fixating, mean))
