"""A folder in an object store: s3://, gs://, az://, http:// or https://, read through obstore (extra `remote`); or a
data set on the Hugging Face hub, hf://datasets/USER/REPO (shards/stores/hub.py).

Credentials, regions and endpoints are the libraries' own business: the environment's AWS_…, GOOGLE_…, AZURE_…, HF_….
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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from shards.errors import DamageError, FailureError, FormatError, UsageError, reason_of
from shards.extras import missing
from shards.machine.files import AtomicFile, sha256_of_file
from shards.stores.hub import HubAddress, HubFolder, open_hub, parse_address

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az", "http", "https", "hf")
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)
OF_A_PATH = re.compile(rf"({'|'.join(SCHEMES)}):/(?!/)")
"""How an address begins that was made a Path, which drops its second slash."""
LIKE_AN_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:(/|$)")
INFO, BUILD = "_meta/dataset.json", "_meta/build.json"
CHUNK = 4 << 20
TRIES = 6
"""Attempts without a byte of progress, after obstore's own retries of a request."""
LONGEST_PAUSE = 8.0  # seconds
STALLED = "30s"
"""Without a byte, after which an answer counts as broken off."""
EXPIRED = ("ExpiredToken", "TokenRefreshRequired", "RequestExpired")
"""What S3 says, with status 400, of credentials that were good once."""


def as_address(place: str | Path) -> str:
    """What names a place in a store, also after it was made a Path; "" for a path.

    UsageError: it begins like an address of a kind that there is not (s4://bucket), or ends there (s3://).
    """
    text = OF_A_PATH.sub(r"\1://", str(place), count=1) if OF_A_PATH.match(str(place)) else str(place)
    if ADDRESS.fullmatch(text):
        return text
    if (typo := LIKE_AN_ADDRESS.match(text)) and not Path(typo[0].rstrip("/")).is_dir():
        raise _no_address(text)
    return ""


def require_no_address(place: str | Path, option: str) -> None:
    """UsageError: files can be written to a folder on this machine alone, and `option` is an address."""
    if address := as_address(place):
        raise UsageError(f"{option} {address}: this command writes to a folder on this machine; give a path")


class Store(Protocol):
    """The folder at `address`."""

    @property
    def address(self) -> str: ...

    def read(self, name: str, most: int) -> bytes:
        """A whole file of at most `most` bytes. FormatError: it is not there. FailureError: it cannot be read.

        UsageError: nobody may read it with these credentials. DamageError: it has more bytes.
        """
        ...

    def fetch(self, name: str, path: Path, sha256: str, on_bytes: Callable[[int], object]) -> None:
        """A file to `path`, whole or not at all. DamageError: its sha256 is another. Else as read."""
        ...


def open_store(address: str) -> Store:
    """UsageError: an address of another form, or a package that is missing."""
    found = ADDRESS.fullmatch(address)
    if not found or found[1] not in SCHEMES or not found[2].strip("/"):
        raise _no_address(address)
    if found[1] == "hf":
        return HubStore(parse_address(address, "dataset"))
    if "@" in found[2].partition("/")[0]:
        raise UsageError("an address holds no user name or password; obstore takes them from the environment")
    return ObjectStoreFolder(address.rstrip("/"))


def _no_address(text: str) -> UsageError:
    known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
    return UsageError(f"{text!r:.200} is no address of a folder; known are {known}")


@dataclass(frozen=True)
class HubStore:
    """A data set on the hub, at the commit that its revision is now."""

    where: HubAddress

    @property
    def address(self) -> str:
        return str(self._folder.address.at(self._folder.commit))

    def read(self, name: str, most: int) -> bytes:
        path = self._folder.root / name
        if not path.is_file():
            raise _not_there(self.address, name)
        if path.stat().st_size > most:
            raise _too_large(self.address, name, most)
        return path.read_bytes()

    def fetch(self, name: str, path: Path, sha256: str, on_bytes: Callable[[int], object]) -> None:
        root = path.parents[name.count("/")]
        self._folder.fetch([name], root)
        if sha256_of_file(path, on_bytes) != sha256:
            path.unlink()
            raise _damaged(self.address, name)

    @cached_property
    def _folder(self) -> HubFolder:
        return open_hub(self.where, [INFO, "README.md"])


