"""How both commands are started: `seqjepa`, `seqjepa-data` and `python -m seqjepa`.

Three of our four modules have plain names. Another project's `cli`, or a folder of data called `shards`, may come first
on Python's path; that is said in a line for each, before anything of theirs is run. Imports the standard library only.
"""

from __future__ import annotations

import importlib
import importlib.util
import signal
import sys
from pathlib import Path

OURS = ("cli", "shards", "pipelines", "seqjepa")
HERE = Path(__file__).resolve().parents[1]
ADVICE = "take that folder out of PYTHONPATH or start elsewhere; or give seqjepa an environment of its own"


def seqjepa() -> object:
    return _command("seqjepa_app")


def seqjepa_data() -> object:
    return _command("seqjepa_data_app")


def strangers() -> dict[str, str]:
    """Those of OURS that Python would import from anywhere but beside this package, and what it would import."""
    found = {name: _found(name) for name in OURS}
    return {name: str(path or "nothing") for name, path in found.items() if path is None or not _is_ours(name, path)}


def refuse_strangers() -> None:
    """SystemExit with a line for each of strangers(), if there are any."""
    if others := strangers():
        lines = (
            f"error: Python finds {path} as {name!r}, not that of {HERE}: {ADVICE}" for name, path in others.items()
        )
        sys.exit("\n".join(lines))


def _command(name: str) -> object:
    others = strangers()
    if "cli" in others or (others and sys.argv[1:2] != ["doctor"]):  # doctor tells of the rest, if it can
        refuse_strangers()
    try:
        return getattr(importlib.import_module("cli"), name)()
    except KeyboardInterrupt:  # before the command has begun
        sys.exit(130)
    finally:  # a Ctrl-C while the interpreter takes itself down would print its insides, and stop nothing
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _found(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # imported by hand, without a spec
        spec = None
    places = (
        [spec.origin] if spec and spec.has_location else list(spec.submodule_search_locations or ()) if spec else []
    )
    return Path(str(places[0])) if places and places[0] else None


def _is_ours(name: str, path: Path) -> bool:
    return path.resolve().parent in (HERE, HERE / name)


if __name__ == "__main__":
    seqjepa()
