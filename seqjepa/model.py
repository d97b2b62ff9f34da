"""A trained run in use: `seqjepa.load(RUN)`, then embed, aggregate, predict, roll out.

Letters: M views of a context, K steps ahead, D width of z, A numbers of an action; … any number of axes before, which
every result has too: one sequence gives one z_AGG, a batch of them gives a batch.
"""

from __future__ import annotations

import copy
import functools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seqjepa.config import RunConfig
from seqjepa.data.actions import actions_between, is_augmentation
from seqjepa.data.augment.parameters import constants_for, scaled
from seqjepa.data.augment.recipes import build_recipe
from seqjepa.devices import pick_device
from seqjepa.evaluate.rollouts import roll_out
from seqjepa.hub import run_folder
from seqjepa.methods.base import Aggregating, Method, PredictsViews
from seqjepa.models.backbone import fold_batch_norms
from seqjepa.models.embed import embed
from seqjepa.precision import full_float32, full_precision
from seqjepa.training.checkpoint import LoadedRun, load_run
from shards.errors import UsageError, reason_of
from shards.pixels import PIL_ERRORS, resized, rgb_of
from shards.schema import ActionSpec

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Images = Image.Image | np.ndarray | Tensor | list[Any] | tuple[Any, ...]
"""PIL images; NumPy uint8 […, H, W, 3]; torch uint8 or, within 0 … 1, float […, 3, H, W]; or a list of these."""
Protocol = TypeVar("Protocol")
AT_ONCE = 12
"""Images for each thread of a CPU: at 128 pixels a ResNet-18 is faster so than on the 4 of evaluation, or on 16."""


def load(run: str | Path, device: str | torch.device = "auto", *, untrained: bool = False) -> Model:
    """A run's model, frozen and in eval mode. `untrained`: with the weights that it began with.

    run     a run directory; hf://USER/REPO or hf://USER/REPO@REVISION, which is loaded into the hub's cache once; or an
            address in a store, as s3://bucket/run
    device  "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N"

    Raises UsageError for a device that is not there, FormatError or DamageError as training.checkpoint.load_run; of
    addresses as hub.pull_run.
    """
    where = pick_device(device)
    return Model(load_run(run_folder(run), where, untrained=untrained), where)


@dataclass(frozen=True)
class RunActions:
    """What the run's actions are made of.

    spec     the terms, see shards.actions.ActionTerm
    size     A, numbers of an action
    columns  names of the parameters that an action is made of, in order
    """

    spec: ActionSpec

    @property
    def size(self) -> int:
        return self.spec.size

    @property
    def columns(self) -> tuple[str, ...]:
        return self.spec.columns

    def between(self, params: ArrayLike, columns: Sequence[str] = (), stride: int = 1) -> np.ndarray:
        """Parameters of views […, M, P] → the actions between neighbours, float32 […, M − 1, A].

        params   finite numbers, in the units of the shards that the run was trained on
        columns  names of the P parameters; by default those of this action, in their order
        stride   of commands: params are of all (M − 1) · stride + 1 steps, every stride-th of which is a view

        Raises UsageError for another shape and for numbers that are not finite, ConfigError for columns that are
        missing and for values that are none of the term's.
        """
        values = _as_numbers(params, "params")
        names = tuple(columns) or self.columns
        if len(set(names)) < len(names):
            raise UsageError(f"columns are {', '.join(names)}; each is named once")
        if type(stride) is not int or stride < 1:
            raise UsageError(f"stride is {stride!r:.40}; a whole number, 1 or more, is needed")
        if values.ndim < 2 or values.shape[-1] != len(names) or not values.shape[-2]:
            wanted = f"[views, {len(names)}]: {', '.join(names)}"
            raise UsageError(f"params have the shape {list(values.shape)}; the run takes {wanted}")
        if not np.isfinite(values).all():
            raise UsageError("params hold NaN or infinite numbers; every parameter is known")
        made = actions_between(values.reshape(-1, *values.shape[-2:]), names, self.spec, stride)
        return made.reshape(*values.shape[:-2], *made.shape[-2:])


Compute = TypeVar("Compute", bound=Callable[..., Tensor])


