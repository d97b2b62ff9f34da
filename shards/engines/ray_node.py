"""What runs on a node of a Ray cluster: one item of work, by a task or by an actor, in a worker like the command.

What goes wrong comes back as an error of ours, which is a value too: Ray would wrap what is raised.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shards.errors import FailureError, SeqJepaError, UsageError

PACKAGES = ("seqjepa", "numpy", "pyarrow", "pillow", "simplejpeg")


@dataclass(frozen=True)
class Setting:
    """What a worker has to be like: the folder in which the command runs, and versions that bytes may depend on."""

    folder: str
    versions: dict[str, str]

    @classmethod
    def of_here(cls) -> Setting:
        return cls(os.getcwd(), _versions())


class Member:
    """An actor, on some node."""

    def __init__(self, setting: Setting, make: Callable[[], Callable[[Any], Any]]):
        self._setting, self._make = setting, make
        self._work: Callable[[Any], Any] | None = None

    def ready(self) -> Any:
        return _guarded(self._begin, "")

    def do(self, item: Any, said: str) -> Any:
        assert self._work is not None, "ready() comes first"
        return _guarded(functools.partial(self._work, item), said)

    def _begin(self) -> None:
        _settle(self._setting)
        self._work = self._make()


def do_task(shared: tuple[Setting, Callable[[Any], Any]], said: str, item: Any) -> Any:
    """A task, on some node."""

    def done() -> Any:
        setting, work = shared
        _settle(setting)
        return work(item)

    return _guarded(done, said)


def _guarded(work: Callable[[], Any], said: str) -> Any:
    """The result, or what went wrong as an error of ours."""
    try:
        return work()
    except SeqJepaError as error:
        return error
    except Exception as error:
        of = f"{said} " if said else ""
        return FailureError(f"{of}on node {socket.gethostname()}: {type(error).__name__}: {error}")


def _settle(setting: Setting) -> None:
    """Relative paths mean here what they mean to the command. UsageError: other versions than there."""
    if os.getcwd() != setting.folder and os.path.isdir(setting.folder):
        os.chdir(setting.folder)
    here = _versions()
    if here != setting.versions:
        differ = [f"{name} {here[name]}" for name in here if here[name] != setting.versions[name]]
        theirs = ", ".join(f"{name} {setting.versions[name]}" for name in here if here[name] != setting.versions[name])
        raise UsageError(
            f"node {socket.gethostname()} has {', '.join(differ)}, the command {theirs}: install the same on all nodes"
        )


@functools.cache
def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found
