"""The runner: records in, shards out, over worker processes; killed at any moment, the next run goes on.

A build is prepared (survey, plan, fingerprint: `Prepared`), then worked on, shard by shard, in whatever process, then
finished: indexes, card, dataset.json last. In a process that works, the parent claims shards one after the other, reads
their records and writes them; its pool transforms.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipelines.build.encode import JpegSetting
from pipelines.build.fill import Filled, OpenShard, Results
from pipelines.build.plan import Notes, PlannedShard, ShardNote
from pipelines.build.pool import sigterm_as_interrupt
from pipelines.build.source_watch import SourceWatch
from shards.building.claim import take_back
from shards.building.store_build import StoreBuild, made_in
from shards.engines.hand import Hand, hand_of
from shards.engines.ray_engine import CLUSTER, RayCluster
from shards.engines.steps import Stage, build_set
from shards.errors import FormatError, UsageError, few
from shards.layout import Layout
from shards.reader import ShardSet
from shards.schema import DatasetInfo
from shards.stores.store import as_address
from shards.writer import SetBuilder

log = logging.getLogger(__name__)

NAMED_IN_PROVENANCE = 1000
LOOK_SECONDS = 5.0  # between two looks at what others have finished
LISTING = "listing"  # name of the note that keeps what `Prepared.listing` says


@dataclass(frozen=True)
class BuildReport:
    """`psnr_db` is the mean over images, None for raw pixels; `bad` and `odd` are sorted.

    `digests`: of the records of all planned shards, as ShardNote has them.
    """

    images: int
    psnr_db: float | None
    bad: list[str]
    odd: list[str] = field(default_factory=list)
    digests: str = ""


@dataclass(frozen=True)
class Prepared:
    """All that is known before the first shard is written.

    identity    name, spec, classes and fingerprint, by which SetBuilder holds two builds against each other
    plan        all shards
    work        gives what becomes of each record of the shards that it takes, each of which is claimed as it is taken;
                records of one shard in their order
    over_ray    the same on the nodes of a Ray cluster, which write the shards too; None: there is no such way
    images      how many the source has in all planned shards, for the progress bar
    provenance  what dataset.json says of where the set came from: the same in every run of the same command on the
                same source, on whatever machine
    watch       whether the source still holds what shards were made of; None: there is no source
    left_out    what is known to be bad already
    listing     JSON that the next run of an interrupted build reads back (`read_listing`) instead of listing again
    """

    identity: dict[str, Any]
    plan: Sequence[PlannedShard]
    work: Callable[[Iterator[PlannedShard]], Results]
    images: int
    provenance: Callable[[BuildReport], dict[str, Any]]
    over_ray: Callable[[RayCluster, Hand, Iterator[PlannedShard]], Iterator[Filled]] | None = None
    watch: SourceWatch | None = None
    left_out: Sequence[str] = ()
    listing: dict[str, Any] | None = None


def run_build(prepared: Prepared, out: Path, *, max_bad: int, overwrite: bool) -> DatasetInfo:
    """Write the set, or what is missing of it. What it says if it is there already.

    Any number of processes may do so at once, on whatever machines see the folder (shards/engines/steps.py).

    Raises FormatError if more than `max_bad` is bad, UsageError if the folder is not ours, or the source is not what
    finished shards were made of, FailureError if a worker fails; what is finished stays.
    """
    with _taken_back_if_empty(out):
        return build_set(SourceStage(prepared, max_bad).stage(), out, overwrite)


class SourceStage:
    """The stage of a source's records: what a Prepared does in one process."""

    def __init__(self, prepared: Prepared, max_bad: int) -> None:
        self.prepared, self.max_bad = prepared, max_bad
        self.planned = {shard.name: shard for shard in prepared.plan}
        self.bad = BadItems(max_bad)
        self.stamp = ""

    def stage(self) -> Stage:
        """Shards in the order in which the source has their first records."""
        order = sorted(self.planned, key=lambda name: self.planned[name].positions[0])
        return Stage(self.prepared.identity, order, self.work, self.provenance, self.begin)

    def begin(self, builder: SetBuilder) -> None:
        """Everything that was bad before counts, whoever has found it."""
        prepared, notes = self.prepared, Notes(builder.layout)
        if prepared.listing is not None and notes.read_json(LISTING) != json.loads(json.dumps(prepared.listing)):
            notes.write_json(LISTING, prepared.listing)
        self.bad = BadItems(self.max_bad)
        self.bad.add(prepared.left_out)
        if prepared.watch:
            self.stamp = prepared.watch.begin(builder, prepared.plan, notes)
        done = builder.done()
        for name in self.planned:
            if name in done:
                self.bad.add(notes.read(name).bad)

    def work(self, builder: SetBuilder, names: Iterator[str]) -> None:
        """Errors as run_build."""
        if (first := next(names, None)) is None:
            return
        claimed = (self.planned[name] for name in itertools.chain([first], names))
        notes = Notes(builder.layout)
        with sigterm_as_interrupt(), contextlib.closing(SharedBar(builder, notes, self.prepared.images)) as bar:
            if cluster := CLUSTER.get():
                self._work_over_ray(cluster, builder, claimed, bar)
            else:
                _fill_shards(builder, notes, self.prepared.work(claimed), self.bad, bar)
        if self.prepared.watch:
            done = builder.done()
            self.prepared.watch.end(self.stamp, [self.planned[name] for name in self.planned if name in done], notes)

    def _work_over_ray(
        self, cluster: RayCluster, builder: SetBuilder, claimed: Iterator[PlannedShard], bar: SharedBar
    ) -> None:
        if self.prepared.over_ray is None:
            raise UsageError("this source cannot be built by --engine ray; leave it out")
        for filled in self.prepared.over_ray(cluster, hand_of(builder), claimed):
            self.bad.add(filled.note.bad)
            builder.adopt(filled.part)
            bar.counted.add(filled.planned.name)
            bar.update(filled.note.images + len(filled.note.bad))

    def provenance(self, builder: SetBuilder) -> dict[str, Any]:
        """FormatError: all builders together have found more bad than is allowed."""
        notes, bad = Notes(builder.layout), BadItems(self.max_bad)
        bad.add(self.prepared.left_out)
        found = [notes.read(name) for name in self.planned]
        bad.add([name for note in found for name in note.bad])
        return self.prepared.provenance(_report(found, bad))


