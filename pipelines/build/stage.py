"""The runner: records in, shards out, over worker processes; killed at any moment, the next run goes on.

The parent reads records in order and writes shards; workers transform. What goes into which shard is settled
beforehand by position, so that it depends neither on the number of workers nor on what turns out to be bad.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

from tqdm import tqdm

from pipelines.build.pool import map_in_order, sigterm_as_interrupt
from pipelines.build.transform import Transformed
from pipelines.build.watch import SourceDigest, SourceWatch
from shards.environment import usable_cores
from shards.errors import DamageError, FormatError
from shards.files import disk_full_named, write_atomic
from shards.json_fields import strict_json
from shards.layout import Layout, shard_name
from shards.writer import SetBuilder, ShardWriter

NAMED_IN_ERRORS = 3


class Item(Protocol):
    """What a source's record has to tell: its name for messages, and how many images it holds."""

    @property
    def name(self) -> str: ...

    @property
    def images(self) -> int: ...


AnyItem = TypeVar("AnyItem", bound=Item)


@dataclass(frozen=True)
class PlannedShard:
    """A shard-to-be: the positions of its objects in the source, ascending."""

    split: str
    number: int
    positions: tuple[int, ...]

    @property
    def name(self) -> str:
        return shard_name(self.split, self.number)


