"""The runs behind every number of the paper, in the blocks of the run matrix: names of recipes.

Nothing is computed here from anything else, so that the matrix can be held against this file line by line.
"""

from __future__ import annotations

INVARIANT = ("simclr-3die", "byol-3die", "vicreg-3die", "vicreg-traj-3die")
ROTATION = ("sen-3die-rot", "equimod-3die-rot", "sie-3die-rot", "conditional-byol-3die-rot")
ROTATION_BY_CONTEXT = ("3die-rot-M1", "3die-rot-M2", "3die-rot-M3", "3die-rot-M4", "3die-rot-M5")
CONTEXT_SSL = ("context-ssl-3die",)
ROTATION_COLOUR = (
    "sen-3die-rotcolour",
    "equimod-3die-rotcolour",
    "conditional-byol-3die-rotcolour",
    "sie-3die-rotcolour",
    "3die-rotcolour-M4",
)
ABLATIONS = (
    "3die-noact-M3",
    "3die-nopred-M3",
    "3die-notrans-M3",
    "3die-adim16-M3",
    "3die-adim64-M3",
    "3die-adim128-M3",
    "3die-adim256-M3",
)
TRANSFORMER_PROJECTORS = (
    "simclr-3die-plus",
    "byol-3die-plus",
    "vicreg-3die-plus",
    "vicreg-traj-3die-plus",
    "sen-3die-rot-plus",
    "conditional-byol-3die-rot-plus",
)
HIGH_COMPUTE = ("sie-3die-rot-hc", "simclr-3die-hc", "equimod-3die-rot-hc", "3die-hc-M1", "3die-hc-M3")

CIFAR_INVARIANT = ("simclr-c100", "byol-c100", "vicreg-c100", "vicreg-traj-c100")
CIFAR_EQUIVARIANT = (
    *("sen-c100-all", "equimod-c100-all", "sie-c100-all", "conditional-byol-c100-all"),
    *("sen-c100-crop", "equimod-c100-crop", "sie-c100-crop", "conditional-byol-c100-crop"),
    *("sen-c100-jitter", "equimod-c100-jitter", "sie-c100-jitter", "conditional-byol-c100-jitter"),
    *("sen-c100-blur", "equimod-c100-blur", "sie-c100-blur", "conditional-byol-c100-blur"),
)
CIFAR_ALL = ("c100-all-M1", "c100-all-M2", "c100-all-M3", "c100-all-M4")
CIFAR_SINGLE = (
    *("c100-crop-M2", "c100-crop-M3"),
    *("c100-jitter-M2", "c100-jitter-M3"),
    *("c100-blur-M2", "c100-blur-M3"),
)
CIFAR_NO_ACTION = ("c100-noact-M2",)

TINY_INVARIANT = ("simclr-tiny", "byol-tiny", "vicreg-tiny", "vicreg-traj-tiny")
TINY_EQUIVARIANT = (
    *("sen-tiny-all", "equimod-tiny-all", "sie-tiny-all", "conditional-byol-tiny-all"),
    *("sen-tiny-crop", "equimod-tiny-crop", "sie-tiny-crop", "conditional-byol-tiny-crop"),
    *("sen-tiny-jitter", "equimod-tiny-jitter", "sie-tiny-jitter", "conditional-byol-tiny-jitter"),
    *("sen-tiny-blur", "equimod-tiny-blur", "sie-tiny-blur", "conditional-byol-tiny-blur"),
)
TINY_ALL = ("tiny-all-M1", "tiny-all-M2", "tiny-all-M3", "tiny-all-M4")
TINY_SINGLE = (
    *("tiny-crop-M2", "tiny-crop-M3"),
    *("tiny-jitter-M2", "tiny-jitter-M3"),
    *("tiny-blur-M2", "tiny-blur-M3"),
)
TINY_NO_ACTION = ("tiny-noact-M2",)

SACCADES_BY_CONTEXT = ("stl-pls-M1", "stl-pls-M2", "stl-pls-M3", "stl-pls-M4", "stl-pls-M5")
SACCADE_BASELINES = ("simclr-stl", "conv-jepa-stl-M4")
SACCADE_ABLATIONS = ("stl-pls-noact-M4", "stl-pls-nosal-M4", "stl-pls-noior-M4")
POSTER_BASELINES = ("simclr-stl", "byol-stl", "vicreg-stl", "equimod-stl", "sen-stl", "sie-stl")
POSTER_VARIANTS = ("stl-fullsize-M4", "stl-pls-stdstem-M4")
