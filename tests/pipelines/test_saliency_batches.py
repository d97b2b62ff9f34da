"""How images become batches and batches maps: who goes with whom, what is refused, what is held, what ends with it."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from saliency_scene import make_photos

from pipelines.build.fill import Transformed
from pipelines.saliency import batches
from pipelines.saliency.batches import full_batch, gathered, in_order, make_maps, mapped
from pipelines.saliency.models import ModelChoice
from pipelines.sources import ImageRecord, open_source
from shards.errors import FailureError, UsageError
from shards.saliency_map import decode_map


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 images of three sizes, in turns."""
    return make_photos(tmp_path_factory.mktemp("photos") / "photos", 14)


class Counting:
    """Remembers the batches that it is given; gives NaN for a black image."""

    name, provenance = "counting", {}

    def __init__(self, batch_size: int):
        self.batch_size, self.shapes = batch_size, []

    def density(self, images: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(images.shape))
        p = images.float().sum(1)
        return p / p.sum((1, 2), keepdim=True)


def test_same_size_images_go_together_within_a_shard(photos: Path) -> None:
    source, model = open_source("folder", photos), Counting(2)
    records = source.records()
    made = list(make_maps([records[:9], records[9:]], source, model, "float16", 0))
    assert [result.sample.key for result in made] == [record.key for record in records]
    assert [shape[0] for shape in model.shapes] == [2, 2, 2, 1, 1, 1, 2, 2, 1]
    assert len(set(model.shapes)) == 6


def test_large_images_come_in_smaller_batches() -> None:
    sizes = {(512, 512): 8, (96, 96): 8, (1024, 1024): 2, (800, 600): 4, (5000, 5000): 1}
    assert {size: full_batch(Counting(8), *size) for size in sizes} == sizes


@pytest.mark.parametrize(("input_size", "full"), [(None, 910), (512, 32)])
def test_what_the_model_makes_of_small_images_counts(input_size: int | None, full: int) -> None:
    model = Counting(32)
    model.device, model.input_size = torch.device("cuda"), input_size
    assert full_batch(model, 96, 96) == full


def test_a_model_that_fails_is_named_with_its_image(tmp_path: Path) -> None:
    folder = make_photos(tmp_path / "photos", 2)
    cv2.imwrite(str(folder / "black.png"), np.zeros((40, 40, 3), np.uint8))
    source = open_source("folder", folder)
    with pytest.raises(FailureError, match=r"black.png: the model gave a map with NaN"):
        list(make_maps([source.records()], source, Counting(4), "float16", 0))


def test_images_that_the_model_refuses_are_bad_images(tmp_path: Path) -> None:
    class Choosy(Counting):
        def density(self, images: torch.Tensor) -> torch.Tensor:
            if min(images.shape[2:]) < 40:
                raise UsageError("too small")
            return super().density(images)

    source = open_source("folder", make_photos(tmp_path / "photos", 5, sizes=((40, 44), (30, 44))))
    made = list(make_maps([source.records()], source, Choosy(2), "float16", 0))
    assert [result.bad for result in made] == [(), ("01.png: too small",), (), ("03.png: too small",), ()]
    assert [result.sample is None for result in made] == [False, True, False, True, False]


def test_want_of_memory_says_what_to_do(photos: Path) -> None:
    class Full(Counting):
        def density(self, images: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError

    source = open_source("folder", photos)
    with pytest.raises(
        FailureError, match=r"no memory for 4 images of 40×48, e.g. 00.png: .* --batch-size \(it was 4\)"
    ):
        list(make_maps([source.records()], source, Full(4), "float16", 0))


def pictures(sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[ImageRecord, tuple[np.ndarray, str]]]:
    rng = np.random.default_rng(0)
    for number, size in enumerate(sizes):
        record = ImageRecord(f"{number}", -1, "train", f"{number}.png", 0)
        yield record, (rng.integers(0, 256, (*size, 3), np.uint8), "")


SIZES = [(40, 48), (48, 40), (40, 40)] * 5


def late(model: object, ahead: int) -> Iterator[Transformed]:
    """Results of shards of 9 and 6 pictures."""
    gathering = gathered(pictures(SIZES), deque([9, 6]), partial(full_batch, model))
    return in_order(mapped(gathering, model, "float16", ahead))


def encoders() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("encode")]


