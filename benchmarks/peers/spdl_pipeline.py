"""spdl: a pipeline of threads over the 128-px tree. A task reads and decodes a whole batch, two tasks at a time.

(A task per sequence with a later stage that stacks them, as for larger pictures, is slower by far.)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from loader_data import OBJECTS, SEQUENCE, SIDE, VIEWS, latents, object_folder

from peers.pieces import NAMES, draw_views, endless_batches
from seqjepa.data.actions import actions_between

REQUIRES = ["torch", "spdl", "spdl-io"]


class Decode:
    def __init__(self, work: Path) -> None:
        folders = [object_folder(work, "tree128", number) for number in range(OBJECTS)]
        self.paths = [[str(folder / f"image_{view}.jpg") for view in range(VIEWS)] for folder in folders]
        self.latents = np.stack([latents(number) for number in range(OBJECTS)])

    def __call__(self, numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = [draw_views() for _ in numbers]
        views = np.empty((len(numbers) * SEQUENCE, SIDE, SIDE, 3), np.uint8)
        paths = (self.paths[number][view] for number, row in zip(numbers, chosen, strict=True) for view in row)
        for image, path in zip(views, paths, strict=True):
            with open(path, "rb", buffering=0) as file:
                simplejpeg.decode_jpeg(file.read(), buffer=image)
        params = self.latents[np.array(numbers)[:, None], np.array(chosen)]
        shaped = torch.from_numpy(views.reshape(-1, SEQUENCE, SIDE, SIDE, 3)).permute(0, 1, 4, 2, 3)
        return shaped, torch.from_numpy(actions_between(params, NAMES, "rotation"))


def prepare(work: Path) -> None:
    """The tree is there already."""


def batches(work: Path) -> Iterator[Any]:
    from spdl.pipeline import PipelineBuilder

    builder = PipelineBuilder().add_source(endless_batches()).pipe(Decode(work), concurrency=2).add_sink(2)
    pipeline = builder.build(num_threads=2)
    with pipeline.auto_stop():
        yield from pipeline.get_iterator()
