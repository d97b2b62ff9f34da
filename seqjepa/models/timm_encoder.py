"""Encoders of timm: `model.backbone = "timm:NAME"` (docs/encoders.md).

The encoder is timm's own module without its classifier, so that its state dict is timm's. Where views may come in a
size that it does not take, a hook resizes them first. Sizes are (height, width) in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqjepa.config import ModelConfig
from seqjepa.paper.sets import PixelConstants
from seqjepa.recipes.library import did_you_mean
from shards.errors import ConfigError, reason_of
from shards.extras import missing

PREFIX = "timm:"
Options = dict[str, Any]
Size = tuple[int, int]


def is_timm(config: ModelConfig) -> bool:
    return config.backbone.startswith(PREFIX)


def build_timm(config: ModelConfig) -> tuple[nn.Module, int]:
    """timm's model NAME at random weights, without classifier: [B, 3, H, W] → [B, D], and D.

    It is built for views of `input_size` or else `view_size`. Others are seen with resampled positions by models that
    can (ViT, Swin …), are seen as they are by models without positions, and are resized for all others.
    ConfigError: no such model, a setting that it has not, or a size that it does not take.
    """
    size, options, features = _plan(config)
    net = _create(config, options)
    if config.input_size:
        net.register_forward_pre_hook(Resize(size))
    elif "img_size" in options:
        elastic = "dynamic_img_size" in options or "strict_img_size" in options
        net.register_forward_pre_hook(Resize(size, step=_patch_side(net) if elastic else 0))
    return net, features


class Resize:
    """A forward hook that brings views to the size that an encoder was built for (bilinear, antialiased).

    step  multiples of it pass as they are; 0: only the encoder's own size does
    """

    def __init__(self, size: Size, *, step: int = 0) -> None:
        self.size, self.step = size, step

    def __call__(self, module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        (views,) = inputs
        height, width = views.shape[-2:]
        fits = self.step and not (height % self.step or width % self.step)
        if fits or (height, width) == self.size:
            return (views,)
        return (F.interpolate(views, self.size, mode="bilinear", antialias=True),)


def pixel_constants(config: ModelConfig) -> PixelConstants:
    """Mean and standard deviation per channel that timm's weights of the model were trained with, for pixels in [0, 1].

    ConfigError: not an encoder of timm.
    """
    if not is_timm(config):
        raise ConfigError(
            f"data.normalisation = 'encoder' takes the constants of a timm encoder, and model.backbone is "
            f"{config.backbone!r}; set data.normalisation=imagenet for torchvision's weights"
        )
    found = _known(config.backbone.removeprefix(PREFIX))
    return tuple(found.mean), tuple(found.std)


def timm_state(config: ModelConfig, weights: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """The state dict that the encoder begins with: of `weights`, as a file has them, or None: timm's own, downloaded.

    timm brings them to the encoder's form: names, positions of another grid, patches of another size.
    ConfigError: they do not fit, or cannot be had.
    """
    _, options, _ = _plan(config)
    known = _known(config.backbone.removeprefix(PREFIX))
    options = {**options, "pretrained": True}
    if weights is not None:
        heads = (known.classifier,) if isinstance(known.classifier, str) else known.classifier or ()
        kept = {k: v for k, v in weights.items() if not k.startswith(tuple(f"{head}." for head in heads))}
        # As many classes as the encoder has, none: else timm would leave random what the file lacks.
        options["pretrained_cfg_overlay"] = {"state_dict": kept, "num_classes": 0, "label_offset": 0}
    elif not known.has_weights:
        raise ConfigError(
            f"timm has no weights for {config.backbone!r}; name a file (model.pretrained=PATH) or other weights "
            f"({config.backbone}.TAG, as `timm.list_pretrained()` has them)"
        )
    try:
        with torch.random.fork_rng(devices=[]):
            return _create(config, options).state_dict()
    except ConfigError:
        raise
    except Exception as error:  # whatever a download raises
        raise ConfigError(
            f"timm's weights of {config.backbone!r} cannot be had ({type(error).__name__}: {reason_of(error):.200}); "
            "fetch them where there is a network, and give the file: model.pretrained=PATH"
        ) from None


def timm_call(config: ModelConfig) -> Options:
    """What `timm.create_model` is called with for an encoder; a pool of the run's own is set by `reset_classifier`."""
    _, options, _ = _plan(config)
    return {"model_name": config.backbone.removeprefix(PREFIX), "num_classes": 0, **options}


