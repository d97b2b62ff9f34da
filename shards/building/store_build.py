"""A set that is built in a store: shards are made in a folder of the cache, and sent as soon as they are finished.

    _meta/build.json              what is being built, as in a folder (claim.py)
    _meta/claims/NAME             a lease: who is writing that shard (stores/store_lease.py)
    _meta/parts/NAME.json, .parquet   what its builder noted, and its rows of the index; both before the tar
    _meta/parts/…                 what a caller keeps there until the set is finished (keep)
    NAME.tar                      created once: from then on the shard is finished
    …, _meta/dataset.json         last; then parts, claims and build.json go

In the folder a shard that was sent, or that another machine has finished, is a file of its size that takes no space.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from shards.errors import FormatError, UsageError
from shards.json_fields import json_object, take
from shards.layout import SHARD_NAME, Layout
from shards.machine.files import sha256_of_bytes, write_atomic
from shards.metadata import MAX_JSON, info_from_bytes, info_to_bytes
from shards.schema import DatasetInfo
from shards.stores.cache import cache_folder
from shards.stores.store import BUILD, INFO, as_address
from shards.stores.store_lease import Leases
from shards.stores.store_write import StoreWriter, open_writable

PARTS, CLAIMS = "_meta/parts", "_meta/claims"
LOOK_SECONDS = 2.0  # at least, between two listings of what others have finished
AT_ONCE = 8  # parts that are fetched
MAX_PART = 1 << 30


def staging_folder(address: str) -> Path:
    """Where the shards of a set at that address are made on this machine."""
    return cache_folder() / "building" / sha256_of_bytes(address.rstrip("/").encode())[:16]


def made_in(out: str | Path) -> Path:
    """The folder in which a set's shards are written first: `out`, or of an address its staging folder."""
    address = as_address(out)
    return staging_folder(address) if address else Path(out)


