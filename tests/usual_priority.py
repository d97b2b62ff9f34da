"""SVT-AV1 makes the process that encodes a real-time one where it may, as root, and leaves it so."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def usual_priority() -> Iterator[None]:
    """Afterwards every thread is scheduled as the caller was: one that spins at real-time priority starves all else, be
    it a thread that it waits for."""
    if not hasattr(os, "sched_getscheduler"):  # macOS and Windows
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(int(thread), policy, priority)
