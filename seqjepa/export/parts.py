"""What of a run is exported: its encoder, aggregator, projector or predictor, as a module of tensors alone.

Letters: B batch, M views of a context, D width of z, D' of z_AGG, P of an embedding y, A numbers of an action.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from seqjepa.data.sequence import normalise
from seqjepa.methods import METHODS
from seqjepa.methods.base import Aggregating, Method, Predicting, PredictsViews
from seqjepa.model import Model
from shards.errors import UsageError

PartName = Literal["encoder", "aggregate", "project", "predict"]
WhichWeights = Literal["online", "target"]
PARTS: tuple[PartName, ...] = get_args(PartName)
WITH: Mapping[PartName, tuple[type, ...]] = {
    "encoder": (Method,),
    "aggregate": (Aggregating,),
    "project": (Predicting,),
    "predict": (PredictsViews, Predicting),
}
"""What a method is one of to have a part."""

BATCH, VIEWS, MOVES = "batch", "views", "views - 1"
"""Sizes in a shape that whoever runs the file chooses; MOVES is one less than VIEWS."""
Sizes = tuple[int | str, ...]


@dataclass(frozen=True)
class RunPart:
    """A network of a run.

    network   in eval mode on the CPU; takes the inputs in their order
    inputs    name → shape, float32; pixels: whether they are images in 0 … 1, and not any numbers
    output    name and shape
    expected  what the run itself makes of such inputs: what an exported file is held against
    """

    name: PartName
    network: nn.Module
    inputs: Mapping[str, Sizes]
    output: tuple[str, Sizes]
    expected: Callable[..., Tensor]
    pixels: bool = False

    def draw(self, batch: int, views: int, seed: int = 0) -> dict[str, Tensor]:
        """Random inputs of these sizes."""
        generator = torch.Generator().manual_seed(seed)
        make = torch.rand if self.pixels else torch.randn
        shapes = {name: [int(n) for n in shape] for name, shape in self.fixed(batch, views).inputs.items()}
        return {name: make(shape, generator=generator) for name, shape in shapes.items()}

    def is_free(self, size: str) -> bool:
        return any(size in shape for shape in self.inputs.values())

    def fixed(self, batch: int | None, views: int | None) -> RunPart:
        """The same with sizes that are given written into its shapes."""
        sizes = {} if batch is None else {BATCH: batch}
        sizes |= {} if views is None else {VIEWS: views, MOVES: views - 1}

        def sized(shape: Sizes) -> Sizes:
            return tuple(sizes.get(size, size) if isinstance(size, str) else size for size in shape)

        inputs = {name: sized(shape) for name, shape in self.inputs.items()}
        return replace(self, inputs=inputs, output=(self.output[0], sized(self.output[1])))


def build_part(model: Model, name: PartName, *, normalised: bool = True, weights: WhichWeights = "online") -> RunPart:
    """A part of a run on the CPU.

    normalised  the encoder takes images in 0 … 1 and normalises them itself; False: it takes normalised images
    weights     "target": of the encoder, the moving average that predictions are compared with

    UsageError: the method has no such part, or no moving average.
    """
    if name == "encoder":
        return _encoder(model, normalised, weights)
    if not isinstance(model.method, WITH[name]):
        having = ", ".join(key for key, method in METHODS.items() if issubclass(method, WITH[name]))
        raise UsageError(f"{model.config.method} has no {name}, which methods of these names have: {having}")
    return _of_features(model, name)


def _of_features(model: Model, name: PartName) -> RunPart:
    """An aggregate (seq-JEPA) or a view's embedding, or what is predicted from one."""
    method: Any = model.method
    single = isinstance(model.method, Predicting)
    D, A = _width(model, method.embed), model.action_spec.size
    z, actions = torch.zeros(2, 2, D), torch.zeros(2, 1, A)
    known = method.project(z[:, 0]) if single else method.aggregate(z, actions)
    whole: Sizes = (BATCH, known.shape[-1])
    if name == "predict":
        slim = _only_used(method, lambda: method.predict(known, actions[:, 0]))
        inputs = _told({"y" if single else "z_agg": whole, "action": (BATCH, A)})
        output = ("y_next", whole) if single else ("z", (BATCH, D))
        return RunPart(name, _Predict(slim).eval(), inputs, output, _Predict(method))
    if single:
        slim = _only_used(method, lambda: method.project(z[:, 0]))
        return RunPart(name, _Project(slim).eval(), {"z": (BATCH, D)}, ("y", whole), _Project(method))
    slim = _only_used(method, lambda: method.aggregate(z, actions))
    inputs = _told({"z": (BATCH, VIEWS, D), "actions": (BATCH, MOVES, A)})
    return RunPart(name, _Aggregate(slim).eval(), inputs, ("z_agg", whole), _Aggregate(method))


