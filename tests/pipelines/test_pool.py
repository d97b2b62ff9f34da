from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pool_work import die_at_three, fail_at_seven, fives, imported_torch, name, pid, slower_at_first
from python_path import python_path

from pipelines.build.pool import GROUPS_PER_WORKER, IN_FLIGHT_PER_WORKER, map_in_order, sigterm_as_interrupt
from shards.errors import FailureError


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_order_is_kept(workers: int) -> None:
    assert list(map_in_order(slower_at_first, range(20), workers, name)) == [(i, i * i) for i in range(20)]


def test_a_group_is_worked_on_by_one_worker() -> None:
    found = list(map_in_order(pid, range(30), 3, name, fives))
    assert [item for item, _ in found] == list(range(30))
    groups = [{process for item, process in found if item // 5 == k} for k in range(6)]
    assert all(len(group) == 1 for group in groups)


def test_reads_no_further_ahead_than_needed() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(1000):
            taken += 1
            yield item

    for joins, ahead in ((None, 2 * IN_FLIGHT_PER_WORKER), (fives, 2 * GROUPS_PER_WORKER * 5 + 1)):
        taken = 0
        results = map_in_order(slower_at_first, items(), 2, name, joins)
        for count in range(1, 30):
            next(results)
            assert taken <= count + ahead
        results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [1, 2])
def test_failures_name_the_item(workers: int) -> None:
    for joins in (None, fives):
        results = []
        with pytest.raises(FailureError, match="item 7: ValueError: no sevens"):
            results.extend(map_in_order(fail_at_seven, range(20), workers, name, joins))


def test_results_that_are_half_sent_are_not_waited_for() -> None:
    """A worker that is ended may be in the middle of a pipe; a process that waits for the rest never ends."""
    script = """
import time
from pipelines.build.pool import map_in_order
from pool_work import fives, megabytes
if __name__ == "__main__":
    for pause in (0, 0.05, 0.1):
        results = map_in_order(megabytes, range(400), 2, str, fives)
        next(results)
        time.sleep(pause)
        results.close()
"""
    tests = Path(__file__).parents[1]
    path = python_path(tests / "pipelines", tests, os.getcwd())
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path}, timeout=60, check=True)


def test_a_killed_worker_is_an_error_not_a_hang() -> None:
    with pytest.raises(FailureError, match=r"a worker process was killed near item \d+, perhaps for want of memory"):
        list(map_in_order(die_at_three, range(20), 2, name))


def test_workers_are_gone_when_the_results_are_given_up() -> None:
    results = map_in_order(pid, range(100), 2, name)
    pids = {next(results)[1] for _ in range(20)}
    results.close()  # type: ignore[attr-defined]
    for worker in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


def test_workers_do_not_import_torch() -> None:
    assert not any(torch for _, torch in map_in_order(imported_torch, range(4), 2, name))


def test_sigterm_interrupts_and_is_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), sigterm_as_interrupt():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_callers_need_no_main_guard(tmp_path: Path) -> None:
    """Neither an unguarded script nor one that comes through stdin is run again by the workers."""
    code = (
        "from pipelines.build.pool import map_in_order\n"
        "print(sum(result for _, result in map_in_order(abs, range(-9, 0), 2, str)))\n"
    )
    (tmp_path / "script.py").write_text(code)
    for arguments, text in (([str(tmp_path / "script.py")], ""), (["-"], code)):
        done = subprocess.run(
            [sys.executable, *arguments],
            input=text.encode(),
            capture_output=True,
            env={**os.environ, "PYTHONPATH": python_path()},
            check=False,
        )
        assert (done.stdout, done.stderr) == (b"45\n", b"")
