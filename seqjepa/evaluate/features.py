"""Features: what the frozen encoder makes of a split, once; the cache that every probe is trained from.

Pixels go through the encoder in passes of a bounded size, while threads read the next ones (data/one_pass.py).

Letters: S samples of a split, b of a batch, N slots, K draws of V views, D width of z, P parameters; H × W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from seqjepa.data.actions import actions_between, as_spec, columns, is_augmentation, needs_order
from seqjepa.data.augment.parameters import Scaling, scaled
from seqjepa.data.draws import Draw, Purpose, choose_distinct, draw_u32
from seqjepa.data.images import ImageBatch
from seqjepa.data.one_pass import image_chunks, stored_views
from seqjepa.data.views import ImageViews
from seqjepa.devices import to_device
from seqjepa.models.embed import Embedding, PixelStats, embed, views_per_pass
from shards.reader import ImageIndex, SplitIndex
from shards.reading.sequences import Sequences, window_span
from shards.schema import ActionSpec
from shards.vector_reader import VectorReader

FULL_PRECISION_BYTES = 2 * 2**30
_VECTORS_AT_ONCE = 65_536
VIEWS_AT_ONCE = 256
FEWEST_IMAGES, MOST_IMAGES = 64, 1024  # at once: sampling fixations costs least in batches


@dataclass(frozen=True)
class Features:
    """What is known of one split after the encoder has seen it.

    z           float32 or float16 [S, N, D], on the device where probes are trained; rows of padding slots are zero
    n_views     int64 [S]            distinct views of each sample: slots 0 … n_views − 1
    params      float32 [S, N, P]    in the shards' units, fields named by param_names
    labels      int64 [S], on the device; −1 for none
    run_length  0: the slots of a sample are an unordered set of views. V > 0: they are N/V runs of V views in the
                order in which they were drawn
    z_image     float32 or float16 [S, D]: z of the whole image, where the views are made of one
    scaling     of augmentation parameters before they are subtracted; None: by their norm over the views of a draw
                (author fidelity). No other parameters are scaled
    independent  of runs: every view was drawn regardless of the others, the last one as the target (augmentations).
                Then any views make a draw, and there are far more draws than runs
    sequences   how samples join, where views of a sequence are drawn from several of them, or in windows
    stride      0: views of a draw come in random order. s > 0: they are every s-th of consecutive steps (windows)

    A view's place is its number among all S · N slots: sample · N + slot.
    """

    z: Tensor
    n_views: np.ndarray
    params: np.ndarray
    param_names: tuple[str, ...]
    labels: Tensor
    run_length: int = 0
    z_image: Tensor | None = None
    scaling: Scaling | None = None
    independent: bool = False
    sequences: Sequences | None = None
    stride: int = 0

    def __len__(self) -> int:
        return self.z.shape[0]

    @property
    def most_views(self) -> int:
        """The longest sequence that every sample can give."""
        if self.sequences is None:
            return self.run_length or int(self.n_views.min())
        if self.stride:
            return int((self.sequences.longest_run().min() - 1) // self.stride) + 1
        return int(self.sequences.counts.min())

    @property
    def objects(self) -> np.ndarray:
        """int64 [S]: which object or sequence each sample is of."""
        return np.arange(len(self)) if self.sequences is None else self.sequences.ids

    @property
    def different_draws(self) -> int | None:
        """How many training draws there are before they repeat; None: no end to them."""
        return self.runs if self.run_length and not self.independent else None

    @property
    def runs(self) -> int:
        """K, how many runs a sample's slots are; run_length > 0."""
        return self.z.shape[1] // self.run_length

    def draw(self, seed: int, draw: int, purpose: Purpose, views: int) -> np.ndarray:
        """Places int64 [S, views] of the sequence that each sample gives in a draw; views ≤ most_views.

        From a set of views: distinct ones in random order, new for each (seed, draw, purpose), of the whole sequence
        where a sample is a part of one. From steps: a window of the whole sequence. From runs: the first
        slots of run `draw` modulo their number; to train on independent ones, any views in these places. A longer
        sequence always extends a shorter one, so that all probes of a draw see the same views; but for windows, which
        end where the sequence does.
        """
        if self.sequences is not None:
            return self.places_of(self._frames(self.sequences, seed, draw, purpose, views))
        return np.arange(len(self))[:, None] * self.z.shape[1] + self._slots(seed, draw, purpose, views)

    def places_of(self, frames: np.ndarray) -> np.ndarray:
        """Frames of `sequences` → places, of any shape."""
        assert self.sequences is not None
        samples, slots = self.sequences.locate(frames)
        return samples * self.z.shape[1] + slots

    def _frames(self, sequences: Sequences, seed: int, draw: int, purpose: Purpose, views: int) -> np.ndarray:
        rows = np.arange(len(self))
        if self.stride:
            numbers = draw_u32(seed, draw, purpose, rows, 1)[:, 0]
            return sequences.draw_windows(rows, window_span(views, self.stride), numbers)[:, :: self.stride]
        chosen = choose_distinct(sequences.counts, draw_u32(seed, draw, purpose, rows, views))
        return sequences.starts[:, None] + chosen

    def _slots(self, seed: int, draw: int, purpose: Purpose, views: int) -> np.ndarray:
        if self.independent and purpose is Purpose.PROBE:
            return self._mixed(draw_u32(seed, draw, purpose, np.arange(len(self)), self.run_length))[:, :views]
        if self.run_length:
            first = draw % self.runs * self.run_length
            return np.tile(np.arange(first, first + views), (len(self), 1))
        return choose_distinct(self.n_views, draw_u32(seed, draw, purpose, np.arange(len(self)), views))

    def _mixed(self, numbers: np.ndarray) -> np.ndarray:
        """uint32 [S, V] → slots int64 [S, V]: distinct observation views of any runs, then any run's target view."""
        before = self.run_length - 1
        chosen = choose_distinct(np.full(len(self), self.runs * before), numbers[:, :before])
        target = choose_distinct(np.full(len(self), self.runs), numbers[:, before:])
        return np.concatenate([chosen + chosen // before, target * self.run_length + before], axis=1)

    def params_of(self, places: np.ndarray) -> np.ndarray:
        """Parameters of places of any shape […]: float32 […, P]."""
        return self.params[np.divmod(places, self.params.shape[1])]  # P may be 0, of which no reshape infers a size

    def z_of(self, places: Tensor) -> Tensor:
        """z of places […], which are where z is: […, D]."""
        return self.z.flatten(0, 1)[places]

    def actions(self, places: np.ndarray, action: ActionSpec) -> Tensor:
        """Actions from each place to the next: int64 [S, V] → float32 [S, V − 1, A], where z is. In windows, and of
        commands in runs, they are of all steps on the way.

        With author fidelity actions of augmentations depend on all V views that are given (docs/fidelity.md #22).
        """
        if is_augmentation(action):
            action = scaled(action, self.scaling)
        in_runs = bool(self.run_length) and needs_order(as_spec(action))
        steps, stride = self._steps_between(places) if (self.stride or in_runs) and places.shape[1] > 1 else (places, 1)
        return self.on_device(actions_between(self.params_of(steps), self.param_names, action, stride))

    def _steps_between(self, places: np.ndarray) -> tuple[np.ndarray, int]:
        """Places of every step along windows or runs, and how many lead from a view to the next: the same for all."""
        frames = places  # of runs, whose views lie one after the other
        if self.sequences is not None:
            samples, slots = np.divmod(places, self.z.shape[1])
            frames = self.sequences.firsts[samples] + slots
        stride = int(frames[0, 1] - frames[0, 0])
        assert stride > 0, "windows go forwards"
        assert (np.diff(frames, axis=1) == stride).all(), "and in equal steps"
        steps = frames[:, :1] + np.arange(window_span(places.shape[1], stride))
        return (steps if self.sequences is None else self.places_of(steps)), stride

    def z_at(self, samples: np.ndarray, slots: np.ndarray) -> Tensor:
        """z of views by sample and slot, int64 […] each: […, D], where z is."""
        return self.z_of(torch.from_numpy(samples * self.z.shape[1] + slots).to(self.z.device))

    def params_at(self, samples: np.ndarray, slots: np.ndarray, names: tuple[str, ...]) -> np.ndarray | None:
        """These parameters of views by sample and slot: float32 […, n]; None: there are none of that name."""
        known = set(names) <= set(self.param_names)
        return self.params[samples, slots][..., columns(self.param_names, names)] if known else None

    def on_device(self, values: np.ndarray) -> Tensor:
        """float32 values where z is."""
        return to_device(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)), self.z.device)

    def columns(self, columns: slice) -> Features:
        """The same with some columns of z alone, of views and of whole images."""
        whole = self.z_image
        return replace(self, z=self.z[..., columns], z_image=None if whole is None else whole[..., columns])


