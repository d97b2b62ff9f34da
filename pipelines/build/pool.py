"""Work in order, over worker processes: results come back in the order in which the items went in.

Items that are cheaper one after the other (frames of a video, which one decoder gives) go to a worker as a group.
At most a few items a worker, or two groups, are under way, so that memory does not depend on how many there are.
Workers are spawned afresh (no inherited locks, no torch), never see Ctrl-C (the parent decides), and end with their
parent however that ends.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import TypeVar

from shards.errors import FailureError
from shards.machine.environment import pass_environment_on

Item = TypeVar("Item")
Result = TypeVar("Result")

IN_FLIGHT_PER_WORKER, GROUPS_PER_WORKER = 4, 2


def map_in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    name: Callable[[Item], str],
    joins: Callable[[Sequence[Item], Item], bool] | None = None,
) -> Iterator[tuple[Item, Result]]:
    """(item, work(item)) in order. With at most one worker all happens in this process.

    joins  whether an item goes to the same worker as those before it: `joins(group, item)`. None: none does
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
    under_way: deque[tuple[list[Item], Future[list[Result | Failed]]]] = deque()
    try:
        for group in _grouped(items, joins):
            with _naming(name(group[0])), as_workers_start():  # a submit may spawn one
                under_way.append((group, pool.submit(_work_on, work, group)))
            while (
                len(under_way) >= workers * GROUPS_PER_WORKER
                and sum(len(group) for group, _ in under_way) >= workers * IN_FLIGHT_PER_WORKER
            ):
                yield from _next(under_way, name)
        while under_way:
            yield from _next(under_way, name)
    finally:
        _end(pool)


def _grouped(items: Iterable[Item], joins: Callable[[Sequence[Item], Item], bool] | None) -> Iterator[list[Item]]:
    group: list[Item] = []
    for item in items:
        if joins is None:
            yield [item]
        elif group and not joins(group, item):
            yield group
            group = [item]
        else:
            group.append(item)
    if group:
        yield group


@dataclass(frozen=True)
class Failed:
    """In place of the result of an item: what its work raised. Nothing of its group comes after it."""

    error: Exception


def _work_on(work: Callable[[Item], Result], group: Sequence[Item]) -> list[Result | Failed]:
    results: list[Result | Failed] = []
    for item in group:
        try:
            results.append(work(item))
        except Exception as error:
            return [*results, Failed(error)]
    return results


def _next(
    under_way: deque[tuple[list[Item], Future[list[Result | Failed]]]], name: Callable[[Item], str]
) -> Iterator[tuple[Item, Result]]:
    group, future = under_way.popleft()
    with _naming(name(group[0])):
        results = future.result()
    for item, result in zip(group, results, strict=False):
        if isinstance(result, Failed):
            with _naming(name(item)):
                raise result.error
        yield item, result


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
    results = getattr(pool, "_result_queue", None)
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(5)
    if results is not None:  # of a result that was half sent the rest would be waited for: there are no senders now
        results._writer.close()
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
