"""The paper's data sets: classes, sizes, and the constants that their pixels are normalised by.

Class names tell which of them a set of shards holds, whatever the set is called. A set's own name says little:
3DIE-Synth, Glances-Synth and Patterns-Synth are written in the layouts of 3DIEBench, STL-10 and CIFAR-100, and shards
of them may be called as those. Classes stay the same when a set is made smaller.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PaperSet:
    """name: as results.csv writes it. resolution: pixels a side. samples: objects or images that are trained on.
    epochs: of training.

    classes: classes_sha256 of its class names; several where its distributions spell them differently.
    """

    name: str
    recipes: str  # heading of its recipes
    resolution: int
    samples: int
    epochs: int
    classes: tuple[str, ...]


SETS: Mapping[str, PaperSet] = {
    "3diebench": PaperSet(
        "3DIEBench",
        "3DIEBench",
        128,
        41_920,
        1000,
        ("85635f128bb2d85aa7cce94b8f9fc84ae20f6a5c890791c3d10907599a492671",),
    ),
    "cifar100": PaperSet(
        "CIFAR100",
        "CIFAR-100, augmentations",
        32,
        50_000,
        2000,
        (
            "fbe8ad23bbaf24969898a386833b49c3aaf6ad1119d43f7b41cdea1b3416d578",
            "d997c3b97a5981a886d82407cfc8c064834757fa6097289da03fef0525aada2f",  # with "computer_keyboard"
        ),
    ),
    "tiny-imagenet": PaperSet(
        "TinyImageNet",
        "Tiny ImageNet, augmentations",
        64,
        100_000,
        2000,
        (
            "469256525372353824e71972ad38973324ee89b7c2decc4ae239aefa62a92796",
            "add4bf0c8712ef7fb4bca98e3bbaf07101636c5db62cce486fd2af71cc11caf8",  # WordNet ids, if no words.txt
        ),
    ),
    "stl10": PaperSet(
        "STL-10",
        "STL-10, saccades",
        96,
        100_000,  # the unlabelled ones
        2000,
        ("08b234ce7b11dbd3e77d1dacf32b2dac8fcd36efa7d7719ad1def4d8f1153bf4",),
    ),
}
"""By the value of data.set in a run's configuration, in the order of the paper."""

CLASSES_SHA256 = {digest: known.name for known in SETS.values() for digest in known.classes}
PAPER_SAMPLES = {known.name: known.samples for known in SETS.values()}
PAPER_EPOCHS = {known.name: known.epochs for known in SETS.values()}
RESOLUTION = {known.name: known.resolution for known in SETS.values()}
IMAGENET_SHA256 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
"""classes_sha256 of the 1000 WordNet ids of ILSVRC 2012, which ImageNet-Sketch and ImageNet-V2 share."""
IMAGENET_VAL = 50_000
"""Validation images of ImageNet."""


def classes_sha256(classes: Iterable[str]) -> str:
    """Hex digest of the class names, in whatever order they are."""
    return hashlib.sha256("\n".join(sorted(classes)).encode()).hexdigest()


def paper_set(protocol: Mapping[str, Any]) -> str:
    """The name of the paper's data set that a protocol of results.json is about; "" if it is another, or not noted."""
    return CLASSES_SHA256.get(str(protocol.get("classes_sha256", "")), "")


PixelConstants = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and standard deviation per channel (R, G, B), for pixels in [0, 1]."""

_PAPER: PixelConstants = ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261))
NORMALISATIONS: dict[str, PixelConstants] = {
    "3diebench": ((0.5016, 0.5037, 0.5060), (0.1030, 0.0999, 0.0969)),
    "stl10": ((0.4467, 0.4398, 0.4066), (0.2241, 0.2215, 0.2239)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),  # released: datasets.py, line 136
    "tiny-imagenet": ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),  # released: datasets.py, lines 270 and 271
    "cifar100-paper": _PAPER,  # §A.1, for both sets; they are CIFAR-10's
    "tiny-imagenet-paper": _PAPER,
}
TWO_WAYS = ("cifar100", "tiny-imagenet")
"""Sets of which paper and released code have different constants."""


def explicit_normalisation(name: str, fidelity: str) -> str:
    """The name in NORMALISATIONS that `name` means under a fidelity; a run's config.toml holds explicit names alone.

    "SET-published", for recipes, is "SET-paper" under fidelity paper and "SET" under author; "SET-author" is "SET".
    Any other name is given back.
    """
    for base in TWO_WAYS:
        if name == f"{base}-author" or (name == f"{base}-published" and fidelity == "author"):
            return base
        if name == f"{base}-published":
            return f"{base}-paper"
    return name


def set_by_normalisation(name: str) -> str:
    """The data.set of a run from before that key, by the name of its constants: "cifar100-paper" → "cifar100"."""
    base = name.removesuffix("-paper")
    return base if base in SETS else ""
