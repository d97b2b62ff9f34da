"""The contact sheet of a set of features: a row a sample, how alike its views are, and a colour for each view."""

from __future__ import annotations

import numpy as np

from shards.preview_rows import Row, Rows, class_of
from shards.schema import DatasetInfo, ViewSpec
from shards.sheet import Sheet, colours_of
from shards.split_index import SplitIndex
from shards.vector_reader import VectorReader

_TILE = 128  # px


def draw_features(info: DatasetInfo, spec: ViewSpec, index: SplitIndex, chosen: np.ndarray, views: int) -> Sheet:
    """A row for each of the samples `chosen`: the cosines between up to `views` of its views as a square (the brighter
    the more alike, from the least of the sheet to 1), then each view in the colour of its first three principal
    components over the sheet."""
    assert spec.features is not None, "a set of features"
    reader, sequences = VectorReader(index), index.sequences
    columns = min(views, int(sequences.counts[chosen].max()))
    held = np.minimum(sequences.counts[chosen], columns)
    frames = [sequences.starts[row] + np.arange(count) for row, count in zip(chosen, held, strict=True)]
    places = [sequences.locate(some) for some in frames]
    vectors = [reader.take(*some).astype(np.float64) for some in places]
    colours = np.split(principal_colours(np.concatenate(vectors)), np.cumsum(held)[:-1])
    alike = [cosines(some) for some in vectors]
    least = min(float(square.min()) for square in alike)
    features = spec.features
    about = f"{len(index):,} samples, {features.size} features of {features.backbone}, {features.dtype}"
    page = Rows(f"{info.name} · {index.name}", about, (_TILE, _TILE), spec.params, len(chosen))
    page.open(1 + columns, apart=0)
    for number, sample in enumerate(chosen.tolist()):
        square = colours_of(alike[number] - least + 1e-9)
        pictures = [(_blown_up(square), f"cosine {least:.2f} to 1")]
        pictures += [
            (np.tile(colour, (_TILE, _TILE, 1)), index.params[row, slot])
            for colour, row, slot in zip(colours[number], *places[number], strict=True)
        ]
        label = class_of(info, int(index.labels[sample]))
        page.draw(number, Row((label, index.keys[sample], f"{sequences.counts[sample]} views"), pictures))
    return page.sheet


def cosines(vectors: np.ndarray) -> np.ndarray:
    """float [n, D] → cosine of each two [n, n]; 0 with a vector of zeros."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(length > 0, length, 1)
    return np.clip(unit @ unit.T, -1, 1)


def principal_colours(vectors: np.ndarray) -> np.ndarray:
    """float [n, D] → uint8 [n, 3]: the first three principal components, each from its least (0) to its most (255).

    The sign of a component is the one in which its largest loading is positive; components that do not vary are grey.
    """
    centred = vectors - vectors.mean(0)
    _, strengths, axes = np.linalg.svd(centred, full_matrices=False)
    colours = np.full((len(vectors), 3), 128, np.uint8)
    for channel, (strength, axis) in enumerate(zip(strengths[:3], axes[:3], strict=True)):
        if strength > 1e-9 * max(1.0, float(np.abs(vectors).max())):
            values = centred @ (axis * np.sign(axis[np.abs(axis).argmax()]))
            colours[:, channel] = np.rint(255 * (values - values.min()) / np.ptp(values))
    return colours


def _blown_up(picture: np.ndarray) -> np.ndarray:
    """uint8 [n, n, 3] → [128, 128, 3], without blurring."""
    places = np.arange(_TILE) * len(picture) // _TILE
    return picture[places][:, places]
