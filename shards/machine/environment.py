"""What is the machine's fault, not a file's: no file handle, memory or space left, a disk or network that fails.

Whoever turns an OSError into "damaged", "bad" or "not a set" asks here first; the command line says what to do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

NO_HANDLES = (errno.EMFILE, errno.ENFILE)
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
FAILING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENODEV, errno.EREMOTEIO)
ENVIRONMENT = frozenset((*NO_HANDLES, *NO_SPACE, *FAILING, errno.ENOMEM, errno.EAGAIN, errno.ENOLCK))
_OF_RUST = re.compile(r"\(os error (\d+)\)")  # safetensors raises its own error around the system's


def error_number(error: BaseException) -> int | None:
    """The system's number of what went wrong, also where a library only quotes it."""
    number = getattr(error, "errno", None)
    if number is None and (quoted := _OF_RUST.search(str(error))):
        return int(quoted[1])
    return number


def is_environment_error(error: BaseException) -> bool:
    """Whether the same file might be read well by another process, or at another time."""
    return isinstance(error, MemoryError) or error_number(error) in ENVIRONMENT


def pass_environment_on(error: BaseException) -> None:
    """Raise `error` again if it is the environment's: the first line of an `except OSError` that calls a file bad."""
    if is_environment_error(error):
        raise error


@contextlib.contextmanager
def system_errors_as(told: Callable[[str | None], Exception]) -> Iterator[None]:
    """An OSError in the block is raised as told(the system's words for it); the environment's stays what it is."""
    try:
        yield
    except OSError as error:
        pass_environment_on(error)
        raise told(error.strerror) from error


def advice_for(number: int | None) -> str:
    """What to do about an errno, as the second half of a sentence; "" where there is nothing to say."""
    if number in NO_HANDLES:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return f"this process may hold {soft} files open (ulimit -n): raise that, or use fewer --workers"
    if number in NO_SPACE:
        return "free some space and run the same command again"
    if number == errno.ENOMEM:
        return "free some memory, or use fewer --workers, and run the same command again"
    if number == errno.EFBIG:
        return "a limit on the size of files (ulimit -f), or the file system's own: raise that, or choose another place"
    if number in FAILING:
        return "the disk or the network fails: look after it and run the same command again"
    return ""


def describe_error(error: OSError | MemoryError) -> str:
    """One line: which file, what is wrong with it or the machine, what to do."""
    if isinstance(error, MemoryError):
        return f"no memory left{f' ({error})' if str(error) else ''}: {advice_for(errno.ENOMEM)}"
    number = error_number(error)
    reason = error.strerror or (os.strerror(number) if number else " ".join(str(error).split())) or type(error).__name__
    where = f"{error.filename}: " if error.filename is not None else ""
    advice = advice_for(number)
    return f"{where}{reason}" + (f"; {advice}" if advice else "")


def torch_out_of_memory(error: RuntimeError) -> str:
    """The line for what torch raises where a GPU or the machine has no memory left; "" for other errors."""
    text = str(error)
    found = re.search(r"tried to allocate ([\d.]+ \w+)", text, re.IGNORECASE)
    asked = f" ({found[1]} at once)" if found else ""
    if type(error).__name__ == "OutOfMemoryError" or "_STATUS_ALLOC_FAILED" in text:
        return (
            f"the GPU has no memory left{asked}: choose a smaller batch (optim.batch_size, optim.accumulate, which "
            "splits it, or embed's --batch-size) or smaller networks, or free the GPU"
        )
    if "can't allocate memory" in text or "Storage size calculation overflowed" in text:
        return f"no memory left{asked}: free some, or choose smaller networks or batches"
    return ""


def usable_cores() -> int:
    """CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def raise_file_limit() -> None:
    """The soft limit of open files up to the hard one, where that is allowed. Worker processes inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # not allowed: as many as there are
            return


def start_python(arguments: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """A Python process that ends when it is told to: the parent decides. options: of Popen.

    A session of its own keeps Ctrl-C away; blocked signals, which a child inherits, those of a scheduler that signals
    every process of a job. -P: what lies in the current folder is not imported.
    """
    words: list[str] = [sys.executable, "-P", *arguments]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        started: Any = subprocess.Popen(words, bufsize=0, start_new_session=True, **options)
        return started
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