def plan_shards(splits: Sequence[str | None], samples_per_shard: int) -> list[PlannedShard]:
    """Objects of each split in the source's order, `samples_per_shard` at a time; None is left out."""
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

    `source`: SourceDigest of the records that it was made of.
    """

    images: int = 0
    psnr_sum: float = 0.0
    bad: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    source: str = ""


class Notes:
    """ShardNotes beside the parts of a build under way, each written before its shard is published."""

    def __init__(self, layout: Layout):
        self.layout = layout

    def write(self, name: str, note: ShardNote) -> None:
        with disk_full_named(self.layout.root, lambda: "free some and run the same command again"):
            write_atomic(self._path(name), json.dumps(asdict(note)).encode(), self.layout.tmp)

    def read(self, name: str) -> ShardNote:
        """DamageError: the note is not as it was written."""
        path = self._path(name)
        try:
            note = ShardNote(**strict_json(path.read_bytes()))
            kinds = ((note.images, int), (note.bad, list), (note.odd, list), (note.source, str))
            if all(isinstance(value, kind) for value, kind in kinds):
                bad, odd = ([str(line) for line in lines] for lines in (note.bad, note.odd))
                return ShardNote(note.images, float(note.psnr_sum), bad, odd, note.source)
        except (ValueError, TypeError):
            pass
        raise DamageError(f"{path} is damaged: run the same command with --overwrite, which builds the set again")

    def _path(self, name: str) -> Path:
        return self.layout.parts / f"{name}.json"


@dataclass(frozen=True)
class BuildReport:
    """`psnr_db` is the mean over images, None for raw pixels; `bad` and `odd` are sorted."""

    images: int
    psnr_db: float | None
    bad: list[str]
    odd: list[str] = field(default_factory=list)


class OpenShard:
    """A shard that is being filled."""

    def __init__(self, builder: SetBuilder, planned: PlannedShard):
        self.name = planned.name
        self.awaited = len(planned.positions)
        self.writer: ShardWriter = builder.open_shard(planned.split, planned.number)
        self.note = ShardNote()
        self.source = SourceDigest()
        self.samples = 0

    def take(self, result: Transformed) -> None:
        self.awaited -= 1
        self.note.bad += result.bad
        self.note.odd += result.odd
        self.source.add(result.source)
        if result.sample is not None:
            self.writer.add(result.sample, result.stats)
            self.note.images += result.images
            self.note.psnr_sum += result.psnr_sum
            self.samples += 1

    def close(self, notes: Notes) -> None:
        if not self.samples:
            raise FormatError(f"every image of {self.name} is bad, e.g. {self.note.bad[0]}; repair the source")
        notes.write(self.name, replace(self.note, source=self.source.hexdigest()))
        self.writer.close()


@contextlib.contextmanager
def taken_back_if_empty(out: Path) -> Iterator[None]:
    """Bad input before the first shard is finished leaves nothing of a folder that was made in this block."""
    layout, existed = Layout(out), out.exists()
    fresh = not layout.meta.exists()
    try:
        yield
    except FormatError:
        if fresh and layout.build.exists() and not any(out.glob("*.tar")):
            shutil.rmtree(layout.meta)
            if not existed:
                with contextlib.suppress(OSError):
                    out.rmdir()
        raise


class BadItems:
    """Counts what is bad, and gives up when there is more than allowed."""

    def __init__(self, allowed: int):
        self.allowed = allowed
        self.names: list[str] = []

    def add(self, names: Sequence[str]) -> None:
        """Raises FormatError, naming the first few."""
        self.names += names
        if len(self.names) > self.allowed:
            first = "; ".join(self.names[:NAMED_IN_ERRORS])
            more = f" and {len(self.names) - NAMED_IN_ERRORS} more" if len(self.names) > NAMED_IN_ERRORS else ""
            raise FormatError(
                f"{len(self.names)} bad so far, --max-bad allows {self.allowed}: {first}{more}; repair the source, or "
                "run again with a larger --max-bad to leave them out"
            )


def build_shards(
    builder: SetBuilder,
    plan: Sequence[PlannedShard],
    read: Callable[[Sequence[int]], Iterator[AnyItem]],
    work: Callable[[AnyItem], Transformed],
    *,
    images: int,
    bad: BadItems,
    watch: SourceWatch,
    workers: int | None = None,
) -> BuildReport:
    """Write the shards of `plan` that are not finished yet. `read(positions)` yields their records, in order.

    work: what a worker makes of a record. images: how many the source has in all planned shards, for the progress bar.
    `bad` holds what is known already. Raises FormatError if more is bad than allowed, UsageError if the source is not
    what finished shards were made of, FailureError if a worker fails; what is finished stays.
    """
    notes = Notes(builder.layout)
    watch.begin(builder, plan, notes)
    done = builder.done()
    finished = [notes.read(shard.name) for shard in plan if shard.name in done]
    bad.add([name for note in finished for name in note.bad])
    todo = {position: shard for shard in plan if shard.name not in done for position in shard.positions}
    results = map_in_order(
        work, read(sorted(todo)), usable_cores() if workers is None else workers, lambda record: record.name
    )
    with (
        sigterm_as_interrupt(),
        tqdm(total=images, initial=sum(note.images for note in finished), unit="img", disable=None) as bar,
    ):
        if todo:
            _write_shards(builder, notes, [todo[position] for position in sorted(todo)], results, bad, bar)
    watch.end(builder, plan, notes)
    return _report([notes.read(shard.name) for shard in plan], bad)


def _write_shards(
    builder: SetBuilder,
    notes: Notes,
    shard_of: Sequence[PlannedShard],
    results: Iterator[tuple[AnyItem, Transformed]],
    bad: BadItems,
    bar: tqdm,
) -> None:
    """Splits alternate in a source, so that one shard of each may be open at a time. `results[i]` is of shard_of[i]."""
    opened: dict[str, OpenShard] = {}
    with contextlib.ExitStack() as undo, contextlib.closing(results):  # type: ignore[type-var]
        for planned, (record, result) in zip(shard_of, results, strict=True):
            if planned.name not in opened:
                opened[planned.name] = shard = OpenShard(builder, planned)
                undo.callback(shard.writer.abort)
            shard = opened[planned.name]
            shard.take(result)
            bad.add(result.bad)
            bar.update(record.images)
            if not shard.awaited:
                shard.close(notes)
        undo.pop_all()


def _report(notes: Sequence[ShardNote], bad: BadItems) -> BuildReport:
    images, psnr_sum = sum(note.images for note in notes), sum(note.psnr_sum for note in notes)
    odd = sorted(name for note in notes for name in note.odd)
    return BuildReport(images, psnr_sum / images if psnr_sum and images else None, sorted(bad.names), odd)
