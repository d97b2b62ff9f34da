"""Runs in object stores, s3://, gs://, az://: a run directory in the cache, whose files lie at the address too.

    train           pull what is there → train in the folder → push at every checkpoint and at the end
    evaluate, …     pull (from http://, https:// too) → read → push the numbers

A file is pulled where it changed at the address since it was last the same here, so that what could not be sent yet is
kept. SHA256SUMS holds the checksum of a file before the file is replaced, there as here (files.py): a kill at any
moment leaves files that are known. A run comes from a stranger: only files of the names below are pulled, each held
against its checksum.
"""

from __future__ import annotations

import fcntl
import json
import logging
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path

from tqdm import tqdm

from seqjepa import files
from seqjepa.files import SUMS, TEMPORARY, Checksums
from seqjepa.training.run_files import (
    ARRAYS,
    CONFIG,
    EVALUATED,
    KEPT,
    LOCK,
    METRICS,
    OURS,
    PREVIOUS,
    RUN,
    STATE,
    WATCHED,
    WEIGHTS,
)
from shards.errors import DamageError, FailureError, FormatError, SeqJepaError, UsageError
from shards.machine.files import sha256_of_bytes, sha256_of_file
from shards.machine.lock import FolderLock
from shards.stores.cache import cache_folder
from shards.stores.store import ObjectStoreFolder, as_address, open_store
from shards.stores.store_lease import Leases
from shards.stores.store_write import WRITABLE, StoreWriter, open_writable

logger = logging.getLogger(__name__)

SYNCED = f"{TEMPORARY}synced.json"
OWNER = f"{TEMPORARY}owner"
"""The lease of who trains a run."""
FIRST = (RUN, CONFIG, STATE, WEIGHTS, METRICS)
"""The order in which files are sent: as train writes them. Weights that are kept come before the state, which is of
later."""
EVALUATION = (*(f"evaluation/{pattern}" for pattern in ARRAYS),)
WATCHING = (*(f"{folder}/{pattern}" for folder, patterns in WATCHED.items() for pattern in patterns),)
LARGEST = {WEIGHTS: 32 << 30, STATE: 96 << 30}
MOST = 256 << 20
"""Bytes that a file of a stranger's run may have; MOST: any other file, but for weights that were kept."""
ATTEMPTS = 3
"""A trainer may send a checkpoint between our two looks."""

Wanted = Callable[[str], bool]


def is_result(name: str) -> bool:
    """Whether `seqjepa evaluate` writes such a file."""
    return bool(EVALUATED.fullmatch(name)) or _matches(name, EVALUATION)


def is_kept(name: str) -> bool:
    """Whether it is the name of weights kept on the way (train.keep_epochs)."""
    return bool(KEPT.fullmatch(name))


def is_of_run(name: str) -> bool:
    """Whether a run has such a file: no other is sent or pulled."""
    return (
        name in FIRST or is_kept(name) or is_result(name) or (_matches(name, WATCHING) and not name.endswith(".lock"))
    )


def is_read(name: str) -> bool:
    """Whether those who do not train need it, and do not ask for the weights that were kept."""
    return name != STATE and not is_kept(name) and not name.startswith("loggers/")


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    parts = name.split("/")
    return all(re.fullmatch(r"(?!\.)[^/\\]+", part) for part in parts) and any(
        len(parts) == pattern.count("/") + 1 and fnmatchcase(name, pattern) for pattern in patterns
    )


