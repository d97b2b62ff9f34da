"""How both commands are started: `seqjepa`, `seqjepa-data` and `python -m seqjepa`."""

from __future__ import annotations

import os
import signal
import sys


def seqjepa() -> object:
    return _command("seqjepa_app")


def seqjepa_data() -> object:
    return _command("seqjepa_data_app")


def _command(name: str) -> object:
    if waits := signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Nothing has begun: a Ctrl-C in the midst of an import would come out as that module's traceback.
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    app = _app(name)
    try:
        if waits:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return app()
    except KeyboardInterrupt:  # before the command has begun
        sys.exit(130)
    finally:  # a Ctrl-C while the interpreter takes itself down would print its insides, and stop nothing
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _app(name: str):
    """Of cli.py, ours: SystemExit where Python would import another."""
    import importlib

    from seqjepa.shadowing import refuse_strangers, strangers

    others = strangers()
    if "cli" in others or (others and sys.argv[1:2] != ["doctor"]):  # doctor tells of the rest, if it can
        refuse_strangers()
    return getattr(importlib.import_module("cli"), name)


if __name__ == "__main__":
    seqjepa()
