from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import ColorJitter, RandomResizedCrop

from seqjepa.data.augment.parameters import draw_parameters
from seqjepa.data.augment.recipes import RECIPES, Pipeline, Recipe, build_recipe, kernel_size
from seqjepa.data.draws import Purpose
from shards.errors import ConfigError

EQUIMOD = RECIPES["equimod"]


def draw(recipe: Recipe = EQUIMOD, n: int = 4000, views: int = 2, side: int = 32, **changes):
    settings = {"height": side, "width": side, "seed": 7, "epoch": 2} | changes
    return draw_parameters(recipe, changes.pop("samples", range(n)), views, **settings)


def same(a, b) -> bool:
    return all(torch.equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))


def test_a_view_depends_on_seed_epoch_sample_and_place_alone():
    few = draw_parameters(EQUIMOD, [11, 3], 3, height=32, width=32, seed=7, epoch=2)
    many = draw_parameters(EQUIMOD, range(12), 5, height=32, width=32, seed=7, epoch=2)
    for row, sample in enumerate((11, 3)):
        assert same(few[row][:2], many[sample][:2])
    for change in ({"seed": 8}, {"epoch": 3}, {"purpose": Purpose.EVALUATION}):
        assert not same(draw(n=4), draw(n=4, **change))


def test_views_of_a_sample_differ():
    crop = draw(views=4, n=500).crop
    assert not torch.equal(crop[:, 0], crop[:, 1])
    # Areas of two views of a sample are uncorrelated, and so are those of one view in neighbouring samples.
    area = (crop[..., 2] * crop[..., 3]).double()
    assert abs(np.corrcoef(area[:, 0], area[:, 1])[0, 1]) < 0.15
    assert abs(np.corrcoef(area[1:, 0], area[:-1, 0])[0, 1]) < 0.15


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 64)])
def test_crops_are_distributed_as_torchvisions(height, width):
    n = 4000
    torch.manual_seed(0)
    image = torch.zeros(3, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(n)])
    ours = draw(height=height, width=width, views=1, n=n).crop[:, 0].numpy()
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).statistic < 0.045  # p = 0.0006
    inside = (ours[:, :2] >= 0).all() and (ours[:, :2] + ours[:, 2:] <= [height, width]).all()
    assert inside
    assert ours[:, 2:].min() > 0


def test_shapes_of_crops_are_uniform_in_the_logarithm_up_to_the_ratios():
    halves = Pipeline(scale=(0.2, 0.5))  # of which all fit
    h, w = draw(Recipe(halves, halves), n=3000, side=1000).flat().crop[:, 2:].T.double().numpy()
    width = 2 * np.log(4 / 3)
    assert stats.kstest(np.log(w / h), stats.uniform(-width / 2, width).cdf).pvalue > 1e-4
    assert stats.kstest(h * w / 1e6, stats.uniform(0.2, 0.3).cdf).pvalue > 1e-4


