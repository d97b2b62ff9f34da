"""What other processes of this machine do with a set in a store (fork_server.py)."""

from __future__ import annotations

from shards.reader import ShardSet


def fetch_all(url: str) -> None:
    found = ShardSet.open(url)
    for name in found.splits:
        found.split(name)
