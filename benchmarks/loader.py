"""Sequences per second of our loader on the cores of this machine, beside other loaders and the JPEG decode limit.

    python benchmarks/loader.py [--work DIR] [--rounds 5] [--seconds 4]

128 px, M = 3 (4 views a sequence), batches of 512, page cache hot. Each round runs every contender once, one after
the other, each in a fresh process; figures are medians over rounds, ratios are medians of the rounds' own ratios.
`limit` is the rate at which one process per core decodes the same bytes into one image of memory each. `spin_ratio` is
our rate while a thread of the consuming process runs a pure-Python loop, over our rate without it: that thread holds
the interpreter's lock and takes its share of the cores from the workers too. `worker_per_core` has our figures with
as many workers as cores instead of the default of twice as many; peers have two. `resident` is our rate where all
views are kept decoded in memory (train.resident=yes), on one core. `spdl_over_our_shards` is what
threads would give in place of our ring of processes, all else being ours. Peers that are not installed are left out
and named in `missing`; benchmarks/requirements.txt and requirements-older.txt have them.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common import emit, surroundings, versions  # noqa: E402
from loader_data import BATCH, SEQUENCE, SIDE, prepare  # noqa: E402
from peers import OUR_PARTS, PEERS, RELEASED  # noqa: E402

CORES = len(os.sched_getaffinity(0))
OURS = ["ours", "spin", "ours, worker per core", "spin, worker per core", "ours, resident"]


def our_batches(work: Path, workers: int | None, resident: bool) -> Iterator[Any]:
    from seqjepa.data.decode_ahead import Reading
    from seqjepa.data.loader import Loader
    from seqjepa.data.sampling import Sampling
    from seqjepa.data.stored import StoredViews
    from shards.reader import ShardSet

    index = ShardSet.open(work / "shards").split("train")
    reading = Reading(workers=workers, resident=resident)
    with Loader(index, StoredViews("rotation"), Sampling(SEQUENCE, BATCH, 0), reading) as loader:
        for epoch in count():
            yield from loader.epoch(epoch)


def rate(batches: Iterator[Any], seconds: float) -> float:
    """Sequences per second, after a warm-up in which all memory is touched and what was loaded ahead is used."""
    start, taken = time.perf_counter(), 0
    while time.perf_counter() - start < 2.0 or taken < 6:
        next(batches)
        taken += 1
    start, sequences, taken = time.perf_counter(), 0, 0
    while (spent := time.perf_counter() - start) < seconds or taken < 4:
        batch = next(batches)
        sequences += len(batch[0]) if isinstance(batch, tuple | list) else len(batch)
        taken += 1
    return sequences / spent


def spinning() -> None:
    """Hold the interpreter's lock in a thread of this process, as a trainer's Python does."""

    def spin() -> None:
        while True:
            pass

    threading.Thread(target=spin, daemon=True).start()


def decode_limit(work: Path, processes: int, seconds: float) -> float:
    """Sequences per second if there were nothing but JPEG decoding."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        return sum(pool.starmap(_decode_rate, [(work, number, seconds) for number in range(processes)])) / SEQUENCE


def _decode_rate(work: Path, number: int, seconds: float) -> float:
    import numpy as np
    import simplejpeg

    from shards.reader import ShardSet

    index = ShardSet.open(work / "shards").split("train")
    order = np.random.default_rng(number).permutation(len(index) * index.offsets.shape[1])
    views = [index.read_bytes(*divmod(int(i), index.offsets.shape[1])) for i in order[:8192]]
    image, count, start = np.empty((SIDE, SIDE, 3), np.uint8), 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        for data in views[:1024]:
            simplejpeg.decode_jpeg(data, buffer=image)
        count, views = count + 1024, views[1024:] + views[:1024]
    return count / spent


def run_one(name: str, work: Path, seconds: float) -> float:
    if name == "limit":
        return decode_limit(work, CORES, seconds)
    if name in PEERS:
        batches = importlib.import_module(f"peers.{PEERS[name]}").batches(work)
    else:
        batches = our_batches(work, CORES if "per core" in name else None, "resident" in name)
    if "spin" in name:
        next(batches)
        spinning()
    return rate(batches, seconds)


