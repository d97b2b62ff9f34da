"""A whole set: what will be fetched and what that takes, each file after the other, and what to do with them then.

Of an archive that a command needs unpacked, the files that published.toml names are written and nothing else: a member
is written only if it is a plain file of exactly that name and size; all are held against their checksums before their
folder gets its name. What else the archive holds (links, absolute paths, `..`) is never looked at.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from pipelines.get.download import PART, fetch, is_right
from pipelines.get.published import PublishedFile, PublishedSet
from shards.describe import human_bytes
from shards.errors import DiskFullError, FailureError, UsageError
from shards.machine.files import disk_full_named, sync_folder
from shards.stores.store import require_no_address

LISTS = "lists/"
PIECE = 1 << 20


@dataclass(frozen=True)
class Request:
    """What of a set is asked for. mirror: a folder's address that has its files under the same names.

    UsageError: an option that this set has not, an address that is none.
    """

    published: PublishedSet
    to: Path
    unpack: bool = False
    lists_only: bool = False
    mirror: str | None = None

    def __post_init__(self) -> None:
        if self.unpack and not self.published.members:
            raise UsageError(f"--unpack is for stl10; shards of {self.published.title} are made of the archive itself")
        if self.lists_only and not any(file.name.startswith(LISTS) for file in self.published.files):
            raise UsageError("--lists-only is for 3diebench; other sets have their splits in the archive")
        if self.mirror is not None and not _is_address(self.mirror):
            raise UsageError(f"--from {self.mirror!r:.200} is no http:// or https:// address of a folder")
        if self.to.exists() and not self.to.is_dir():
            raise UsageError(f"--to {self.to} is no folder; give one, or a new name")

    @property
    def files(self) -> tuple[PublishedFile, ...]:
        files = self.published.files
        if self.lists_only:
            files = tuple(file for file in files if file.name.startswith(LISTS))
        if self.mirror is not None:
            base = self.mirror.rstrip("/")
            files = tuple(replace(file, url=f"{base}/{file.name.rpartition('/')[2]}") for file in files)
        return files

    @property
    def unpacked(self) -> Path | None:
        return self.to / self.published.members[0].name.split("/")[0] if self.published.members else None

    def describe(self) -> Iterator[str]:
        """What is printed before anything is fetched."""
        yield f"{self.published.title} ({self.published.page}); licence: {self.published.licence}"
        for file in self.files:
            size = human_bytes(file.size) if file.size else f"about {human_bytes(self.published.about)}"
            check = f"{file.algorithm} {file.digest}" if file.digest else "no checksum is published"
            state = "is there already" if (self.to / file.name).exists() else f"{size}, {check}"
            yield f"  {file.url} → {self.to / file.name}: {state}"
        if self.unpack:
            yield f"  unpacked: {human_bytes(sum(member.size for member in self.published.members))} more"
        yield f"about {human_bytes(space_needed(self))} to write; {human_bytes(_free(self.to))} free in {self.to}"

    def next_commands(self) -> list[str]:
        """What to run then: to unpack, where shards are not made of the archive, and to make shards."""
        to = shlex.quote(str(self.to))
        unpacked = self.unpacked is not None and self.unpacked.is_dir()
        commands = [] if unpacked or not self.published.unpack else [self.published.unpack]
        return [command.format(to=to) for command in (*commands, self.published.shard)]


def space_needed(request: Request) -> int:
    """Bytes that are still to be written, roughly where a publisher states no size; 0: all is there."""
    needed = 0
    for file in request.files:
        final = request.to / file.name
        part = final.with_name(final.name + PART)
        have = part.stat().st_size if part.is_file() else 0
        needed += 0 if final.exists() else max(1, (file.size or request.published.about) - have)
    if request.unpack and not (request.unpacked and request.unpacked.exists()):
        needed += sum(member.size for member in request.published.members)
    return needed


def fetch_set(request: Request, say: Callable[[str], None]) -> list[Path]:
    """Fetches what is not there, checks all of it, unpacks it if asked to. Returns the files, and folders unpacked.

    UsageError, FailureError as fetch and unpack; DiskFullError before anything, where space is short.
    """
    require_no_address(request.to, "--to")
    if (needed := space_needed(request)) > (free := _free(request.to)):
        raise DiskFullError(
            f"{request.to} has {human_bytes(free)} free, and about {human_bytes(needed)} are needed; free some, or "
            "choose another --to"
        )
    found = []
    for file in request.files:
        (request.to / file.name).parent.mkdir(parents=True, exist_ok=True)
        found.append(fetch(file, request.to, say=say))
        if not file.digest:
            say(f"{found[-1]}: its publisher states no checksum; `seqjepa-data shard` refuses an archive that is cut")
    if request.unpack:
        found.append(unpack(found[0], request.published.members, request.to))
    return found


def _free(folder: Path) -> int:
    """Bytes free where `folder` is, or is going to be."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _is_address(text: str) -> bool:
    return text.startswith(("http://", "https://")) and text.isascii() and text.isprintable() and " " not in text


def unpack(archive: Path, members: Sequence[PublishedFile], to: Path) -> Path:
    """Writes the members, which lie in one folder, into `to`; returns that folder. Nothing is done if they are there.

    UsageError: a folder of that name holds other files. FailureError: the archive is damaged, or lacks a member, or
    one is not the published file: then nothing is written. DiskFullError.
    """
    (top,) = {member.name.split("/")[0] for member in members}
    folder = to / top
    if folder.exists() or folder.is_symlink():
        if all(is_right(member, to / member.name) for member in members):
            return folder
        raise UsageError(f"{folder} is there and is not what {archive.name} holds; move it away")
    work = Path(tempfile.mkdtemp(prefix=f".{top}-", dir=to))
    try:
        with disk_full_named(to):
            (work / top).mkdir()
            _extract(archive, {member.name: member for member in members}, work)
        if folder.exists():
            raise UsageError(f"{folder} has appeared meanwhile; move it away and run the same command again")
        (work / top).rename(folder)
        sync_folder(to)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _extract(archive: Path, wanted: dict[str, PublishedFile], work: Path) -> None:
    waiting = dict(wanted)
    total = sum(member.size for member in wanted.values())
    try:
        with (
            tarfile.open(archive, "r|gz") as tar,
            tqdm(total=total, desc="unpacking", unit="B", unit_scale=True, disable=None) as bar,
        ):
            for entry in tar:
                member = waiting.pop(entry.name.removeprefix("./"), None)
                if member is not None:
                    _write(tar, entry, member, archive, work, bar)
                if not waiting:
                    return
    except (tarfile.TarError, EOFError, zlib.error, UnicodeError) as error:
        raise FailureError(f"{archive} is damaged ({error}); remove it and get it again") from error
    raise FailureError(f"{archive} does not hold {', '.join(waiting)}; remove it and get it again")


def _write(
    tar: tarfile.TarFile, entry: tarfile.TarInfo, member: PublishedFile, archive: Path, work: Path, bar: tqdm
) -> None:
    source = tar.extractfile(entry) if entry.isreg() else None
    if source is None or entry.size != member.size:
        raise FailureError(f"{archive}: {member.name} is no file of {member.size:,} bytes; nothing was unpacked")
    digest = hashlib.new(member.algorithm, usedforsecurity=False)
    with (work / member.name).open("xb") as out:
        while data := source.read(PIECE):
            digest.update(data)
            out.write(data)
            bar.update(len(data))
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != member.digest:
        raise FailureError(
            f"{archive}: {member.name} has {member.algorithm} {digest.hexdigest()} instead of {member.digest}; nothing "
            "was unpacked"
        )
