"""Stored views that are augmented beside their actions: what is applied, what stays, what is refused."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from seqjepa.data.augment.apply import augment
from seqjepa.data.augment.parameters import draw_parameters
from seqjepa.data.augment.recipes import build_recipe
from seqjepa.data.decode_ahead import Reading
from seqjepa.data.loader import Loader
from seqjepa.data.sampling import Sampling
from seqjepa.data.sequence import ViewSequence
from seqjepa.data.stored import StoredViews
from shards.errors import ConfigError

CPU = torch.device("cpu")


def epoch_of(index, epoch: int = 1, rank: int = 0, world: int = 1, **how) -> list[ViewSequence]:
    reading = Reading(CPU, workers=how.pop("workers", 0), resident=how.pop("resident", False))
    sampling = Sampling(views=3, batch_size=8, seed=5, rank=rank, world_size=world)
    with Loader(index, StoredViews("rotation", **how), sampling, reading) as loader:
        return [ViewSequence(b.views.clone(), b.actions, b.params, b.labels, b.keys) for b in loader.epoch(epoch)]


@pytest.mark.parametrize("recipe", ["colour", "crop"])
def test_each_view_is_the_stored_one_with_the_drawn_parameters_applied(build_index, recipe: str):
    index, made_by = build_index(encoding="raw"), build_recipe(recipe)
    plain, augmented = epoch_of(index), epoch_of(index, augment=made_by)
    assert len(plain) == len(augmented) == 3
    for stored, seen in zip(plain, augmented, strict=True):
        rows = [index.keys.index(key) for key in stored.keys]
        drawn = draw_parameters(made_by, rows, 3, height=16, width=16, seed=5, epoch=1)
        for b in range(len(stored)):
            for t in range(3):
                expected = augment(stored.views[b, t][None], drawn[b].flat()[t : t + 1].as_samples(), 16)[0, 0]
                assert torch.equal(seen.views[b, t], expected)
        assert torch.equal(seen.actions, stored.actions)
        assert torch.equal(seen.params, stored.params)
        assert seen.keys == stored.keys
    # single-coloured views: a crop gives back what it cut from, colours do not
    assert all(torch.equal(a.views, b.views) == (recipe == "crop") for a, b in zip(plain, augmented, strict=True))


def test_views_of_one_sequence_and_of_two_epochs_are_drawn_apart(build_index):
    index, recipe = build_index(encoding="raw"), build_recipe("colour", {"jitter": 1.0}, {"jitter": 1.0})
    rows = np.arange(8)
    first, second = (draw_parameters(recipe, rows, 3, height=16, width=16, seed=5, epoch=e).factors for e in (0, 1))
    assert not torch.equal(first, second)
    assert all(not torch.equal(first[:, a], first[:, b]) for a, b in pairwise(range(3)))
    one, two = (epoch_of(index, epoch, augment=recipe) for epoch in (1, 1))
    assert all(torch.equal(a.views, b.views) for a, b in zip(one, two, strict=True))


def test_the_same_in_memory_by_workers_and_on_two_ranks(build_index):
    index, recipe = build_index(samples=24), build_recipe("colour")
    whole = epoch_of(index, augment=recipe)
    for other in (epoch_of(index, augment=recipe, resident=True), epoch_of(index, augment=recipe, workers=1)):
        assert all(torch.equal(a.views, b.views) for a, b in zip(whole, other, strict=True))
    by_key = {key: views for seq in whole for key, views in zip(seq.keys, seq.views, strict=True)}
    for rank in range(2):
        for seq in epoch_of(index, rank=rank, world=2, augment=recipe):
            assert all(torch.equal(views, by_key[key]) for key, views in zip(seq.keys, seq.views, strict=True))


def test_flips_are_refused_where_there_are_actions(build_index):
    index, sampling = build_index(), Sampling(views=3, batch_size=8, seed=5)
    with pytest.raises(ConfigError, match=r"others between views that are flipped.*data.augment=colour"):
        Loader(index, StoredViews("rotation", augment=build_recipe("simclr")), sampling, Reading(CPU, workers=0))
    with Loader(
        index, StoredViews("none", augment=build_recipe("simclr")), sampling, Reading(CPU, workers=0)
    ) as loader:
        assert next(loader.epoch(0)).views.shape == (8, 3, 3, 16, 16)
