"""On images whose red says which row a pixel is in, green which column, and blue which image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from seqjepa.data.draws import Purpose, uniform
from seqjepa.data.fixations import Fixating, cut_patches, sample_fixations
from seqjepa.data.views import Patches
from seqjepa.evaluate import features as encode
from seqjepa.evaluate.features import Draws, encode_images
from seqjepa.models import embed as passes
from shards.errors import ConfigError

CPU = torch.device("cpu")
AS_IT_IS = ((0.0,) * 3, (1 / 255,) * 3)
S, H, W, P = 7, 40, 50, 8


@dataclass
class Coordinates:
    """The part of an ImageIndex that a bank is made from. A map is one in a window of its own, zero elsewhere."""

    name: str = "test"
    height: int = H
    width: int = W
    maps_read: int = 0

    @property
    def labels(self) -> np.ndarray:
        return np.arange(S) % 3

    def __len__(self) -> int:
        return S

    def require_same(self) -> None:
        """Nothing can be made anew."""

    def read_image(self, row: int) -> np.ndarray:
        rows, cols = np.indices((H, W))
        return np.stack([rows, cols, np.full((H, W), row)], -1).astype(np.uint8)

    def read_map(self, row: int) -> np.ndarray:
        self.maps_read += 1
        saliency = np.zeros((H, W), np.float32)
        saliency[10:30, 10 + row : 40] = 1
        return saliency / saliency.sum()


class Corner:
    """z: the first pixel of a view and its size. Counts what it sees."""

    def __init__(self) -> None:
        self.seen = 0

    def embed(self, views: torch.Tensor) -> torch.Tensor:
        self.seen += len(views)
        size = torch.full((len(views), 1), float(views.shape[-1]))
        return torch.cat([views[:, :, 0, 0], size], 1)


HOW = Fixating(patch=P, inhibition="none")
DRAWS = Draws(Patches(HOW), count=3, views=4, seed=5, purpose="probe")


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_every_patch_stands_at_its_draw_with_its_position(monkeypatch, at_once):
    monkeypatch.setattr(passes, "CPU_PIXELS_PER_PASS", at_once * 4 * P * P)
    monkeypatch.setattr(encode, "FEWEST_IMAGES", at_once)
    bank = encode_images(Corner(), Coordinates(), DRAWS, AS_IT_IS, CPU)
    assert (bank.z.shape, bank.run_length, bank.different_draws) == ((S, 12, 4), 4, 3)
    for s in range(S):
        for draw in range(3):
            numbers = uniform(5, draw, Purpose.PROBE, [s], 8).reshape(1, 4, 2)
            maps = torch.from_numpy(Coordinates().read_map(s))[None]
            fixations = sample_fixations(maps, torch.from_numpy(numbers), HOW)[0].numpy()
            slots = slice(4 * draw, 4 * draw + 4)
            z = bank.z[s, slots].numpy()
            np.testing.assert_allclose(z[:, :2], fixations - P // 2, atol=1e-3)  # no fixation is near the border
            np.testing.assert_allclose(z[:, 2:], [[s, P]] * 4, atol=1e-3)
            np.testing.assert_allclose(bank.params[s, slots], fixations[:, ::-1] / [W, H], atol=1e-6)
    assert bank.z_image is not None
    np.testing.assert_allclose(bank.z_image, [[0, 0, s, W] for s in range(S)], atol=1e-3)
    assert bank.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert bank.param_names == ("x", "y")


def test_each_feature_is_computed_once():
    method, index = Corner(), Coordinates()
    encode_images(method, index, DRAWS, AS_IT_IS, CPU)
    assert method.seen == S + S * 3 * 4
    assert index.maps_read == S


def test_more_views_or_draws_extend_fewer_and_purposes_differ():
    few = encode_images(Corner(), Coordinates(), DRAWS, AS_IT_IS, CPU).z.unflatten(1, (3, 4))
    more = encode_images(Corner(), Coordinates(), replace(DRAWS, count=5, views=6), AS_IT_IS, CPU)
    torch.testing.assert_close(more.z.unflatten(1, (5, 6))[:, :3, :4], few)
    other = replace(DRAWS, purpose="evaluation")
    assert not torch.equal(encode_images(Corner(), Coordinates(), other, AS_IT_IS, CPU).z.unflatten(1, (3, 4)), few)


def test_uniform_fixations_need_no_maps():
    index = Coordinates()
    how = Fixating(patch=P, fixations="uniform")
    bank = encode_images(Corner(), index, replace(DRAWS, of=Patches(how), count=40), AS_IT_IS, CPU)
    assert index.maps_read == 0
    assert (bank.params.min() < 0.02, bank.params.max() > 0.95) == (True, True)


def test_released_patches_are_what_released_runs_are_probed_on():
    how = Fixating(patch=P, inhibition="none", fidelity="author")
    index = Coordinates(height=H, width=H)
    index.read_image = lambda row: np.ascontiguousarray(Coordinates().read_image(row)[:, :H])
    index.read_map = lambda row: np.full((H, H), 1 / H**2, np.float32)
    bank = encode_images(Corner(), index, replace(DRAWS, of=Patches(how)), AS_IT_IS, CPU)
    numbers = torch.from_numpy(uniform(5, 0, Purpose.PROBE, [2], 8).reshape(1, 4, 2))
    fixations = sample_fixations(torch.ones(1, H, H), numbers, how)
    patches = cut_patches(torch.from_numpy(index.read_image(2)).permute(2, 0, 1)[None], fixations, how)[0]
    torch.testing.assert_close(bank.z[2, :4, :3], patches[:, :, 0, 0].float(), atol=1e-3, rtol=0)
    np.testing.assert_allclose(bank.params[2, :4], fixations[0] / H, atol=1e-6)


def test_patches_larger_than_the_image_are_refused():
    how = Fixating(patch=H + 1)
    with pytest.raises(ConfigError, match="41 pixels do not fit images of 40×50"):
        encode_images(Corner(), Coordinates(), replace(DRAWS, of=Patches(how)), AS_IT_IS, CPU)