def _told(inputs: dict[str, Sizes]) -> dict[str, Sizes]:
    """Without the actions of a run that has none."""
    return {name: shape for name, shape in inputs.items() if shape[-1]}


def view_encoder(method: Method, weights: WhichWeights = "online") -> nn.Module:
    """The module from normalised views to z. UsageError: of a method without a moving average, its target."""
    if weights == "target":
        if not isinstance(target := getattr(method, "target_encoder", None), nn.Module):
            raise UsageError(f"{method.display_name} has no moving average of its encoder; leave --weights target out")
        return target
    if type(method).embed is Method.embed:
        return method.encoder
    return _Embed(method)  # a method of another package that has its own way from views to z


def _encoder(model: Model, normalised: bool, weights: WhichWeights) -> RunPart:
    data, method = model.data, model.method
    mean, std = tuple(data.mean), tuple(data.std)
    encoder = view_encoder(method, weights)
    embed = encoder.__call__ if weights == "target" else method.embed
    shape: Sizes = (BATCH, 3, data.height, data.width)
    output: tuple[str, Sizes] = ("z", (BATCH, _width(model, embed)))
    if not normalised:
        return RunPart("encoder", encoder, {"views": shape}, output, embed)
    network = _Normalising(encoder, mean, std).eval()

    def expected(images: Tensor) -> Tensor:
        return embed(normalise(255 * images, mean, std))

    return RunPart("encoder", network, {"images": shape}, output, expected, pixels=True)


@torch.no_grad()
def _width(model: Model, embed: Callable[[Tensor], Tensor]) -> int:
    return embed(torch.zeros(1, 3, model.data.height, model.data.width)).shape[-1]


class _Normalising(nn.Module):
    """images float32 [B, 3, H, W] in 0 … 1 → z [B, D]."""

    def __init__(self, encoder: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.encoder = encoder
        self.mean = nn.Buffer(torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.std = nn.Buffer(torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder((images - self.mean) / self.std)


class _OfMethod(nn.Module):
    def __init__(self, method: Any) -> None:
        super().__init__()
        self.method = method


class _Embed(_OfMethod):
    def forward(self, views: Tensor) -> Tensor:
        return self.method.embed(views)


class _Aggregate(_OfMethod):
    """z [B, M, D], actions [B, M − 1, A], or none where A is 0 → z_AGG [B, D']."""

    def forward(self, z: Tensor, actions: Tensor | None = None) -> Tensor:
        return self.method.aggregate(z, z.new_zeros(z.shape[0], z.shape[1] - 1, 0) if actions is None else actions)


class _Project(_OfMethod):
    """z [B, D] → y [B, P]."""

    def forward(self, z: Tensor) -> Tensor:
        return self.method.project(z)


class _Predict(_OfMethod):
    """z_AGG [B, D'], action [B, A], or none where A is 0 → ẑ [B, D]; or y [B, P] in its place → ŷ [B, P]."""

    def forward(self, known: Tensor, action: Tensor | None = None) -> Tensor:
        return self.method.predict(known, known.new_zeros(known.shape[0], 0) if action is None else action)


def _only_used(method: Method, call: Callable[[], object]) -> Method:
    """The method with no other networks than those that `call` goes through, so that a file has no others either."""
    used: set[nn.Module] = set()
    hooks = [module.register_forward_hook(lambda one, *_: used.add(one)) for module in method.modules()]
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    slim = copy.copy(method)
    children = method.named_children()
    slim._modules = {name: child for name, child in children if not used.isdisjoint(child.modules())}
    return slim
