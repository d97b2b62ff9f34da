"""Files of a run directory: a reader finds the old one or the new one, never half of it, and can check its SHA-256.

SHA256SUMS holds the checksum of each file as it was written, in the form that `sha256sum -c` reads. A file and its
checksum cannot be replaced in one move. So the new checksum is added to the old one first, then the file is replaced,
then the old checksum is dropped: a kill at any moment leaves files whose checksums are there.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from shards.errors import DamageError, FailureError
from shards.machine import files
from shards.machine.environment import advice_for, pass_environment_on
from shards.machine.files import TEMPORARY, AtomicFile, disk_full_named, sha256_of_bytes, sha256_of_file, sync_folder

__all__ = ["TEMPORARY", "named_failures", "write_file"]


def write_file(path: Path, data: bytes) -> None:
    """Replace `path` at once. DiskFullError and FailureError leave the old file as it was."""
    with named_failures(path):
        files.write_atomic(path, data)


@contextlib.contextmanager
def named_failures(path: Path) -> Iterator[None]:
    """What the system says of writing `path`, as DiskFullError or FailureError."""
    try:
        with disk_full_named(path.parent):
            yield
    except OSError as error:
        reason = error.strerror or (os.strerror(error.errno) if error.errno else type(error).__name__)
        advice = advice_for(error.errno)
        raise FailureError(f"cannot write {path}: {reason}{advice and f'; {advice}'}") from None


logger = logging.getLogger(__name__)

SUMS = "SHA256SUMS"
UNKNOWN = "%s has no checksum in %s, as runs of earlier versions: whether it is whole cannot be told"
CHANGED = "%s was changed since it was written: its SHA-256 is not the one in %s"
_CHECKSUM_LINE = re.compile(r"([0-9a-f]{64})  ([^/\n]+)")
_READ_ATTEMPTS = 3
"""A trainer may replace file and checksum between our two looks."""

Checksums = dict[str, tuple[str, ...]]
"""File name → its checksums, the newest first; more than one where a write was cut short."""


def read_checksums(folder: Path) -> Checksums:
    """What SHA256SUMS says; of lines that are not of its form, nothing."""
    try:
        text = (folder / SUMS).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        pass_environment_on(error)
        return {}
    return parse_checksums(text)


def parse_checksums(text: str) -> Checksums:
    """What a SHA256SUMS says."""
    found: Checksums = {}
    for match in filter(None, map(_CHECKSUM_LINE.fullmatch, text.split("\n"))):
        found[match[2]] = (*found.get(match[2], ()), match[1])
    return found


def write_with_checksum(path: Path, data: bytes, *, keep: str = "", also: Mapping[str, str] | None = None) -> None:
    """Replace `path`, with its checksum; what was written is read back before the file that was there goes.

    keep: the name under which that one stays. also: checksums of other files to note, by name.
    Whatever goes wrong – DiskFullError, FailureError – the files stay as they were.
    """
    folder, digest, others = path.parent, sha256_of_bytes(data), {k: (v,) for k, v in (also or {}).items()}
    before = read_checksums(folder)
    there = (before.get(path.name) or (sha256_of_file(path),)) if path.exists() else ()
    kept = {keep: there} if keep and there else {}
    with _staged(path, data, digest) as file:
        _update_checksums(folder, before, {path.name: (digest, *there), **kept, **others}, add=True)
        if kept:
            _keep_under(path, folder / keep)
        file.publish()
    _update_checksums(folder, before, {path.name: (digest,), **kept, **others})


def restore_with_checksum(path: Path, kept: Path) -> None:
    """Put `kept` in the place of `path`, and its checksums; both stay."""
    before = read_checksums(path.parent)
    sums = before.get(kept.name) or (sha256_of_file(kept),)
    with named_failures(path):
        _update_checksums(path.parent, before, {path.name: sums}, add=True)
        _keep_under(kept, path, both=True)
        _update_checksums(path.parent, before, {path.name: sums})


def settle_checksums(folder: Path) -> None:
    """What a kill left with two checksums keeps the one that is its own."""
    before = read_checksums(folder)
    double = [folder / name for name, sums in before.items() if len(set(sums)) > 1 and (folder / name).exists()]
    own = {path.name: (sha256_of_file(path),) for path in double}
    _update_checksums(folder, before, {name: one for name, one in own.items() if one[0] in before[name]})


def read_checked(path: Path) -> bytes:
    """The file, held against its checksum; one warning where it has none.

    DamageError: it differs. FileNotFoundError: it is not there.
    """
    for _ in range(_READ_ATTEMPTS):
        sums, data = read_checksums(path.parent).get(path.name), _read_bytes(path)
        if not sums:
            _warn(UNKNOWN, path)
            return data
        if sha256_of_bytes(data) in sums:
            return data
    raise DamageError(f"{path} is damaged: its SHA-256 is not the one in {SUMS}")


def warn_of_change(path: Path, *, grows: bool = False) -> None:
    """One warning where a small file of text is not what was noted of it; nothing where nothing was noted.

    Only a warning, as users may change such a file, and what it holds is checked by whoever reads it.
    grows: lines may have been added since.
    """
    for _ in range(_READ_ATTEMPTS):
        sums = read_checksums(path.parent).get(path.name)
        if not sums or not path.exists() or not set(sums).isdisjoint(_digests(_read_bytes(path), grows)):
            return
    _warn(CHANGED, path)


def _digests(data: bytes, grows: bool) -> Iterator[str]:
    """Of the whole, or of all its beginnings that end with a line."""
    digest = hashlib.sha256()
    for piece in (b"", *data.splitlines(keepends=True)) if grows else (data,):
        digest.update(piece)
        yield digest.hexdigest()


@cache
def _warn(what: str, path: Path) -> None:
    """Once of each file."""
    logger.warning(what, path, SUMS)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        pass_environment_on(error)
        raise FailureError(f"cannot read {path}: {error.strerror}") from None


@contextlib.contextmanager
def _staged(path: Path, data: bytes, digest: str) -> Iterator[AtomicFile]:
    """The file under a temporary name, on disk and read back; discarded if anything goes wrong."""
    with named_failures(path):
        file = AtomicFile(path)
        try:
            file.write(data)
            file.seal()
            if file.sha256() != digest:
                raise FailureError(f"cannot write {path}: the disk gives back other bytes than were written")
            yield file
        except BaseException:
            file.discard()
            raise


def _keep_under(path: Path, name: Path, *, both: bool = False) -> None:
    """`path` under `name` too; where the file system has no links, moved there (both: copied)."""
    second = name.with_name(TEMPORARY + name.name)
    second.unlink(missing_ok=True)
    try:
        os.link(path, second)
    except OSError:
        if not both:
            os.replace(path, name)
            return
        write_file(name, path.read_bytes())
        return
    os.replace(second, name)
    second.unlink(missing_ok=True)  # rename does nothing where both are one file already
    sync_folder(name.parent)


def _update_checksums(folder: Path, before: Checksums, changes: Checksums, *, add: bool = False) -> None:
    """Write `changes` over what was there; add: beside it."""
    if add:
        changes = {name: (*sums, *before.get(name, ())) for name, sums in changes.items()}
    if any(before.get(name) != sums for name, sums in changes.items()):
        write_file(folder / SUMS, checksum_lines({**before, **changes}).encode())


def checksum_lines(sums: Checksums) -> str:
    """The SHA256SUMS that says so."""
    return "".join(f"{one}  {name}\n" for name in sorted(sums) for one in dict.fromkeys(sums[name]))
