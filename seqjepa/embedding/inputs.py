"""What is embedded: the views or images of a split, or the images of a folder; which of them make a z_AGG.

Their pixels come in batches.

Letters: S samples, R rows (a view or an image each), P parameters, b of a batch, H × W pixels, Q sequences of M views,
A numbers of an action.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from seqjepa.data.actions import actions_between, is_augmentation, needs_order
from seqjepa.data.augment.parameters import Scaling, scaled
from seqjepa.data.draws import Purpose, choose_distinct, draw_u32
from seqjepa.data.one_pass import image_chunks, read_ahead, stored_views
from seqjepa.methods.base import Aggregating
from seqjepa.model import Model
from shards.errors import ConfigError, UsageError, few
from shards.machine.environment import pass_environment_on
from shards.pixels import PIL_ERRORS, resized, rgb_of
from shards.reader import ImageIndex, ShardSet, SplitIndex
from shards.reading.sequences import window_span
from shards.schema import ActionSpec, ViewSpec
from shards.vector_reader import VectorReader

LARGEST_SIDE = 8192
NOT_READ = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})
"""PIL's formats that other programs decode (EPS is a program itself), or that it only recognises."""

SizeFor = Callable[[int, int], tuple[int, int]]
"""(height, width) of an image → what it is resized to."""


@dataclass
class Chunk:
    """A batch.

    groups  row numbers int64 [k] and their pixels uint8 [k, H, W, 3], of one size each
    z       the same of sets of features: float [k, D], which nothing has to encode
    broken  row number and what is wrong with its file
    """

    groups: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    z: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    broken: list[tuple[int, str]] = field(default_factory=list)


Read = Callable[[range, int, int], Iterator[Chunk]]
"""(rows, batch size, threads) → their pixels, in order; the next batch is read while this one is used."""


@dataclass(frozen=True)
class Source:
    """One split, or one folder.

    split        its name; "" for a folder
    keys         of the S samples; of a folder: paths below it
    sample       int64 [R], of each row         views    int32 [R], number of the view in its sample's source
    labels       int64 [S], −1 for none         classes  their names
    params       float32 [R, P] of param_names, in the shards' units
    fingerprint  the same only for the same content
    index        of stored views, from which sequences can be made
    """

    split: str
    keys: Sequence[str]
    sample: np.ndarray
    views: np.ndarray
    labels: np.ndarray
    fingerprint: str
    read: Read
    params: np.ndarray
    classes: tuple[str, ...] = ()
    param_names: tuple[str, ...] = ()
    index: SplitIndex | None = None

    def __len__(self) -> int:
        return len(self.sample)


def open_shards(opened: ShardSet, splits: Sequence[str]) -> list[Source]:
    """All splits, or those that are named. ConfigError: there is no such split, or it is a set of maps."""
    if opened.info.kind == "maps":
        raise ConfigError(f"{opened.place} holds saliency maps without images: embed the images that have them")
    of_views = isinstance(opened.info.spec, ViewSpec)
    make = _of_views if of_views else _of_images
    names = dict.fromkeys(splits or opened.splits)
    return [make(opened.split(n) if of_views else opened.images(n), opened.info.classes) for n in names]  # type: ignore[arg-type]


def _of_views(index: SplitIndex, classes: tuple[str, ...]) -> Source:
    samples, slots = np.nonzero(np.arange(index.offsets.shape[1]) < index.n_views[:, None])
    return Source(
        *(index.name, index.keys, samples, index.view_ids[samples, slots], index.labels, index.fingerprint()),
        functools.partial(_read_features if index.features else _read_views, index),
        *(index.params[samples, slots], classes, index.param_names, index),
    )


def _read_views(index: SplitIndex, rows: range, size: int, threads: int) -> Iterator[Chunk]:
    start = rows.start
    for samples, _, pixels in stored_views(index, size, threads, slice(rows.start, rows.stop)):
        yield Chunk([(np.arange(start, start + len(samples)), pixels)])
        start += len(samples)


