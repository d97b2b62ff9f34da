"""For all tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from forked_ranks import Forks, RunForked, RunRanks, forks


def pytest_collection_finish() -> None:
    """What collecting has made stays to the end; a full round of the collector would take half a second to see that."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def forks_of_torch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with forks(tmp_path_factory.mktemp("forks")) as started:
        yield started


@pytest.fixture(scope="session")
def run_ranks(forks_of_torch: Forks) -> RunRanks:
    return forks_of_torch.ranks


@pytest.fixture(scope="session")
def run_forked(forks_of_torch: Forks) -> RunForked:
    return forks_of_torch.alone
