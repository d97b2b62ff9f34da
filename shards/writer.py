"""SetBuilder claims a folder, resumes it, writes shards one at a time and finishes the set; see README.md.

Any number of them, on any machines that see the folder, build one set: each claims the shards that it writes.
Order of writing, so that a kill at any moment leaves only whole files under final names: a shard's tar goes to
`_meta/tmp/`; its part is published, then the tar; with all shards there, the indices, the card, and dataset.json last.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from shards.building.claim import claim_folder, claim_store, identity_of, tidy
from shards.building.shard_writer import ShardPart, ShardWriter, damaged_parts, new_part, new_parts, read_rows
from shards.building.store_build import StoreBuild, made_in
from shards.building.workers import Worker, folder_lock, overtaken, owners, remove_dead, unclaimed
from shards.describe import data_card
from shards.errors import FailureError, FormatError, UsageError, counted
from shards.index import join_parts, table_to_bytes
from shards.json_fields import plain_json
from shards.kinds import kind_of
from shards.layout import SHARD_NAME, SPLIT_NAME, Layout, shard_name, split_of_shard
from shards.machine.files import disk_full_named, sha256_of_bytes, sha256_of_file, write_atomic
from shards.metadata import checked_name, info_to_bytes, spec_from_json
from shards.schema import DatasetInfo, Spec, SplitInfo, features_of
from shards.stats import PixelStats
from shards.stores.store import as_address

BUILD_DIGITS = 32
WAIT_SECONDS = 0.5

__all__ = ["PixelStats", "SetBuilder", "ShardWriter"]


class SetBuilder:
    """Builds one shard set in `out`; the same arguments resume an interrupted build.

    fingerprint: JSON values that determine the content (sources, options, seeds; not paths of output, dates or worker
    counts). UsageError: the folder is not ours, holds a set of another fingerprint, or with `overwrite` others are at
    work there. If the very set is there already, `.complete` is True and `.info` is what it says; there is nothing to
    do.

    A context manager; close() gives the folder back. What is finished stays, and the same command resumes.
    """

    def __init__(
        self,
        out: Path | str,
        *,
        name: str,
        spec: Spec,
        classes: Sequence[str],
        fingerprint: dict[str, Any],
        overwrite: bool = False,
    ) -> None:
        address = as_address(out)
        self.store = StoreBuild(address) if address else None
        self.layout, self.name, self.classes = Layout(made_in(out)), checked_name(name), tuple(classes)
        self.overwrite = overwrite
        identity = identity_of(name, spec, self.classes, fingerprint)
        self.spec = spec_from_json(spec.kind, identity)
        self.fingerprint: dict[str, Any] = identity["build"]
        # A digest of the identity of the set that is built.
        self.build = sha256_of_bytes(json.dumps(identity, sort_keys=True).encode())[:BUILD_DIGITS]
        self._parts: dict[str, ShardPart] = {}  # finished, as far as we have looked
        self._checked: set[str] = set()  # of these, whose bytes we have written or hashed
        with self._disk_full_named():
            if self.store:
                self._worker, self.info = claim_store(self.store, identity, overwrite)
            else:
                self._worker, self.info = claim_folder(self.layout, identity, overwrite)
            if self._worker:
                self.layout = self._worker.layout
                self._open(self._worker)

    def _open(self, worker: Worker) -> None:
        """OvertakenError: others have finished the set meanwhile."""
        try:
            self._begin(worker)
        except BaseException as error:
            gone = self.overtaken
            self.close()
            if gone and isinstance(error, Exception):
                raise overtaken(self.layout) from error
            raise

    def _begin(self, worker: Worker) -> None:
        """What was finished before; all of it is checked, unless others are at work here."""
        if self.store:
            self.store.fetch_finished(self.layout, at_once=True)
        self._look()
        if worker.alone:
            self.check()
            self._remove_unfinished()
            if self.store:
                self.store.send_rest(self.layout, self._parts)

    @property
    def complete(self) -> bool:
        """Whether the set is finished."""
        return self.info is not None

    def done(self) -> set[str]:
        """Names of the shards that are finished now, by whomever, e.g. {"train-000003"}.

        Those that were there when we came alone have passed their checksum; others are held against it by finish().
        """
        if self.info:
            return {entry.name for entry in self.info.shards}
        self._look()
        return set(self._parts)

    def claims(self, names: Iterable[str]) -> Iterator[str]:
        """Each of these shards that is neither finished nor being written by others; it is ours once it was given.

        OvertakenError: others have finished the set, or taken us for dead.
        """
        for name in names:
            if self._worker is None:
                raise UsageError(f"the build in {self.layout.root} was closed")
            if not self._is_finished(name) and self._claim(name):
                if not self._is_finished(name):  # by someone whose claim ended between our two questions
                    yield name
                else:
                    self._release(name)

    def others_at_work(self, names: Collection[str]) -> bool:
        """Waits a moment. Whether all of these that are not finished are being written by others who live.

        OvertakenError as claims().
        """
        assert self._worker is not None, "open"
        missing = set(names) - self.done()
        with contextlib.suppress(UsageError), folder_lock(self.layout, patience=0):
            remove_dead(replace(self.layout, worker=""))
        if self.overtaken:
            raise overtaken(self.layout)
        if not missing or (self.store.unclaimed(missing) if self.store else unclaimed(self.layout, missing)):
            return False
        time.sleep(WAIT_SECONDS)
        return True

    def others_live(self, names: Collection[str]) -> bool:
        """Waits until everyone who is writing one of these was heard of, or was taken for dead: False."""
        waited = self._owners(names)
        while waited:
            if not self.others_at_work(names):
                return False
            now = self._owners(names)
            waited = {worker: beat for worker, beat in waited.items() if now.get(worker) == beat}
        return True

    def _owners(self, names: Collection[str]) -> Mapping[str, object]:
        """Who has claimed those that are not finished, and when, or by what, each was last heard of."""
        missing = set(names) - self.done()
        return self.store.owners(missing) if self.store else owners(self.layout, missing)

    @property
    def overtaken(self) -> bool:
        """Whether others have finished the set, or taken this builder for dead: then what fails is not its fault."""
        in_store = self.store is not None and self.store.finished
        return self._worker is not None and (in_store or self._worker.overtaken)

    def forget(self, names: Sequence[str]) -> None:
        """Takes finished shards of an unfinished set back: they are to be written again."""
        for name in names:
            if self._parts.pop(name, None):
                self._checked.discard(name)
                if self.store:
                    self.store.forget(name)
                self.layout.shard(name).unlink(missing_ok=True)
                self.layout.part(name).unlink(missing_ok=True)

    def check(self) -> list[str]:
        """Hash the finished shards that we have not written ourselves; names of the damaged ones, which are removed."""
        self._skip_sent()
        parts = [part for name, part in sorted(self._parts.items()) if name not in self._checked]
        damaged = [part.entry.name for part in damaged_parts(self.layout, parts)]
        if damaged:
            self._skip_sent()  # another builder may have sent one meanwhile, and let go of its tar
            damaged = [name for name in damaged if name not in self._checked]
        self._checked |= {part.entry.name for part in parts}
        for name in damaged:
            if self._worker and self._claim(name):
                self.forget([name])
                self._release(name)
        return damaged

    def stats(self, split: str | None = None) -> PixelStats:
        """The sums over all finished shards, or those of one split (for the PSNR in the provenance, say)."""
        chosen = (p.stats for name, p in sorted(self._parts.items()) if split in (None, split_of_shard(name)))
        return sum(chosen, PixelStats())

    def put_encoder(self, weights: bytes) -> None:
        """Of a set of features: the file of its encoder's weights, those of `spec.features.file_sha256`."""
        features, path = features_of(self.spec), self.layout.encoder
        if self._worker is None or features is None or sha256_of_bytes(weights) != features.file_sha256:
            raise UsageError(f"{path} is not a file of the set that is built in {self.layout.root}")
        if not path.is_file() or sha256_of_file(path) != features.file_sha256:
            with self._disk_full_named():
                write_atomic(path, weights, self.layout.tmp)

    def open_shard(self, split: str, number: int) -> ShardWriter:
        """A writer for one shard that is not in done(). Numbers of a split count from 0 without gaps.

        UsageError: it is finished, or someone else is writing it.
        """
        name = shard_name(split, number)
        if not SPLIT_NAME.fullmatch(split) or not SHARD_NAME.fullmatch(name):
            raise UsageError(f"shard {name!r}: a split is lower-case letters, digits and _, a number 0 to 999999")
        if self._worker is None or name in self._parts:
            raise UsageError(f"shard {name} of {self.layout.root} is already finished")
        if not self._claim(name):
            raise UsageError(f"another build is writing {self.layout.shard(name)}: wait for it, or stop it")
        classes = len(self.classes)
        return ShardWriter(self.layout, name, self.spec, classes, self._commit, self._disk_full_named, self.build)

    def finish(self, provenance: dict[str, Any]) -> DatasetInfo:
        """Writes the indices, the card and, last, dataset.json; then removes what only the build needed.

        provenance: JSON values without nulls, equal in every run of the same command; `psnr_db` is added if the
        stats have it. FailureError: a shard is missing, or damaged. FormatError: two samples of a split share a key.
        """
        if self.info:
            return self.info
        if self._worker is None:
            raise UsageError(f"the build in {self.layout.root} was closed")
        if features_of(self.spec) and not self.layout.encoder.is_file():
            raise FailureError(f"{self.layout.encoder} is missing: run the same command again")
        self._look()
        self.check()
        with self._disk_full_named(), folder_lock(self.layout):
            if self._worker.overtaken:
                raise overtaken(self.layout)
            splits = {split: self._finish_split(split) for split in self._splits()}
            info = self._publish(splits, plain_json(provenance, "provenance"))
            tidy(self.layout)
        self.close()
        self.info = info
        return info

    def close(self) -> None:
        """Leaves the folder, giving up what is not finished. Idempotent."""
        if self._worker:
            self._worker.leave()
            self._worker = None
        if self.store:
            self.store.leave()

    def __enter__(self) -> SetBuilder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def adopt(self, part: ShardPart) -> None:
        """A shard that was claimed here and finished, in a store sent too, through one of our hands (engines/hand)."""
        name = part.entry.name
        if self.store:  # of two that were sent the first counts, whosever it was
            self.store.fetch_shard(self.layout, name)
            self._is_finished(name)
        else:
            self._parts[name] = part
            self._checked.add(name)
        self._release(name)

    def _claim(self, name: str) -> bool:
        assert self._worker is not None, "open"
        with self._disk_full_named():
            ours = self._worker.claim(name)
        if ours and self.store and not self.store.claim(name):
            self._worker.release(name)
            if self.store.finished:
                raise overtaken(self.layout)
            return False
        return ours

    def _commit(self, part: ShardPart) -> None:
        self._parts[part.entry.name] = part
        self._checked.add(part.entry.name)
        if self.store and not self.store.publish(self.layout, part.entry.name):
            del self._parts[part.entry.name]  # another builder's is read when we look
        self._release(part.entry.name)

    def _release(self, name: str) -> None:
        if self._worker:
            self._worker.release(name)
        if self.store:
            self.store.release(name)

    def _remove_unfinished(self) -> None:
        """Whatever has a part but is not finished must not lie there under a final name."""
        for path in self.layout.parts.glob("*.parquet"):
            for name in self.claims([path.stem] if SHARD_NAME.fullmatch(path.stem) else []):
                self.layout.shard(name).unlink(missing_ok=True)
                self._release(name)

    def _look(self) -> None:
        """What was finished since we last looked, and what was taken back."""
        if self.store:
            self.store.fetch_finished(self.layout)
        try:
            there = set(os.listdir(self.layout.root))
        except FileNotFoundError as error:
            raise overtaken(self.layout) from error
        for name in [name for name in self._parts if f"{name}.tar" not in there]:
            del self._parts[name]
            self._checked.discard(name)
        self._parts |= {part.entry.name: part for part in new_parts(self.layout, self.build, self._parts)}

    def _skip_sent(self) -> None:
        """The tars of shards that are in a store are not here to be checked."""
        if self.store:
            self.store.fetch_finished(self.layout, at_once=True)
            self._checked |= self.store.sent

    def _is_finished(self, name: str) -> bool:
        if name not in self._parts and (part := new_part(self.layout, self.build, name)):
            self._parts[name] = part
        return name in self._parts

    def _disk_full_named(self) -> contextlib.AbstractContextManager[None]:
        return disk_full_named(self.layout.root, self._advice)

    def _advice(self) -> str:
        largest = max((part.entry.bytes for part in self._parts.values()), default=0)
        room = f" (the largest took {largest / 1e6:.1f} MB)" if largest else ""
        return f"{counted(len(self._parts), 'shard')} finished and kept{room}; free some and run the same command again"

    def _splits(self) -> list[str]:
        """Names of the splits, training first, then as the alphabet has them."""
        names = {split_of_shard(name) for name in self._parts}
        if not names:
            raise UsageError(f"no shard was written to {self.layout.root}")
        return sorted(names, key=lambda name: (name != "train", name))

    def _finish_split(self, split: str) -> SplitInfo:
        parts = [part for name, part in sorted(self._parts.items()) if split_of_shard(name) == split]
        for number, part in enumerate(parts):
            if part.entry.name != shard_name(split, number):
                raise FailureError(f"shard {shard_name(split, number)} is missing: run the same command again")
        table = join_parts([read_rows(self.layout, part, self.spec) for part in parts])
        for before, key in itertools.pairwise(sorted(table.column("key").to_pylist())):
            if before == key:
                raise FormatError(f"two samples of {split} have the key {key!r}")
        data = table_to_bytes(table)
        path = self.layout.index(split)
        write_atomic(path, data, self.layout.tmp)
        name = path.relative_to(self.layout.root).as_posix()
        return SplitInfo(tuple(part.entry for part in parts), len(table), name, sha256_of_bytes(data))

    def _publish(self, splits: dict[str, SplitInfo], provenance: dict[str, Any]) -> DatasetInfo:
        if (psnr := self.stats().psnr) is not None:
            provenance.setdefault("psnr_db", round(psnr, 3))
        training = self.stats("train" if "train" in splits else None)
        draft = DatasetInfo(
            name=self.name,
            spec=self.spec,
            classes=self.classes,
            splits=splits,
            normalisation=training.normalisation() if kind_of(self.spec).has_pixels else {},
            readme_sha256="",
            fingerprint=self.fingerprint,
            provenance=provenance,
            format_version=self.spec.format_version,
        )
        card = data_card(draft).encode()
        info = replace(draft, readme_sha256=sha256_of_bytes(card))
        write_atomic(self.layout.readme, card, self.layout.tmp)
        if self.store:  # dataset.json is written there alone
            self.store.send_rest(self.layout, self._parts)
            self.store.finish(self.layout, info)
        else:
            write_atomic(self.layout.info, info_to_bytes(info), self.layout.tmp)
        return info