def _read_features(index: SplitIndex, rows: range, size: int, threads: int) -> Iterator[Chunk]:
    reader = VectorReader(index)
    for start in range(rows.start, rows.stop, size):
        at = np.arange(start, min(start + size, rows.stop))
        yield Chunk(z=[(at, reader.take(*index.sequences.locate(at)))])


def _of_images(index: ImageIndex, classes: tuple[str, ...]) -> Source:
    read = functools.partial(_read_images, index)
    return Source(
        index.name, index.keys, *_one_each(len(index)), index.labels, index.fingerprint(), read, _none(index), classes
    )


def _one_each(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Sample and view of every row, where a sample has one."""
    return np.arange(samples), np.zeros(samples, np.int32)


def _none(rows: Sized) -> np.ndarray:
    """No parameters, of each row."""
    return np.zeros((len(rows), 0), np.float32)


def _read_images(index: ImageIndex, rows: range, size: int, threads: int) -> Iterator[Chunk]:
    for numbers, pixels, _ in image_chunks(index, size, threads, maps=False, part=rows):
        yield Chunk([(numbers, pixels)])


@functools.cache
def _formats() -> tuple[tuple[str, ...], frozenset[str]]:
    """PIL's names of what is read, and the endings of such files."""
    Image.init()
    formats = tuple(sorted(set(Image.OPEN) - NOT_READ))
    return formats, frozenset(end for end, name in Image.registered_extensions().items() if name in formats)


def open_folder(folder: Path, size_for: SizeFor) -> Source:
    """Every image file below a folder, sorted by its path; links to folders are not followed.

    UsageError: it is no folder, or holds none.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; --images needs a folder of images")
    found = sorted(_image_files(folder, ""))
    if not found:
        known = dict.fromkeys([".jpeg", ".png", ".webp", *_formats()[1]])
        raise UsageError(f"{folder} holds no images; PIL reads {few([*known])}")
    digest = hashlib.sha256()
    for path, size, changed in found:
        digest.update(f"{path}\0{size}\0{changed}\n".encode(errors="surrogateescape"))
    paths = [path for path, _, _ in found]
    keys = [os.fsencode(path).decode(errors="replace") for path in paths]
    read = functools.partial(_read_files, folder, paths, size_for)
    return Source("", keys, *_one_each(len(paths)), np.full(len(paths), -1), digest.hexdigest(), read, _none(paths))


def _image_files(folder: Path, below: str) -> Iterator[tuple[str, int, int]]:
    """Path below `folder` with slashes, bytes, and when it was changed (ns), in no order."""
    endings, folders = _formats()[1], []
    with os.scandir(folder / below) as entries:
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif os.path.splitext(entry.name)[1].lower() in endings and entry.is_file():
                about = entry.stat()
                yield path, about.st_size, about.st_mtime_ns
    for path in folders:
        yield from _image_files(folder, path)


def _read_files(
    folder: Path, paths: Sequence[str], size_for: SizeFor, rows: range, size: int, threads: int
) -> Iterator[Chunk]:
    with ThreadPoolExecutor(threads) as pool:

        def submit(start: int) -> tuple[tuple[int, list[np.ndarray | str]], list[Future[None]]]:
            images: list[np.ndarray | str] = [""] * (min(start + size, rows.stop) - start)

            def load(place: int) -> None:
                images[place] = _load(folder, paths[start + place], size_for)

            return (start, images), [pool.submit(load, place) for place in range(len(images))]

        for start, images in read_ahead(range(rows.start, rows.stop, size), submit):
            yield _grouped(start, images)


def _grouped(start: int, images: list[np.ndarray | str]) -> Chunk:
    """Images of a size together: runs on patches take patches and whole images."""
    by_size: dict[tuple[int, ...], list[int]] = {}
    broken = []
    for place, image in enumerate(images):
        if isinstance(image, str):
            broken.append((start + place, image))
        else:
            by_size.setdefault(image.shape, []).append(place)
    groups = [(start + np.array(places), np.stack([images[p] for p in places])) for places in by_size.values()]  # type: ignore[arg-type]
    return Chunk(groups, broken=broken)


def _load(folder: Path, path: str, size_for: SizeFor) -> np.ndarray | str:
    """uint8 [H, W, 3] as Model.embed makes it of PIL's image, or what is wrong with the file."""
    try:
        path.encode()
        with Image.open(folder / path, formats=_formats()[0]) as image:
            if max(image.size) > LARGEST_SIDE:
                return f"{image.width}×{image.height} pixels; at most {LARGEST_SIDE} a side"
            wanted = size_for(image.height, image.width)
            rgb = rgb_of(image)
        return rgb if rgb.shape[:2] == wanted else resized(rgb, wanted)
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    except Image.UnidentifiedImageError:
        return "not an image that PIL reads"
    except (*PIL_ERRORS, Image.DecompressionBombError) as error:
        pass_environment_on(error)
        return f"{' '.join(str(error).split()) or type(error).__name__:.120}"


@dataclass(frozen=True)
class Contexts:
    """Q sequences of M views.

    rows    int64 [Q, M]: row numbers within the split
    stride  rows between two views, of windows: the action between them is of all steps on the way
    """

    rows: np.ndarray
    stride: int
    action: ActionSpec
    source: Source

    def __len__(self) -> int:
        return len(self.rows)

    def actions(self, part: slice) -> np.ndarray:
        """float32 [q, M − 1, A] of some of the sequences."""
        rows = self.rows[part]
        if rows.shape[1] == 1:
            return np.zeros((len(rows), 0, self.action.size), np.float32)
        if self.stride > 1:
            rows = rows[:, :1] + np.arange(window_span(rows.shape[1], self.stride))
        return actions_between(self.source.params[rows], self.source.param_names, self.action, self.stride)


def contexts_of(model: Model, source: Source, views: int, scaling: Scaling | None) -> Contexts:
    """Sequences of `views` views of a split, as the run was trained:

    windows   every window of consecutive steps (the run's stride), for runs on windows or on commands
    baked     the first views of every stored sequence
    else      of every object (a sequence of several samples is one) the views that `seqjepa evaluate` draws first

    scaling: the constants that come with baked augmentations. ConfigError: there is no z_AGG, and why.
    """
    index, action = source.index, model.action_spec.spec
    if not isinstance(model.method, Aggregating):
        raise ConfigError(f"{model.config.method} makes features of single views")
    if index is None:
        raise ConfigError("images are embedded whole, each by itself")
    if missing := [name for name in action.columns if name not in source.param_names]:
        raise ConfigError(f"the run's actions need {', '.join(missing)}, which the shards do not have")
    if is_augmentation(action):
        action = scaled(action, None if model.config.fidelity == "author" else scaling)
    rows, stride = _rows(model, index, views, needs_order(action))
    if not len(rows):
        raise ConfigError(f"no sequence of split {source.split!r} has {views} views")
    return Contexts(rows, stride, action, source)


def _rows(model: Model, index: SplitIndex, views: int, commands: bool) -> tuple[np.ndarray, int]:
    """int64 [Q, M], and the stride of windows."""
    sequences, data = index.sequences, model.config.data
    if index.sequence:
        if views > index.sequence:
            raise ConfigError(f"the stored sequences have {index.sequence} views, and {views} are asked for")
        runs = np.arange(0, index.offsets.shape[1], index.sequence)
        return (sequences.firsts[:-1, None] + runs).reshape(-1, 1) + np.arange(views), 1
    if data.order == "window" or commands:
        if not index.ordered:
            raise ConfigError("the run was trained on consecutive steps, and the shards hold views in no order")
        first = sequences.windows(window_span(views, data.stride))
        return first[:, None] + data.stride * np.arange(views), data.stride
    starts, counts = sequences.bounds[:-1], np.diff(sequences.bounds)
    samples = np.flatnonzero(index.chunk == 0)
    enough = counts >= views
    if not enough.any():
        return np.zeros((0, views), np.int64), 1
    numbers = draw_u32(0, 0, Purpose.EVALUATION, samples[enough], views)
    return starts[enough, None] + choose_distinct(counts[enough], numbers), 1
