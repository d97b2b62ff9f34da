"""How both commands are started: `seqjepa`, `seqjepa-data` and `python -m seqjepa`."""

from __future__ import annotations

import os
import signal
import sys
from threading import Timer, main_thread
from types import FrameType


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
            signal.signal(signal.SIGINT, _after_imports)
        return app()
    except KeyboardInterrupt:  # before the command has begun
        sys.exit(130)
    finally:  # a Ctrl-C while the interpreter takes itself down would print its insides, and stop nothing
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _after_imports(number: int, frame: FrameType | None) -> None:
    """KeyboardInterrupt, but of an import once that is done: torch's C++ may abort if it comes within it."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            again = Timer(0.01, lambda: signal.pthread_kill(main_thread().ident or 0, number))
            again.daemon = True
            return again.start()
        frame = frame.f_back
    raise KeyboardInterrupt


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
