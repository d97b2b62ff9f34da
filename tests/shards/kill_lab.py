"""Builds the tiny set in forked children and kills them; prints how often. Exit status 1 and a line: what went wrong.

    python kill_lab.py operations FLAVOUR FOLDER STEP dies once before, or amid, each STEP-th file operation of a build
    python kill_lab.py overwriting FLAVOUR FOLDER STEP the same, of a build that replaces another set
    python kill_lab.py moments FLAVOUR FOLDER KILLS   SIGKILLs a build at random moments and resumes it till it is done

Run by test_kill.py. A process of its own, because it forks, and because a forked child starts in no time.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import pyarrow.parquet  # noqa: E402, F401  imported once, here, for all children
import shard_sets  # noqa: E402
from shard_sets import contents, final_files  # noqa: E402
from tqdm import tqdm  # noqa: E402

# tqdm's own lock is a semaphore that forked processes share: a child killed while it holds it would stop all others.
tqdm.set_lock(threading.RLock())

WATCHED = ("open", "write", "fsync", "replace", "unlink", "mkdir", "rmdir")


def die_at(number: int) -> None:
    """Patches this process to kill itself at its number-th file operation; of a write, half is done."""
    counter = itertools.count()

    def patched(name: str, original: Callable) -> Callable:
        def operation(*args: object, **kwargs: object) -> object:
            if next(counter) == number:
                if name == "write":
                    original(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        return operation

    for name in WATCHED:
        setattr(os, name, patched(name, getattr(os, name)))


def start(out: Path, log: Path, before: Callable[[], None] = lambda: None, overwrite: bool = False) -> int:
    """Forks a build; the names of the shards that it opens are appended to `log`."""
    if child := os.fork():
        return child
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    before()
    build(out, on_shard=lambda name: os.writev(fd, [name.encode() + b"\n"]), overwrite=overwrite)
    os._exit(0)


def finished(pid: int) -> bool:
    """Waits; True after a clean exit, False after SIGKILL."""
    status = os.waitpid(pid, 0)[1]
    if status not in (0, signal.SIGKILL):
        raise SystemExit(f"a build ended with status {status}")
    return status == 0


def survivors(out: Path, *allowed: dict[str, str]) -> set[str]:
    """Shards that a killed build has finished. A file under a final name with other bytes than allowed ends it all."""
    final = final_files(out) if out.exists() else {}
    for name, digest in final.items():
        if all(reference.get(name) != digest for reference in allowed):
            raise SystemExit(f"a killed build left a bad {name}")
    return {name.removesuffix(".tar") for name in final if name.endswith(".tar")}


def require_untouched(log: Path, done: set[str]) -> None:
    again = set(log.read_text().split()) & done if log.exists() else set()
    log.unlink(missing_ok=True)
    if again:
        raise SystemExit(f"finished shards were built again: {sorted(again)}")


def operations(folder: Path, reference: dict[str, str], overwrite: bool, step: int) -> int:
    """How many operations a build has, rounded up to `step`, having died at each `step`-th and resumed.

    With `overwrite`, over another set.
    """
    out, log = folder / "set", folder / "log"
    for number in itertools.count(0, step):
        shutil.rmtree(out, ignore_errors=True)
        if overwrite:
            build(out, seed=1, samples=2)
        old = final_files(out) if overwrite else {}
        if finished(start(out, log, lambda n=number: die_at(n), overwrite)):
            return number
        done = survivors(out, reference, old)
        log.unlink(missing_ok=True)
        finished(start(out, log, overwrite=overwrite))
        require_untouched(log, set() if overwrite else done)
        if contents(out) != reference:
            raise SystemExit(f"killed at operation {number}: the resumed set differs")
    raise AssertionError("unreachable")


def moments(folder: Path, reference: dict[str, str], kills: int) -> int:
    """How often builds were killed; each goes on until it is finished, then the next begins."""
    rng, out, log, done, killed = random.Random(0), folder / "set", folder / "log", set(), 0
    began = time.perf_counter()
    finished(start(folder / "timed", log))
    whole = time.perf_counter() - began
    log.unlink()
    while killed < kills or done:
        child = start(out, log)
        time.sleep(rng.uniform(0, whole))
        os.kill(child, signal.SIGKILL)
        ended = finished(child)
        require_untouched(log, done)
        killed, done = killed + (not ended), survivors(out, reference)
        if ended:
            if contents(out) != reference:
                raise SystemExit("the resumed set differs")
            shutil.rmtree(out)
            done = set()
    return killed


if __name__ == "__main__":
    mode, flavour, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    build = functools.partial(shard_sets.build, flavour=flavour)
    build(folder / "reference")
    expected = contents(folder / "reference")
    if mode == "moments":
        count = moments(folder, expected, int(sys.argv[4]))
    else:
        count = operations(folder, expected, mode == "overwriting", int(sys.argv[4]))
    sys.stdout.write(str(count))
