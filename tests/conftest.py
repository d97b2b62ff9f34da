"""For all tests."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.testing
from forked_ranks import Forks, RunForked, RunRanks, forks

from shards.machine.environment import usable_cores

typer.testing._get_command = functools.cache(typer.main.get_command)
"""CliRunner would make all forty commands anew for each that a test runs, which takes longer than many of them."""

os.fsync = lambda fd: None
"""No test cuts the power, and waiting for the disk would be a twentieth of the time. Other processes do wait."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
"""What a shell starts in the background, or under nohup, ignores Ctrl-C, and so would what tests interrupt."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Of `-n auto`. One more than there are cores: tests wait for others' processes for a sixth of the time."""
    return usable_cores() + 1


def pytest_collectstart() -> None:
    """What collecting makes stays, and the collector's rounds over it would be a tenth of its time."""
    gc.disable()


def pytest_collection_finish() -> None:
    """A full round of the collector would take half a second to see that what collecting has made stays to the end."""
    gc.collect()
    gc.freeze()
    gc.enable()


_TESTS = itertools.count()


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pytest's own lists the folders of all tests before, for a number that is free: as long as a small test takes."""
    name = re.sub(r"\W", "_", request.node.name)[:30]
    folder = tmp_path_factory.getbasetemp() / f"{name}_{next(_TESTS)}"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(scope="session")
def forks_of_torch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Of one process for all workers of pytest-xdist, whose own folders lie in one."""
    own = tmp_path_factory.getbasetemp()
    with forks(tmp_path_factory.mktemp("forks"), own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) as started:
        yield started


@pytest.fixture(scope="session")
def run_ranks(forks_of_torch: Forks) -> RunRanks:
    return forks_of_torch.ranks


@pytest.fixture(scope="session")
def run_forked(forks_of_torch: Forks) -> RunForked:
    return forks_of_torch.alone