class SharedBar:
    """Progress over all images of a build: ours as they are made, those of others as their shards are finished."""

    def __init__(self, builder: SetBuilder, notes: Notes, images: int) -> None:
        self.builder, self.notes = builder, notes
        self.counted = builder.done()
        initial = sum(notes.read(name).images for name in self.counted)
        self.bar = tqdm(total=images, initial=initial, unit="img", disable=None)
        self.looked = time.monotonic()

    def update(self, images: int) -> None:
        self.bar.update(images)
        if time.monotonic() - self.looked > LOOK_SECONDS:
            for name in self.builder.done() - self.counted:
                self.bar.update(self.notes.read(name).images)
                self.counted.add(name)
            self.looked = time.monotonic()

    def close(self) -> None:
        self.bar.close()


def _fill_shards(builder: SetBuilder, notes: Notes, results: Results, bad: BadItems, bar: SharedBar) -> None:
    """Splits alternate in a stream, so that one shard of each may be open at a time."""
    opened: dict[str, OpenShard] = {}
    with contextlib.ExitStack() as undo, contextlib.closing(results):  # type: ignore[type-var]
        for planned, result in results:
            if planned.name not in opened:
                opened[planned.name] = shard = OpenShard(builder, planned)
                undo.callback(shard.writer.abort)
            shard = opened[planned.name]
            shard.take(result)
            bad.add(result.bad)
            if not shard.awaited:
                bar.counted.add(planned.name)
                shard.close(notes)
            bar.update(result.images + len(result.bad))
        undo.pop_all()


def _report(notes: Sequence[ShardNote], bad: BadItems) -> BuildReport:
    images, psnr_sum = sum(note.images for note in notes), sum(note.psnr_sum for note in notes)
    odd = sorted(name for note in notes for name in note.odd)
    digests = "".join([note.digests for note in notes])
    return BuildReport(images, psnr_sum / images if psnr_sum and images else None, sorted(bad.names), odd, digests)


class BadItems:
    """Counts what is bad, and gives up when there is more than allowed."""

    def __init__(self, allowed: int):
        self.allowed = allowed
        self.names: list[str] = []

    def add(self, names: Sequence[str]) -> None:
        """Raises FormatError, naming the first few."""
        self.names += names
        if len(self.names) > self.allowed:
            first = few(self.names, parted="; ")
            raise FormatError(
                f"{len(self.names)} bad so far, --max-bad allows {self.allowed}: {first}; repair the source, or run "
                "again with a larger --max-bad to leave them out"
            )


@contextlib.contextmanager
def _taken_back_if_empty(out: Path) -> Iterator[None]:
    """Bad input before the first shard is finished leaves nothing of a folder that was made in this block."""
    layout, address = Layout(made_in(out)), as_address(out)
    existed, fresh = layout.root.exists(), not layout.meta.exists()
    try:
        yield
    except FormatError:
        if fresh and layout.build.exists():
            take_back(layout)
            if not existed:
                with contextlib.suppress(OSError):
                    layout.root.rmdir()
            if address and not layout.meta.exists():
                StoreBuild(address).take_back()
        raise


def finished_set(out: Path) -> DatasetInfo:
    """What a finished set says, checked and tidied as SetBuilder does it."""
    info = ShardSet.open(out).info
    log.info("%s is finished already", as_address(out) or out)
    identity = {"name": info.name, "spec": info.spec, "classes": info.classes, "fingerprint": info.fingerprint}
    with SetBuilder(out, **identity) as builder:
        return builder.info or info


def named(names: Sequence[str]) -> dict[str, Any]:
    """How many, and the first thousand of them, for a set's provenance."""
    return {"count": len(names), "names": names[:NAMED_IN_PROVENANCE]}


def outcome(report: BuildReport, setting: JpegSetting | None, what: str) -> dict[str, Any]:
    """For a set's provenance: how good the JPEGs are, and which of `what` ("views", "images") may be damaged.

    Logs what was left out and what may be damaged.
    """
    record: dict[str, Any] = {}
    if setting and report.psnr_db is not None:
        record |= {"jpeg": str(setting), "psnr_db": round(report.psnr_db, 3)}  # mean over images
    if report.odd:
        record[f"odd_{what}"] = named(report.odd)
        log.warning("%d %s may be damaged, or other than meant, e.g. %s", len(report.odd), what, report.odd[0])
    if report.bad:
        log.warning("%d bad %s were left out, e.g. %s", len(report.bad), what, report.bad[0])
    return record
