"""Objects written to a store, s3://, gs:// or az://: created, replaced, listed, deleted.

An object is there whole or not at all. What may pass is tried again by obstore (store.py); what does not is one line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from shards.errors import FailureError, UsageError
from shards.machine.files import sha256_of_bytes
from shards.stores.store import ObjectStoreFolder, open_store, reason_in_short

WRITABLE = ("s3", "gs", "az")
AT_ONCE = 1 << 30
"""Bytes that are sent in one request: parts of an object would stay where a kill comes between them."""


def open_writable(address: str) -> StoreWriter:
    """UsageError: an address that cannot be written to, or a package that is missing."""
    store = open_store(address)
    if address.partition("://")[0] not in WRITABLE or not isinstance(store, ObjectStoreFolder):
        known = ", ".join(f"{scheme}://" for scheme in WRITABLE)
        raise UsageError(f"{address} can be read only; what can be written to begins with {known}")
    return StoreWriter(store)


@dataclass(frozen=True)
class StoreWriter:
    """The folder at an address. Names are below it, with slashes.

    Everything raises UsageError where the credentials do not allow it, FailureError where the store is down.
    """

    folder: ObjectStoreFolder

    @property
    def address(self) -> str:
        return self.folder.address

    def create(self, name: str, data: bytes) -> bool:
        """Whether the object is new; False: the same is there. UsageError: another one is, and stays."""
        if self.create_if_absent(name, data):
            return True
        there = self.folder.read(name, len(data)) if self.folder.size(name) == len(data) else b""
        if sha256_of_bytes(there) != sha256_of_bytes(data):
            raise UsageError(f"{self.address}/{name} is there and is of another set; choose another address")
        return False

    def create_if_absent(self, name: str, data: bytes) -> bool:
        """Whether the object is new; False: there is one already, whatever it holds."""
        with self._asking(name) as obstore:
            try:
                obstore.put(self.folder.opened, name, data, mode="create", use_multipart=False)
            except (obstore.exceptions.AlreadyExistsError, FileExistsError):
                return False
            return True

    def put(self, name: str, data: bytes) -> None:
        """The object, in the place of one that may be there."""
        with self._asking(name) as obstore:
            obstore.put(self.folder.opened, name, data, use_multipart=len(data) > AT_ONCE)

    def names(self, below: str = "") -> dict[str, int]:
        """Every object below a folder, "" for all: its name and its bytes, in the order of names."""
        with self._asking(below or "*", "read") as obstore:
            found = obstore.list(self.folder.opened, below.strip("/") or None).collect()
            return dict(sorted((str(one["path"]), int(one["size"])) for one in found))

    def any_name(self) -> str:
        """One of the objects in the folder; "" for none."""
        with self._asking("*", "read") as obstore:
            chunks = obstore.list(self.folder.opened, chunk_size=2)
            return next((str(one["path"]) for chunk in chunks for one in chunk if one["path"]), "")

    def tag(self, name: str) -> str | None:
        """What changes with every write of an object; None: there is none."""
        with self._asking(name, "read") as obstore:
            try:
                found = obstore.head(self.folder.opened, name)
            except (obstore.exceptions.NotFoundError, FileNotFoundError):
                return None
            return f"{found['e_tag']} {found['last_modified']}"

    def delete(self, names: Iterable[str]) -> None:
        """Objects, whether they are there or not."""
        with self._asking("*") as obstore:
            for name in names:
                with contextlib.suppress(obstore.exceptions.NotFoundError, FileNotFoundError):
                    obstore.delete(self.folder.opened, name)

    @contextlib.contextmanager
    def _asking(self, name: str, doing: Literal["read", "write"] = "write") -> Iterator[Any]:
        """obstore, of whose errors those of the credentials and of the store are said in a line."""
        _ = self.folder.opened  # or the line that says that obstore is missing
        import obstore
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        what = f"{self.address}/{name}"
        try:
            yield obstore
        except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
            done = {"read": "read", "write": "written"}[doing]
            raise UsageError(f"{what} may not be {done} with these credentials; see docs/remote.md") from error
        except (BaseError, OSError) as error:
            then = {"read": "try again later", "write": "the same command goes on"}[doing]
            raise FailureError(f"cannot {doing} {what}: {reason_in_short(error)}; {then}") from error