def timm_module() -> Any:
    """The package. UsageError: it is not installed."""
    try:
        import timm
    except ImportError as error:
        raise missing("timm", f'model.backbone = "{PREFIX}…"') from error
    return timm


def _known(name: str) -> Any:
    """timm's record of a model and its weights. ConfigError: it has none of that name."""
    timm = timm_module()
    architecture, _, tag = name.partition(".")
    names = timm.list_models()
    if architecture not in names:
        raise ConfigError(
            f"timm has no model {architecture!r:.60}{did_you_mean(architecture, names)}; "
            "`timm.list_models('vit*')` lists what there is"
        )
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
        raise ConfigError(
            f"timm has no weights {tag!r:.60} of {architecture}{did_you_mean(tag, tags)}; there are: "
            f"{', '.join(tags) or 'none'}"
        ) from None


def _plan(config: ModelConfig) -> tuple[Size, Options, int]:
    """What to build: the size, options for timm.create_model, and D; found on the meta device, so at no cost."""
    record = _known(config.backbone.removeprefix(PREFIX))
    if config.width != 1.0 or config.stem != "standard":
        raise ConfigError(
            f"model.width and model.stem are for torchvision's ResNets, and model.backbone is {config.backbone!r}; "
            "leave them out, and choose a smaller encoder by its name"
        )
    size = (config.input_size,) * 2 if config.input_size else config.view_size or record.input_size[1:]
    unbuilt: ConfigError | None = None
    unfit: ConfigError | None = None
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        for options in _candidates(config, size if record.fixed_input_size else ()):
            try:
                net = _create(config, options).eval()
            except ConfigError as error:
                unbuilt = unbuilt or error
                continue
            try:
                return (size[0], size[1]), options, _features(net, config, size)
            except ConfigError as error:
                unfit = unfit or error
    raise unfit or unbuilt or ConfigError(f"{_said(config)} cannot be built")


def _candidates(config: ModelConfig, size: Sequence[int]) -> Iterator[Options]:
    """Options to try, the best first: positions for this size that are resampled for others; for this size alone."""
    patch: Options = {"patch_size": config.patch_size} if config.patch_size else {}
    if size:
        yield {**patch, "img_size": tuple(size), "dynamic_img_size": True}
        yield {**patch, "img_size": tuple(size), "strict_img_size": False}
        yield {**patch, "img_size": tuple(size)}
    yield patch


def _create(config: ModelConfig, options: Options) -> nn.Module:
    name = config.backbone.removeprefix(PREFIX)
    try:
        net = timm_module().create_model(name, num_classes=0, **options)
        if config.pool:
            net.reset_classifier(0, config.pool)
    except (TypeError, AssertionError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{_said(config)} cannot be built: {reason_of(error):.300}") from None
    return net


def _features(net: nn.Module, config: ModelConfig, size: Sequence[int]) -> int:
    """D. ConfigError: views of this size do not go through, or do not become vectors."""
    what = f"{_said(config)} does not take views of {size[0]}×{size[1]}"
    side = _patch_side(net)
    if any(length % side for length in size):
        near = side * max(1, round(max(size) / side))
        raise ConfigError(f"{what}: its patches are of {side}×{side}; set model.input_size={near}, which resizes them")
    if config.pool == "token" and getattr(net, "cls_token", None) is None:
        raise ConfigError(f"{_said(config)} has no class token; leave model.pool out, or set model.pool=avg")
    try:
        with torch.no_grad():
            shape = net(torch.empty(2, 3, *size)).shape
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        native = timm_module().get_pretrained_cfg(config.backbone.removeprefix(PREFIX)).input_size[-1]
        raise ConfigError(
            f"{what} ({reason_of(error):.120}); set model.input_size, {native} for instance, which resizes them"
        ) from None
    if len(shape) != 2:
        raise ConfigError(
            f"{_said(config)} gives features of shape {list(shape[1:])}, not a vector; set model.pool=avg"
        )
    return shape[1]


def _patch_side(net: nn.Module) -> int:
    """Pixels of a side that views have to be a multiple of, where the model cuts them in patches; else 1."""
    patch = getattr(getattr(net, "patch_embed", None), "patch_size", 1)
    return max(patch) if isinstance(patch, tuple | list) else int(patch)


def _said(config: ModelConfig) -> str:
    """The encoder with what was set of it, for messages."""
    keys = ("pool", "patch_size", "input_size")
    given = [f"model.{key} = {value!r}" for key in keys if (value := getattr(config, key))]
    return config.backbone + (f" with {', '.join(given)}" if given else "")
