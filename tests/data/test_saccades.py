from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from loaders import assert_same, endless, patch_loader

from seqjepa.data.actions import actions_between
from seqjepa.data.decode_ahead import Reading
from seqjepa.data.fixations import Fixating, cut_patches, fixation_numbers, positions, sample_fixations
from seqjepa.data.images import ImageReader
from seqjepa.data.loader import Loader
from seqjepa.data.sampling import EpochOrder, Sampling
from seqjepa.data.sequence import ViewSequence
from shards.errors import ConfigError, DamageError

HOW = Fixating(patch=6)
SETTINGS: dict[str, Any] = {"views": 4, "batch_size": 6, "seed": 5, "workers": 0}


def open_loader(index, how: Fixating = HOW, **changes: Any) -> Loader:
    return patch_loader(index, how, **(SETTINGS | changes))


def epochs_of(loader: Loader, count: int = 1) -> list[ViewSequence]:
    with loader:
        return [batch for epoch in range(count) for batch in loader.epoch(epoch)]


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
@pytest.mark.parametrize("saliency", ["float16", "log8"])
@pytest.mark.parametrize("resident", [True, False])
def test_a_batch_is_cut_from_what_the_shards_hold(build_image_set, encoding, saliency, resident):
    index = build_image_set(encoding=encoding, saliency=saliency).images("train")
    rows_of = {key: row for row, key in enumerate(index.keys)}
    seen = []
    for batch in epochs_of(open_loader(index, resident=resident, workers=2), count=2):
        rows = np.array([rows_of[key] for key in batch.keys])
        epoch = len(seen) // len(index)
        images = torch.from_numpy(np.stack([index.read_image(row) for row in rows])).permute(0, 3, 1, 2)
        maps = torch.from_numpy(np.stack([index.read_map(row) for row in rows]))
        fixations = sample_fixations(maps, fixation_numbers(5, epoch, rows, 4), HOW)
        assert torch.equal(batch.views, cut_patches(images, fixations, HOW))
        assert torch.equal(batch.params, positions(fixations, (24, 28), HOW))
        assert np.array_equal(batch.actions, actions_between(batch.params.numpy(), ("x", "y"), "position"))
        assert batch.labels.tolist() == index.labels[rows].tolist()
        assert batch.views.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
        seen += batch.keys
    assert sorted(seen[:19]) == sorted(seen[19:]) == index.keys
    assert seen[:19] != seen[19:]


@pytest.mark.parametrize("changes", [{"resident": True}, {"workers": 2, "resident": False}, {"prefetch": 1}])
def test_how_images_are_held_changes_nothing(build_image_set, changes):
    index = build_image_set().images("train")
    expected = epochs_of(open_loader(index, resident=False), count=2)
    for a, b in zip(epochs_of(open_loader(index, **changes), count=2), expected, strict=True):
        assert_same(a, b)


def test_two_ranks_together_see_what_one_sees(build_image_set):
    index = build_image_set(samples=21).images("train")
    ranks = [epochs_of(open_loader(index, rank=r, world_size=2)) for r in range(2)]
    for batch, *pieces in zip(epochs_of(open_loader(index)), *ranks, strict=True):
        even = len(batch) - len(batch) % 2
        assert pieces[0].keys + pieces[1].keys == batch.keys[:even]
        assert torch.equal(torch.cat([p.views for p in pieces]), batch.views[:even])
        assert torch.equal(torch.cat([p.params for p in pieces]), batch.params[:even])


def test_samples_come_in_the_order_of_any_other_loader(build_image_set):
    index = build_image_set().images("train")
    order = EpochOrder("train", 19, Sampling(2, 6, 5))
    batches = epochs_of(open_loader(index), count=2)
    for step, batch in enumerate(batches):
        rows = order.rows(*divmod(step, 4), step % 4 + 1)
        assert batch.keys == [index.keys[row] for row in rows]


@pytest.mark.parametrize("resident", [True, False])
def test_resuming_at_any_step_gives_the_same_batches(build_image_set, resident):
    index = build_image_set(samples=13).images("train")
    expected = epochs_of(open_loader(index, resident=resident), count=2)
    for stop in range(len(expected) + 1):
        first, second = (open_loader(index, resident=resident) for _ in range(2))
        batches = endless(first)
        seen = [next(batches) for _ in range(stop)]
        batches = endless(second, *divmod(stop, len(second)))
        seen += [next(batches) for _ in range(len(expected) - stop)]
        for a, b in zip(seen, expected, strict=True):
            assert_same(a, b)


