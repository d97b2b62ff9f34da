"""The kinds of shards that recipes are made for, and which evaluation each gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seqjepa.config import RunConfig
from seqjepa.data.normalisation import data_set_of
from seqjepa.experiments.tables import IMAGENET, OOD
from seqjepa.recipes import did_you_mean
from shards.errors import UsageError


@dataclass(frozen=True)
class Kind:
    """suite: of `seqjepa evaluate`, "" for what no run trains on. made_by: the command that makes such shards."""

    suite: str
    made_by: str


KINDS = {
    "3diebench": Kind("3diebench", "seqjepa-data shard 3diebench --size 128"),
    "3diebench-256": Kind("3diebench", "seqjepa-data shard 3diebench --size 256"),
    OOD: Kind("", "seqjepa-data shard 3diebench, of the set with other rotations"),
    "cifar100": Kind("augmentations", "seqjepa-data shard cifar100"),
    "tiny-imagenet": Kind("augmentations", "seqjepa-data shard tiny-imagenet"),
    "stl10": Kind("stl10", "seqjepa-data shard stl10 --maps"),
    IMAGENET: Kind("", "seqjepa-data shard imagenet --size 224 --maps"),
}


def kind_of(config: RunConfig) -> str:
    """The kind of shards that a packaged recipe trains on, told by the constants that it normalises with."""
    name = data_set_of(config.data.normalisation)
    return "3diebench-256" if name == "3diebench" and config.data.image_size == 256 else name


def parse_shards(given: Sequence[str]) -> dict[str, Path]:
    """["3diebench=DIR", …] → {"3diebench": Path("DIR"), …}. UsageError: not of this form, no such kind or folder."""
    found: dict[str, Path] = {}
    for text in given:
        kind, equals, folder = text.partition("=")
        if not equals or not folder:
            raise UsageError(f"--shards is {text!r}; name what they are, as in 3diebench={text or 'DIR'}")
        if kind not in KINDS:
            raise UsageError(f"--shards {text}: no kind {kind!r}{did_you_mean(kind, KINDS)}; kinds: {', '.join(KINDS)}")
        if not Path(folder).is_dir():
            raise UsageError(f"--shards {text}: {folder} is not a folder; give the folder of a shard set")
        found[kind] = Path(folder)
    return found