def test_maps_that_come_late_from_threads_are_the_same_bytes_in_the_same_order() -> None:
    model = ModelChoice("spectral-residual", batch_size=2).build("cpu")
    at_once, threaded = (list(late(model, ahead)) for ahead in (0, 2))
    assert [result.sample.key for result in threaded] == [str(number) for number in range(len(SIZES))]
    assert [result.sample for result in threaded] == [result.sample for result in at_once]
    assert not encoders()


@pytest.mark.parametrize(("ahead", "before"), [(0, [0, 1, 2, 6]), (2, [0, 0, 0, 1])])
def test_batches_are_launched_before_the_maps_of_earlier_ones_are_asked_for(ahead: int, before: list[int]) -> None:
    taken, at_launch = [], []

    class Watched(Counting):
        def density(self, images: torch.Tensor) -> torch.Tensor:
            at_launch.append(len(taken))
            return super().density(images)

    for result in late(Watched(2), ahead):
        taken.append(result)
    assert at_launch[:4] == before  # pictures 0 and 3, 1 and 4, 2 and 5, and 6
    assert len(taken) == len(SIZES)


@pytest.mark.parametrize("ahead", [0, 2])
def test_what_fails_in_the_model_or_while_encoding_is_one_error_and_leaves_no_thread(ahead: int) -> None:
    class Broken(Counting):
        def density(self, images: torch.Tensor) -> torch.Tensor:
            if len(self.shapes) == 3:
                raise RuntimeError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA")
            return super().density(images)

    line = r"the model failed on 1 image of 40×48, e.g. 6.png, or before: CUDA error: unspecified launch failure; run"
    with pytest.raises(FailureError, match=line):
        list(late(Broken(2), ahead))
    assert not encoders()

    class Flat(Counting):
        def density(self, images: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(images), 4, 4)

    with pytest.raises(FailureError, match=r"0.png: the model gave a map with zero mass"):
        list(late(Flat(2), ahead))
    assert not encoders()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), FailureError("9.png: a worker was killed")])
def test_what_stops_the_stages_before_leaves_no_thread(error: BaseException) -> None:
    """Ctrl-C, or a worker that is lost."""

    def stopped() -> Iterator[tuple[ImageRecord, tuple[np.ndarray, str]]]:
        yield from itertools.islice(pictures(SIZES), 9)
        assert encoders()
        raise error

    model = Counting(1)
    with pytest.raises(type(error)):
        list(in_order(mapped(gathered(stopped(), deque([15]), partial(full_batch, model)), model, "float16", 2)))
    assert not encoders()


def test_who_stops_asking_leaves_no_thread() -> None:
    made = mapped(gathered(pictures(SIZES), deque([15]), lambda *_: 1), Counting(1), "float16", 2)
    next(made)
    assert encoders()
    made.close()
    assert not encoders()


def test_an_image_does_not_wait_for_others_of_its_size_beyond_the_bound(monkeypatch) -> None:
    """Else all that comes after it in its shard would be held."""
    sizes = [(10, 20), *[(10, 10)] * 20]
    alone = list(gathered(pictures(sizes), deque([21]), lambda *_: 2))
    assert [len(batch) for batch in alone] == [2] * 10 + [1]
    monkeypatch.setattr(batches, "PIXELS_HELD", 500)
    bounded = list(gathered(pictures(sizes), deque([21]), lambda *_: 2))
    assert [len(batch) for batch in bounded] == [2, 2, 1, *[2] * 8]
    assert bounded[2][0].place == 0


@pytest.mark.gpu
def test_a_gpus_maps_are_the_cpus_in_their_order(photos: Path) -> None:
    source = open_source("folder", photos)
    records = source.records()

    def maps(device: str) -> list[np.ndarray]:
        model = ModelChoice("spectral-residual", batch_size=2).build(device)
        made = make_maps([records[:9], records[9:]], source, model, "float16", 0)
        return [decode_map(result.sample.saliency, "float16") for result in made]

    last = f"cuda:{torch.cuda.device_count() - 1}"  # whichever is the current one
    for here, there in zip(maps("cpu"), maps(last), strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-2, atol=1e-6)