def test_jumping_elsewhere_gives_the_batches_of_that_place(build_image_set):
    index = build_image_set().images("train")
    expected = epochs_of(open_loader(index), count=2)
    with open_loader(index, workers=2, resident=False) as loader:
        assert_same(next(loader.epoch(1, 2)), expected[6])
        assert_same(next(loader.epoch(0)), expected[0])
        assert_same(next(loader.epoch(0, 1)), expected[1])


def test_fewer_views_are_the_first_of_more(build_image_set):
    index = build_image_set().images("train")
    for a, b in zip(epochs_of(open_loader(index, views=2)), epochs_of(open_loader(index)), strict=True):
        assert torch.equal(a.views, b.views[:, :2])
        assert torch.equal(a.actions, b.actions[:, :1])


def test_uniform_fixations_need_no_maps(build_image_set):
    how = Fixating(patch=6, fixations="uniform")
    bare, salient = (build_image_set(saliency=s).images("train") for s in ("none", "float16"))
    for a, b in zip(epochs_of(open_loader(bare, how)), epochs_of(open_loader(salient, how)), strict=True):
        assert torch.equal(a.params, b.params)
        assert torch.equal(a.labels, b.labels)


def test_the_released_patches_over_the_mean_keep_their_fractions(build_image_set):
    how = Fixating(patch=6, fidelity="author", fill="mean")
    batch = next(open_loader(build_image_set(size=(24, 24)).images("train"), how, mean=(0.4, 0.5, 0.6)).epoch(0))
    assert batch.views.dtype == torch.float32
    assert 1 < batch.views.max() <= 255.01


@pytest.mark.parametrize(
    ("saliency", "how", "changes", "message"),
    [
        ("none", HOW, {}, "split 'train' holds images without saliency maps; shard them with --maps"),
        ("float16", Fixating(patch=25), {}, "patches of 25 pixels do not fit images of 24×28"),
        ("float16", HOW, {"action": "rotation"}, "have the actions position, none, not 'rotation'"),
        ("float16", HOW, {"batch_size": 40, "drop_last": True}, "19 samples: not one batch of 40"),
        ("float16", HOW, {"workers": -1}, "workers is -1"),
    ],
)
def test_bad_settings_are_refused_at_once(build_image_set, saliency, how, changes, message):
    with pytest.raises(ConfigError, match=message):
        open_loader(build_image_set(saliency=saliency).images("train"), how, resident=False, **changes)


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize(("member", "what"), [(0, "the image"), (1, "the saliency map")])
def test_damage_names_shard_sample_and_member(build_image_set, overwrite_bytes, resident, member, what):
    index = build_image_set().images("train")
    overwrite_bytes(index.shard_paths[1], int(index.offsets[9, member]), b"\0" * 128)
    with pytest.raises(DamageError) as caught:
        epochs_of(open_loader(index, resident=resident, workers=1))
    for part in (str(index.shard_paths[1]), f"{what} of sample 'image-009'", "seqjepa-data verify"):
        assert part in str(caught.value)


def test_a_shard_that_was_cut_is_named(build_image_set):
    index = build_image_set().images("train")
    os.truncate(index.shard_paths[2], int(index.offsets[18, 1]) + 200)
    with pytest.raises(DamageError, match=r"train-000002\.tar: the saliency map of sample .*shard ends at byte"):
        epochs_of(open_loader(index))


def test_a_split_is_resident_only_where_it_fits(build_image_set, monkeypatch):
    index = build_image_set().images("train")
    needed = 19 * 24 * 28 * 5
    for free, fits in ((4 * needed, True), (4 * needed - 4, False)):
        monkeypatch.setattr("seqjepa.data.images.available_memory", lambda free=free: free)
        assert open_loader(index).resident is fits
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr("seqjepa.data.images.available_memory", lambda: 4 * needed)
    assert open_loader(index, world_size=2).resident is False


def test_images_of_a_set_without_maps_come_alone(build_image_set):
    index = build_image_set(saliency="none").images("train")
    batch = ImageReader(index, Sampling(2, 6, 0, shuffle=False), Reading(workers=0), maps=False).batch(0, 1)
    assert batch.maps is None
    assert batch.rows.tolist() == list(range(6, 12))
    expected = np.stack([index.read_image(row) for row in range(6, 12)])
    assert np.array_equal(batch.images.permute(0, 2, 3, 1), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("resident", [True, False])
def test_on_a_gpu_the_same_sequences_come(build_image_set, resident):
    index = build_image_set().images("train")
    expected = epochs_of(open_loader(index), count=2)
    for a, b in zip(epochs_of(open_loader(index, device="cuda", resident=resident), 2), expected, strict=True):
        assert a.views.is_cuda
        assert_same(a.to("cpu"), b)
