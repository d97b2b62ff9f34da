"""A folder in an object store: s3://, gs://, az://, http:// or https://, read through obstore (extra `remote`).

Credentials, regions and endpoints are obstore's own business: the environment's AWS_…, GOOGLE_…, AZURE_….
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from shards.errors import DamageError, FailureError, FormatError, UsageError, reason_of
from shards.extras import missing

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az", "http", "https")
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)
CHUNK = 4 << 20
TRIES = 6
"""Attempts without a byte of progress, after obstore's own retries of a request."""
LONGEST_PAUSE = 8.0  # seconds


def is_address(place: object) -> bool:
    """Whether text names a place in a store, and not a path."""
    return isinstance(place, str) and ADDRESS.fullmatch(place) is not None


@dataclass(frozen=True)
class Store:
    """The folder at `address`. UsageError: an address of another form, or one that nobody may read."""

    address: str

    def __post_init__(self) -> None:
        found = ADDRESS.fullmatch(self.address)
        if not found or found[1] not in SCHEMES or not found[2].strip("/"):
            known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise UsageError(f"{self.address!r:.200} is no address of a folder; known are {known}")
        if "@" in found[2].partition("/")[0]:
            raise UsageError("an address holds no user name or password; obstore takes them from the environment")

    def read(self, name: str, most: int) -> bytes:
        """A whole object of at most `most` bytes. FormatError: it is not there. FailureError: it cannot be read."""
        parts: list[bytes] = []
        for part in self._parts(name):
            parts.append(part)
            if sum(map(len, parts)) > most:
                raise DamageError(f"{self.address}/{name} has more than {most} bytes, which no set of ours has")
        return b"".join(parts)

    def download(
        self, name: str, write: Callable[[bytes], object], sha256: str, on_bytes: Callable[[int], object]
    ) -> None:
        """Passes an object to `write`, part after part. DamageError, after the last part: its sha256 is another."""
        digest = hashlib.sha256()
        for part in self._parts(name):
            digest.update(part)
            write(part)
            on_bytes(len(part))
        if digest.hexdigest() != sha256:
            raise DamageError(f"{self.address}/{name} is damaged (its sha256 is not what dataset.json says)")

    def _parts(self, name: str) -> Iterator[bytes]:
        """Of one object. A body that breaks off is gone on with where it stopped; pauses grow, with jitter."""
        done, failed, ranges = 0, 0, True
        while True:
            try:
                for part in self._body(name, done, ranges):
                    done, failed = done + len(part), 0
                    yield part
                return
            except Exception as error:
                if ranges and type(error).__name__ == "NotSupportedError":  # the server knows no ranges
                    ranges = False
                    continue
                reason = self._transient(error, name)
                failed += 1
                if failed == TRIES:
                    raise FailureError(f"cannot read {self.address}/{name}: {reason}; try again later") from None
            time.sleep(min(LONGEST_PAUSE, 0.1 * 2**failed) * random.uniform(0.5, 1))

    def _body(self, name: str, start: int, ranges: bool) -> Iterator[bytes]:
        """An object from byte `start` on; where there are no ranges, all of it comes and the beginning is dropped."""
        import obstore

        options: Any = {"range": {"offset": start}} if start and ranges else None
        found = obstore.get(self._opened, name, options=options)
        received = start if options else 0
        for part in found.stream(min_chunk_size=CHUNK):
            fresh = bytes(part)[max(0, start - received) :]
            received += len(part)
            if fresh:
                yield fresh
        if received != found.meta["size"]:
            raise OSError(f"{received} of {found.meta['size']} bytes came")

    def _transient(self, error: Exception, name: str) -> str:
        """The reason of an error that may pass. Raises what does not pass."""
        from obstore import exceptions as known

        if isinstance(error, known.NotFoundError | FileNotFoundError):  # obstore raises either
            raise FormatError(f"{self.address}/{name} is not there; give the address of a shard set") from None
        if isinstance(error, known.PermissionDeniedError | known.UnauthenticatedError | PermissionError):
            raise UsageError(
                f"{self.address}/{name} may not be read with these credentials; see docs/remote.md ({_first(error)})"
            ) from None
        if not isinstance(error, known.BaseError | OSError) or isinstance(error, known.InvalidPathError):
            raise error
        return _first(error)

    @cached_property
    def _opened(self) -> ObjectStore:
        try:
            from obstore.store import from_url
        except ImportError as error:
            raise missing("obstore", f"reading {self.address}") from error
        plain = self.address.startswith("http://") or _endpoint().startswith("http://")
        try:
            return from_url(
                self.address,
                client_options={"allow_http": plain, "timeout": "6h", "read_timeout": "30s", "connect_timeout": "10s"},
                retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=60)},
            )
        except Exception as error:  # whatever obstore does not understand of the address or the environment
            raise UsageError(f"{self.address}: {_first(error)}") from None


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _first(error: BaseException) -> str:
    """What a library said, without the Rust structures that follow."""
    return reason_of(error).split(" Debug source:")[0][:300]
