"""The folder of a demo: whose it is, which phases are done and how long they took."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqjepa.files import write_atomic
from shards.errors import UsageError
from shards.json_fields import strict_json

MARKER = "demo.json"
Say = Callable[[str], object]


@dataclass(frozen=True)
class DemoFolder:
    """One folder holds one demo, told by its identity: JSON values that decide the demo's numbers.

    say hears a line before and after each phase.
    """

    path: Path
    identity: Mapping[str, Any]
    say: Say

    @classmethod
    def at(cls, path: Path, identity: Mapping[str, Any], say: Say | None) -> DemoFolder:
        """With the identity as JSON gives it back, so that it equals what is read from the folder."""
        return cls(Path(path), json.loads(json.dumps(identity)), say or (lambda line: None))

    def claim(self) -> None:
        """Makes the folder ours, or recognises it; UsageError otherwise, and then nothing is written."""
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file; --out needs a folder")
        if (self.path / MARKER).exists():
            self._recognise()
            return
        if self.path.exists() and any(self.path.iterdir()):
            raise UsageError(f"{self.path} is not empty and was not made by `seqjepa demo`; choose another --out")
        self.path.mkdir(parents=True, exist_ok=True)
        self.write(MARKER, {"kind": "seqjepa-demo", "settings": self.identity, "seconds": {}})

    @contextmanager
    def phase(self, name: str, what: str) -> Iterator[None]:
        """Announces a phase and keeps how long its first complete pass took."""
        self.say(f"{name:9} {what}")
        started = time.monotonic()
        yield
        spent = round(time.monotonic() - started, 1)
        marker = self._read_marker()
        note = ", done before" if name in marker["seconds"] else ""
        known = marker["seconds"].setdefault(name, spent)
        self.write(MARKER, marker)
        self.say(f"{'':9} {known:.1f} s{note}")

    def seconds(self) -> dict[str, float]:
        """How long each phase took, and "total"."""
        spent = self._read_marker()["seconds"]
        return {**spent, "total": round(sum(spent.values()), 1)}

    def write(self, name: str, value: object) -> None:
        """`value` as JSON in the folder, atomically."""
        write_atomic(self.path / name, (json.dumps(value, indent=2) + "\n").encode())

    def _recognise(self) -> None:
        try:
            there = dict(self._read_marker()["settings"])
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"{self.path / MARKER} is not readable; choose another --out") from None
        differ = [f"{k} {there.get(k)} there, {v} asked" for k, v in self.identity.items() if there.get(k) != v]
        if differ:
            raise UsageError(f"{self.path} holds another demo ({', '.join(differ)}); choose another --out")

    def _read_marker(self) -> dict[str, Any]:
        return strict_json((self.path / MARKER).read_bytes())