def room(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Zeros for features, float32, or float16 beyond 2 GiB; on a GPU as long as they leave half of what is free.

    Made outside inference mode, so that a probe's backward pass may read what is put there.
    """
    dtype = torch.float32 if 4 * np.prod(shape, dtype=np.int64) <= FULL_PRECISION_BYTES else torch.float16
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    fits = device.type != "cuda" or size < torch.cuda.mem_get_info(device)[0] // 2
    return torch.zeros(shape, dtype=dtype, device=device if fits else "cpu")


def encode_views(
    method: Embedding,
    index: SplitIndex,
    pixel_stats: PixelStats,
    device: torch.device,
    *,
    run_length: int = 0,
    scaling: Scaling | None = None,
    stride: int = 0,
    batch_size: int | None = None,
    threads: int = 2,
    progress: bool = False,
) -> Features:
    """Runs every distinct stored view of the split through `method.embed`, `batch_size` at a time.

    run_length, scaling: see Features; of sets whose views were baked as sequences. stride: likewise, of windows.
    Features are kept as float32, or as float16 when they would exceed 2 GiB (3DIEBench's 2.6 million views: 2.7 GB).
    Those of a set of features are read, and no encoder is run.
    """
    z = stored_features(index, device) if index.features else None
    at_once = batch_size or _views_at_once(index, device)
    batches = stored_views(index, at_once, threads) if z is None else ()
    with _bar(f"encode {index.name}", int(index.n_views.sum()), "view", progress) as bar:
        for samples, views, pixels in batches:
            on_device = to_device(torch.from_numpy(pixels), device).permute(0, 3, 1, 2)
            features = embed(method, on_device, pixel_stats)
            if z is None:
                z = room((*index.offsets.shape, features.shape[-1]), device)
            at = tuple(to_device(torch.from_numpy(index), z.device) for index in (samples, views))
            z[at] = features.to(z)
            bar.update(len(samples))
    assert z is not None, "a split has at least one sample with one view"
    n_views = index.n_views.astype(np.int64)
    labels = _labels(index, z.device)
    sequences = index.sequences if stride or (index.sequences.joined and not run_length) else None
    return Features(
        *(z, n_views, index.params, index.param_names, labels, run_length),
        scaling=scaling, sequences=sequences, stride=stride,
    )  # fmt: skip


def stored_features(index: SplitIndex, device: torch.device) -> Tensor:
    """z [S, N, D] of a set of features; rows of padding slots are zero."""
    reader = VectorReader(index)
    z = room((*index.offsets.shape, reader.size), device)
    samples, slots = index.sequences.locate(np.arange(index.sequences.firsts[-1]))
    for start in range(0, len(samples), _VECTORS_AT_ONCE):
        some = slice(start, start + _VECTORS_AT_ONCE)
        vectors = torch.from_numpy(reader.take(samples[some], slots[some]))
        z[torch.from_numpy(samples[some]).to(z.device), torch.from_numpy(slots[some]).to(z.device)] = vectors.to(z)
    return z


@dataclass(frozen=True)
class Draws:
    """K = `count` draws of V = `views` views of each image, as `of` makes them. A longer draw extends a shorter one."""

    of: ImageViews
    count: int
    views: int
    seed: int
    purpose: Literal["probe", "evaluation"]


def encode_images(
    method: Embedding,
    index: ImageIndex,
    drawn: Draws,
    pixel_stats: PixelStats,
    device: torch.device,
    *,
    threads: int = 2,
    progress: bool = False,
) -> Features:
    """Makes all views on the device and runs them, and the whole images as they are, through `method.embed` once.

    Slots are K runs of V views. Raises ConfigError where views cannot be made of the images.
    """
    draws, views, names = drawn.count, drawn.views, tuple(field.name for field in drawn.of.params)
    z = z_image = params = None
    with _bar(f"encode {index.name}", len(index), "image", progress) as bar:
        for rows, pixels, saliency in image_chunks(index, _images_at_once(drawn, device), threads, drawn.of.needs_maps):
            images = to_device(torch.from_numpy(pixels), device).permute(0, 3, 1, 2)
            batch = ImageBatch(rows, images, to_device(torch.from_numpy(saliency), device))
            whole = embed(method, images, pixel_stats)
            if z is None or z_image is None or params is None:
                z = room((len(index), draws * views, whole.shape[-1]), device)
                z_image = room((len(index), whole.shape[-1]), device).to(z.device)
                params = torch.zeros(len(index), draws * views, len(names), device=z.device)
            at = slice(rows[0], rows[-1] + 1)
            z_image[at] = whole.to(z_image)
            for draw in range(draws):
                slots = slice(draw * views, (draw + 1) * views)
                made = drawn.of.make(batch, Draw(views, drawn.seed, draw, drawn.purpose))
                z[at, slots] = embed(method, made.views.flatten(0, 1), pixel_stats).to(z).unflatten(0, (-1, views))
                params[at, slots] = made.params.to(params)
            bar.update(len(rows))
    assert z is not None, "a split has at least one image"
    assert params is not None
    return Features(
        z, np.full(len(index), draws * views), params.cpu().numpy(), names, _labels(index, z.device),
        run_length=views, independent=drawn.of.independent, z_image=z_image, scaling=drawn.of.scaling,
    )  # fmt: skip


def _bar(description: str, total: int, unit: str, progress: bool) -> tqdm:
    return tqdm(total=total, desc=description, unit=unit, disable=None if progress else True, leave=False)


def _labels(index: SplitIndex | ImageIndex, device: torch.device) -> Tensor:
    return torch.from_numpy(np.asarray(index.labels, np.int64)).to(device)


def _views_at_once(index: SplitIndex, device: torch.device) -> int:
    """On a GPU a few passes of the encoder, so that copies and passes are large."""
    if device.type != "cuda":
        return VIEWS_AT_ONCE
    return min(8 * VIEWS_AT_ONCE, max(VIEWS_AT_ONCE, 4 * views_per_pass(device, index.height, index.width)))


def _images_at_once(drawn: Draws, device: torch.device) -> int:
    """As many as give the encoder at least one full pass of views."""
    views = views_per_pass(device, drawn.of.side, drawn.of.side)
    return min(MOST_IMAGES, max(FEWEST_IMAGES, views // drawn.views))
