"""The files of a tar.gz that a command needs unpacked: those that published.toml names, and nothing else.

A member is written only if it is a plain file of exactly that name and size; all are held against their checksums
before their folder gets its name. What else the archive holds (links, absolute paths, `..`) is never looked at.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from pipelines.get.part import is_right
from pipelines.get.published import PublishedFile
from shards.errors import FailureError, UsageError
from shards.files import disk_full_named, sync_folder

PIECE = 1 << 20


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
        with disk_full_named(to, lambda: "free some and run the same command again"):
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
