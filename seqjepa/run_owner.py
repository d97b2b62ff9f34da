"""Who trains a run in a store: an object that its trainer writes anew again and again.

No clocks are compared: whoever wants the run watches whether the object changes. Where it does not for DEAD seconds,
its writer is gone and the run is taken over; a trainer that was only away for so long finds out before it sends more.
"""

from __future__ import annotations

import json
import logging
import secrets
import socket
import threading
import time
from pathlib import Path

from seqjepa.files import TEMPORARY
from shards.errors import FailureError, FormatError, SeqJepaError, UsageError, reason_of
from shards.store_write import StoreWriter

logger = logging.getLogger(__name__)

OBJECT = f"{TEMPORARY}owner.json"
LARGEST = 1 << 16
RENEW, DEAD, LOOK = 20.0, 90.0, 2.0  # seconds


class TakenOver(FailureError):  # noqa: N818 – a failure by its base
    """Another process trains the run now."""


class Owner:
    """folder: where this machine trains the run. A trainer of before that was there is known to be gone."""

    def __init__(self, writer: StoreWriter, folder: Path) -> None:
        self.writer, self._place = writer, f"{socket.gethostname()}:{folder.resolve()}"
        self._token, self._beats, self._ended = secrets.token_hex(16), 0, threading.Event()
        self._thread = threading.Thread(target=self._keep, name="run-owner", daemon=True)

    def acquire(self) -> None:
        """Waits for up to DEAD seconds. UsageError: another trainer is at it, which lives."""
        if not self.writer.create_if_absent(OBJECT, self._sign()):
            self._wait_for_the_other()
            self.writer.put(OBJECT, self._sign())
            time.sleep(min(LOOK, 1.0) / 2)  # of two that take over, the one that wrote last has it
        self.require()
        self._thread.start()

    def require(self) -> None:
        """TakenOver: by another trainer. FailureError: the store is down."""
        there = self._there()
        if there.get("token") != self._token:
            raise TakenOver(
                f"{self.writer.address} is trained by another process now ({there.get('place', 'unknown')}); this one "
                "ends, and what it did since its last checkpoint is in its cache alone"
            )

    def release(self) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        try:
            if self._there().get("token") == self._token:
                self.writer.delete([OBJECT])
        except SeqJepaError as error:
            logger.info("%s", error)

    def _wait_for_the_other(self) -> None:
        other, tag, end = self._there(), self.writer.tag(OBJECT), time.monotonic() + DEAD
        if other.get("place") == self._place:
            return
        logger.warning(
            "%s: %s trains it, or did so until it was killed; looking for %g seconds whether it lives",
            *(self.writer.address, other.get("place", "another process"), DEAD),
        )
        while tag is not None and time.monotonic() < end:
            time.sleep(LOOK)
            if (now := self.writer.tag(OBJECT)) not in (tag, None):
                raise UsageError(
                    f"{self.writer.address} is being trained by another process ({self._there().get('place')}); "
                    "stop that one, or choose another --out"
                )
            tag = now

    def _there(self) -> dict[str, str]:
        try:
            found = json.loads(self.writer.folder.read(OBJECT, LARGEST))
        except (FormatError, ValueError):  # not there, or not ours
            return {}
        return found if isinstance(found, dict) else {}

    def _sign(self) -> bytes:
        self._beats += 1
        return json.dumps({"token": self._token, "place": self._place, "beats": self._beats}).encode()

    def _keep(self) -> None:
        while not self._ended.wait(RENEW):
            try:
                if self._there().get("token") != self._token:
                    return
                self.writer.put(OBJECT, self._sign())
            except SeqJepaError as error:  # the store is down for a while
                logger.info("%s", reason_of(error))
