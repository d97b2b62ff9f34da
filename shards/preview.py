"""A contact sheet of a set: random samples of a split, drawn as befits their kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shards.errors import ConfigError, UsageError
from shards.own_file import OwnFile, refuse_foreign, write_own
from shards.preview_augmented import Augmentation, draw_augmented
from shards.preview_images import Fixations, draw_images
from shards.preview_views import draw_views
from shards.reader import ShardSet
from shards.schema import ViewSpec
from shards.sheet import MAKER, SIGN, Sheet


def contact_sheet(
    path: str | Path,
    split: str,
    out_png: str | Path,
    samples: int = 8,
    views: int = 8,
    seed: int = 0,
    fixations: Fixations | None = None,
    augmentation: Augmentation | None = None,
) -> Path:
    """Draws `samples` random samples (chosen by `seed`); returns the file.

    views      of a `views` set: up to this many distinct ones of each; angles are in degrees
    fixations  of a `saliency` set: where one looks, from the maps on the sheet: float32 [n, H, W] → int [n, T, 2],
               (row, col)
    augmentation  of a set of images: what makes the views that are drawn, beside each image

    ConfigError: no such split, or augmentations of a set without images. UsageError: no sample or view asked for;
    the picture's folder does not exist, or something that is no preview has its name.
    """
    shards, out = ShardSet.open(path), Path(out_png)
    if samples < 1 or views < 1:
        raise UsageError("a preview needs a sample and a view: check --samples and --views")
    refuse_foreign(out, SIGN, MAKER)  # before anything is drawn
    sheet = _sheet(shards, split, (samples, views, seed), fixations, augmentation)
    write_own([OwnFile(out, sheet.png(), SIGN, MAKER)])
    return out


def _sheet(
    shards: ShardSet,
    split: str,
    wanted: tuple[int, int, int],
    fixations: Fixations | None,
    augmentation: Augmentation | None,
) -> Sheet:
    samples, views, seed = wanted
    if isinstance(spec := shards.info.spec, ViewSpec):
        if augmentation:
            raise ConfigError(f"{shards.path} holds views that are made already; augmentations are shown of images")
        index = shards.split(split)
        return draw_views(shards.info, spec, index, _chosen(len(index), samples, seed), views)
    index = shards.images(split)
    chosen = _chosen(len(index), samples, seed)
    if augmentation:
        return draw_augmented(shards.info, index, chosen, augmentation)
    return draw_images(shards.info, index, chosen, fixations)


def _chosen(total: int, samples: int, seed: int) -> np.ndarray:
    """Some of `total` samples, in stored order."""
    return np.sort(np.random.default_rng(seed).permutation(total)[: min(samples, total)])
