"""The bank of augmented views against torchvision, one view at a time, from the parameters that the bank holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from seqjepa.data.actions import AUGMENTATION_COLUMNS
from seqjepa.data.augment.recipes import RECIPES, Recipe, build_recipe
from seqjepa.data.draws import Purpose
from seqjepa.data.views import Augmented
from seqjepa.evaluate import features as encode
from seqjepa.evaluate.features import Draws, Features, encode_images
from seqjepa.models import embed as passes

CPU = torch.device("cpu")
AS_IT_IS = ((0.0,) * 3, (1 / 255,) * 3)
S, SIZE = 7, 32
DRAWS: dict[str, Any] = {"count": 3, "views": 4, "seed": 5, "purpose": "probe"}
# Of the jitter only brightness, so that its order plays no part; nothing that the nine parameters do not say.
PLAIN = {"flip": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "grayscale": 0.0}
RECIPE = build_recipe("equimod", PLAIN, PLAIN | {"solarise": 0.0})


@dataclass
class Smooth:
    """The part of an ImageIndex that a bank is made from: images of smooth noise."""

    name: str = "test"
    height: int = SIZE
    width: int = SIZE

    @property
    def labels(self) -> np.ndarray:
        return np.arange(S) % 3

    def __len__(self) -> int:
        return S

    def require_same(self) -> None:
        """Nothing can be made anew."""

    def read_image(self, row: int) -> np.ndarray:
        noise = np.random.default_rng(row).integers(0, 256, (8, 8, 3)).astype(np.uint8)
        return noise.repeat(4, 0).repeat(4, 1)

    def read_map(self, row: int) -> np.ndarray:
        raise AssertionError("augmentations look at no maps")


class Pixels:
    """z: every pixel of a view. Counts what it sees."""

    def __init__(self) -> None:
        self.seen = 0

    def embed(self, views: torch.Tensor) -> torch.Tensor:
        self.seen += len(views)
        return views.flatten(1)


def bank_of(recipe: Recipe = RECIPE, method: Pixels | None = None, **changes: Any) -> Features:
    views = Augmented.of(Smooth(), recipe, "augmentation")
    return encode_images(method or Pixels(), Smooth(), Draws(views, **(DRAWS | changes)), AS_IT_IS, CPU)


def by_torchvision(row: int, params: np.ndarray) -> torch.Tensor:
    top, left, height, width = (int(value) for value in params[:4])
    view = torch.from_numpy(Smooth().read_image(row)).permute(2, 0, 1)
    view = TF.resized_crop(view, top, left, height, width, [SIZE, SIZE], InterpolationMode.BICUBIC, antialias=True)
    view = TF.adjust_brightness(view, float(params[4]))
    return TF.gaussian_blur(view, [3, 3], [float(params[8])] * 2) if params[8] > 0 else view


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_every_view_stands_at_its_draw_with_the_parameters_that_made_it(monkeypatch, at_once):
    monkeypatch.setattr(passes, "CPU_PIXELS_PER_PASS", at_once * 4 * SIZE * SIZE)
    monkeypatch.setattr(encode, "FEWEST_IMAGES", at_once)
    bank = bank_of()
    assert (bank.z.shape, bank.run_length, bank.runs, bank.different_draws) == ((S, 12, 3 * SIZE**2), 4, 3, None)
    assert bank.param_names == AUGMENTATION_COLUMNS
    for row in range(S):
        for slot in range(12):
            expected = by_torchvision(row, bank.params[row, slot]).flatten().float()
            assert (bank.z[row, slot] - expected).abs().mean() < 1
        assert bank.z_image is not None
        whole = torch.from_numpy(Smooth().read_image(row)).permute(2, 0, 1).flatten()
        torch.testing.assert_close(bank.z_image[row], whole.float(), atol=1e-3, rtol=0)
    assert bank.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_the_last_view_of_a_draw_and_only_it_has_the_target_pipeline():
    bank = bank_of(build_recipe("none", target={"solarise": 1.0, "threshold": 0}))
    views = bank.z.unflatten(1, (3, 4))
    assert bank.z_image is not None
    torch.testing.assert_close(views[:, :, :3], bank.z_image[:, None, None].expand(S, 3, 3, -1))
    torch.testing.assert_close(views[:, :, 3], 255 - views[:, :, 0], atol=1e-3, rtol=0)


def test_each_feature_is_computed_once():
    method = Pixels()
    bank_of(method=method)
    assert method.seen == S + S * 3 * 4


def test_more_draws_extend_fewer_and_draws_images_and_purposes_differ():
    recipe = RECIPES["equimod"]
    few = bank_of(recipe).params.reshape(S, 3, 4, 9)
    more = bank_of(recipe, count=4, views=6).params.reshape(S, 4, 6, 9)
    np.testing.assert_array_equal(more[:, :3, :3], few[:, :, :3])
    assert len(np.unique(few.reshape(-1, 9), axis=0)) == S * 3 * 4
    other = bank_of(recipe, purpose="evaluation").params.reshape(S, 3, 4, 9)
    assert (other != few)[..., 0].mean() > 0.5


def test_training_mixes_runs_and_validation_does_not():
    bank = bank_of()
    drawn = np.stack([bank.draw(0, draw, Purpose.PROBE, 4) for draw in range(40)]) % 12
    before, last = drawn[..., :3], drawn[..., 3]
    assert (before % 4 != 3).all(), "observation views"
    assert (last % 4 == 3).all(), "target views"
    assert (np.sort(before)[..., 1:] != np.sort(before)[..., :-1]).all(), "no view twice"
    assert set(before.ravel()) == {slot for slot in range(12) if slot % 4 != 3}
    assert set(last.ravel()) == {3, 7, 11}
    np.testing.assert_array_equal(bank.draw(0, 5, Purpose.PROBE, 2) % 12, drawn[5, :, :2])
    np.testing.assert_array_equal(bank.draw(0, 1, Purpose.EVALUATION, 4) % 12, np.tile([4, 5, 6, 7], (S, 1)))
