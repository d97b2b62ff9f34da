"""A builder's hands: other processes, on any node that sees the folder, write shards that the builder has claimed.

The builder keeps the claims and hears of each finished shard. A hand's temporary files lie in the builder's own folder
in `_meta/tmp/`: when that goes, because the builder ended or was taken for dead, a hand can publish nothing any more.
Shards of a set in a store are made in a temporary folder of the node, and sent from there.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from shards.building.shard_writer import ShardPart, ShardWriter
from shards.building.store_build import StoreBuild
from shards.engines.ray_engine import CLUSTER, RayCluster
from shards.errors import UsageError
from shards.layout import Layout, shard_name
from shards.machine.files import disk_full_named
from shards.schema import Spec
from shards.writer import SetBuilder


class Opens(Protocol):
    """What shards are written through: a SetBuilder, or one of its hands."""

    spec: Spec

    def open_shard(self, split: str, number: int) -> ShardWriter: ...


Write = Callable[[Opens, str], Any]
"""(builder, name of a shard that is claimed) → writes it, and what is to be told of it."""


@dataclass(frozen=True)
class Hand:
    """Made by hand_of, sent to another process, opened there. address: of a set in a store."""

    layout: Layout
    spec: Spec
    classes: int
    build: str
    address: str = ""

    @contextlib.contextmanager
    def open(self) -> Iterator[OpenHand]:
        """UsageError: the folder is not seen from here."""
        if self.address:
            with tempfile.TemporaryDirectory(prefix="seqjepa-") as folder:
                own = Layout(Path(folder) / "set")
                own.parts.mkdir(parents=True)
                own.tmp.mkdir()
                opened = OpenHand(replace(self, layout=own))
                yield opened
                for part in opened.parts:
                    StoreBuild(self.address).publish(own, part.entry.name)
            return
        own = replace(self.layout, worker=f"{self.layout.worker}/{secrets.token_hex(8)}")
        try:
            own.tmp.mkdir()
        except FileNotFoundError as error:
            raise UsageError(
                f"{self.layout.root} is not there, or its build has ended; give an --out that all nodes share"
            ) from error
        try:
            yield OpenHand(replace(self, layout=own))
        finally:
            shutil.rmtree(own.tmp, ignore_errors=True)


class OpenHand:
    """parts: of the shards that were finished through it."""

    def __init__(self, hand: Hand) -> None:
        self._hand, self.spec, self.layout = hand, hand.spec, hand.layout
        self.parts: list[ShardPart] = []

    def open_shard(self, split: str, number: int) -> ShardWriter:
        hand, full = self._hand, partial(disk_full_named, self._hand.layout.root)
        return ShardWriter(
            hand.layout, shard_name(split, number), hand.spec, hand.classes, self.parts.append, full, hand.build
        )


def hand_of(builder: SetBuilder) -> Hand:
    address = builder.store.address if builder.store else ""
    return Hand(builder.layout, builder.spec, len(builder.classes), builder.build, address)


@dataclass
class ShardByShard:
    """Work that takes one shard after the other, here or, within engine_of, on the nodes of a Ray cluster.

    make   what writes a shard, in this process or (pickled) in another one
    sizes  how many `unit` each shard has, for the progress bar, which has `text` before it
    told   hears what was told of each shard that we wrote
    gpus   of each actor
    """

    make: Callable[[], AbstractContextManager[Write]]
    sizes: Mapping[str, int]
    text: str
    unit: str
    told: Callable[[Any], object] = lambda result: None
    gpus: int = 0
    _bar: tqdm = field(init=False)

    def work(self, builder: SetBuilder, names: Iterator[str]) -> None:
        """Write the shards that are taken from `names`."""
        cluster = CLUSTER.get()
        with tqdm(total=sum(self.sizes.values()), desc=self.text, unit=self.unit, disable=None) as self._bar:
            self._show(builder)
            for result in self._over_ray(cluster, builder, names) if cluster else self._here(builder, names):
                self.told(result)
                self._show(builder)

    def _here(self, builder: SetBuilder, names: Iterator[str]) -> Iterator[Any]:
        with self.make() as write:
            for name in names:
                yield write(builder, name)

    def _over_ray(self, cluster: RayCluster, builder: SetBuilder, names: Iterator[str]) -> Iterator[Any]:
        make, most = partial(_writing, hand_of(builder), self.make), len(self.sizes) - len(builder.done())
        for part, result in cluster.map_actors(make, names, lambda name: name, gpus=self.gpus, most=max(1, most)):
            builder.adopt(part)
            yield result

    def _show(self, builder: SetBuilder) -> None:
        """Shards that others have finished count too."""
        self._bar.update(sum(self.sizes.get(name, 0) for name in builder.done()) - self._bar.n)


def _writing(hand: Hand, make: Callable[[], AbstractContextManager[Write]]) -> Callable[[str], tuple[ShardPart, Any]]:
    """In an actor, which never closes what it made: it is ended."""
    write = ExitStack().enter_context(make())

    def do(name: str) -> tuple[ShardPart, Any]:
        with hand.open() as opened:
            result = write(opened, name)
            return opened.parts[0], result

    return do
