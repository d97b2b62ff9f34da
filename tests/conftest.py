"""For all tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from forked_ranks import RunRanks, forked_ranks


def pytest_collection_finish() -> None:
    """What collecting has made stays to the end; a full round of the collector would take half a second to see that."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def run_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunRanks]:
    with forked_ranks(tmp_path_factory.mktemp("ranks")) as run:
        yield run
