"""What each method is trained with in a comparison: the one place where methods may differ.

The same for all, and so set in jobs.py: shards, encoder, optimizer steps, views per step, seed, probes. Why a method
has the settings that it has here, and where they are not the paper's, is said in docs/comparison.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One method: a packaged recipe, how many views its sequences have, and "a.b=c" where the recipe does not fit."""

    recipe: str
    views: int
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scale:
    """One size of comparison. evaluation: keyword arguments of evaluate_run, beside its seed."""

    entries: Mapping[str, Entry]
    views_per_step: int
    evaluation: Mapping[str, Any] = field(default_factory=dict)


def _small(views: int, *changes: str) -> Entry:
    """From the recipe of `seqjepa demo`: a ResNet-18 at a quarter of its width, heads at a quarter of the paper's."""
    return Entry("synth-tiny", views, changes)


_ADAM = ("optim.optimizer=adam", "optim.weight_decay=0.0", "optim.warmup_epochs=0.0", "optim.schedule=constant")
_WIDE = "model.projector=[512,512,512]"  # 2048, 2048, 2048

SMALL = Scale(
    entries={
        "seq_jepa": _small(4),
        "simclr": _small(2, *_ADAM, _WIDE),
        "byol": _small(2, *_ADAM, _WIDE, "model.predictor_hidden=128"),
        "vicreg": _small(2, *_ADAM, _WIDE),
        "vicreg_traj": _small(3, *_ADAM, _WIDE),
        "sen": _small(2, *_ADAM, _WIDE),
        "equimod": _small(2, *_ADAM, "model.projector=[256,256,32]"),
        "sie": _small(2, *_ADAM, "model.projector=[256,256,256]"),
        "conditional_byol": _small(2, *_ADAM, _WIDE, "model.predictor_hidden=128"),
        "context_ssl": _small(
            2, "data.action=rotation_colour", "context_ssl.width=512", "optim.optimizer=adam", "optim.lr=3e-4"
        ),
        "conv_jepa": _small(4, *_ADAM, _WIDE),
    },
    views_per_step=256,
    evaluation={"m_val": (1, 2, 3, 4, 5), "probe_epochs": 200, "agg_draws": 8, "val_draws": 8},
)

PAPER = Scale(
    entries={
        "seq_jepa": Entry("3die-rot-M3", 4),
        "simclr": Entry("simclr-3die", 2),
        "byol": Entry("byol-3die", 2),
        "vicreg": Entry("vicreg-3die", 2),
        "vicreg_traj": Entry("vicreg-traj-3die", 3),
        "sen": Entry("sen-3die-rot", 2),
        "equimod": Entry("equimod-3die-rot", 2),
        "sie": Entry("sie-3die-rot", 2),
        "conditional_byol": Entry("conditional-byol-3die-rot", 2),
        "context_ssl": Entry("context-ssl-3die", 2),
        "conv_jepa": Entry("conv-jepa-stl-M4", 4, ("data.action=rotation", "data.patch=0", "model.stem=standard")),
    },
    views_per_step=1024,
    evaluation={"m_val": (1, 2, 3, 4, 5), "val_draws": 8},
)

SCALES = {"small": SMALL, "paper": PAPER}
METHODS = tuple(SMALL.entries)
