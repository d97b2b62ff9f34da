"""Modules of other projects in the place of ours. Imports the standard library only.

Three of our four modules have plain names. Another project's `cli`, or a folder of data called `shards`, may come first
on Python's path. strangers() finds them before any of their code is run; refuse_strangers() ends the command.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

OURS = ("cli", "shards", "pipelines", "seqjepa")
HERE = Path(__file__).resolve().parents[1]
ADVICE = "take that folder out of PYTHONPATH or start elsewhere; or give seqjepa an environment of its own"


def strangers() -> dict[str, str]:
    """Those of OURS that Python would import from anywhere but beside this package, and what it would import."""
    found = {name: _found(name) for name in OURS}
    return {
        name: str(path or "nothing")
        for name, path in found.items()
        if path is None or path.resolve().parent not in (HERE, HERE / name)
    }


def refuse_strangers() -> None:
    """SystemExit with a line for each of strangers(), if there are any."""
    if others := strangers():
        lines = (
            f"error: Python finds {path} as {name!r}, not that of {HERE}: {ADVICE}" for name, path in others.items()
        )
        sys.exit("\n".join(lines))


def _found(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # imported by hand, without a spec
        spec = None
    places = (
        [spec.origin] if spec and spec.has_location else list(spec.submodule_search_locations or ()) if spec else []
    )
    return Path(str(places[0])) if places and places[0] else None