def run_apart(name: str, arguments: argparse.Namespace) -> float | None:
    """One contender in a process of its own; None where it fails."""
    command = [sys.executable, __file__, "--one", name, "--work", arguments.work, "--seconds", arguments.seconds]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=_environment())
    if done.returncode:
        print(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return float(done.stdout.split()[-1])


def _environment() -> dict[str, str]:
    return surroundings(ROOT) | {"OMP_NUM_THREADS": "1"}


def installed(name: str) -> bool:
    module = importlib.util.find_spec(f"peers.{PEERS[name]}")
    assert module is not None
    requires = importlib.import_module(f"peers.{PEERS[name]}").REQUIRES
    return len(versions(*requires)) == len(requires)


def summary(rounds: list[dict[str, float]], missing: list[str]) -> None:
    figures = {name: median(r[name] for r in rounds) for name in rounds[0]}
    peers = [name for name in figures if name in PEERS and name != OUR_PARTS]

    def ratio(top: str, *bottom: str) -> float:
        return median(r[top] / max(r[name] for name in bottom) for r in rounds)

    emit(
        "loader: 128 px, M=3, batch 512, page cache hot",
        "sequences/s",
        figures["ours"],
        {name: figures[name] for name in peers},
        figures["limit"],
        ratio_best_peer=ratio("ours", *peers) if peers else None,
        best_peer=max(peers, key=figures.__getitem__, default=None),
        ratio_limit=ratio("ours", "limit"),
        ratio_released=ratio("ours", RELEASED) if RELEASED in figures else None,
        spin=figures["spin"],
        spin_ratio=ratio("spin", "ours"),
        rounds=len(rounds),
        worker_per_core={
            "ours": figures[OURS[2]],
            "ratio_limit": ratio(OURS[2], "limit"),
            "spin_ratio": ratio(OURS[3], OURS[2]),
        },
        resident={"ours": figures[OURS[4]], "ratio_ring": ratio(OURS[4], "ours")},
        spdl_over_our_shards=figures.get(OUR_PARTS),
        missing=missing,
        versions=versions("torch", "numpy", "simplejpeg", *_peer_packages()),
    )


def _peer_packages() -> list[str]:
    return ["torchvision", "pillow", "webdataset", "litdata", "mosaicml-streaming", "datasets", "spdl"]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "benchmark-loader", help="folder for the data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="measured per contender and round")
    parser.add_argument("--only", nargs="*", choices=list(PEERS), default=list(PEERS), help="peers to run")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # measure one contender in this process
    parser.add_argument("--prepare", help=argparse.SUPPRESS)  # write one peer's data
    return parser.parse_args()


def compare(arguments: argparse.Namespace) -> None:
    present = [name for name in arguments.only if installed(name)]
    prepare(arguments.work)
    for name in present:  # apart, because some print, and our own output is one line
        command = [sys.executable, __file__, "--prepare", name, "--work", str(arguments.work)]
        subprocess.run(command, check=True, stdout=sys.stderr, env=_environment())
    contenders, rounds = ["limit", *OURS, *present], []
    for number in range(arguments.rounds):
        rounds.append({name: run_apart(name, arguments) for name in contenders})
        print(json.dumps({"round": number} | rounds[-1]), file=sys.stderr, flush=True)
    failed = [name for name in contenders if any(r[name] is None for r in rounds)]
    if not set(failed).isdisjoint(["limit", *OURS]):
        sys.exit(f"could not measure {', '.join(failed)}")
    kept = [{name: value for name, value in r.items() if name not in failed} for r in rounds]
    summary(kept, [name for name in arguments.only if name not in present] + failed)


def main() -> None:
    arguments = parse_arguments()
    if arguments.prepare:
        importlib.import_module(f"peers.{PEERS[arguments.prepare]}").prepare(arguments.work)
    elif arguments.one:
        print(run_one(arguments.one, arguments.work, arguments.seconds), flush=True)
        os._exit(0)  # spinning threads and other people's workers must not keep us
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
