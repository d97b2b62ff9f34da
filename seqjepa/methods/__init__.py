"""The methods by name. A recipe's `method` is a key of METHODS, or a name that another package adds (plugins.py)."""

from __future__ import annotations

from seqjepa.config import RunConfig
from seqjepa.data.actions import action_name
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
from seqjepa.plugins import load_plugin, plugin_names
from shards.errors import ConfigError

METHODS: dict[str, type[Method]] = {
    "byol": BYOL,
    "conditional_byol": ConditionalBYOL,
    "context_ssl": ContextSSL,
    "conv_jepa": ConvJEPA,
    "equimod": EquiMod,
    "sen": SEN,
    "seq_jepa": SeqJEPA,
    "sie": SIE,
    "simclr": SimCLR,
    "vicreg": VICReg,
    "vicreg_traj": VICRegTraj,
}


def method_names() -> tuple[str, ...]:
    """METHODS, then what other packages add; a name of ours stays ours. Nothing is imported."""
    return tuple(dict.fromkeys((*METHODS, *plugin_names("seqjepa.methods"))))


def find_method(name: str) -> type[Method] | None:
    """The class of a name; None: there is none. ConfigError: another package's, which cannot be loaded or is none."""
    if name in METHODS or name not in method_names():
        return METHODS.get(name)
    found = load_plugin("seqjepa.methods", name)
    if not (isinstance(found, type) and issubclass(found, Method)):
        needed = "a subclass of seqjepa.methods.base.Method"
        raise ConfigError(f"seqjepa.methods: {name} is {found!r:.80}; {needed} is needed")
    return found


def build_method(config: RunConfig, action_size: int) -> Method:
    """The method that `config` names, initialised from torch's global generator (seed it first).

    action_size: A, values in an action. ConfigError: unknown method, a number of views that it does not take, settings
    that it has not, or widths that do not fit together.
    """
    chosen, condition = find_method(config.method), config.model.condition
    if chosen is None:
        known = ", ".join(sorted(method_names()))
        raise ConfigError(f"method is {config.method!r}; allowed are {known}, or install the package that adds it")
    if condition != "both" and "model.condition" not in chosen.settings:
        choosing = " and ".join(name for name, method in METHODS.items() if "model.condition" in method.settings)
        raise ConfigError(
            f"model.condition = {condition!r} is a choice of {choosing}; leave it out for {config.method}"
        )
    if chosen.uses_actions and condition != "none" and not action_size:
        without = ", ".join(name for name, method in METHODS.items() if not method.uses_actions)
        without += ", or set model.condition=none" if "model.condition" in chosen.settings else ""
        none = f"none (data.action = {action_name(config.data.action)!r})"
        raise ConfigError(
            f"{config.method} needs the actions between views, and there are {none}: declare them (data.action), or "
            f"use a method without: {without}"
        )
    method = chosen(config, action_size)
    needed, views = chosen.views_needed, config.data.context + 1
    if needed not in (None, views):
        raise ConfigError(
            f"{config.method} takes exactly {needed} views a sequence, and data.context = {config.data.context} gives "
            f"{views}; set data.context={needed - 1}"
        )
    return method


SOME_METHODS = {key for method in METHODS.values() for key in method.settings}
"""Settings that only some methods read. Transformer projectors have layers, heads, ff_mult and dropout too."""
OF_PATCHES = ("data.inhibition", "data.fixations", "data.fill")
OF_TRANSFORMERS = ("model.layers", "model.heads", "model.ff_mult", "model.dropout")


def is_idle(key: str, config: RunConfig) -> bool:
    """Whether a setting changes nothing of a run: one of other methods, of patches where there are none, or the end of
    a learning rate that stays."""
    if key in OF_TRANSFORMERS and config.model.projector_kind == "transformer":
        return False
    if key in OF_PATCHES:
        return not config.data.patch
    if key == "optim.final_lr":
        return config.optim.schedule == "constant"
    method = find_method(config.method)
    return method is not None and key in SOME_METHODS and key not in method.settings
