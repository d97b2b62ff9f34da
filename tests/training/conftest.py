"""A store that keeps runs, and machines that come to it one after the other; one thread for runs that are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from bucket_server import Bucket, serving_bucket
from forked_ranks import RunRanks
from train_helpers import train_rank

from seqjepa.training import run_store
from shards.stores import store_lease


@pytest.fixture(params=["s3"])
def bucket(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Bucket]:
    """A bucket whose leases are decided at once."""
    monkeypatch.setattr(store_lease, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(store_lease, "SETTLE_SECONDS", 0.0)
    with serving_bucket(monkeypatch, request.param) as served:
        yield served


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """machine(NAME): from here on this is another machine, with nothing of others in its cache. Begins as "first"."""

    def begin(name: str) -> None:
        monkeypatch.setenv("SEQJEPA_CACHE", str(tmp_path / name))
        monkeypatch.setattr(run_store.socket, "gethostname", lambda: name)

    begin("first")
    return begin


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def two_ranks(run_ranks: RunRanks) -> Callable[..., list[tuple[int, str]]]:
    """two_ranks(SHARDS, OUT, SETTINGS): train() on two ranks → exit code and output of each."""

    def run(shards: Path, out: Path, settings: list[str], stop_at: int = -1) -> list[tuple[int, str]]:
        return run_ranks(train_rank, str(shards), str(out), stop_at, *settings)

    return run
