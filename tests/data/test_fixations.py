from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from seqjepa.data.fixations import Fixating, fixation_numbers, sample_fixations
from shards.errors import ConfigError


def draw(maps: torch.Tensor, count: int, how: Fixating, seed: int = 0, epoch: int = 0) -> torch.Tensor:
    return sample_fixations(maps, fixation_numbers(seed, epoch, np.arange(len(maps)), count), how)


def bumpy_maps(count: int, height: int, width: int) -> torch.Tensor:
    values = torch.from_numpy(np.random.default_rng(height).gamma(0.3, size=(count, height, width)))
    return (values / values.sum((1, 2), keepdim=True)).float()


def inhibited(row: int, col: int, shape: tuple[int, int], how: Fixating) -> np.ndarray:
    """bool [H, W], straight from the paper's §A.1 and docs/fidelity.md #8."""
    down, across = np.mgrid[: shape[0], : shape[1]] - np.array([row, col])[:, None, None]
    if how.inhibition == "disc":
        return down**2 + across**2 <= how.radius**2
    return (abs(down) <= how.radius) & (abs(across) <= how.radius) & (how.inhibition == "square")


def exact_pairs(chances: np.ndarray, how: Fixating) -> np.ndarray:
    """Probability of each (first, second) fixation, [H·W, H·W], as the specification has it."""
    size, pairs = chances.size, np.zeros((chances.size, chances.size))
    for first in range(size):
        left = np.where(inhibited(*divmod(first, chances.shape[1]), chances.shape, how), 0.0, chances) + 1e-16
        pairs[first] = chances.flat[first] * left.ravel() / left.sum()
    return pairs