def _without_gradients(compute: Compute) -> Compute:
    """In full float32, also under autocast; an ordinary tensor, which a head of the caller's may learn from."""

    @functools.wraps(compute)
    def computed(self: Model, *args: Any, **kwargs: Any) -> Tensor:
        with torch.inference_mode(), full_float32(), full_precision(self.device):
            found = compute(self, *args, **kwargs)
        return found.clone()

    return cast(Compute, computed)


class Model:
    """A run's networks and what they need to be fed. Features are float32 tensors on the model's device.

    method       the networks (torch.nn.Module), in eval mode, without gradients
    config       the run's settings
    data         sizes in pixels, normalisation for pixels in [0, 1], action
    action_spec  what actions are made of

    Shape letters: D width of z, D' width of z_AGG, A size of an action, M views.
    """

    def __init__(self, run: LoadedRun, device: torch.device) -> None:
        self.config: RunConfig = run.config
        self.data, self.device = run.data, device
        self.method: Method = run.method.to(device, torch.float32).eval().requires_grad_(False)
        self._action = run.action
        self._folded: tuple[tuple[tuple[int, int], ...], Method] | None = None

    def __repr__(self) -> str:
        """As Model(seq_jepa of resnet18, 128×128 px, z [512], z_AGG [1024], action [4], cpu)."""
        config, (z, z_agg), action = self.config, self._widths, self._action.size
        parts = [f"{self.data.width}×{self.data.height} px", f"z [{z}]", f"z_AGG [{z_agg}]", f"action [{action}]"]
        there = [part for part in parts if not part.endswith("[0]")]
        return f"Model({config.method} of {config.model.backbone}, {', '.join(there)}, {self.device})"

    @cached_property
    def action_spec(self) -> RunActions:
        """What takes a view to the next. Of baked augmentations the constants of z-scores stand with the set alone."""
        spec = self._action
        if is_augmentation(spec) and self.data.augment != "none":
            recipe, author = build_recipe(self.data.augment), self.config.fidelity == "author"
            size = self.data.image_height, self.data.image_width
            spec = scaled(spec, None if author else constants_for(recipe, *size))
        return RunActions(spec)

    @_without_gradients
    def embed(self, images: Images) -> Tensor:
        """z of the (online) encoder […, D], on the model's device.

        Images are resized (bilinear, antialiased, whatever their proportions) to what the run was trained on, and
        normalised as in training. Of a run on patches at fixations, images of the patch's size are patches; others are
        whole images. Raises UsageError for what is no image.
        """
        views, leading = self._views(images)
        # Convolutions on a CPU are a quarter faster so.
        views = views.to(self.device, memory_format=torch.channels_last)
        z = embed(self._embedding(), views, (tuple(self.data.mean), tuple(self.data.std)), AT_ONCE)
        return z.reshape(*leading, z.shape[-1])

    @_without_gradients
    def aggregate(
        self, views: Images | None, actions: ArrayLike | Tensor | None = None, *, z: Tensor | None = None
    ) -> Tensor:
        """z_AGG […, D'] of M views, images as in embed with one more axis […, M], and actions […, M − 1, A] between.

        M is free. z […, M, D]: features that embed gave, in the place of the views. Without actions: M = 1, or a run
        that is told none. UsageError: the method has no aggregate, or shapes that do not fit.
        """
        method = self._having(Aggregating, "aggregate")
        known, told, leading = self._context(views, actions, z, ahead=0)
        z_agg = method.aggregate(known, told)
        return z_agg.reshape(*leading, z_agg.shape[-1])

    @_without_gradients
    def predict(self, z_agg: Tensor, action: ArrayLike | Tensor) -> Tensor:
        """ẑ […, D] of the view that `action` […, A] leads to, from z_AGG […, D'] of those before (paper eq. 4).

        UsageError: the method predicts no views, or shapes that do not fit.
        """
        method, told = self._having(PredictsViews, "predict"), self._actions(action)
        z_agg = self._features(z_agg, "z_AGG", self._widths[1])
        if told.shape[:-1] != z_agg.shape[:-1] or told.shape[-1] != self._action.size:
            wanted = [*z_agg.shape[:-1], self._action.size]
            raise UsageError(f"action has the shape {list(told.shape)}; this z_AGG takes {wanted}")
        z = method.predict(z_agg.reshape(-1, z_agg.shape[-1]), told.reshape(-1, told.shape[-1]))
        return z.reshape(*z_agg.shape[:-1], z.shape[-1])

    @_without_gradients
    def rollout(
        self, views: Images | None, actions: ArrayLike | Tensor, steps: int | None = None, *, z: Tensor | None = None
    ) -> Tensor:
        """ẑ […, K, D] of the K views that follow M true ones, each predicted from the predictions before it.

        views, z: as in aggregate. actions […, M − 1 + K, A]: first those between the views. steps: K, where more
        actions are given. A prediction is scaled to the mean norm of the context's features before it stands for a
        view. UsageError: the method predicts no views, or shapes that do not fit.
        """
        method = self._having(PredictsViews, "rollout")
        counts = hasattr(steps, "__index__") and not isinstance(steps, bool) and not getattr(steps, "ndim", 0)
        if steps is not None and (not counts or steps < 1):
            shown = " ".join(repr(steps).split())
            raise UsageError(f"steps is {shown:.40}; give a number of views to predict, 1 or more, or leave it out")
        ahead = None if steps is None else operator.index(steps)
        known, told, leading = self._context(views, actions, z, ahead)
        found = roll_out(method, known, told)
        return found.reshape(*leading, *found.shape[-2:])

    def _embedding(self) -> Method:
        """The method with an encoder that is faster to read; made again when somebody has changed its weights."""
        encoder = self.method.encoder
        state = tuple((t.data_ptr(), t._version) for t in (*encoder.parameters(), *encoder.buffers()))
        if self._folded is None or self._folded[0] != state:
            folded = copy.copy(self.method)
            folded._modules = {**self.method._modules, "encoder": fold_batch_norms(encoder)}
            self._folded = state, folded
        return self._folded[1]

    def _having(self, protocol: type[Protocol], what: str) -> Protocol:
        if not isinstance(self.method, protocol):
            raise UsageError(f"{self.config.method} has no {what}: it makes features of single views; use embed")
        return self.method

    def _context(
        self, views: Images | None, actions: ArrayLike | Tensor | None, z: Tensor | None, ahead: int | None
    ) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """z [b, M, D], actions [b, M − 1 + K, A], and the shape of the b sequences. ahead: K; None: all there are."""
        if (views is None) == (z is None):
            raise UsageError("give either views or z")
        known = self.embed(views) if z is None else self._features(z, "z", self._widths[0])  # pyright: ignore[reportArgumentType]
        if known.ndim < 2 or not known.shape[-2]:
            raise UsageError("a context is several views: an axis of M views before those of the image")
        *leading, m, _ = known.shape
        if actions is None and (m == 1 or not self._action.size):
            actions = known.new_zeros(*leading, m - 1, self._action.size)
        told = self._actions([] if actions is None else actions)
        needed = m - 1 + (ahead or 0) if ahead is not None or told.ndim < 2 else max(m - 1, told.shape[-2])
        wanted = [*leading, needed, self._action.size]
        told = told[..., :needed, :] if told.ndim > 1 and ahead else told
        if list(told.shape) != wanted:
            raise UsageError(f"actions have the shape {list(told.shape)}; {m} views and what follows need {wanted}")
        many = math.prod(leading)
        return known.reshape(many, *known.shape[-2:]), told.reshape(many, *wanted[-2:]), tuple(leading)

    @cached_property
    def _widths(self) -> tuple[int, int]:
        """D of z and D' of z_AGG; 0 where the method has none."""
        with torch.inference_mode():
            z = self.method.embed(torch.zeros(1, 3, self.data.height, self.data.width, device=self.device))
            if not isinstance(self.method, Aggregating):
                return z.shape[-1], 0
            z_agg = self.method.aggregate(z[:, None], z.new_zeros(1, 0, self._action.size))
        return z.shape[-1], z_agg.shape[-1]

    def _features(self, values: ArrayLike | Tensor, what: str, width: int) -> Tensor:
        """float32 […, width] on the model's device."""
        found = _as_tensor_of_numbers(values, what)
        if not found.ndim or found.shape[-1] != width:
            raise UsageError(
                f"{what} has the shape {list(found.shape)}; this run's has {width} numbers in its last axis"
            )
        return found.to(self.device, torch.float32)

    def _actions(self, actions: ArrayLike | Tensor) -> Tensor:
        values = _as_tensor_of_numbers(actions, "actions")
        if not bool(torch.isfinite(values).all()):
            raise UsageError("actions hold NaN or infinite numbers; every action is known")
        return values.to(self.device, torch.float32)

    def _views(self, images: Images) -> tuple[Tensor, tuple[int, ...]]:
        """Any images → (uint8 or float in 0 … 255 [n, 3, H, W] of the run's size, the shape before an image's axes)."""
        if isinstance(images, list | tuple):
            parts = [self._views(image) for image in images]
            if not parts:
                raise UsageError("no image was given")
            if len({leading for _, leading in parts}) > 1 or len({views.dtype for views, _ in parts}) > 1:
                raise UsageError("a list of images of several forms; give images or stacks of one form")
            return torch.cat([views for views, _ in parts]), (len(parts), *parts[0][1])
        if isinstance(images, Image.Image):
            images = _as_rgb(images)
        views = _as_tensor(images)
        return self._resized(views.flatten(0, -4) if views.ndim > 3 else views[None]), tuple(views.shape[:-3])

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in pixels that `embed` resizes images of that size to."""
        data = self.data
        seen = (data.height, data.width)
        return seen if (height, width) == seen or not data.patch else (data.image_height, data.image_width)

    def _resized(self, views: Tensor) -> Tensor:
        """[n, 3, h, w] → [n, 3, H, W]."""
        found = tuple(views.shape[-2:])
        wanted = self.size_for(*found)
        if found == wanted or not len(views):
            return views.reshape(-1, 3, *wanted)
        if views.dtype == torch.uint8:  # as shards are made, to the bit
            pixels = views.permute(0, 2, 3, 1).cpu().numpy()
            return torch.from_numpy(np.stack([resized(view, wanted) for view in pixels])).permute(0, 3, 1, 2)
        from torchvision.transforms.v2.functional import resize

        return resize(views, list(wanted), antialias=True)


def _as_numbers(values: ArrayLike | Tensor, what: str) -> np.ndarray:
    """float32 of their own. UsageError: no numbers, or complex ones."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().to(torch.complex64 if values.is_complex() else torch.float32).numpy()
    try:
        if np.iscomplexobj(values):
            raise TypeError("they are complex")
        return np.array(values, np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what} are no numbers: {reason_of(error)}") from error


