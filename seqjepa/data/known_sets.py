"""Which of the paper's data sets a set of shards holds: told by the names of its classes, whatever the set is called.

A set's own name says little: 3DIE-Synth, Glances-Synth and Patterns-Synth are written in the layouts of 3DIEBench,
STL-10 and CIFAR-100, and shards of them may be called as those. Classes stay the same when a set is made smaller.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

CLASSES_SHA256 = {
    "85635f128bb2d85aa7cce94b8f9fc84ae20f6a5c890791c3d10907599a492671": "3DIEBench",
    "fbe8ad23bbaf24969898a386833b49c3aaf6ad1119d43f7b41cdea1b3416d578": "CIFAR100",
    "d997c3b97a5981a886d82407cfc8c064834757fa6097289da03fef0525aada2f": "CIFAR100",  # with "computer_keyboard"
    "469256525372353824e71972ad38973324ee89b7c2decc4ae239aefa62a92796": "TinyImageNet",
    "add4bf0c8712ef7fb4bca98e3bbaf07101636c5db62cce486fd2af71cc11caf8": "TinyImageNet",  # WordNet ids, if no words.txt
    "08b234ce7b11dbd3e77d1dacf32b2dac8fcd36efa7d7719ad1def4d8f1153bf4": "STL-10",
}
"""classes_sha256 → the data set as paper_results.csv calls it."""
PAPER_SAMPLES = {"3DIEBench": 41_920, "CIFAR100": 50_000, "TinyImageNet": 100_000, "STL-10": 100_000}
"""What the paper trains on: objects, images; of STL-10 the unlabelled ones."""
IMAGENET_SHA256 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
"""classes_sha256 of the 1000 WordNet ids of ILSVRC 2012, which ImageNet-Sketch and ImageNet-V2 share."""
IMAGENET_VAL = 50_000
"""Its validation images."""


def classes_sha256(classes: Iterable[str]) -> str:
    """Hex digest of the class names, in whatever order they are."""
    return hashlib.sha256("\n".join(sorted(classes)).encode()).hexdigest()


def paper_set(protocol: Mapping[str, Any]) -> str:
    """The paper's data set that a protocol of results.json is about; empty if it is another, or was not noted then."""
    return CLASSES_SHA256.get(str(protocol.get("classes_sha256", "")), "")
