"""How well windows of shards shuffle, beside a full shuffle and a buffer: lag correlation, distinct shards a batch.

    python benchmarks/shuffle.py [--shards 1281] [--samples 1000] [--batch 256] [--epochs 3]

Nothing is read: orders of samples alone. Each shard has a value of its own, as where shards hold a class or a scene
each (the worst case); a full shuffle of the samples has no correlation of these values between neighbours.

shards_a_batch   distinct shards in a batch, mean over the epoch; first and fewest: of the first one, and the least
same_shard       how much more often than in a full shuffle the next sample is of the same shard
lag_N            correlation of the shard's value between samples that are N apart
between_epochs   correlation of a sample's place in two epochs, absolute
read_at_once     share of the shards that is in the cache, at most
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from common import emit, versions  # noqa: E402

from seqjepa.data.draws import permutation, windowed  # noqa: E402

SHARES = (0.02, 0.05, 0.1, 0.25, 0.5)
"""Of the shards, that a window holds."""
BUFFER = 10_000
"""Samples of the buffer that stands for a stream through one: shards in random order, mixed in it."""
LAGS = (1, 256, 10_000)


def buffered(seed: int, epoch: int, homes: np.ndarray) -> np.ndarray:
    """The order of a shuffle buffer: each sample that comes in takes the place of a random one, which goes out."""
    rng = np.random.default_rng([seed, epoch])
    shards = permutation(seed, epoch, int(homes.max()) + 1)
    stream = np.concatenate([np.flatnonzero(homes == shard) for shard in shards])
    held, out = stream[:BUFFER].copy(), np.empty_like(stream)
    places = rng.integers(0, len(held), len(stream) - len(held))
    for step, (sample, place) in enumerate(zip(stream[BUFFER:], places, strict=True)):
        out[step], held[place] = held[place], sample
    out[len(places) :] = rng.permutation(held)
    return out


def quality(orders: list[np.ndarray], homes: np.ndarray, batch: int) -> dict[str, Any]:
    """Of the orders of some epochs, see above."""
    values = np.random.default_rng(0).standard_normal(int(homes.max()) + 1)
    found: dict[str, list[float]] = {}
    for order in orders:
        shards = homes[order]
        whole = shards[: len(shards) // batch * batch].reshape(-1, batch)
        distinct = (np.diff(np.sort(whole, 1)) > 0).sum(1) + 1
        series = values[shards]
        measured = {
            "shards_a_batch": distinct.mean(),
            "first": distinct[0],
            "fewest": distinct.min(),
            "same_shard": (shards[1:] == shards[:-1]).mean() * len(values),
            **{f"lag_{lag}": np.corrcoef(series[lag:], series[:-lag])[0, 1] for lag in LAGS},
            "read_at_once": most_at_once(shards) / len(values),
        }
        for name, value in measured.items():
            found.setdefault(name, []).append(float(value))
    one, other = (np.argsort(orders[epoch]) for epoch in (0, -1))
    between = abs(float(np.corrcoef(one, other)[0, 1]))
    return {name: round(fmean(values), 4) for name, values in found.items()} | {"between_epochs": round(between, 4)}


def most_at_once(shards: np.ndarray) -> int:
    """The most shards between whose first and last sample one place of the order lies."""
    change = np.zeros(len(shards) + 1, np.int64)
    change[np.unique(shards, return_index=True)[1]] += 1
    change[len(shards) - np.unique(shards[::-1], return_index=True)[1]] -= 1
    return int(np.cumsum(change).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1281)
    parser.add_argument("--samples", type=int, default=1000, help="in a shard")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=3)
    words = parser.parse_args()
    homes = np.repeat(np.arange(words.shards), words.samples)
    orders = {"full": lambda epoch: permutation(0, epoch, len(homes))}
    for share in SHARES:
        window = max(2, round(share * words.shards))
        orders[f"window of {share:.0%}"] = lambda epoch, window=window: windowed(0, epoch, homes, window)
    orders[f"buffer of {BUFFER}"] = lambda epoch: buffered(0, epoch, homes)
    found = {
        name: quality([order(epoch) for epoch in range(words.epochs)], homes, words.batch)
        for name, order in orders.items()
    }
    peers = {name: values["shards_a_batch"] for name, values in found.items() if "window" not in name}
    ours = found["window of 25%"]["shards_a_batch"]
    emit("shuffle", "distinct shards a batch", ours, peers, orders=found, versions=versions("numpy"), **vars(words))


if __name__ == "__main__":
    main()
