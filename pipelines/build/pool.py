"""Work in order, over worker processes: results come back in the order in which the items went in.

At most a few items a worker are under way, so that memory does not depend on how many there are. Workers are
spawned afresh (no inherited locks, no torch), never see Ctrl-C (the parent decides), and end with their parent
however that ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import FrameType, ModuleType
from typing import TypeVar

from shards.environment import pass_environment_on
from shards.errors import FailureError

Item = TypeVar("Item")
Result = TypeVar("Result")

IN_FLIGHT_PER_WORKER = 4


def map_in_order(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, name: Callable[[Item], str]
) -> Iterator[tuple[Item, Result]]:
    """(item, work(item)) in order. With at most one worker all happens in this process.

    Raises FailureError that names the item if `work` raised, or if a worker was killed (out of memory).
    """
    if workers <= 1:
        for item in items:
            with _naming(name(item)):
                result = work(item)
            yield item, result
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=begin_worker)
    try:
        yield from _pump(pool, work, iter(items), workers * IN_FLIGHT_PER_WORKER, name)
    finally:
        _end(pool)


def _pump(
    pool: ProcessPoolExecutor,
    work: Callable[[Item], Result],
    items: Iterator[Item],
    depth: int,
    name: Callable[[Item], str],
) -> Iterator[tuple[Item, Result]]:
    under_way: deque[tuple[Item, Future[Result]]] = deque()
    for item in items:
        with _naming(name(item)), as_workers_start():  # a submit may spawn one
            under_way.append((item, pool.submit(work, item)))
        if len(under_way) >= depth:
            yield _next(under_way, name)
    while under_way:
        yield _next(under_way, name)


def _next(under_way: deque[tuple[Item, Future[Result]]], name: Callable[[Item], str]) -> tuple[Item, Result]:
    item, future = under_way.popleft()
    with _naming(name(item)):
        return item, future.result()


@contextlib.contextmanager
def _naming(item: str) -> Iterator[None]:
    """Says at which item something went wrong."""
    try:
        yield
    except BrokenProcessPool as error:
        raise FailureError(
            f"a worker process was killed near {item}, perhaps for want of memory; run the same command again, "
            "with fewer --workers"
        ) from error
    except Exception as error:
        if isinstance(error, OSError):
            pass_environment_on(error)
        raise FailureError(f"{item}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def as_workers_start() -> Iterator[None]:
    """What a worker that is spawned in this block takes over from us.

    SIGINT blocked, for Ctrl-C is the parent's to handle; here it is only held back, not lost. And no main module: a
    worker needs none, and running the caller's script again would want `if __name__ == "__main__"` in it.
    """
    with _signals_held_back():
        main, mask = sys.modules["__main__"], signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """A signal acts at the end. A mask does not do: the system gives a signal to any thread that takes it, Python then
    interrupts this one, and a worker that was about to be told its work is left with half of it and a traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noted: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda came, _: noted.append(came)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if noted:
            signal.raise_signal(noted[0])


def begin_worker() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(ImportError):
        import cv2

        cv2.setNumThreads(1)


def _end_with_parent() -> None:
    """A parent that is killed cannot tell its workers; they watch it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _end(pool: ProcessPoolExecutor) -> None:
    """Workers hold nothing worth saving: end them at once, whatever they are at."""
    processes = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(5)
    pool.shutdown(wait=True)


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt while inside, so that both ends run through the same `finally`s."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
