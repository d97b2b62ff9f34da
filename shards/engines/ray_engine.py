"""Ray as an engine: work on one item after the other on all nodes of a cluster, as tasks or as actors.

A task is for work that needs nothing but its item; an actor first makes what all its items need (a model on its GPU).
What a node that is lost was at is done again on another, so `work` has to give the same whoever does it, and to write
under names that appear whole. Results come as they are ready. At most about one item a core is under way beyond
those that are worked on, so that memory does not depend on how many there are.

A node needs this package and what it stands on in the same versions, and sees the same disk (or store).
"""

# pyright: reportMissingImports=false
# Types are checked where Ray, an extra, is not installed too.

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from shards.engines.ray_node import Member, Setting, do_task
from shards.errors import FailureError, SeqJepaError, UsageError
from shards.extras import missing

Item = TypeVar("Item")
Result = TypeVar("Result")

RETRIES = 5
"""How often an item is begun again after what worked on it was lost."""
SECONDS_BETWEEN_LOOKS = 5.0
"""At what a cluster has: nodes come and go."""
SECONDS_TO_ANSWER = 10.0


CLUSTER: ContextVar[RayCluster | None] = ContextVar("cluster", default=None)


@contextlib.contextmanager
def ray_cluster(address: str | None) -> Iterator[RayCluster]:
    """Connected to a running cluster ("auto", "HOST:6379", ray://HOST:10001) or, with None, to what Ray itself chooses:
    RAY_ADDRESS, a cluster that runs on this machine, else one of its own for as long as this lasts.

    UsageError: Ray is not installed, or nobody answers.
    """
    try:
        import ray
    except ImportError as error:
        raise missing("ray", "--engine ray") from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if ray.is_initialized():
        raise UsageError("this process is connected to Ray already: leave that first (ray.shutdown())")
    with contextlib.redirect_stdout(_WithoutRay(sys.stdout)):  # type: ignore[type-var]
        try:
            _knock(address)
            with _handlers_kept():
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            at = f" at {address}" if address else ""
            said = " ".join(str(error).split())[:200]
            raise UsageError(f"no Ray cluster answers{at} ({said}); start one (ray start --head)") from error
        try:
            yield RayCluster(Setting.of_here())
        finally:
            ray.shutdown()


@contextlib.contextmanager
def engine_of(name: str, address: str | None) -> Iterator[RayCluster | None]:
    """What --engine and --address ask for, which inside is CLUSTER: None is this machine alone.

    UsageError: what is not allowed.
    """
    if name not in ("local", "ray"):
        raise UsageError(f"--engine is {name!r}; allowed are local and ray")
    if name == "local":
        if address is not None:
            raise UsageError("--address is for --engine ray; give that too, or leave it out")
        yield None
        return
    with ray_cluster(address) as cluster:
        token = CLUSTER.set(cluster)
        try:
            yield cluster
        finally:
            CLUSTER.reset(token)


