"""What goes into which shard, settled by position before anything is read; and the note that each shard leaves.

The plan depends neither on the number of workers nor on what turns out to be bad.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from shards.errors import DamageError
from shards.json_fields import strict_json
from shards.layout import Layout, shard_name
from shards.machine.files import disk_full_named, write_atomic

DIGITS = 16  # hexadecimal, of the digest of each record


@dataclass(frozen=True)
class PlannedShard:
    """A shard-to-be: the positions of its records in the source, ascending."""

    split: str
    number: int
    positions: tuple[int, ...]

    @property
    def name(self) -> str:
        return shard_name(self.split, self.number)


def plan_shards(splits: Sequence[str | None], samples_per_shard: int) -> list[PlannedShard]:
    """Records of each split in the source's order, `samples_per_shard` at a time; None is left out."""
    plan = []
    for split in sorted({name for name in splits if name is not None}):
        positions = [position for position, name in enumerate(splits) if name == split]
        for number, start in enumerate(range(0, len(positions), samples_per_shard)):
            plan.append(PlannedShard(split, number, tuple(positions[start : start + samples_per_shard])))
    return plan


@dataclass
class ShardNote:
    """What a finished shard leaves for the provenance: images written, their PSNR summed in dB, what was left out, what
    may be damaged.

    `source`: source_digest of the records that it was made of. `digests`: the first DIGITS of that of each, in order;
    none in a note of an earlier version.
    """

    images: int = 0
    psnr_sum: float = 0.0
    bad: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    source: str = ""
    digests: str = ""


class Notes:
    """JSON files beside the parts of a build under way: a ShardNote for each shard, written before it is published."""

    def __init__(self, layout: Layout):
        self.layout = layout

    def write(self, name: str, note: ShardNote) -> None:
        self.write_json(name, asdict(note))

    def read(self, name: str) -> ShardNote:
        """DamageError: the note is not as it was written."""
        path = self.path(name)
        try:
            note = ShardNote(**strict_json(path.read_bytes()))
            kinds = (int, note.images), (list, note.bad), (list, note.odd), (str, note.source), (str, note.digests)
            if all(isinstance(value, kind) for kind, value in kinds):
                bad, odd = ([str(line) for line in lines] for lines in (note.bad, note.odd))
                return replace(note, psnr_sum=float(note.psnr_sum), bad=bad, odd=odd)
        except (ValueError, TypeError):
            pass
        raise DamageError(f"{path} is damaged: run the same command with --overwrite, which builds the set again")

    def write_json(self, name: str, record: dict) -> None:
        with disk_full_named(self.layout.root):
            write_atomic(self.path(name), json.dumps(record).encode(), self.layout.tmp)

    def read_json(self, name: str) -> dict | None:
        """None: it was not written, or it is damaged."""
        try:
            return strict_json(self.path(name).read_bytes())
        except (OSError, ValueError):
            return None

    def path(self, name: str) -> Path:
        return self.layout.parts / f"{name}.json"
