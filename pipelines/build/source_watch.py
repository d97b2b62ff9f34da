"""Does a source still hold what finished shards were made of? Asked as a build goes on, and at its end.

Each shard's note has a digest of the bytes that it was made of. They are read again only where the source's stamp
(sizes and times of all files) has changed since: then every finished shard must be what the source holds now.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from pipelines.build.plan import Notes, PlannedShard
from pipelines.sources import ImageRecord, ImageSource
from shards.errors import UsageError
from shards.writer import SetBuilder

STAMP = "source"  # name of the note that keeps the source's stamp


@dataclass(frozen=True)
class SourceWatch:
    """`stamp()` differs whenever the source may have changed; `digest(position)` is of the bytes of one record.

    `same()`: whether the source still has the fingerprint that the build goes by. `digest` None: records cannot be read
    at random (a tar that is read as a stream).
    """

    path: Path
    stamp: Callable[[], str]
    same: Callable[[], bool]
    digest: Callable[[int], str] | None = None

    def begin(self, builder: SetBuilder, plan: Sequence[PlannedShard], notes: Notes) -> str:
        """The stamp. UsageError if a finished shard was made of something else; with --overwrite it is forgotten."""
        now, done = self.stamp(), builder.done()
        finished = [shard for shard in plan if shard.name in done]
        if finished and notes.read_json(STAMP) != {"stamp": now} and (stale := self._stale(finished, notes)):
            if not builder.overwrite:
                raise self._changed(stale[0])
            builder.forget(stale)
        notes.write_json(STAMP, {"stamp": now})
        return now

    def end(self, stamp: str, finished: Sequence[PlannedShard], notes: Notes) -> None:
        """UsageError if the source changed since it had that `stamp`: what shards hold, or what its fingerprint is."""
        if self.stamp() == stamp:
            return
        if stale := self._stale(finished, notes):
            raise self._changed(stale[0])
        if not self.same():
            raise self._changed("the first shard")

    def _stale(self, shards: Sequence[PlannedShard], notes: Notes) -> list[str]:
        """Names of those that were made of other bytes than the source holds now."""
        if self.digest is None:
            return [] if self.same() else [shard.name for shard in shards]
        images, stale = sum(len(shard.positions) for shard in shards), []
        with tqdm(total=images, desc="source of finished shards", unit="file", disable=None, leave=False) as bar:
            for shard in shards:
                digests = []
                for position in shard.positions:
                    digests.append(self.digest(position))
                    bar.update()
                if source_digest(digests) != notes.read(shard.name).source:
                    stale.append(shard.name)
        return stale

    def _changed(self, shard: str) -> UsageError:
        return UsageError(
            f"{self.path} changed after {shard} was made of it: one set would hold both; choose another --out, or give "
            "--overwrite to build it anew"
        )


def source_digest(digests: Iterable[str]) -> str:
    """Of a shard: the digests of its records, in order."""
    return hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()


def images_watch(source: ImageSource, records: Sequence[ImageRecord]) -> SourceWatch:
    """Of a build whose positions are those of `records`."""
    before = source.fingerprint

    def same() -> bool:
        return copy.copy(source).fingerprint == before  # a copy has read nothing yet

    return SourceWatch(source.path, source.stamp, same, lambda position: source.digest(records[position]))
