"""Loaders by keyword: what belongs to the views, the sampling and the reading is sorted out here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import count
from typing import Any

import torch

from seqjepa.data.augment.recipes import Recipe
from seqjepa.data.decode_ahead import Reading
from seqjepa.data.fixations import Fixating
from seqjepa.data.loader import Loader
from seqjepa.data.sampling import Sampling
from seqjepa.data.sequence import ViewSequence
from seqjepa.data.stored import StoredViews
from seqjepa.data.views import Augmented, Patches


def _taken(settings: dict[str, Any], kind: type) -> dict[str, Any]:
    return {f.name: settings.pop(f.name) for f in fields(kind) if f.name in settings}


def _sampling_and_reading(settings: dict[str, Any]) -> tuple[Sampling, Reading]:
    if "device" in settings:
        settings["device"] = torch.device(settings["device"])
    return Sampling(**_taken(settings, Sampling)), Reading(**_taken(settings, Reading))


def stored_loader(index, **settings: Any) -> Loader:
    parts = _sampling_and_reading(settings)
    return Loader(index, StoredViews(**settings), *parts)


def patch_loader(index, how: Fixating, **settings: Any) -> Loader:
    parts = _sampling_and_reading(settings)
    return Loader(index, Patches(how, **settings), *parts)


def augmented_loader(index, recipe: Recipe, **settings: Any) -> Loader:
    parts, compile = _sampling_and_reading(settings), settings.pop("compile", False)
    return Loader(index, replace(Augmented.of(index, recipe, **settings), compile=compile), *parts)


def endless(loader: Loader, epoch: int = 0, step: int = 0) -> Iterator[ViewSequence]:
    """All batches from that position on, epoch after epoch."""
    yield from loader.epoch(epoch, step)
    for later in count(epoch + 1):
        yield from loader.epoch(later)


def assert_same(a: ViewSequence, b: ViewSequence) -> None:
    assert a.keys == b.keys
    for name in ("views", "actions", "params", "labels"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