@pytest.mark.parametrize("inhibition", ["disc", "square", "none"])
def test_pairs_of_fixations_have_the_specified_distribution(inhibition):
    how, draws = Fixating(patch=4, inhibition=inhibition), 300_000
    one = bumpy_maps(1, 5, 6)
    one[0, 2, 3] = 0.0
    chances = (one[0] / one[0].sum()).double().numpy()
    seen = draw(one.expand(draws, 5, 6), 2, how).numpy()
    first, second = seen[:, 0] @ [6, 1], seen[:, 1] @ [6, 1]
    counts = np.bincount(first * 30 + second, minlength=900)
    expected = exact_pairs(chances, how).ravel()
    often = expected > 5 / draws
    assert counts[expected < 1e-13].sum() == 0
    observed = np.append(counts[often], counts[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum()) * draws
    assert stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 1e-3
    assert 0.5 * np.abs(counts / draws - expected).sum() < 0.02


@pytest.mark.parametrize(("inhibition", "patch"), [("disc", 32), ("disc", 9), ("square", 16)])
def test_no_fixation_lies_where_an_earlier_one_inhibits(inhibition, patch):
    how = Fixating(patch=patch, inhibition=inhibition)
    fixations = draw(bumpy_maps(200, 70, 96), 6, how).numpy()
    assert (fixations >= 0).all()
    assert (fixations < [70, 96]).all()
    nearest = 1e9
    for early, late in itertools.combinations(range(6), 2):
        offset = fixations[:, late] - fixations[:, early]
        apart = np.abs(offset).max(1) if inhibition == "square" else np.sqrt((offset**2).sum(1))
        assert (apart > patch // 2).all()
        nearest = min(nearest, apart.min())
    assert nearest < patch // 2 + 1.5  # and nothing beyond is inhibited


def test_a_map_that_is_used_up_is_uniform_over_all_pixels_and_inhibits_anew():
    how, maps = Fixating(patch=4), torch.zeros(40_000, 6, 7)
    maps[:, 1, 2] = 5.0
    fixations = draw(maps, 3, how).numpy()
    assert (fixations[:, 0] == [1, 2]).all()
    second = fixations[:, 1] @ [7, 1]
    assert stats.chisquare(np.bincount(second, minlength=42)).pvalue > 1e-3
    third = ((fixations[:, 2] - fixations[:, 1]) ** 2).sum(1)
    assert third.min() > 4
    assert ((fixations[:, 2] == [1, 2]).all(1)).any()  # the first is open again, as in the released code


def test_an_empty_map_is_uniform_from_the_start():
    first = draw(torch.zeros(30_000, 4, 5), 1, Fixating(patch=2)).numpy()[:, 0] @ [5, 1]
    assert stats.chisquare(np.bincount(first, minlength=20)).pvalue > 1e-3


def test_only_a_remnant_below_the_floor_counts_as_used_up():
    """What the specification adds to each pixel weighs less than a remnant of 1e-9 and more than one of 3e-15."""
    maps = torch.zeros(2000, 8, 8)
    maps[:, 0, 0] = 1.0
    maps[:1000, 7, 7], maps[1000:, 7, 7] = 1e-9, 3e-15  # the floor of 64 pixels is 6.4e-15
    second = draw(maps, 2, Fixating(patch=2))[:, 1]
    assert (second[:1000] == 7).all()
    assert (second[1000:] == 7).all(1).float().mean() < 0.1


def test_uniform_fixations_ignore_the_map_and_inhibition():
    maps = torch.zeros(20_000, 4, 5)
    maps[:, 0, 0] = 1.0
    fixations = draw(maps, 2, Fixating(patch=4, fixations="uniform")).numpy()
    pairs = fixations[:, 0] @ [5, 1] * 20 + fixations[:, 1] @ [5, 1]
    assert stats.chisquare(np.bincount(pairs, minlength=400)).pvalue > 1e-3


def test_a_row_alone_gives_what_it_gives_in_a_batch(monkeypatch):
    maps, how = bumpy_maps(50, 40, 33), Fixating(patch=9)
    numbers = fixation_numbers(3, 2, np.arange(50), 5)
    whole = sample_fixations(maps, numbers, how)
    for b in range(50):
        assert torch.equal(sample_fixations(maps[b : b + 1], numbers[b : b + 1], how), whole[b : b + 1])
    monkeypatch.setattr("seqjepa.data.fixations._PIXELS_AT_ONCE", 7 * 40 * 33)
    assert torch.equal(sample_fixations(maps, numbers, how), whole)


def test_a_longer_draw_extends_a_shorter_one():
    maps, how = bumpy_maps(20, 30, 30), Fixating(patch=8)
    assert torch.equal(draw(maps, 8, how)[:, :3], draw(maps, 3, how))


def test_seed_epoch_and_sample_decide():
    maps, how = bumpy_maps(1, 64, 64).expand(40, 64, 64), Fixating(patch=8)
    once = draw(maps, 4, how, seed=1, epoch=2)
    assert torch.equal(draw(maps, 4, how, seed=1, epoch=2), once)
    for other in (draw(maps, 4, how, seed=2, epoch=2), draw(maps, 4, how, seed=1, epoch=3)):
        assert (other == once).all(2).float().mean() < 0.2
    assert len(once[:, 0].unique(dim=0)) > 20  # equal maps, different samples


def test_half_precision_scale_and_memory_layout_do_not_matter():
    maps, how = bumpy_maps(30, 24, 20) * 480, Fixating(patch=6)
    halves = maps.half()
    before = halves.clone()
    expected = draw(halves.float(), 4, how)
    assert torch.equal(draw(halves, 4, how), expected)
    assert torch.equal(draw(halves.float() * 0.25, 4, how), expected)
    assert torch.equal(draw(halves.transpose(1, 2).contiguous().transpose(1, 2), 4, how), expected)
    assert torch.equal(halves, before)


def test_the_largest_number_falls_on_the_last_pixel_that_has_mass():
    maps = torch.tensor([[[0.0, 0.3, 0.1, 0.0], [0.2, 0.5, 0.0, 0.0], [0.0] * 4]])
    ends = torch.tensor([[[0.0, 0.0]], [[1 - 2**-32] * 2]], dtype=torch.float64)
    how = Fixating(patch=2)
    assert [sample_fixations(maps, end[None], how).tolist() for end in ends] == [[[[0, 1]]], [[[1, 1]]]]


@pytest.mark.parametrize(("inhibition", "size"), [("disc", 797), ("square", 1089)])
def test_the_disc_and_the_square_have_the_published_sizes(inhibition, size):
    """docs/fidelity.md #8. First fixation on (30, 30), second on the probe if that is open, else in the corner."""
    probes = torch.cartesian_prod(torch.arange(10, 51), torch.arange(10, 51))
    maps = torch.zeros(len(probes), 70, 70)
    maps[torch.arange(len(probes)), probes[:, 0], probes[:, 1]] = 1e-3
    maps[:, 30, 30], maps[:, 69, 69] = 1.0, 1e-6
    numbers = torch.full((len(probes), 2, 2), 0.5, dtype=torch.float64)
    first, second = sample_fixations(maps, numbers, Fixating(inhibition=inhibition)).unbind(1)
    assert (first == 30).all()
    closed = (second == 69).all(1)
    assert int(closed.sum()) == size
    assert torch.equal(second[~closed], probes[~closed])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": 0}, "patch is 0"),
        ({"inhibition": "circle"}, "inhibition is 'circle'; allowed are disc, square, none"),
        ({"fixations": "random"}, "fixations is 'random'; allowed are saliency, uniform"),
        ({"fill": "white"}, "allowed are black, mean"),
        ({"fidelity": "exact"}, "allowed are paper, author"),
    ],
)
def test_unknown_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Fixating(**changes)
