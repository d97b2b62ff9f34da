"""Weights that an encoder begins with: `model.pretrained` = a file, or "timm" (docs/encoders.md).

They come from strangers: safetensors, or a pickle that torch opens with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from seqjepa.config import ModelConfig, RunConfig
from seqjepa.models.backbone import build_backbone
from seqjepa.models.batch_norm import with_batch_statistics
from seqjepa.models.timm_encoder import is_timm, pixel_constants, timm_state
from shards.errors import ConfigError, few, reason_of
from shards.machine.environment import pass_environment_on
from shards.machine.files import sha256_of_file

logger = logging.getLogger(__name__)
OF_TIMM = "timm"
NESTED = ("state_dict", "model", "teacher")
"""Where checkpoints of other trainers keep the weights among other things."""
PREFIXES = ("_orig_mod.", "module.", "model.", "encoder.", "backbone.")
"""What names begin with in checkpoints of torch.compile, DataParallel, Lightning, of our runs, and of other trainers;
taken off in this order."""
CLOSE = 1e-3
MOST_SHOWN = 6
COUNTER = ".num_batches_tracked"  # of batch norm; files of before torch 0.4.1 have none


def build_encoder(config: ModelConfig) -> tuple[nn.Module, int]:
    """build_backbone's encoder with the weights of model.pretrained, in eval mode. ConfigError: they do not fit."""
    net, features = build_backbone(config)
    if config.pretrained:
        load_pretrained(net, config)
    return net.eval(), features


def load_pretrained(encoder: nn.Module, config: ModelConfig) -> None:
    """The weights of model.pretrained into an encoder of build_backbone, all of its own; a line says what is left.

    ConfigError: weights of the encoder are missing, have another shape or are not finite.
    """
    left: list[str] = []
    if config.pretrained != OF_TIMM:
        weights, left = read_weights_file(Path(config.pretrained))
        weights = _of_encoder(weights, encoder, left)
    elif is_timm(config):
        weights = None
    else:
        raise ConfigError(
            f"model.pretrained = 'timm' is for encoders of timm; set model.backbone=timm:{config.backbone}, or name a "
            "file of weights"
        )
    try:
        check_kinds(encoder, weights or {})
        encoder.load_state_dict(timm_state(config, weights) if is_timm(config) else weights or {})
    except (ConfigError, RuntimeError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"model.pretrained = {config.pretrained!r} does not fit {config.backbone}: {reason_of(error):.400}"
        ) from None
    if not all(bool(torch.isfinite(value).all()) for value in encoder.state_dict().values()):
        raise ConfigError(f"model.pretrained = {config.pretrained!r} holds weights that are not finite")
    if left and int(os.environ.get("RANK", "0")) == 0:
        logger.warning(
            "model.pretrained = %r: left out, as the encoder has none of it: %s", config.pretrained, _in_short(left)
        )


