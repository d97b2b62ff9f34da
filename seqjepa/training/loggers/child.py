"""The process of one logger: `python -m seqjepa.training.loggers.child NAME`.

Reads lines of JSON from standard input until it ends, and calls the logger. Answers in lines of JSON on standard
output: {"says": where to look} or {"failed": why}. What libraries print goes to RUN/loggers/NAME.log.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from seqjepa.training.loggers import Logger, Status, build_logger, folder_of, keep, kept
from shards.errors import SeqJepaError, reason_of


def main() -> int:
    """The exit code: 1 where the logger failed."""
    for number in (signal.SIGINT, signal.SIGTERM):  # to stop is the trainer's decision, and said by a message
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    name = sys.argv[1]
    try:
        serve(name, sys.stdin, lambda **said: _answer(answers, said))
    except BaseException as error:  # strangers raise SystemExit too
        traceback.print_exc()
        _answer(answers, {"failed": _why(error)})
        return 1
    return 0


def serve(name: str, lines: Iterable[str], answer: Callable[..., None]) -> None:
    """Follow one run from its "start" to its "finish"; where none comes, the trainer has died."""
    messages = (json.loads(line) for line in lines if line.endswith("\n"))
    first = next(messages, None)
    if first is None:
        return
    run = Path(first["run"])
    with open(folder_of(run) / f"{name}.lock", "ab") as lock:
        with suppress(OSError):  # file systems without locks
            fcntl.flock(lock, fcntl.LOCK_EX)  # the process of a trainer that was killed has a moment to finish
        logger, known = build_logger(name), kept(run, name)
        if logger.rewinds:
            known["step"] = min(known["step"], first["resumed_at"])
        keep(run, name, known)
        where = logger.start(run, first["config"], first["resumed_at"])
        if where:
            answer(says=where)
        status: Status = "failed"
        for message in messages:
            if message["do"] == "finish":
                status = message["status"]
                break
            _take(logger, message, run, name, known)
        logger.finish(status)


def _take(logger: Logger, message: dict[str, Any], run: Path, name: str, known: dict[str, Any]) -> None:
    step = message["step"]
    if message["do"] == "picture":
        logger.picture(message["name"], step, Path(message["png"]))
    elif step > known["step"]:
        logger.scalars(step, message["epoch"], message["values"])
        known["step"] = step
        keep(run, name, known)


def _why(error: BaseException) -> str:
    if isinstance(error, SeqJepaError):
        return str(error)
    return f"{type(error).__name__}: {reason_of(error)}" if str(error) else type(error).__name__


def _answer(answers: TextIO, said: dict[str, str]) -> None:
    with suppress(OSError):  # the trainer has gone
        answers.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    if code:
        os._exit(code)  # whatever a logger that failed still wants to do at exit is not waited for
