from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from loaders import patch_loader

from seqjepa.data.device import feed
from seqjepa.data.fixations import Fixating
from seqjepa.data.sequence import ViewSequence

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def sequence(views: torch.Tensor) -> ViewSequence:
    B, T = views.shape[:2]
    return ViewSequence(views, torch.zeros(B, T - 1, 2), torch.zeros(B, T, 2), torch.zeros(B).long(), ["k"] * B)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_bytes_and_fractions_in_0_to_255_are_normalised_alike(kind):
    bytes_in = torch.randint(0, 256, (3, 2, 3, 4, 4), dtype=torch.uint8)
    batches = [sequence(bytes_in.to(kind)), sequence(bytes_in.to(kind)[:2])]
    out = list(feed(iter(batches), torch.device("cpu"), MEAN, STD))
    expected = (bytes_in.double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    assert [len(seq) for seq in out] == [3, 2]
    for seq in out:
        assert seq.views.dtype == torch.float32
        torch.testing.assert_close(seq.views, expected.float()[: len(seq)], atol=1e-5, rtol=1e-5)


def test_channels_last_is_kept_or_undone():
    views = torch.randint(0, 256, (3, 2, 4, 4, 3), dtype=torch.uint8).permute(0, 1, 4, 2, 3)
    for wanted in (True, False):
        seq = next(feed([sequence(views)], torch.device("cpu"), MEAN, STD, channels_last=wanted))
        assert seq.views.is_contiguous() is not wanted
        assert seq.views.flatten(0, 1).is_contiguous(memory_format=torch.channels_last) is wanted


@pytest.mark.gpu
@pytest.mark.parametrize("resident", [True, False])
def test_batches_made_on_the_device_pass_through(build_image_set, resident):
    index = build_image_set(samples=64).images("train")
    settings: dict[str, Any] = {"views": 4, "batch_size": 8, "seed": 0, "workers": 2}
    host = patch_loader(index, Fixating(patch=6), **settings)
    with patch_loader(index, Fixating(patch=6), device="cuda", resident=resident, **settings) as loader:
        made = feed((seq for e in range(6) for seq in loader.epoch(e)), torch.device("cuda"), MEAN, STD)
        expected = feed((seq for e in range(6) for seq in host.epoch(e)), torch.device("cpu"), MEAN, STD)
        for a, b in zip(made, expected, strict=True):
            assert a.keys == b.keys
            for field in dataclasses.fields(a)[:-1]:
                torch.testing.assert_close(getattr(a, field.name).cpu(), getattr(b, field.name))