def check_kinds(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """TypeError: of another kind of numbers than the module's, which load_state_dict would cast without a word."""
    for name, own in module.state_dict().items():
        if name in tensors and not same_kind(tensors[name].dtype, own.dtype):
            raise TypeError(f"{name} is {tensors[name].dtype}, not {own.dtype}")


def same_kind(found: torch.dtype, wanted: torch.dtype) -> bool:
    """Whether both are integers, or both real numbers."""
    return found.is_floating_point == wanted.is_floating_point and not found.is_complex and found != torch.bool


def _of_encoder(weights: dict[str, Tensor], encoder: nn.Module, left: list[str]) -> dict[str, Tensor]:
    """Without what the encoder has no place for, whose names are added to `left`.

    Of a file in other names than the encoder's, which timm may know how to read, all that is no classifier of
    torchvision's.
    """
    own = encoder.state_dict().keys()
    same = all(name in weights for name in own if not name.endswith(COUNTER))
    extra = [name for name in weights if (name not in own if same else name.startswith("fc."))]
    left += extra
    return {name: value for name, value in weights.items() if name not in extra}


def _in_short(names: Sequence[str]) -> str:
    """Tensors by what their names begin with: "head (2), fc_norm (2)"."""
    counts = Counter(name.partition(".")[0] for name in names)
    return few([f"{begin} ({count})" for begin, count in counts.most_common()], MOST_SHOWN)


def read_weights_file(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by name, of .safetensors or a file of torch.save, of our runs (model.safetensors) the encoder's alone;
    and the names of those that are not the encoder's by what they begin with.

    ConfigError: no such file, or it holds other things than tensors.
    """
    if not path.is_file():
        raise ConfigError(f"model.pretrained = {str(path)!r} is no file; give weights (.safetensors, .pth), or 'timm'")
    try:
        found = safetensors.torch.load_file(path) if path.suffix == ".safetensors" else load_plain(path)
    except (SafetensorError, ValueError) as error:
        raise ConfigError(
            f"model.pretrained = {str(path)!r} cannot be read as weights: {reason_of(error):.200}"
        ) from None
    return _named(found, path)


def load_plain(source: Path | BinaryIO) -> Any:
    """What torch.save wrote, tensors and plain values alone, on the CPU.

    ValueError: it is anything else, in words that do not tell how to unpickle what cannot be trusted.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old forms of pickles, which are refused or read all the same
            return torch.load(source, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, LookupError, TypeError) as error:
        pass_environment_on(error)
        raise ValueError(reason_of(error)) from None


def _named(found: object, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of what a file held, under the names that the encoder has for them; and the names of the others."""
    for key in NESTED:
        inner = found.get(key) if isinstance(found, Mapping) else None
        found = inner if isinstance(inner, Mapping) else found
    if not isinstance(found, Mapping) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise ConfigError(f"model.pretrained = {str(path)!r} holds no state dict: tensors by name")
    left: list[str] = []
    for prefix in PREFIXES:
        if any(name.startswith(prefix) for name in found):
            left += [name for name in found if not name.startswith(prefix)]
            found = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
    return dict(found), left


def weights_note(encoder: nn.Module, config: ModelConfig) -> dict[str, str]:
    """What run.json notes of model.pretrained: which, and the sha256 of the file; of "timm" that of the tensors.

    Empty without. "timm" gives no file of its own, so the encoder's tensors are hashed, by name in alphabetical order.
    """
    if not config.pretrained:
        return {}
    if config.pretrained != OF_TIMM:
        return {"weights": config.pretrained, "sha256": sha256_of_file(Path(config.pretrained))}
    digest = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return {"weights": config.backbone, "sha256_of_tensors": digest.hexdigest()}


def weights_sha256(encoder: nn.Module) -> str:
    """Which weights an encoder has: tensors_sha256 of its state dict, by name."""
    return tensors_sha256(sorted(encoder.state_dict().items()))


def tensors_sha256(named: Iterable[tuple[str, Tensor]]) -> str:
    """A sha256 over names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, value in named:
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def doubts(config: RunConfig, mean: Sequence[float], std: Sequence[float], method: nn.Module) -> Iterator[str]:
    """What is allowed, and perhaps not meant, of encoders and micro-batches. mean, std: of the run's pixels."""
    model, accumulate = config.model, config.optim.accumulate
    if model.freeze and not model.pretrained:
        yield "model.freeze without model.pretrained: the encoder stays at random weights (a baseline)"
    parts = with_batch_statistics(method.train()) if accumulate > 1 else {}
    if learned := [name for name in parts if not name.startswith("target_")]:
        advice = "; encoders with layer norms (timm's ViT, ConvNeXt) have none" if "encoder" in learned else ""
        yield (
            f"optim.accumulate = {accumulate}: batch norm in {', '.join(learned)} sees one micro-batch at a time, not "
            f"the batch of {config.optim.batch_size}{advice}"
        )
    if not model.pretrained or not is_timm(model):
        return
    own = pixel_constants(model)
    if any(abs(a - b) > CLOSE for a, b in zip((*mean, *std), (*own[0], *own[1]), strict=True)):
        yield (
            f"{model.backbone} was trained on pixels with mean {_rounded(own[0])} and std {_rounded(own[1])}, and "
            f"data.normalisation = {config.data.normalisation!r} has others; data.normalisation=encoder takes its own"
        )


def _rounded(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
