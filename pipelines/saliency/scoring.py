"""Maps against recorded fixations: the mean over images of AUC, shuffled AUC, NSS and information gain.

    auc   the chance that a fixated pixel has a higher value than any pixel of the image (ties count half): the area
          under the ROC curve of F fixations against all H·W pixels: uniform negatives without their sampling noise
    sauc  the same against the pixels at which people looked in other images: a map of the centre alone gets 0.5
    nss   the map, standardised over its pixels (mean 0, deviation 1), averaged over fixations
    ig    information gain in bits a fixation: the mean of log2(p + ε) − log2(prior + ε), ε = 2⁻⁵², where both sum to 1

Definitions as in Kümmerer, Wallis and Bethge (2015, 2018) and Bylinskii et al. (2019). Fixations are int [F, 2],
(row, col) in the map; they come from a CSV with columns image, subject, x, y (pixels of the image).

Shuffled negatives of an image are the fixations of *other people* on all *other images*: with subjects chosen, those
who were not; else everybody. They lie at the same share of the image's height and width. With them, and Gaussian maps
of 24 pixels around seven people's fixations, the eight others of OSIE score AUC 0.915 and shuffled AUC 0.871.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from pipelines.archives import printable
from shards.errors import FormatError, UsageError, few, reason_of
from shards.machine.environment import pass_environment_on
from shards.reader import ImageIndex, ShardSet

EPSILON = 2.0**-52


def auc(saliency: np.ndarray, fixations: np.ndarray) -> float:
    """Of a map [H, W] against all of its pixels."""
    return area_under_roc(values_at(saliency, fixations), saliency.ravel())


def shuffled_auc(saliency: np.ndarray, fixations: np.ndarray, negatives: np.ndarray) -> float:
    """negatives: int [N, 2], where people looked in other images."""
    return area_under_roc(values_at(saliency, fixations), values_at(saliency, negatives))


def nss(saliency: np.ndarray, fixations: np.ndarray) -> float:
    """0 for a flat map."""
    values = saliency.astype(np.float64)
    deviation = values.std()
    return float((values_at(values, fixations) - values.mean()).mean() / deviation) if deviation > 0 else 0.0


def information_gain(p: np.ndarray, prior: np.ndarray, fixations: np.ndarray) -> float:
    """In bits a fixation. p, prior: [H, W], each is normalised here in float64."""
    gained = [
        np.log2(values_at(q.astype(np.float64) / q.sum(dtype=np.float64), fixations) + EPSILON) for q in (p, prior)
    ]
    return float((gained[0] - gained[1]).mean())


def area_under_roc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """P(positive > negative) + P(equal) / 2, over all pairs."""
    ordered = np.sort(negatives)
    below, up_to = (np.searchsorted(ordered, positives, side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(ordered)))


def values_at(values: np.ndarray, fixations: np.ndarray) -> np.ndarray:
    """[H, W] at [F, 2] → [F]."""
    return values[fixations[:, 0], fixations[:, 1]]


Prior = Callable[[int, int], np.ndarray]
"""(height, width) → [height, width], sums to 1."""


@dataclass(frozen=True)
class SaliencyScores:
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
    `centre_bias`, or a Gaussian (offline_models.CentrePrior). `drop_outside` leaves fixations outside their image out.

    Raises UsageError or FormatError: no such set, a bad CSV, an image without a map, a fixation outside its image.
    """
    from pipelines.saliency.offline_models import CentrePrior

    table = read_fixations(fixations)
    chosen = choose_subjects(table, subjects)
    opened = ShardSet.open(maps)
    _refuse_resized(opened)
    found = match_images(opened, table)
    model = CentrePrior(template=centre_bias)
    prior = lru_cache(maxsize=16)(lambda height, width: model.at(height, width).numpy())
    scores = score(found, table, chosen, prior, drop_outside=drop_outside, progress=progress)
    return {
        **asdict(scores),
        "subjects": chosen,
        "prior": model.provenance["what"],
        "model": opened.info.provenance.get("saliency_model", {}),
    }