def spread(work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], said: str) -> list[Result]:
    """work(items), results in order; within engine_of, on the nodes, whose cores are given a part of the items each.

    A result may not depend on what else is in the part. Errors as RayCluster.map_tasks.
    """
    cluster = CLUSTER.get()
    cores = int(cluster.count("CPU")) if cluster else 1
    if cluster is None or cores < 2:  # one core is no faster than this one
        return list(work(items))
    size = max(1, -(-len(items) // cores))
    parts = [(start, items[start : start + size]) for start in range(0, len(items), size)]
    found = dict(cluster.map_tasks(partial(_numbered, work), parts, lambda part: f"{said} {part[0]}"))
    return [result for start, _ in parts for result in found[start]]


def _numbered(work: Callable[[Any], Any], part: tuple[int, Any]) -> tuple[int, Any]:
    """What a node does with a part of the items: parts are ready in any order."""
    return part[0], work(part[1])


class _WithoutRay:
    """A standard output into which Ray's threads do not tell of lost nodes, amid what a command prints."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        rays = threading.current_thread().name.startswith("ray_")
        return getattr(sys.stderr if rays else self._stream, name)


def _knock(address: str | None) -> None:
    """OSError: nobody listens at HOST:PORT. Ray itself would try for many minutes."""
    if address and (found := re.fullmatch(r"(?:ray://)?\[?([\w.:-]+?)\]?:(\d{1,5})", address)):
        socket.create_connection((found[1], int(found[2])), SECONDS_TO_ANSWER).close()


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray takes SIGTERM over, and ends the process where it stands."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


class RayCluster:
    """Made by ray_cluster."""

    def __init__(self, setting: Setting):
        self._setting = setting
        self._looked, self._resources = -SECONDS_BETWEEN_LOOKS, {}

    def map_tasks(
        self,
        work: Callable[[Item], Result],
        items: Iterable[Item],
        name: Callable[[Item], str],
        size: Callable[[Item], int] = lambda item: 0,
    ) -> Iterator[Result]:
        """work(item) of every item, one task of one core each, as they are ready.

        name  of an item, for messages        size  bytes that an item brings with it: of all that are under way they
        fill half the cluster's shared memory at most

        Raises what `work` raised, if it is one of ours; FailureError that names item and node otherwise.
        """
        import ray

        task = ray.remote(max_retries=RETRIES, num_cpus=1)(do_task)
        shared = ray.put((self._setting, work))
        under_way: dict[Any, tuple[str, int]] = {}
        try:
            for item in items:
                under_way[task.remote(shared, name(item), item)] = name(item), size(item)
                yield from _ready(under_way, 0)
                while not self._has_room(under_way.values()):
                    yield from _ready(under_way, SECONDS_BETWEEN_LOOKS)
            while under_way:
                yield from _ready(under_way, SECONDS_BETWEEN_LOOKS)
        finally:
            for reference in under_way:
                ray.cancel(reference, force=True)

    def map_actors(
        self,
        make: Callable[[], Callable[[Item], Result]],
        items: Iterable[Item],
        name: Callable[[Item], str],
        *,
        gpus: int = 0,
        most: int | None = None,
    ) -> Iterator[Result]:
        """make()(item) of every item, over actors that call make() once, as they are ready.

        gpus  of each actor, which has a core; there are as many as the cluster has room for, and no more than `most`.
        An item is taken when there is an actor for it

        Raises as map_tasks, and UsageError where not one actor fits.
        """
        crew = _Crew(self._setting, make, {"num_gpus": gpus, "num_cpus": 1})
        coming, again, lost = iter(items), deque[Item](), Counter[str]()
        again.extend(itertools.islice(coming, 1))  # with nothing to do, nobody is called
        try:
            more = bool(again)
            while more or again or crew.busy:
                crew.grow(min(self._fitting(gpus), most or sys.maxsize))
                while crew.free and (again or more):
                    item = again.popleft() if again else next(coming, crew)
                    if item is crew:
                        more = False
                    else:
                        crew.give(item, name(item))  # pyright: ignore[reportArgumentType] it is no crew
                if not (more or again or crew.busy):
                    break
                for item, result in crew.wait():
                    if result is not _LOST:
                        yield _taken(result)
                        continue
                    lost[name(item)] += 1
                    if lost[name(item)] > RETRIES:
                        raise FailureError(_lost_line(name(item)))
                    again.append(item)
        finally:
            crew.end()

    def device(self, asked: str) -> str:
        """cpu or cuda, of --device. UsageError: a certain GPU, which Ray itself deals out."""
        if asked not in ("auto", "cpu", "cuda"):
            raise UsageError(f"--device {asked} with --engine ray: allowed are auto, cpu and cuda; Ray deals GPUs out")
        return asked if asked != "auto" else "cuda" if self.count("GPU") else "cpu"

    def _has_room(self, under_way: Collection[tuple[str, int]]) -> bool:
        cores, memory = int(self.count("CPU")), self.count("object_store_memory")
        brought = sum(size for _, size in under_way)
        return len(under_way) < max(2, cores + -(-cores // 4)) and (not brought or brought < memory / 2)

    def _fitting(self, gpus: int) -> int:
        fitting = min(int(self.count("CPU")), int(self.count("GPU")) // gpus) if gpus else int(self.count("CPU"))
        if not fitting and gpus:
            raise UsageError("the Ray cluster has no GPU; add a node that has one, or give --device cpu")
        return max(1, fitting)

    def count(self, kind: str) -> float:
        """How much the nodes have together: "CPU", "GPU", "object_store_memory" in bytes."""
        import ray

        if time.monotonic() - self._looked >= SECONDS_BETWEEN_LOOKS:
            self._looked, self._resources = time.monotonic(), ray.cluster_resources()
        return self._resources.get(kind, 0.0)


def _ready(under_way: dict[Any, tuple[str, int]], seconds: float) -> Iterator[Any]:
    """Results of tasks that are ready within so many seconds, taken out of `under_way`."""
    import ray

    for reference in ray.wait(list(under_way), timeout=seconds)[0]:
        said, _ = under_way.pop(reference)
        with _loss_named(said):
            result = ray.get(reference)
        yield _taken(result)


_LOST = object()
"""In place of a result: the actor that worked on it is gone."""


@dataclass
class _Crew:
    """Actors. starting: reference → an actor that is not ready; busy: reference → an actor and its item."""

    setting: Setting
    make: Callable[[], Callable[[Any], Any]]
    needs: dict[str, Any]
    starting: dict[Any, Any] = field(default_factory=dict)
    busy: dict[Any, tuple[Any, Any]] = field(default_factory=dict)
    free: list[Any] = field(default_factory=list)
    lost_starts: int = 0
    shared: Any = None  # `make`, which may bring a model's weights, once for all

    def grow(self, wanted: int) -> None:
        import ray

        self.shared = self.shared or ray.put(self.make)
        for _ in range(wanted - len(self.starting) - len(self.busy) - len(self.free)):
            actor = ray.remote(**self.needs)(Member).remote(self.setting, self.shared)
            self.starting[actor.ready.remote()] = actor

    def give(self, item: Any, said: str) -> None:
        """To one that is free."""
        actor = self.free.pop()
        self.busy[actor.do.remote(item, said)] = actor, item

    def wait(self) -> list[tuple[Any, Any]]:
        """(item, result) of what has ended; [] after a while in which nothing has."""
        import ray
        from ray.exceptions import RayActorError

        ended, found = ray.wait([*self.starting, *self.busy], timeout=SECONDS_BETWEEN_LOOKS)[0], []
        for reference in ended:
            actor, item = self.busy.pop(reference, (None, None))
            began = actor is None
            actor = self.starting.pop(reference) if began else actor
            try:
                result = ray.get(reference)
            except RayActorError:
                result = _LOST
            else:
                self.free.append(actor)
            if not began:
                found.append((item, result))
            elif result is _LOST:
                self.lost_starts += 1
                if self.lost_starts > RETRIES:
                    raise FailureError(_lost_line("the first step of a worker"))
            else:
                _taken(result)
        return found

    def end(self) -> None:
        import ray

        for actor in [*self.starting.values(), *(actor for actor, _ in self.busy.values()), *self.free]:
            ray.kill(actor)


def _taken(result: Any) -> Any:
    if isinstance(result, SeqJepaError):
        raise result
    return result


@contextlib.contextmanager
def _loss_named(said: str) -> Iterator[None]:
    from ray.exceptions import RayError, RayTaskError

    try:
        yield
    except RayTaskError as error:  # of Ray's own making: a worker that cannot import this package
        reason = " ".join(str(error.cause or error).split())
        raise FailureError(f"{said}: {reason[-300:]}; install the same seqjepa on all nodes") from error
    except RayError as error:
        raise FailureError(_lost_line(said)) from error


def _lost_line(said: str) -> str:
    return (
        f"{said} was begun {RETRIES + 1} times and its worker was lost each time, perhaps for want of memory; "
        "see `ray logs`, then run the same command again"
    )
