"""The paper's data sets (sets.toml): classes, sizes, and the constants that their pixels are normalised by.

Class names tell which of them a set of shards holds, whatever the set is called. A set's own name says little:
3DIE-Synth, Glances-Synth and Patterns-Synth are written in the layouts of 3DIEBench, STL-10 and CIFAR-100, and shards
of them may be called as those. Classes stay the same when a set is made smaller.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

PixelConstants = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and standard deviation per channel (R, G, B), for pixels in [0, 1]."""


@dataclass(frozen=True)
class PaperSet:
    """One data set; the head of sets.toml says what each field means. stated: None where the paper has the released."""

    name: str
    label: str
    short: str
    slug: str
    group: str
    resolution: int
    samples: int
    epochs: int
    classes: tuple[str, ...]
    released: PixelConstants
    stated: PixelConstants | None = None


_TABLES = tomllib.loads((resources.files("seqjepa.paper") / "sets.toml").read_text(encoding="utf-8"))
SETS: Mapping[str, PaperSet] = {
    key: PaperSet(
        **table
        | {"classes": tuple(table["classes"])}
        | {name: tuple(map(tuple, table[name])) for name in ("released", "stated") if name in table}
    )
    for key, table in _TABLES.items()
}
"""By the value of data.set in a run's configuration, in the order of the paper."""
SETS_BY_NAME: Mapping[str, PaperSet] = {known.name: known for known in SETS.values()}
"""By their names in results.csv."""
CLASSES_SHA256 = {digest: known.name for known in SETS.values() for digest in known.classes}
IMAGENET_SHA256 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
"""classes_sha256 of the 1000 WordNet ids of ILSVRC 2012, which ImageNet-Sketch and ImageNet-V2 share."""
IMAGENET_VAL = 50_000
"""Validation images of ImageNet."""
NORMALISATIONS: dict[str, PixelConstants] = {
    **{key: known.released for key, known in SETS.items()},
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    **{f"{key}-paper": known.stated for key, known in SETS.items() if known.stated},
}
"""Constants by the names that data.normalisation has for them: "SET" for the released, "SET-paper" for the paper's."""


def classes_sha256(classes: Iterable[str]) -> str:
    """Hex digest of the class names, in whatever order they are."""
    return hashlib.sha256("\n".join(sorted(classes)).encode()).hexdigest()


def paper_set(protocol: Mapping[str, Any]) -> str:
    """The name of the paper's data set that a protocol of results.json is about; "" if it is another, or not noted."""
    return CLASSES_SHA256.get(str(protocol.get("classes_sha256", "")), "")


def explicit_normalisation(name: str, fidelity: str) -> str:
    """The name in NORMALISATIONS that `name` means under a fidelity; a run's config.toml holds explicit names alone.

    "SET-published", for recipes, is "SET-paper" under fidelity paper and "SET" under author; "SET-author" is "SET".
    Any other name is given back.
    """
    base, _, which = name.rpartition("-")
    if f"{base}-paper" not in NORMALISATIONS or which not in ("author", "published"):
        return name
    return f"{base}-paper" if which == "published" and fidelity != "author" else base


def set_by_normalisation(name: str) -> str:
    """The data.set of a run from before that key, by the name of its constants: "cifar100-paper" → "cifar100"."""
    base = name.removesuffix("-paper")
    return base if base in SETS else ""