def _as_tensor_of_numbers(values: ArrayLike | Tensor, what: str) -> Tensor:
    """A real tensor itself, wherever it is; else as _as_numbers."""
    if isinstance(values, Tensor) and not values.is_complex():
        return values
    return torch.from_numpy(_as_numbers(values, what))


def _as_rgb(image: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3]. UsageError: a file that is damaged or closed, or pixels that are floats."""
    try:
        return rgb_of(image)
    except PIL_ERRORS as error:
        shown = getattr(image, "filename", "") or "a PIL image"
        raise UsageError(f"{shown} cannot be read: {reason_of(error)}") from error


def _as_tensor(images: Any) -> Tensor:
    """[…, 3, H, W], uint8 or float in 0 … 255."""
    dense = isinstance(images, Tensor) and images.layout == torch.strided and not images.is_meta
    if isinstance(images, Tensor) and dense and images.ndim >= 3 and images.shape[-3] == 3 and _has_pixels(images, -2):
        if images.dtype == torch.uint8:
            return images
        if images.is_floating_point():
            if images.numel() and not (float(images.min()) >= -1e-3 and float(images.max()) <= 1 + 1e-3):
                raise UsageError("float images are within 0 … 1 before normalisation, which the model does itself")
            return images.float() * 255
    if (
        isinstance(images, np.ndarray) and images.dtype == np.uint8
        and images.ndim >= 3 and images.shape[-1] == 3 and _has_pixels(images, -3)
    ):  # fmt: skip
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, -3)))
    form = (type(images).__name__, getattr(images, "dtype", ""), list(getattr(images, "shape", [])) or "")
    raise UsageError(
        f"{' '.join(str(part) for part in form if part)} is no image: give PIL images, NumPy uint8 [..., H, W, 3], or "
        "torch uint8 or float [..., 3, H, W]"
    )


def _has_pixels(images: Tensor | np.ndarray, height: int) -> bool:
    """Whether neither side is 0. height: the axis, which the width follows."""
    return images.shape[height] > 0 and images.shape[height + 1] > 0
