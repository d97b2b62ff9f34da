"""The methods by name. A recipe's `method` is a key of METHODS."""

from __future__ import annotations

from collections.abc import Callable

from seqjepa.config import RunConfig
from seqjepa.methods.base import Method
from seqjepa.methods.byol import BYOL
from seqjepa.methods.conditional_byol import ConditionalBYOL
from seqjepa.methods.context_ssl import ContextSSL
from seqjepa.methods.conv_jepa import ConvJEPA
from seqjepa.methods.equimod import EquiMod
from seqjepa.methods.sen import SEN
from seqjepa.methods.seq_jepa import SeqJEPA
from seqjepa.methods.sie import SIE
from seqjepa.methods.simclr import SimCLR
from seqjepa.methods.vicreg import VICReg
from seqjepa.methods.vicreg_traj import VICRegTraj
from shards.errors import ConfigError


def _seq_jepa(config: RunConfig, action_size: int) -> Method:
    if config.model.projector or config.model.projector_kind != "mlp":
        raise ConfigError("seq_jepa has no projector: leave model.projector and model.projector_kind out")
    blank_last = config.data.action not in ROTATIONS
    return SeqJEPA(config.model, action_size, config.fidelity, config.optim.ema_tau, blank_last)


def _conv_jepa(config: RunConfig, action_size: int) -> Method:
    rotations = config.data.action in ROTATIONS
    return ConvJEPA(config.model, action_size, config.fidelity, config.optim.ema_tau, rotations)


def _context_ssl(config: RunConfig, action_size: int) -> Method:
    if config.data.action not in ROTATIONS:
        raise ConfigError(
            f"context_ssl is told rotations and hues, not data.action = {config.data.action!r}; "
            "set data.action=rotation_colour"
        )
    return ContextSSL(config.model, config.context_ssl, action_size, config.fidelity)


METHODS: dict[str, Callable[[RunConfig, int], Method]] = {
    "byol": lambda c, _: BYOL(c.model, c.fidelity, c.optim.ema_tau),
    "conditional_byol": lambda c, size: ConditionalBYOL(c.model, size, c.fidelity, c.optim.ema_tau),
    "context_ssl": _context_ssl,
    "conv_jepa": _conv_jepa,
    "equimod": lambda c, size: EquiMod(c.model, size, c.fidelity),
    "sen": lambda c, size: SEN(c.model, size),
    "seq_jepa": _seq_jepa,
    "sie": lambda c, size: SIE(c.model, size, c.fidelity),
    "simclr": lambda c, _: SimCLR(c.model),
    "vicreg": lambda c, _: VICReg(c.model, c.fidelity),
    "vicreg_traj": lambda c, _: VICRegTraj(c.model, c.fidelity),
}
ROTATIONS = ("rotation", "rotation_colour")
# Methods in which `model.condition` chooses what sees the actions.
CHOOSE_CONDITION = ("conv_jepa", "seq_jepa")


def build_method(config: RunConfig, action_size: int) -> Method:
    """The method that `config` names, initialised from torch's global generator (seed it first).

    action_size: A, values in an action. ConfigError: unknown method, a number of views that it does not take, settings
    that it has not, or widths that do not fit together.
    """
    if config.method not in METHODS:
        raise ConfigError(f"method is {config.method!r}; choose one of {', '.join(sorted(METHODS))}")
    if config.model.condition != "both" and config.method not in CHOOSE_CONDITION:
        raise ConfigError(
            f"model.condition = {config.model.condition!r} is a choice of {' and '.join(CHOOSE_CONDITION)}; "
            f"leave it out for {config.method}"
        )
    method = METHODS[config.method](config, action_size)
    needed, views = method.views_needed, config.data.context + 1
    if needed not in (None, views):
        raise ConfigError(
            f"{config.method} takes exactly {needed} views a sequence, and data.context = {config.data.context} gives "
            f"{views}; set data.context={needed - 1}"
        )
    return method
