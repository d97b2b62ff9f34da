"""What the workers of test_pool.py do: they import this file, which imports nothing that takes a while."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence


def slower_at_first(item: int) -> int:
    time.sleep(0.02 * (item < 3))
    return item * item


def fail_at_seven(item: int) -> int:
    if item == 7:
        raise ValueError("no sevens")
    return item


def die_at_three(item: int) -> int:
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def imported_torch(item: int) -> bool:
    import pipelines.build.transform  # noqa: F401

    return "torch" in sys.modules


def megabytes(item: int) -> bytes:
    return bytes(8 << 20)


def pid(item: int) -> int:
    return os.getpid()


def fives(group: Sequence[int], item: int) -> bool:
    return group[-1] // 5 == item // 5


def name(item: int) -> str:
    return f"item {item}"
