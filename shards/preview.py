"""A contact sheet of a set: random samples of a split, drawn as befits their kind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from shards.errors import UsageError
from shards.files import disk_full_named, write_atomic
from shards.preview_images import Fixations, draw_images
from shards.preview_views import draw_views
from shards.reader import ShardSet
from shards.schema import ViewSpec
from shards.sheet import Sheet


def contact_sheet(
    path: str | Path,
    split: str,
    out_png: str | Path,
    samples: int = 8,
    views: int = 8,
    seed: int = 0,
    fixations: Fixations | None = None,
) -> Path:
    """Draws `samples` random samples (chosen by `seed`); returns the file.

    views      of a `views` set: up to this many distinct ones of each; angles are in degrees
    fixations  of a `saliency` set: where one looks, from the maps on the sheet: float32 [n, H, W] → int [n, T, 2],
               (row, col)

    ConfigError: no such split. UsageError: no sample or view asked for, or the picture's folder does not exist.
    """
    shards, out = ShardSet.open(path), Path(out_png)
    if samples < 1 or views < 1 or not out.parent.is_dir():
        raise UsageError(f"a preview needs a sample, a view and the folder {out.parent}: check --samples and --out")
    sheet = _sheet(shards, split, samples, views, seed, fixations)
    with disk_full_named(out, lambda: "free some"), tempfile.TemporaryDirectory(dir=out.parent) as tmp:
        write_atomic(out, sheet.png(), Path(tmp))
    return out


def _sheet(shards: ShardSet, split: str, samples: int, views: int, seed: int, fixations: Fixations | None) -> Sheet:
    if isinstance(spec := shards.info.spec, ViewSpec):
        index = shards.split(split)
        return draw_views(shards.info, spec, index, _chosen(len(index), samples, seed), views)
    index = shards.images(split)
    return draw_images(shards.info, index, _chosen(len(index), samples, seed), fixations)


def _chosen(total: int, samples: int, seed: int) -> np.ndarray:
    """Some of `total` samples, in stored order."""
    return np.sort(np.random.default_rng(seed).permutation(total)[: min(samples, total)])