def run_cache(address: str, use: str = "runs") -> Path:
    """The folder of a run at an address: one for training, and one for reading, "runs-read"."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", address.rstrip("/").rpartition("/")[2]).strip(".-") or "run"
    return cache_folder() / use / f"{name}-{sha256(address.rstrip('/').encode()).hexdigest()[:16]}"


class TakenOver(FailureError):  # noqa: N818 – a failure by its base
    """Another process trains the run now."""


@dataclass(frozen=True)
class RunFolder:
    """Where a run is trained: `path`, and the address that its files are sent to; "" for none."""

    path: Path
    address: str = ""
    mirror: RunMirror | None = None
    leases: Leases | None = None

    def __str__(self) -> str:
        return self.address or str(self.path)

    def push(self, *, last: bool = False) -> None:
        """Send what is new. Where a store is down, that is done with the next checkpoint; `last`: FailureError.

        TakenOver: another trainer has the run.
        """
        if self.mirror is None or self.leases is None:
            return
        try:
            if other := self.leases.holder(OWNER):
                raise TakenOver(
                    f"{self.address} is trained by another process now ({other}); this one ends, and what it did since "
                    "its last checkpoint is in its cache alone"
                )
            self.mirror.push(is_of_run)
        except TakenOver:
            raise
        except SeqJepaError as error:
            if last:
                raise
            logger.warning("%s; training goes on, and this is sent with the next checkpoint", error)


@contextmanager
def training_folder(out: Path, main: bool) -> Iterator[RunFolder]:
    """Where `train --out` trains: `out`, or of an address the folder in the cache, with what is there.

    main: rank 0 alone pulls and sends. UsageError: nothing can be written there, another trainer is at it, or what lies
    there is no run. DamageError: a file is not what SHA256SUMS says.
    """
    address = as_address(out).rstrip("/")
    if not address:
        yield RunFolder(out)
        return
    path = run_cache(address)
    if not main:
        yield RunFolder(path, address)
        return
    writer = open_writable(address)
    mirror, leases = RunMirror(writer, path), Leases(writer, "", f"{socket.gethostname()}:{path.resolve()}")
    path.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(path / f"{LOCK}-store", f"{address} is being trained by another process of this machine")
    try:
        mirror.refuse_foreign()
        if other := leases.wait_for(OWNER):
            raise UsageError(
                f"{address} is being trained by another process ({other}); stop that one, or choose another --out"
            )
        mirror.pull(is_of_run)
        yield RunFolder(path, address, mirror, leases)
    except SeqJepaError as error:  # in the user's words: nobody asked for a folder of the cache
        error.args = (str(error).replace(str(path), address), *error.args[1:])
        raise
    finally:
        leases.leave()
        lock.release()


def pulled_run(address: str, *, kept: bool = False) -> Path:
    """The run directory in the cache of a run in a store, as it is there now; without what only `train` needs.

    kept: with the weights that were kept on the way.
    UsageError: no run is there. DamageError: a file is not what SHA256SUMS says. FailureError: the store is down.
    """
    address = address.rstrip("/")
    store = open_store(address)
    if not isinstance(store, ObjectStoreFolder):
        raise UsageError(f"{address} is no address of a run; give s3://, gs://, az:// or https://")
    path = run_cache(address, "runs-read")
    path.mkdir(parents=True, exist_ok=True)
    with (path / LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two commands may read the same run
        mirror = RunMirror(StoreWriter(store), path)
        mirror.pull(lambda name: is_of_run(name) and (is_read(name) or (kept and is_kept(name))))
    if not (path / RUN).exists():
        raise UsageError(f"{address} is no run: it has no {RUN}; give the address that `seqjepa train --out` was given")
    return path


def push_results(address: str, path: Path) -> None:
    """Send what `seqjepa evaluate` wrote into the folder of pulled_run."""
    RunMirror(open_writable(address.rstrip("/")), path).push(is_result)


@dataclass(frozen=True)
class RunMirror:
    """A folder of this machine that stands for the run at the writer's address."""

    writer: StoreWriter
    folder: Path

    def refuse_foreign(self) -> None:
        """UsageError: something lies there, and it is no run."""
        names = [name for name in self.writer.names() if not name.startswith(TEMPORARY)]
        if names and RUN not in names:
            raise UsageError(f"{self.writer.address} holds {names[0]!r} and is no run; choose another --out")

    def pull(self, wanted: Wanted) -> None:
        """What has changed at the address; what was removed there goes. DamageError: a file is not as it was sent."""
        for attempt in range(ATTEMPTS):
            try:
                self._pull(wanted)
                return
            except DamageError:
                if attempt == ATTEMPTS - 1:
                    raise

    def push(self, wanted: Wanted) -> None:
        """What was removed here goes, what changed is sent; SHA256SUMS before that with old and new, and last."""
        synced, here = self._synced(), [name for name in self._here() if wanted(name)]
        sums = {name: sha256_of_file(self.folder / name) for name in here}
        changed = [name for name in here if synced.get(name, ("", ""))[1] != sums[name]]
        gone = [name for name in synced if wanted(name) and name not in sums]
        ours = {name: own for name, own in files.read_checksums(self.folder).items() if name in sums}
        with_sums = bool(ours) and any(name in ours for name in changed)
        self._remove(gone, synced)
        if RUN in changed and RUN not in synced:  # by which everything else there is known as a run's
            self._send(RUN, (self.folder / RUN).read_bytes(), synced)
            changed.remove(RUN)
        if with_sums:
            before = _parse(self._read(SUMS, optional=True))
            self._send(SUMS, _lines({name: (*own, *before.get(name, ())) for name, own in ours.items()}), synced)
        for name in changed:
            self._send(name, (self.folder / name).read_bytes(), synced)
        if with_sums:
            self._send(SUMS, _lines(ours), synced)

    def _pull(self, wanted: Wanted) -> None:
        synced, sizes = self._synced(), self._there()
        names = [name for name in sizes if wanted(name)]
        tags = {name: self.writer.tag(name) or "" for name in (*names, *([SUMS] if SUMS in sizes else []))}
        there = {name for name in tags if (self.folder / name).is_file()}
        stale = [name for name, tag in tags.items() if tag != synced.get(name, ("", ""))[0] or name not in there]
        gone = [name for name in synced if name != SUMS and wanted(name) and name not in tags]
        self._note({name: both for name, both in synced.items() if name not in (*stale, *gone)})
        if STATE in (*stale, *gone):
            (self.folder / PREVIOUS).unlink(missing_ok=True)  # of what was trained here
        for name in gone:
            (self.folder / name).unlink(missing_ok=True)
        sums = _parse(self._read(SUMS, optional=True))
        with tqdm(
            total=sum(sizes[name] for name in stale), unit="B", unit_scale=True, desc="pull", disable=None
        ) as bar:
            for name in sorted(stale, key=lambda name: name != SUMS):
                data = self._read(name)
                if name != SUMS and (known := sums.get(name)) and sha256_of_bytes(data) not in known:
                    raise DamageError(f"{self.writer.address}/{name} is damaged: its SHA-256 is not the one in {SUMS}")
                if name == SUMS:  # whoever sent it may have been killed before the file that it names
                    data = _lines({known: own for known, own in sums.items() if known in sizes})
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                files.write_file(self.folder / name, data)
                synced[name] = (tags[name], sha256_of_bytes(data))
                bar.update(len(data))
        self._note({name: both for name, both in synced.items() if name not in gone})

    def _there(self) -> dict[str, int]:
        """Files of the run at the address and their bytes. Plain https:// lists nothing: there, those of every run."""
        address = self.writer.address
        if address.partition("://")[0] in WRITABLE:
            return {name: size for name, size in self.writer.names().items() if is_of_run(name) or name == SUMS}
        known = [name for name in (*FIRST, SUMS, "results.json") if self.writer.tag(name) is not None]
        return {name: self.writer.folder.size(name) for name in known}

    def _here(self) -> list[str]:
        """Files of the run in the folder, in the order in which they are sent."""
        found = [
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if path.is_file() and not path.is_symlink()
        ]
        order = {name: place for place, name in enumerate(FIRST)}
        before_state = FIRST.index(STATE) - 0.5

        def place(name: str) -> float:
            return before_state if is_kept(name) else order.get(name, len(FIRST))

        return sorted(filter(is_of_run, found), key=lambda name: (place(name), name))

    def _read(self, name: str, *, optional: bool = False) -> bytes:
        """FormatError, DamageError: it is not there, or larger than such a file is."""
        try:
            return self.writer.folder.read(name, LARGEST.get(WEIGHTS if is_kept(name) else name, MOST))
        except FormatError:
            if optional:
                return b""
            raise DamageError(f"{self.writer.address}/{name} has gone while the run was read") from None

    def _send(self, name: str, data: bytes, synced: dict[str, tuple[str, str]]) -> None:
        self.writer.put(name, data)
        synced[name] = (self.writer.tag(name) or "", sha256_of_bytes(data))
        self._note(synced)  # at once: what is sent later may not arrive

    def _remove(self, names: list[str], synced: dict[str, tuple[str, str]]) -> None:
        """run.json last, by which the rest is known (training.run_files.OURS)."""
        for name in sorted(names, key=lambda name: OURS.index(name) if name in OURS else -1):
            self.writer.delete([name])
            del synced[name]
            self._note(synced)

    def _synced(self) -> dict[str, tuple[str, str]]:
        """Name → tag there and SHA-256 here, when both were last the same."""
        try:
            noted = json.loads((self.folder / SYNCED).read_text(encoding="utf-8"))
            return {str(name): (str(tag), str(sha)) for name, (tag, sha) in noted.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _note(self, synced: dict[str, tuple[str, str]]) -> None:
        files.write_file(self.folder / SYNCED, (json.dumps(synced, indent=1) + "\n").encode())


def _parse(data: bytes) -> Checksums:
    return files.parse_checksums(data.decode("utf-8", errors="replace"))


def _lines(sums: Checksums) -> bytes:
    return files.checksum_lines(sums).encode()
