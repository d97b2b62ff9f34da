from __future__ import annotations

import pytest
import torch
import torchvision.transforms.functional as F
from augment_reference import OPERATIONS, augment_each, grey_levels_off, pictures
from PIL import Image
from torchvision.transforms import InterpolationMode

from seqjepa.data.augment import apply, colour
from seqjepa.data.augment.apply import augment, table_of, views_of
from seqjepa.data.augment.colour import BYTES, UNIT
from seqjepa.data.augment.parameters import draw_parameters
from seqjepa.data.augment.recipes import RECIPES, kernel_size
from seqjepa.data.augment.resize import bank, crop_resize

CPU = torch.device("cpu")


def drawn(n: int, side: int, recipe: str = "equimod", views: int = 4):
    return draw_parameters(RECIPES[recipe], range(n), views, height=side, width=side, seed=3, epoch=5)


def compare(n: int, side: int, recipe: str, unit: bool) -> torch.Tensor:
    """Grey levels off [n, 4, 3, side, side] between our batch and torchvision, one image at a time."""
    images, params = pictures(n, side, side), drawn(n, side, recipe)
    images = images.float() / 255 if unit else images
    expected = augment_each(images, params, side, kernel_size(side))
    return grey_levels_off(augment(images, params, side), expected)


@pytest.mark.parametrize(("recipe", "side"), [("equimod", 32), ("equimod", 64), ("simclr", 96)])
@pytest.mark.parametrize("unit", [False, True], ids=["uint8", "float"])
def test_recorded_parameters_give_the_same_pixels(recipe, side, unit):
    off = compare(15, side, recipe, unit)
    assert off.mean() < 0.05
    assert off.mean((2, 3, 4)).max() < 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "side"), [("equimod", 32), ("equimod", 64), ("simclr", 96)])
@pytest.mark.parametrize("unit", [False, True], ids=["uint8", "float"])
def test_a_thousand_draws_give_the_same_pixels(recipe, side, unit, record_property):
    off = compare(250, side, recipe, unit)
    record_property("mean_grey_levels_off", off.mean().item())
    assert off.mean() < 0.02
    assert off.mean((2, 3, 4)).max() < 0.5


@pytest.mark.gpu
@pytest.mark.parametrize("unit", [False, True], ids=["uint8", "float"])
def test_a_gpu_gives_the_same_pixels(unit):
    images, params = pictures(100, 32, 32), drawn(100, 32)
    images = images.float() / 255 if unit else images
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")  # as training has it; TF32 would change a pixel in forty
    try:
        views = augment(images.cuda(), params, 32)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert views.device.type == "cuda"
    off = grey_levels_off(views.cpu(), augment_each(images, params, 32, kernel_size(32)))
    assert off.mean() < 0.02
    assert off.mean((2, 3, 4)).max() < 0.5


@pytest.mark.parametrize("recipe", sorted(RECIPES))
@pytest.mark.parametrize("unit", [False, True], ids=["uint8", "float"])
def test_every_operation_done_to_every_view_gives_the_same_pixels(recipe, unit):
    """What a GPU's compiler is given, without the compiler's own rounding: one graph, the same to the bit."""
    images, params = pictures(20, 32, 32), drawn(20, 32, recipe)
    images = images.float() / 255 if unit else images
    expected = augment(images, params, 32).permute(0, 1, 3, 4, 2).flatten(0, 1)
    banks, sample, table = (bank(32, 32, CPU),) * 2, torch.arange(80) // 4, table_of(params.flat())
    assert torch.equal(views_of(images, sample, table, banks), expected)
    if recipe == "equimod" and not unit:  # uint8, which training has
        torch._dynamo.reset()
        one_graph = torch.compile(views_of, dynamic=False, fullgraph=True, backend="aot_eager")
        with torch.no_grad():
            assert torch.equal(one_graph(images, sample, table, banks), expected)


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (48, 30, 32), (30, 48, 64), (200, 160, 24)])
def test_crops_equal_torchvision_and_pil(height, width, size):
    n = 40
    images = pictures(n, height, width)
    params = draw_parameters(RECIPES["equimod"], range(n), 1, height=height, width=width, seed=0, epoch=0).flat()
    banks = bank(height, size, CPU), bank(width, size, CPU)
    ours = crop_resize(images.float(), params.crop, params.flip.long(), BYTES, banks)
    for image, crop, flip, view in zip(images, params.crop.tolist(), params.flip, ours, strict=True):
        how = ([size, size], InterpolationMode.BICUBIC)
        theirs = F.resized_crop(image, *crop, *how, antialias=True)
        by_pil = F.pil_to_tensor(F.resized_crop(Image.fromarray(image.permute(1, 2, 0).numpy()), *crop, *how))
        theirs, by_pil = (F.hflip(x) if flip else x for x in (theirs, by_pil))
        off = grey_levels_off(view.byte(), theirs)
        assert off.max() <= 1
        assert off.mean() < 0.01
        assert grey_levels_off(view.byte(), by_pil).mean() < 1  # which rounds between its two passes, too


