"""Something that another process might do, done between two system calls of ours, which audit events tell of."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from threading import get_ident

EVENTS = ("open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "fcntl.flock")


class Between:
    """acted: whether the block had so many calls."""

    def __init__(self, folder: Path, number: int, act: Callable[[], object]) -> None:
        self.acted = False
        self._folder, self._left, self._act, self._thread = str(folder), number, act, get_ident()

    def hear(self, event: str, args: tuple) -> None:
        if event not in EVENTS or self.acted or get_ident() != self._thread:
            return
        if event == "fcntl.flock" or (args and str(args[0]).startswith(self._folder)):
            self._left -= 1
            if self._left < 0:
                self.acted = True
                self._act()


_active: list[Between] = []


@cache
def _listen() -> None:
    """A hook stays for as long as the process."""
    sys.addaudithook(lambda event, args: _active[-1].hear(event, args) if _active else None)


@contextlib.contextmanager
def before_call(folder: Path, number: int, act: Callable[[], object]) -> Iterator[Between]:
    """`act` is done once, before the number-th call in the block that names something in `folder`, or locks."""
    _listen()
    _active.append(Between(folder, number, act))
    try:
        yield _active[-1]
    finally:
        _active.pop()
