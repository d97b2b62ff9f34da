"""One file over HTTP: resumed where a connection was cut, held against its checksum, renamed when it is right.

What has come so far lies in NAME.part; NAME.part.json says what it is a part of, with the ETag or time of the last
change that the server gave it. A server is asked for the rest with If-Range (RFC 9110, 13.1.5): if its file is another
by now, it sends all of it, and the part is begun anew; nothing is glued together.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import random
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipelines.get.published import PublishedFile
from pipelines.sources.content import digest_of
from shards.errors import DiskFullError, FailureError, UsageError
from shards.machine.files import disk_full_named, sync_folder, write_atomic
from shards.machine.lock import FolderLock

log = logging.getLogger(__name__)

PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers of a server that may be another one a moment later."""
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
LARGEST = 1 << 42  # bytes of a file
NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EACCES)
WHOLE = re.compile(r"[0-9]{1,15}")  # what a server says may be ², which is a digit to Python, or too long for it


@dataclass(frozen=True)
class Origin:
    """What a part is a part of. validator: what the server calls this version, for If-Range; "": it calls it nothing.

    total: bytes of the whole file, 0 for unknown.
    """

    url: str
    validator: str
    total: int


class TransientError(Exception):
    """An attempt that may go well another time. asked: seconds that the server wants to be left alone."""

    def __init__(self, why: str, asked: float | None = None) -> None:
        super().__init__(why)
        self.asked = asked


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Followed to http and https only, and never from https to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.startswith(("https://", "http://")) or (
            req.full_url.startswith("https://") and not newurl.startswith("https://")
        ):
            fp.close()
            raise FailureError(f"{req.full_url} leads to {newurl!r:.200}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def answer(origin: Origin, have: int, timeout: float) -> HTTPResponse:
    """The opened answer to a request for all bytes from `have`: 200 or 206; seconds without a byte end it.

    TransientError: it may go well another time; FailureError: it will not.
    """
    headers = {"User-Agent": "seqjepa-data", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if origin.validator:
            headers["If-Range"] = origin.validator
    try:
        request = urllib.request.Request(origin.url, headers=headers)
        response = urllib.request.build_opener(_Redirects).open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            return answer(Origin(origin.url, "", 0), 0, timeout)  # the file is shorter by now: all of it
        if error.code in PASSING:
            raise TransientError(f"the server says {error.code} {error.reason}", _retry_after(error)) from error
        raise FailureError(
            f"{origin.url}: the server says {error.code} {error.reason}; its page may say where it is now"
        ) from error
    except (OSError, HTTPException) as error:
        if isinstance(getattr(error, "reason", error), ssl.SSLCertVerificationError | InvalidURL):
            raise FailureError(f"{origin.url}: {reason(error)}; nothing was fetched") from error
        raise TransientError(reason(error)) from error
    if response.headers.get("Content-Encoding", "identity") != "identity" or response.status not in (200, 206):
        response.close()
        raise FailureError(f"{origin.url}: the server answers in a form that was not asked for ({response.status})")
    return response


def reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)
    said = getattr(cause, "strerror", None) or " ".join(str(cause).split())
    return said or type(cause).__name__


def _retry_after(error: urllib.error.HTTPError) -> float | None:
    value = error.headers.get("Retry-After", "") if error.headers else ""
    if WHOLE.fullmatch(value):
        return float(value)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def validator_of(response: HTTPResponse) -> str:
    """A strong ETag, else the time of the last change; weak ETags are of no use in If-Range."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def total_of(response: HTTPResponse, known: int = 0) -> int:
    """Bytes of the whole file, however much of it is sent. FailureError: neither the server says, nor is it known."""
    if response.status == 206:
        match = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        total = match[3] if match else ""
    else:
        total = response.headers.get("Content-Length", "")
    if total in ("", "*") and known:
        return known
    if not WHOLE.fullmatch(total) or not 0 < int(total) <= LARGEST:
        raise FailureError(f"{response.url}: the server does not say how large the file is")
    return int(total)


PART, NOTE, LOCK = ".part", ".part.json", ".part.lock"
LARGEST_NOTE = 1 << 16
PIECE = 1 << 18


@dataclass(frozen=True)
class Patience:
    """How long to wait. tries: attempts in a row that bring no byte; timeout: seconds without a byte; pauses between
    attempts double from `first` to `longest` seconds, a little at random, or are what the server asks for."""

    tries: int = 8
    timeout: float = 60.0
    first: float = 1.0
    longest: float = 60.0

    def pause(self, failed: int, asked: float | None) -> float:
        doubled = self.first * 2 ** (failed - 1) * random.uniform(0.75, 1.25)
        return min(max(doubled, asked or 0.0), self.longest)


def fetch(
    file: PublishedFile,
    to: Path,
    patience: Patience = Patience(),
    say: Callable[[str], None] = log.info,
    *,
    elsewhere: str = "--from takes another address",
    wait: float | None = None,
) -> Path:
    """`file` in the folder `to`, which is there; nothing is done if it is there already and right.

    elsewhere: what can be done where it cannot be had, for messages. wait: seconds for another process that fetches it

    UsageError: something else is in its place, or in that of its part; another process fetches it. FailureError: it
    cannot be had, or is not the published file: then nothing is kept of it. DiskFullError.
    """
    path = to / file.name
    busy = f"{path} is being fetched by another process; wait for it"
    with FolderLock(path.with_name(path.name + LOCK), busy, wait), _failures_with(elsewhere):
        if path.exists() or path.is_symlink():
            _refuse_unless_it(file, path, patience)
            say(f"{path} is there already")
            return path
        part = PartFile(file, path)
        with disk_full_named(to, lambda: "free some and run the same command again, which goes on from there"):
            _fill(part, patience, say)
            part.publish()
        return path


@contextlib.contextmanager
def _failures_with(advice: str) -> Iterator[None]:
    try:
        yield
    except DiskFullError:
        raise
    except FailureError as error:
        raise FailureError(f"{error}; {advice}") from error


def _refuse_unless_it(file: PublishedFile, path: Path, patience: Patience) -> None:
    right = is_right(file, path)
    if right is None and not file.size:  # the server's word, for there is no other
        with (
            contextlib.suppress(TransientError, FailureError),
            answer(Origin(file.url, "", 0), 0, patience.timeout) as response,
        ):
            right = total_of(response) == path.stat().st_size
    if right is False:
        raise UsageError(f"{path} is there and is not the published file; move it away or choose another folder")


def _fill(part: PartFile, patience: Patience, say: Callable[[str], None]) -> None:
    """Until all of it is there. An attempt that brings bytes makes those before it forgotten."""
    failed = 0
    with tqdm(total=part.file.size or None, desc=part.file.name, unit="B", unit_scale=True, disable=None) as bar:
        while True:
            before = part.size
            try:
                _attempt(part, patience, bar, say)
                return
            except TransientError as error:
                failed = 1 if part.size > before else failed + 1
                if failed >= patience.tries:
                    raise FailureError(
                        f"{part.file.url} could not be fetched ({error}); {part.size:,} bytes are kept, and the same "
                        "command goes on from there"
                    ) from None
                pause = patience.pause(failed, error.asked)
                say(f"{part.file.name}: {error}; again in {pause:.0f} s")
                time.sleep(pause)


def _attempt(part: PartFile, patience: Patience, bar: Any, say: Callable[[str], None]) -> None:
    """One request, and what it brings. TransientError: it broke off; FailureError: asking again is of no use."""
    have = part.size if part.resumable() else 0
    begun = part.origin if have and part.origin else Origin(part.file.url, "", 0)
    if have and begun.total == have:
        return
    with answer(begun, have, patience.timeout) as response:
        if not part.file.digest and response.headers.get_content_type() == "text/html":  # nothing else would tell
            raise FailureError(
                f"{part.file.url} answers with a web page (of a network to log in to?), not with the file"
            )
        origin = Origin(part.file.url, validator_of(response), total_of(response, part.file.size))
        if part.file.size and origin.total != part.file.size:
            raise FailureError(
                f"{origin.url} offers {origin.total:,} bytes instead of {part.file.size:,}: it is not the published "
                "file; nothing was fetched"
            )
        if have and not (response.status == 206 and _continues(response, have, begun, origin)):
            say(f"{part.file.name}: the server does not go on where it was; {have:,} bytes are given up")
            have = 0
            if response.status == 206:
                part.begin(origin)
                raise TransientError("the server sent another part than asked for")
        if not have:
            part.begin(origin)
        bar.total = origin.total
        bar.n = have
        bar.refresh()
        _copy(response, part, origin.total - have, bar)


def _continues(response: HTTPResponse, have: int, begun: Origin, origin: Origin) -> bool:
    """Whether a 206 is the rest of what is there, and of the same version."""
    match = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    same = begun.validator in ("", origin.validator) or not origin.validator
    return match is not None and int(match[1]) == have and same and begun.total in (0, origin.total)


def _copy(response: HTTPResponse, part: PartFile, left: int, bar: Any) -> None:
    with open(part.path, "ab") as out:
        while left:
            try:
                data = response.read1(min(PIECE, left))  # what there is: a time-out loses nothing that came before
            except (OSError, HTTPException) as error:
                raise TransientError(reason(error)) from error
            if not data:
                raise TransientError(f"the connection was cut {left:,} bytes before the end")
            out.write(data)
            left -= len(data)
            bar.update(len(data))
        out.flush()
        os.fsync(out.fileno())


class PartFile:
    """NAME.part and the note beside it. UsageError: a file of that name is there that no earlier run of ours wrote."""

    def __init__(self, file: PublishedFile, final: Path) -> None:
        self.file, self.final = file, final
        self.path = final.with_name(final.name + PART)
        self.note = final.with_name(final.name + NOTE)
        self.origin = self._read_note()
        if self.path.is_symlink() or (self.path.exists() and (self.origin is None or not self.path.is_file())):
            raise UsageError(f"{self.path} is there and is not ours; move it away or choose another folder")
        if self.origin is not None and self.origin.url != file.url:  # a mirror's: its versions have other names
            self.origin = Origin(file.url, "", self.origin.total)

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def resumable(self) -> bool:
        """Whether what is there can be told from another version: by the server's validator, or by a checksum later."""
        return self.origin is not None and self.size > 0 and bool(self.origin.validator or self.file.digest)

    def begin(self, origin: Origin) -> None:
        """Forget what is there; from now on it is a part of `origin`."""
        self.path.unlink(missing_ok=True)
        write_atomic(self.note, json.dumps(asdict(origin)).encode())
        self.origin = origin

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def publish(self) -> None:
        """Under its name, if it is the published file; nothing that has appeared there meanwhile is replaced."""
        assert self.origin is not None
        found = digest_of(self.path, self.file.algorithm) if self.file.digest else ""
        if found != self.file.digest:
            size = self.size
            self.discard()
            raise FailureError(
                f"{self.origin.url} served {size:,} bytes with {self.file.algorithm} {found} instead of "
                f"{self.file.digest}; nothing was kept. Run the command again"
            )
        _rename_to_free(self.path, self.final)
        self.note.unlink(missing_ok=True)
        sync_folder(self.final.parent)

    def _read_note(self) -> Origin | None:
        try:
            if self.note.stat().st_size > LARGEST_NOTE:
                return None
            record: Any = json.loads(self.note.read_bytes())
            origin = Origin(record["url"], record["validator"], record["total"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        known = isinstance(origin.url, str) and isinstance(origin.validator, str) and type(origin.total) is int
        return origin if known else None


def _rename_to_free(path: Path, final: Path) -> None:
    try:
        os.link(path, final)  # which, unlike a rename, replaces nothing
        path.unlink()
    except OSError as error:
        if error.errno == errno.EEXIST or (error.errno in NO_HARD_LINKS and final.exists()):
            raise UsageError(f"{final} has appeared meanwhile; move it away and run the same command again") from None
        if error.errno not in NO_HARD_LINKS:
            raise
        path.rename(final)


def is_right(file: PublishedFile, path: Path) -> bool | None:
    """Whether a file on disk is the published one; None: its size is, as far as it is known, and nothing else is."""
    if not path.is_file() or (file.size and path.stat().st_size != file.size):
        return False
    return digest_of(path, file.algorithm) == file.digest if file.digest else None
