"""How both commands are started: `seqjepa`, `seqjepa-data` and `python -m seqjepa`."""

from __future__ import annotations

import importlib
import signal
import sys

from seqjepa.shadowing import refuse_strangers, strangers


def seqjepa() -> object:
    return _command("seqjepa_app")


def seqjepa_data() -> object:
    return _command("seqjepa_data_app")


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


if __name__ == "__main__":
    seqjepa()
