"""The runs behind every number of the paper, in the blocks of the run matrix: names of recipes.

Nothing is computed here from anything else, so that the matrix can be held against this file line by line.

Which runs each table and figure needs, how many seeds, and what is asked of them beyond their usual suite.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqjepa.recipes import did_you_mean
from shards.errors import UsageError

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


IMAGENET = "imagenet"
OOD = "3diebench-ood"


@dataclass(frozen=True)
class Sheet:
    """What one table or figure is made of.

    recipes    in the order of its rows
    seeds      runs of each recipe, as published
    ood        whether it needs a second set with rotations that training never saw (paper §B.3)
    path       whether it needs path integration also where that is not usual (of rotations on a CPU)
    patches    sizes of patches under which ImageNet's images are seen in transfer (Figure 15)
    scale      that it is meant for, where none is asked for
    note       what a reader of the list should know
    """

    title: str
    recipes: tuple[str, ...]
    seeds: int = 1
    ood: bool = False
    path: bool = False
    patches: tuple[int, ...] = ()
    scale: str = "paper"
    note: str = ""


_TABLE_1 = (*INVARIANT, *ROTATION, *CONTEXT_SSL, "3die-rot-M1", "3die-rot-M3", "3die-noact-M3")
_CIFAR_ROWS = (*CIFAR_INVARIANT, *CIFAR_EQUIVARIANT, "c100-all-M1", "c100-all-M2", "c100-all-M3")
_TINY_ROWS = (*TINY_INVARIANT, *TINY_EQUIVARIANT, "tiny-all-M1", "tiny-all-M2", "tiny-all-M3")
_CIFAR_SINGLE = ("c100-crop-M2", "c100-jitter-M3", "c100-blur-M3")
_TINY_SINGLE = ("tiny-crop-M2", "tiny-jitter-M3", "tiny-blur-M3")
_SACCADES = ("stl-pls-noact-M4", "stl-pls-M4", "stl-pls-nosal-M4", "stl-pls-noior-M4")
_MAPS = ("3die-rot-M3", "3die-noact-M3", "stl-pls-M4", "stl-pls-noact-M4")
_MAPS_NOTE = "maps of features with and without actions, of objects and of saccades"
_RELEASED = "the published ContextSSL is its authors' weights: `seqjepa import-context-ssl`; here it is trained"

SHEETS: dict[str, Sheet] = {
    "table-1": Sheet("3DIEBench, conditioned on rotation", _TABLE_1, note=_RELEASED),
    "table-2": Sheet(
        "CIFAR-100 and Tiny ImageNet, hand-crafted augmentations",
        (
            *(*_CIFAR_ROWS, *_CIFAR_SINGLE, *CIFAR_NO_ACTION),
            *(*_TINY_ROWS, *_TINY_SINGLE, *TINY_NO_ACTION),
        ),
    ),
    "table-3": Sheet("STL-10, saccades", (*SACCADE_BASELINES, *_SACCADES)),
    "table-4": Sheet("3DIEBench, ablations of action conditioning", ABLATIONS, seeds=3),
    "table-5": Sheet(
        "3DIEBench, hours of training",
        ("simclr-3die", "byol-3die", "sie-3die-rot", "vicreg-3die", "equimod-3die-rot", "3die-rot-M1", "3die-rot-M3"),
        note="hours are those of metrics.jsonl, on the machine that trained",
    ),
    "table-6": Sheet(
        "Multiply–accumulates by number of views",
        ("3die-rot-M3",),
        note="counted, not measured: one run of the paper's networks, at whatever stage, fills every size of the table",
    ),
    "table-7": Sheet("3DIEBench, conditioned on rotation and colour", ROTATION_COLOUR),
    "table-8": Sheet("3DIEBench, baselines with transformer projectors", TRANSFORMER_PROJECTORS),
    "table-9": Sheet(
        "3DIEBench, rotations out of distribution",
        (*INVARIANT, *ROTATION, "3die-rot-M1", "3die-rot-M3"),
        ood=True,
    ),
    "table-10": Sheet(
        "3DIEBench, retrieval by predictions", ("sie-3die-rot", "equimod-3die-rot", "3die-rot-M1", "3die-rot-M3")
    ),
    "table-11": Sheet("3DIEBench, high compute (256 px, 2000 epochs)", HIGH_COMPUTE),
    "table-12": Sheet(
        "Accuracy by number of views in evaluation",
        (
            *("3die-noact-M3", "3die-rot-M1", "3die-rot-M3", "3die-rotcolour-M4"),
            *("c100-noact-M2", "c100-all-M1", "c100-all-M2", "c100-all-M3", *_CIFAR_SINGLE),
            *("tiny-noact-M2", "tiny-all-M1", "tiny-all-M2", "tiny-all-M3", *_TINY_SINGLE),
            *_SACCADES,
        ),
    ),
    "figure-3": Sheet("Accuracy against R², 3DIEBench", _TABLE_1, note=_RELEASED),
    "figure-4": Sheet(
        "Nearest neighbours, 3DIEBench",
        ("3die-rot-M3", *ROTATION, *INVARIANT),
        note="every method of Table 1 but the imported ContextSSL; the figure shows all that there are runs of",
    ),
    "figure-5": Sheet("Maps of features (UMAP)", _MAPS, note=_MAPS_NOTE),
    "figure-6": Sheet("Path integration, visual and angular", ("stl-pls-M4", "3die-rot-M3"), seeds=3, path=True),
    "figure-7": Sheet(
        "Scaling with the number of views",
        (*ROTATION_BY_CONTEXT, *SACCADES_BY_CONTEXT, *CIFAR_ALL, *TINY_ALL),
    ),
    "figure-8": Sheet("M_tr × M_val, 3DIEBench", ROTATION_BY_CONTEXT),
    "figure-9": Sheet("M_tr × M_val, STL-10", SACCADES_BY_CONTEXT),
    "figure-10": Sheet("M_tr × M_val, CIFAR-100", (*CIFAR_ALL, *CIFAR_SINGLE)),
    "figure-11": Sheet("M_tr × M_val, Tiny ImageNet", (*TINY_ALL, *TINY_SINGLE)),
    "figure-12": Sheet("Maps of features (UMAP)", _MAPS, note=_MAPS_NOTE),
    "figure-13": Sheet("Maps of features (UMAP)", _MAPS, note=_MAPS_NOTE),
    "figure-14": Sheet("Maps of features (UMAP)", _MAPS, note=_MAPS_NOTE),
    "figure-15": Sheet("Transfer from STL-10 to ImageNet", ("stl-pls-M4",), patches=(32, 84)),
    "poster": Sheet(
        "The poster: STL-10, its ablations, and the odd one out",
        (
            *(*POSTER_BASELINES, "stl-pls-M4", "stl-fullsize-M4", "stl-pls-noact-M4", "stl-pls-stdstem-M4"),
            *("stl-pls-nosal-M4", "stl-pls-noior-M4", "3die-rot-M3", "simclr-3die", "sie-3die-rot"),
        ),
    ),
    "small-reproduction": Sheet(
        "The paper's first experiments on 3DIE-Synth, at a scale of minutes",
        (
            *("3die-rot-M1", "3die-rot-M2", "3die-rot-M3"),
            *("3die-noact-M3", "3die-nopred-M3", "3die-notrans-M3"),
            *("simclr-3die", "byol-3die", "vicreg-3die"),
            *("sen-3die-rot", "equimod-3die-rot", "sie-3die-rot", "conditional-byol-3die-rot"),
        ),
        scale="small",
        note="made for `seqjepa-data synth 3die` at 48 px: 1,280 objects, 16 views; no row of the paper",
    ),
}


def find_sheet(name: str) -> Sheet:
    """The sheet of a table or figure. UsageError lists the names."""
    if name not in SHEETS:
        raise UsageError(f"there is no {name!r}{did_you_mean(name, SHEETS)}; there are: ls, {', '.join(SHEETS)}")
    return SHEETS[name]
