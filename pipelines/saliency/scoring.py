"""Maps against recorded fixations: the mean over images of AUC, shuffled AUC, NSS and information gain (metrics.py).

Shuffled negatives of an image are the fixations of *other people* on all *other images*: with subjects chosen, those
who were not; else everybody. They lie at the same share of the image's height and width. With them, and Gaussian maps
of 24 pixels around seven people's fixations, the eight others of OSIE score AUC 0.915 and shuffled AUC 0.871.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from pipelines.saliency.fixation_table import FixationTable, choose_subjects, read_fixations
from pipelines.saliency.metrics import auc, information_gain, nss, shuffled_auc
from shards.errors import FormatError
from shards.reader import ImageIndex, ShardSet

Prior = Callable[[int, int], np.ndarray]
"""(height, width) → [height, width], sums to 1."""


@dataclass(frozen=True)
class Scores:
    """Means over images, ig in bits. fixations: how many were scored. outside: how many were left out."""

    auc: float
    sauc: float
    nss: float
    ig: float
    images: int
    fixations: int
    outside: int


@dataclass(frozen=True)
class Seen:
    """The map of one image, and where its recorded fixations lie as a share of its sides: float [F, 2] (row, col)."""

    index: ImageIndex
    sample: int
    image_size: tuple[int, int]


def score_saliency(
    maps: Path,
    fixations: Path,
    *,
    subjects: str | None = None,
    centre_bias: Path | None = None,
    drop_outside: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Scores of a `maps` or `saliency` set on a CSV of fixations, as JSON values; ready for `score-saliency --json`.

    Images are matched by the file name that a map's meta has (the whole path, or its last part where that is unique),
    or by key. `subjects`: "last8", "first7", "0,3" … are scored; None: all. The prior of `ig` is the MIT1003 template
    `centre_bias`, or a Gaussian (centre_prior.py). `drop_outside` leaves fixations outside their image out.

    Raises UsageError or FormatError: no such set, a bad CSV, an image without a map, a fixation outside its image.
    """
    from pipelines.saliency.centre_prior import CentrePrior

    table = read_fixations(fixations)
    chosen = choose_subjects(table, subjects)
    found = match_images(ShardSet.open(maps), table)
    model = CentrePrior(template=centre_bias)
    prior = lru_cache(maxsize=16)(lambda height, width: model.at(height, width).numpy())
    scores = score(found, table, chosen, prior, drop_outside=drop_outside, progress=progress)
    return {
        **asdict(scores),
        "subjects": chosen,
        "prior": model.provenance["what"],
        "model": ShardSet.open(maps).info.provenance.get("saliency_model", {}),
    }


def score(
    found: dict[str, Seen],
    table: FixationTable,
    subjects: Sequence[str],
    prior: Prior,
    *,
    drop_outside: bool = False,
    progress: bool = False,
) -> Scores:
    """Scores of the images that `subjects` looked at. Raises FormatError for fixations outside their image."""
    sizes = np.array([found[image].image_size for image in table.images])
    places = np.floor(table.points[:, ::-1])  # (row, col)
    inside = np.all((places >= 0) & (places < sizes), axis=1)
    if not inside.all() and not drop_outside:
        raise FormatError(_outside(table, inside, sizes))
    places, sizes = places[inside], sizes[inside]
    kept = table.chosen(inside)
    scored = np.isin(kept.subjects, list(subjects))
    others = ~scored if not scored.all() else scored
    shares = (places + 0.5) / sizes
    names = [name for name in found if (scored & (kept.images == name)).any()]
    rows = []
    for name in tqdm(names, unit="img", disable=None if progress else True):
        here = kept.images == name
        rows.append(_score_one(found[name], shares[scored & here], shares[others & ~here], prior))
    if not rows:
        raise FormatError(f"{table.path}: none of the chosen subjects has a fixation in an image")
    means = dict(zip(("auc", "sauc", "nss", "ig"), np.mean(rows, axis=0).tolist(), strict=True))
    return Scores(**means, images=len(rows), fixations=int(scored.sum()), outside=int((~inside).sum()))


def _score_one(seen: Seen, positives: np.ndarray, negatives: np.ndarray, prior: Prior) -> tuple[float, ...]:
    """(auc, sauc, nss, ig); shares [·, 2]. With a single image there are no negatives, and sauc is NaN."""
    saliency = seen.index.read_map(seen.sample)
    places = pixels(positives, saliency.shape)
    return (
        auc(saliency, places),
        shuffled_auc(saliency, places, pixels(negatives, saliency.shape)) if len(negatives) else float("nan"),
        nss(saliency, places),
        information_gain(saliency, prior(*saliency.shape), places),
    )


def pixels(shares: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Shares of height and width in [0, 1) → int64 (row, col) in a map of `size`."""
    return (shares * size).astype(np.int64)


def match_images(maps: ShardSet, table: FixationTable) -> dict[str, Seen]:
    """The map of every image in the table. Raises FormatError, naming images that have none, or more than one."""
    by_name: dict[str, list[Seen]] = {}
    for split in maps.splits:
        index = maps.images(split)
        index.map_member  # noqa: B018  ConfigError for a set of images without maps
        for sample in range(len(index)):
            for name in _names(index, sample):
                by_name.setdefault(name, []).append(Seen(index, sample, _image_size(index, sample)))
    wanted = list(dict.fromkeys(table.images.tolist()))
    if missing := [name for name in wanted if name not in by_name]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise FormatError(
            f"{table.path}: {missing[0]}{more} of {len(wanted)} images have no map in {maps.path}; give the set that "
            "was made of these images, or take them out"
        )
    if double := [name for name in wanted if len(by_name[name]) > 1]:
        raise FormatError(f"{table.path}: {double[0]} could be several images of {maps.path}; give paths, not names")
    return {name: by_name[name][0] for name in wanted}


def _names(index: ImageIndex, sample: int) -> set[str]:
    names = {index.keys[sample]}
    if "file" in index.meta and "row" not in index.meta:
        file = index.meta["file"][sample]
        names |= {file, PurePosixPath(file).name}
    return names


def _image_size(index: ImageIndex, sample: int) -> tuple[int, int]:
    """Of the image that people looked at, whatever its map was reduced to."""
    if "image_height" in index.meta:
        return index.meta["image_height"][sample], index.meta["image_width"][sample]
    height, width = index.sizes[sample]
    return int(height), int(width)


def _outside(table: FixationTable, inside: np.ndarray, sizes: np.ndarray) -> str:
    first = int(np.argmin(inside))
    (x, y), (height, width) = table.points[first], sizes[first]
    return (
        f"{table.path}: {int((~inside).sum())} of {len(table)} fixations lie outside their image, e.g. ({x:g}, {y:g}) "
        f"in {table.images[first]} of {width}×{height}; x, y are pixels of the original image; "
        "--drop-outside leaves them out"
    )
