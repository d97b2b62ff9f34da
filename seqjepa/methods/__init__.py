"""The methods by name. A recipe's `method` is a key of METHODS."""

from __future__ import annotations

from collections.abc import Callable

from seqjepa.config import RunConfig
from seqjepa.methods.base import Method
from seqjepa.methods.conv_jepa import ConvJEPA
from seqjepa.methods.seq_jepa import SeqJEPA
from shards.errors import ConfigError


def _seq_jepa(config: RunConfig, action_size: int) -> Method:
    if config.model.projector:
        raise ConfigError("seq_jepa has no projector: leave model.projector out")
    blank_last = config.data.action not in ROTATIONS
    return SeqJEPA(config.model, action_size, config.fidelity, config.optim.ema_tau, blank_last)


def _conv_jepa(config: RunConfig, action_size: int) -> Method:
    if config.data.action in ROTATIONS:
        raise ConfigError(
            f"conv_jepa adds up the actions between views, which data.action = {config.data.action!r} does not allow; "
            "set data.action=position or an augmentation's"
        )
    return ConvJEPA(config.model, action_size, config.fidelity, config.optim.ema_tau)


METHODS: dict[str, Callable[[RunConfig, int], Method]] = {
    "conv_jepa": _conv_jepa,
    "seq_jepa": _seq_jepa,
}
ROTATIONS = ("rotation", "rotation_colour")


def build_method(config: RunConfig, action_size: int) -> Method:
    """The method that `config` names, initialised from torch's global generator (seed it first).

    action_size: A, values in an action. ConfigError: unknown method, or widths that do not fit together.
    """
    if config.method not in METHODS:
        raise ConfigError(f"method is {config.method!r}; choose one of {', '.join(sorted(METHODS))}")
    return METHODS[config.method](config, action_size)
