"""One shard: what workers make of its records, written through a builder or, on another node, through its hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipelines.build.plan import Notes, PlannedShard, ShardNote
from pipelines.build.source_watch import SourceDigest
from shards.building.shard_writer import ShardPart, ShardWriter
from shards.engines.hand import Hand, Opens
from shards.errors import FormatError
from shards.sample import Sample
from shards.schema import ViewSpec
from shards.stats import PixelStats


@dataclass(frozen=True)
class Transformed:
    """What a worker hands back. `sample` is None where nothing was left of it; `psnr_sum` is in dB over its images.

    `bad` names what is left out and why, `odd` what was read but may be damaged.
    `source`: short_digest of the bytes that it was made of.
    """

    sample: Sample | None
    stats: PixelStats
    psnr_sum: float = 0.0
    bad: tuple[str, ...] = ()
    images: int = 1
    odd: tuple[str, ...] = ()
    source: str = ""

    @classmethod
    def left_out(cls, why: str, source: str) -> Transformed:
        """Of an image of which there is no sample; `why` begins with its name."""
        return cls(None, PixelStats(), bad=(why,), images=0, source=source)


Results = Iterator[tuple[PlannedShard, Transformed]]


class OpenShard:
    """A shard that is being filled."""

    def __init__(self, builder: Opens, planned: PlannedShard):
        self.name = planned.name
        self.awaited = len(planned.positions)
        self.writer: ShardWriter = builder.open_shard(planned.split, planned.number)
        self.chunked = isinstance(builder.spec, ViewSpec) and builder.spec.chunked
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
        elif self.chunked:
            raise FormatError(f"every view of a part of a sequence is bad, e.g. {result.bad[0]}; repair the source")

    def close(self, notes: Notes) -> ShardNote:
        if not self.samples:
            raise FormatError(f"every image of {self.name} is bad, e.g. {self.note.bad[0]}; repair the source")
        note = replace(self.note, source=self.source.hexdigest())
        notes.write(self.name, note)
        self.writer.close()
        return note


@dataclass(frozen=True)
class Filled:
    """What a shard that was written elsewhere leaves."""

    planned: PlannedShard
    part: ShardPart
    note: ShardNote


def fill_elsewhere(hand: Hand, planned: PlannedShard, results: Iterator[Transformed]) -> Filled:
    """In another process: write a shard that the hand's builder has claimed. Errors as OpenShard."""
    with hand.open() as opened:
        shard = OpenShard(opened, planned)
        try:
            for result in results:
                shard.take(result)
            note = shard.close(Notes(opened.layout))
        except BaseException:
            shard.writer.abort()
            raise
        return Filled(planned, opened.parts[0], note)