class StoreBuild:
    """One builder's side of a set in a store, from construction to leave().

    layout    of the folder where shards are made
    sent      names of the shards that are finished in the store, as far as we have looked
    finished  whether the whole set was there when we looked last
    """

    def __init__(self, address: str) -> None:
        self.store: StoreWriter = open_writable(address)
        self.address = self.store.address
        self.layout = Layout(staging_folder(self.address))
        self.sent: set[str] = set()
        self.finished = False
        self._leases: Leases | None = None
        self._record, self._held = b"", False  # build.json, and whether it is there to stay
        self._look_after = 0.0

    def read_info(self) -> DatasetInfo | None:
        """None: the set is not finished. FormatError: what is there is no dataset.json of ours."""
        data = self._read(INFO)
        return None if data is None else info_from_bytes(data, f"{self.address}/{INFO}")

    def read_identity(self) -> dict[str, Any] | None:
        """Of a build under way. FormatError: what is there is no build.json of ours."""
        data = self._read(BUILD)
        return None if data is None else take(json_object(data, f"{self.address}/{BUILD}"), "identity", dict)

    def begin(self, identity: dict[str, Any], build_format: str) -> bool:
        """The place is this build's from now on. False: a set was just finished there. UsageError: another began."""
        self._record = json.dumps({"format": build_format, "identity": identity}).encode()
        while not (ours := self.store.create_if_absent(BUILD, self._record)):
            if (there := self.read_identity()) == identity:
                break
            if there is not None:  # else it has just ended, or was taken back
                raise UsageError(f"another build has just begun at {self.address}: choose another --out")
        if self.store.tag(INFO) is not None:
            self.store.delete([BUILD] if ours else [])
            return False
        self._leases = Leases(self.store, CLAIMS)
        return True

    def claim(self, name: str) -> bool:
        """Whether the shard is ours to write. False also where others have just finished it."""
        assert self._leases is not None, "begun"
        if self._leases.holds(name):
            return True
        if not self._leases.take(name):
            return False
        if self._is_finished(name):
            self._leases.release(name)
            self._look_after = 0.0
            return False
        if not self._held:  # by another builder, whose input was bad, until it has seen this claim (take_back)
            self.store.create_if_absent(BUILD, self._record)
            self._held = True
        return True

    def unclaimed(self, names: Iterable[str]) -> bool:
        """Whether one of these is nobody's, or of somebody who is gone; of other machines, after asking for a while."""
        assert self._leases is not None, "begun"
        return any(self._leases.free(name) for name in names)

    def owners(self, names: Iterable[str]) -> dict[str, str]:
        """Who has claimed these, and what changes as each is heard of."""
        assert self._leases is not None, "begun"
        return self._leases.holders(names)

    def release(self, name: str) -> None:
        if self._leases:
            self._leases.release(name)

    def publish(self, layout: Layout, name: str) -> bool:
        """A shard that is finished in the folder: sent, then let go of there. False: others were first, theirs counts.

        With the part before the tar, a tar of which a GPU's bytes differ never meets another one's part.
        """
        tar, part = layout.shard(name), layout.part(name)
        if self._is_finished(name):
            part.unlink()
            self.fetch_shard(layout, name)
            return False
        for path in (layout.parts / f"{name}.json", part):
            if path.exists():
                self.store.put(f"{PARTS}/{path.name}", path.read_bytes())
        self.store.create(f"{name}.tar", tar.read_bytes())
        self.sent.add(name)
        _hollow(tar, tar.stat().st_size, layout.tmp)
        return True

    def fetch_finished(self, layout: Layout, at_once: bool = False) -> None:
        """What others have finished, into the folder: their parts and notes, and files that stand for their tars."""
        began = time.monotonic()
        if not at_once and began < self._look_after:
            return
        there = self.store.names()
        self.finished = self.finished or INFO in there
        tars = {name.removesuffix(".tar"): size for name, size in there.items() if name.endswith(".tar")}
        new = [name for name in tars if SHARD_NAME.fullmatch(name) and name not in self.sent]
        new = [name for name in new if f"{PARTS}/{name}.parquet" in there]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda name: self._fetch(layout, name, tars[name]), new))
        now = time.monotonic()
        self._look_after = now + LOOK_SECONDS * max(1.0, 5 * (now - began))  # of a large set, seldom

    def fetch_shard(self, layout: Layout, name: str) -> None:
        """A shard that someone has just sent."""
        self._fetch(layout, name, self.store.folder.size(f"{name}.tar"))

    def _fetch(self, layout: Layout, name: str, size: int) -> None:
        if not layout.part(name).exists():
            found = {
                path: self._read(f"{PARTS}/{path.name}", MAX_PART)
                for path in (layout.parts / f"{name}.json", layout.part(name))
            }
            if found[layout.part(name)] is None:  # the set was finished since
                self.finished = True
                return
            _hollow(layout.shard(name), size, layout.tmp)
            for path, data in found.items():
                if data is not None:
                    write_atomic(path, data, layout.tmp)
        self.sent.add(name)

    def _is_finished(self, name: str) -> bool:
        """Whether the shard is there, as a builder left it, or as one of a finished set."""
        if self.store.tag(f"{name}.tar") is None:
            return False
        if self.store.tag(f"{PARTS}/{name}.parquet") is None:
            self.finished = self.store.tag(INFO) is not None
            return self.finished
        return True

    def send_rest(self, layout: Layout, names: Collection[str]) -> None:
        """Shards that are finished in the folder, and were not sent: their builder was killed in between."""
        for name in sorted(set(names) - self.sent):
            self.publish(layout, name)

    def forget(self, name: str) -> None:
        self.sent.discard(name)
        self.store.delete([f"{PARTS}/{name}.parquet", f"{PARTS}/{name}.json", f"{name}.tar"])

    def finish(self, layout: Layout, info: DatasetInfo) -> None:
        """Everything but the shards; dataset.json last. UsageError: another set is there."""
        files = [layout.readme, *(layout.root / split.index for split in info.splits.values())]
        files += [layout.encoder] if layout.encoder.exists() else []
        for path in files:
            self.store.create(path.relative_to(layout.root).as_posix(), path.read_bytes())
        self.store.create(INFO, info_to_bytes(info))
        self.tidy()

    def tidy(self) -> None:
        """Removes what only a build needs, build.json last, in the store and in the cache."""
        names = [*self.store.names(PARTS), *self.store.names(CLAIMS), BUILD]
        self.store.delete(names)
        shutil.rmtree(self.layout.root, ignore_errors=True)

    def take_back(self) -> None:
        """Of a build that has no shard yet: what makes the place ours, unless someone else is at work there."""
        if set(self.store.names()) <= {BUILD} and (record := self._read(BUILD)):
            self.store.delete([BUILD])
            if self.store.any_name():  # of a builder that has come meanwhile; of one that comes now, see claim()
                self.store.create_if_absent(BUILD, record)

    def keep(self, name: str, data: bytes) -> None:
        """A file of the caller's own, until the set is finished; if that has just happened, no longer."""
        self.store.put(f"{PARTS}/{name}", data)
        if self.store.tag(INFO) is not None:
            self.tidy()

    def kept(self, name: str, most: int) -> bytes | None:
        """None: it is not there. DamageError: it has more than `most` bytes."""
        return self._read(f"{PARTS}/{name}", most)

    def leave(self) -> None:
        """Gives up what is claimed. Idempotent."""
        if self._leases:
            self._leases.leave()
            self._leases = None

    def _read(self, name: str, most: int = MAX_JSON) -> bytes | None:
        try:
            return self.store.folder.read(name, most)
        except FormatError:  # it is not there
            return None


def _hollow(path: Path, size: int, folder: Path) -> None:
    """A file of that size without a block on the disk, in the place of what is there. folder: for temporary files."""
    made = folder / f"{path.name}.hollow"
    with open(made, "wb") as file:
        file.truncate(size)
    os.replace(made, path)