@dataclass(frozen=True)
class ObjectStoreFolder:
    """What obstore reads."""

    address: str

    def read(self, name: str, most: int) -> bytes:
        parts: list[bytes] = []
        for part in self._parts(name):
            parts.append(part)
            if sum(map(len, parts)) > most:
                raise _too_large(self.address, name, most)
        return b"".join(parts)

    def size(self, name: str) -> int:
        """Bytes of an object. Errors as read."""
        import obstore

        try:
            return int(obstore.head(self.opened, name)["size"])
        except Exception as error:
            reason = self._transient(error, name)
            raise FailureError(f"cannot read {self.address}/{name}: {reason}; try again later") from None

    def fetch(self, name: str, path: Path, sha256: str, on_bytes: Callable[[int], object]) -> None:
        digest = hashlib.sha256()
        with AtomicFile(path) as file:
            for part in self._parts(name):
                digest.update(part)
                file.write(part)
                on_bytes(len(part))
            if digest.hexdigest() != sha256:
                raise _damaged(self.address, name)

    def _parts(self, name: str) -> Iterator[bytes]:
        """Of one object. A body that breaks off is gone on with where it stopped; pauses grow, with jitter. Credentials
        that expired are asked for again once: the machine's role has others then."""
        done, failed, ranges, renewed = 0, 0, True, False
        while True:
            try:
                for part in self._body(name, done, ranges):
                    done, failed, renewed = done + len(part), 0, False
                    yield part
                return
            except Exception as error:
                if ranges and type(error).__name__ == "NotSupportedError":  # the server knows no ranges
                    ranges = False
                    continue
                reason = self._transient(error, name)
                if any(word in reason for word in EXPIRED):
                    if renewed:
                        raise UsageError(
                            f"{self.address}/{name} may not be read: the credentials have expired; renew them, and the "
                            "same command goes on with what is missing"
                        ) from None
                    renewed = True
                    self.__dict__.pop("opened", None)
                    continue
                failed += 1
                if failed == TRIES:
                    raise FailureError(f"cannot read {self.address}/{name}: {reason}; try again later") from None
            time.sleep(min(LONGEST_PAUSE, 0.1 * 2**failed) * random.uniform(0.5, 1))

    def _body(self, name: str, start: int, ranges: bool) -> Iterator[bytes]:
        """An object from byte `start` on; where there are no ranges, all of it comes and the beginning is dropped."""
        import obstore

        options: Any = {"range": {"offset": start}} if start and ranges else None
        found = obstore.get(self.opened, name, options=options)
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
            raise _not_there(self.address, name) from None
        if isinstance(error, known.PermissionDeniedError | known.UnauthenticatedError | PermissionError):
            raise UsageError(
                f"{self.address}/{name} may not be read with these credentials "
                f"({reason_in_short(error)}); see docs/remote.md"
            ) from None
        if not isinstance(error, known.BaseError | OSError) or isinstance(error, known.InvalidPathError):
            raise error
        return reason_in_short(error)

    @cached_property
    def opened(self) -> ObjectStore:
        try:
            from obstore.store import from_url
        except ImportError as error:
            raise missing("obstore", f"reading {self.address}") from error
        plain = self.address.startswith("http://") or _plain_endpoint()
        try:
            return from_url(
                self.address,
                client_options={
                    "allow_http": plain,
                    "timeout": "6h",
                    "read_timeout": STALLED,
                    "connect_timeout": "10s",
                },
                retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=60)},
            )
        except Exception as error:  # whatever obstore does not understand of the address or the environment
            raise UsageError(f"{self.address}: {reason_in_short(error)}") from None


def unfinished(place: str | Path) -> FormatError:
    """What a reader says of a set that is being built."""
    return FormatError(
        f"{place} is an unfinished set: run the same build command again, or `seqjepa-data build work {place}` if it "
        "was prepared"
    )


def _not_there(address: str, name: str) -> FormatError:
    return FormatError(f"{address}/{name} is not there; give the address of a shard set")


def _too_large(address: str, name: str, most: int) -> DamageError:
    return DamageError(f"{address}/{name} has more than {most} bytes, which no set of ours has")


def _damaged(address: str, name: str) -> DamageError:
    return DamageError(f"{address}/{name} is damaged (its sha256 is not what dataset.json says)")


ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT")
"""Where the environment says that a store is, of those that obstore reads."""


def _plain_endpoint() -> bool:
    """Whether a store's endpoint is one of http://, as of an emulator on this machine."""
    known = [os.environ.get(name, "") for name in ENDPOINTS]
    of_google = re.search(r'"gcs_base_url"\s*:\s*"http://', os.environ.get("GOOGLE_SERVICE_ACCOUNT_KEY", ""))
    emulated = os.environ.get("AZURE_STORAGE_USE_EMULATOR", "").lower() in ("1", "true")
    return any(value.startswith("http://") for value in known) or bool(of_google) or emulated


def reason_in_short(error: BaseException) -> str:
    """What a library said, without the Rust structures that follow."""
    return reason_of(error).split(" Debug source:")[0][:300]