def _refuse_resized(maps: ShardSet) -> None:
    """UsageError for images and maps of another size than people saw; a set of maps knows what size that was."""
    resize = str(maps.info.provenance.get("resize", "none"))
    if maps.info.kind == "saliency" and not resize.startswith("none"):
        raise UsageError(
            f"{maps.place} was resized ({resize}), and fixations are in pixels of the original images; give the set of "
            "maps that it was made of"
        )


def score(
    found: dict[str, Seen],
    table: FixationTable,
    subjects: Sequence[str],
    prior: Prior,
    *,
    drop_outside: bool = False,
    progress: bool = False,
) -> SaliencyScores:
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
    return SaliencyScores(**means, images=len(rows), fixations=int(scored.sum()), outside=int((~inside).sum()))


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
        raise FormatError(
            f"{table.path}: {few(missing, 1)} of {len(wanted)} images have no map in {maps.path}; give the set that "
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


COLUMNS = ("image", "subject", "x", "y")
MAX_ROWS = 50_000_000


@dataclass(frozen=True)
class FixationTable:
    """F fixations: image and subject names, and float64 [F, 2] (x, y): column and row, from the top left corner."""

    path: Path
    images: np.ndarray
    subjects: np.ndarray
    points: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    def chosen(self, mask: np.ndarray) -> FixationTable:
        return FixationTable(self.path, self.images[mask], self.subjects[mask], self.points[mask])

    def everyone(self) -> list[str]:
        """All subjects, numbers as numbers, before names."""
        return sorted(
            set(self.subjects.tolist()),
            key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name),
        )


def read_fixations(path: Path) -> FixationTable:
    """Raises FormatError: a missing column, a row that is no fixation (with its line), none at all."""
    images, subjects, points = [], [], []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                there = ", ".join(map(printable, rows.fieldnames or ("none",)))
                raise FormatError(
                    f"{path} has no column {', '.join(missing)}; {', '.join(COLUMNS)} are needed, there are {there}"
                )
            if double := [name for name in COLUMNS if list(rows.fieldnames or ()).count(name) > 1]:
                raise FormatError(f"{path} has two columns {double[0]}; take one out")
            for row in rows:
                points.append(_point(path, rows.line_num, row))
                images.append(row["image"])
                subjects.append(row["subject"])
                if len(points) > MAX_ROWS:
                    raise FormatError(f"{path} has more than {MAX_ROWS:,} rows")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        pass_environment_on(error)
        why = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read as CSV ({reason_of(error)})"
        raise FormatError(f"{path} {why}; give a CSV with columns {', '.join(COLUMNS)}") from error
    if not points:
        raise FormatError(f"{path} holds no fixations")
    places = np.array(points)
    if places.max() <= 1 and (places % 1).any():
        raise FormatError(f"{path}: x and y are at most {places.max():g}, shares of the sides? Pixels are needed")
    return FixationTable(path, np.array(images), np.array(subjects), places)


def choose_subjects(table: FixationTable, text: str | None) -> list[str]:
    """ "last8", "first7", "0,3,5" or None (all) → names. Raises UsageError for somebody who is not there."""
    everyone = table.everyone()
    if text is None:
        return everyone
    if span := re.fullmatch(r"(first|last)(\d+)", text):
        number = int(span[2])
        if not 1 <= number <= len(everyone):
            raise UsageError(f"--subjects {text}: {table.path} has {len(everyone)} subjects")
        return everyone[:number] if span[1] == "first" else everyone[-number:]
    chosen = [name.strip() for name in text.split(",")]
    if unknown := sorted(set(chosen) - set(everyone)):
        raise UsageError(f"--subjects: no {', '.join(unknown)} in {table.path}; there are {few(everyone, 12)}")
    return chosen


def _point(path: Path, line: int, row: dict[str, str]) -> tuple[float, float]:
    try:
        x, y = float(row["x"]), float(row["y"])
    except (TypeError, ValueError):
        x = y = float("nan")
    if not (np.isfinite(x) and np.isfinite(y)) or not row["image"] or row["subject"] is None:
        found = ", ".join(f"{name}={row.get(name)!r:.40}" for name in COLUMNS)
        raise FormatError(f"{path}, line {line}: image, subject and two numbers x, y are needed, found {found}")
    return x, y