@pytest.mark.parametrize("which", range(4), ids=["brightness", "contrast", "saturation", "hue"])
@pytest.mark.parametrize("levels", [BYTES, UNIT], ids=["uint8", "float"])
def test_each_colour_operation_equals_torchvision(which, levels):
    images = pictures(32, 24, 24)
    images = images if levels.whole else images.float() / 255
    factor = torch.linspace(-0.5, 0.5, 32) if which == 3 else torch.linspace(0, 2.5, 32)
    ours = colour.JITTER[which](images.float().clone(), factor, levels).to(images.dtype)
    theirs = torch.stack([OPERATIONS[which](x, f.item()) for x, f in zip(images, factor, strict=True)])
    off = grey_levels_off(ours, theirs)
    assert off.mean() < 5e-3
    assert off.max() <= (1 if levels.whole else 0.01)


@pytest.mark.parametrize("kernel", [1, 3, 7, 9])
@pytest.mark.parametrize("levels", [BYTES, UNIT], ids=["uint8", "float"])
def test_blur_equals_torchvision(kernel, levels):
    images = pictures(16, 20, 28)
    images = images if levels.whole else images.float() / 255
    sigma = torch.linspace(0.1, 2, 16)
    ours = colour.gaussian_blur(images.float(), sigma, kernel, levels).to(images.dtype)
    theirs = [F.gaussian_blur(x, [kernel, kernel], [s.item()] * 2) for x, s in zip(images, sigma, strict=True)]
    off = grey_levels_off(ours, torch.stack(theirs))
    assert off.max() <= (1 if levels.whole else 1e-3)
    assert off.mean() < 1e-3


def test_no_recipe_leaves_images_as_they_are():
    images = pictures(6, 32, 32)
    views = augment(images, drawn(6, 32, "none", views=2), 32)
    assert views.dtype == torch.uint8
    assert torch.equal(views, images[:, None].expand_as(views))


def test_a_view_does_not_depend_on_its_batch(monkeypatch):
    images, params = pictures(24, 32, 32), drawn(24, 32)
    whole = augment(images, params, 32)
    parts = torch.cat([augment(images[i : i + 5], params[i : i + 5], 32) for i in range(0, 24, 5)])
    monkeypatch.setitem(apply._CHUNK, "cpu", 7 * 3 * 32 * 32)
    assert torch.equal(whole, parts)
    assert torch.equal(whole, augment(images, params, 32))


def test_images_are_not_changed_and_autocast_is_ignored():
    images, params = pictures(8, 32, 32), drawn(8, 32)
    kept = images.clone()
    plain = augment(images, params, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augment(images, params, 32), plain)
    assert torch.equal(images, kept)
    unit = images.float() / 255
    kept = unit.clone()
    augment(unit, params, 32)
    assert torch.equal(unit, kept)


def test_solarising_begins_at_the_threshold_itself():
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    found = colour.solarise(x.float(), torch.tensor([128.0]), BYTES)
    assert torch.equal(found, F.solarize(x, 128).float())
    assert found[0, 0, 8, 0] == 127  # of 128
