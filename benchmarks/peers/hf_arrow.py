"""Hugging Face datasets: one Arrow row per view, memory-mapped; a whole batch is one read of 2,048 rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from loader_data import BATCH, OBJECTS, SEQUENCE, SIDE, VIEWS, latents, small_jpegs

from peers.pieces import NAMES, draw_views, endless_batches
from seqjepa.data.actions import actions_between

REQUIRES = ["torch", "datasets"]


def _rows(work: Path) -> Iterator[dict[str, Any]]:
    for number in range(OBJECTS):
        for data, latent in zip(small_jpegs(work, number), latents(number), strict=True):
            yield {"jpeg": data, "latent": latent.astype(np.float32)}


def prepare(work: Path) -> None:
    import datasets

    if not (work / "arrow" / "dataset_info.json").exists():
        features = datasets.Features(
            {"jpeg": datasets.Value("binary"), "latent": datasets.Sequence(datasets.Value("float32"), length=7)}
        )
        cache = str(work / "arrow-cache")
        data = datasets.Dataset.from_generator(_rows, features=features, gen_kwargs={"work": work}, cache_dir=cache)
        data.save_to_disk(work / "arrow")


class Batches(torch.utils.data.Dataset[Any]):
    """Indexed with a list of objects."""

    def __init__(self, work: Path) -> None:
        import datasets

        self.rows = datasets.load_from_disk(work / "arrow").with_format("arrow")

    def __len__(self) -> int:
        return OBJECTS

    def __getitem__(self, numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = np.stack([draw_views() for _ in numbers]) + np.array(numbers)[:, None] * VIEWS
        table = self.rows[chosen.ravel().tolist()]
        views = np.empty((len(numbers) * SEQUENCE, SIDE, SIDE, 3), np.uint8)
        for row, data in enumerate(table["jpeg"].to_pylist()):
            simplejpeg.decode_jpeg(data, buffer=views[row])
        flat = table["latent"].combine_chunks().flatten().to_numpy()
        actions = actions_between(flat.reshape(len(numbers), SEQUENCE, 7), NAMES, "rotation")
        shaped = torch.from_numpy(views.reshape(-1, SEQUENCE, SIDE, SIDE, 3)).permute(0, 1, 4, 2, 3)
        return shaped, torch.from_numpy(actions)


def batches(work: Path) -> Iterator[Any]:
    assert BATCH <= OBJECTS
    sampler: Any = endless_batches()
    return iter(
        torch.utils.data.DataLoader(
            Batches(work), batch_size=None, sampler=_Forever(sampler), num_workers=2, prefetch_factor=2
        )
    )


class _Forever(torch.utils.data.Sampler[Any]):
    def __init__(self, source: Iterator[Any]) -> None:
        self.source = source

    def __iter__(self) -> Iterator[Any]:
        return self.source