def test_factors_are_distributed_as_torchvisions():
    torch.manual_seed(0)
    jitter = ColorJitter(0.4, 0.4, 0.2, 0.1)
    ranges = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    theirs = [ColorJitter.get_params(*ranges) for _ in range(4000)]
    params = draw(n=5000).flat()
    on = params.jitter
    for which in range(4):
        assert stats.ks_2samp(params.factors[on, which], [t[which + 1] for t in theirs]).statistic < 0.045
    assert torch.equal(params.factors[~on], torch.tensor([1.0, 1.0, 1.0, 0.0]).expand((~on).sum(), 4))
    counts = np.unique(params.order.numpy(), axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-4


def test_coins_fall_as_often_as_the_recipe_says_and_the_last_view_has_a_pipeline_of_its_own():
    params = draw(n=6000, views=3)
    rates = {
        "flip": params.flip,
        "jitter": params.jitter,
        "grayscale": params.grayscale,
        "blur": params.sigma > 0,
        "solarise": params.threshold < 256,
    }
    for name, hit in rates.items():
        for view, pipeline in enumerate(EQUIMOD.pipelines(3)):
            expected = getattr(pipeline, name)
            assert hit[:, view].double().mean() == pytest.approx(expected, abs=0.025), (name, view)
    assert (EQUIMOD.target.blur, EQUIMOD.target.solarise) == (0.1, 0.2)
    assert (EQUIMOD.observation.blur, EQUIMOD.observation.solarise) == (1.0, 0.0)
    blurred = params.sigma[params.sigma > 0]
    assert stats.kstest(blurred, stats.uniform(0.1, 1.9).cdf).pvalue > 1e-4
    assert set(params.threshold.unique().tolist()) == {128, 256}


def test_the_vector_is_what_is_recorded():
    params = draw(n=50, views=3)
    vector = params.vector()
    assert vector.shape == (50, 3, 9)
    assert vector.dtype == torch.float32
    assert torch.equal(vector[..., :4].long(), params.crop)
    assert torch.equal(vector[..., 4:8], params.factors)
    assert torch.equal(vector[..., 8], params.sigma)


def test_where_no_crop_fits_the_middle_is_taken():
    wide = Pipeline(scale=(1.0, 1.0), ratio=(3.0, 3.0))
    crop = draw(Recipe(wide, wide), n=3, height=40, width=200).crop
    assert torch.equal(crop, torch.tensor([0, 40, 40, 120]).expand(3, 2, 4))
    tall = replace(wide, ratio=(1.0, 1.0))
    assert torch.equal(draw(Recipe(tall, tall), n=1, height=90, width=30).crop[0, 0], torch.tensor([30, 0, 30, 30]))


def test_no_augmentation_is_the_whole_image():
    params = draw(RECIPES["none"], n=3, height=20, width=30)
    assert torch.equal(params.vector(), torch.tensor([0.0, 0, 20, 30, 1, 1, 1, 0, 0]).expand(3, 2, 9))
    assert not (params.flip | params.jitter | params.grayscale | (params.threshold < 256)).any()


def test_kernels_follow_the_size_of_a_view():
    assert [kernel_size(size) for size in (4, 10, 32, 64, 96, 224)] == [1, 1, 3, 7, 9, 23]


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ({"blurr": 1.0}, r"there is no augmentation blurr; there are: scale, ratio, flip"),
        ({"blur": 1.5}, r"augmentation blur is 1.5; allowed is 0 … 1"),
        ({"flip": float("nan")}, r"augmentation flip is nan; allowed is 0 … 1"),
        ({"jitter": "often"}, r"augmentation jitter is 'often'; allowed is 0 … 1"),
        ({"hue": 0.6}, r"augmentation hue is 0.6; allowed is 0 … 0.5"),
        ({"brightness": -0.1}, r"augmentation brightness is -0.1; allowed is a number from 0 on"),
        ({"scale": [0.5, 0.2]}, r"augmentation scale is \(0.5, 0.2\); allowed are two numbers 0 < low ≤ high ≤ 1"),
        ({"scale": 0.5}, r"augmentation scale is 0.5; allowed are two numbers"),
        ({"sigma": [0, 2]}, r"augmentation sigma is \(0, 2\); allowed are two numbers 0 < low ≤ high"),
        ({"threshold": 300}, r"augmentation threshold is 300; allowed is 0 … 255"),
    ],
)
def test_bad_settings_are_one_line(observation, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build_recipe("equimod", observation)
    assert "\n" not in str(caught.value)


def test_recipes_are_chosen_by_name_and_changed_field_by_field():
    changed = build_recipe("equimod", {"saturation": 0.4, "scale": [0.08, 1.0]}, {"solarise": 0.0})
    assert changed.observation == replace(EQUIMOD.observation, saturation=0.4, scale=(0.08, 1.0))
    assert changed.target == replace(EQUIMOD.target, solarise=0.0)
    with pytest.raises(
        ConfigError, match="there is no augmentation recipe 'byol'; there are: equimod, simclr, colour, crop, none"
    ):
        build_recipe("byol")
    with pytest.raises(ConfigError, match="views is 0"):
        draw(n=1, views=0)


def test_the_page_on_augmentations_has_the_recipes_as_they_are():
    page = (Path(__file__).parents[2] / "docs/augmentations.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)`(?: \(the paper's\))? \| ((?:whole image|[\d.]+ –).*)$", page, re.MULTILINE))
    assert set(rows) == set(RECIPES)
    for name, recipe in RECIPES.items():
        seen, target = recipe.observation, recipe.target
        jitter = [seen.brightness, seen.contrast, seen.saturation, seen.hue] if seen.jitter else []
        both = [seen.blur, target.blur, seen.solarise, target.solarise]
        wanted = [*(seen.scale or ()), seen.flip, seen.jitter, *jitter, seen.grayscale, *both]
        assert list(map(float, re.findall(r"[\d.]+", rows[name]))) == wanted, name
