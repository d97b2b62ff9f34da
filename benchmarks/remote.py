"""Training from an object store beside training from a folder, in the first epoch and after it; and beside peers.

    python benchmarks/remote.py [--work DIR] [--rounds 3] [--epochs 3] [--site DIR] [--only litdata …]

moto's server on this machine stands for S3 (benchmarks/remote_data.py); it takes its share of the same cores. Every
contender trains the same seq-JEPA (ResNet-18 of half the width, 64 px, M = 3, batch 32) on the same objects; only what
brings the batches differs. The first epoch begins when the set is opened, with an empty cache, so all waiting is in it;
interpreter, imports and a first step on made-up views are over by then. `first` and `later` are sequences a second,
`ratio_first` and `ratio_later` those from S3 over those from the folder, with the same tool. Each contender is a
process of its own; a round runs all, one after the other. Figures are medians over rounds, ratios of their own ratios.
`mb_per_s` is what the server gives when nothing else runs, and what training asks for.

Peers are in benchmarks/requirements.txt and requirements-older.txt. --site is a folder (`pip install --target`) that
peers alone see, as some of them need older libraries than ours.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common import emit, versions  # noqa: E402
from remote_data import OBJECTS, bucket, size_of, upload, write_set  # noqa: E402

OURS = "ours"
PEERS = ("webdataset pipe:", "litdata", "mosaicml-streaming")
SETTINGS = ("data.image_size=0", "model.width=0.5", "optim.batch_size=32", "data.normalisation=shards")
FOLDER, STORE = "folder", "s3"
Figures = dict[str, dict[str, list[float]]]
"""Contender → "folder" and "s3" → sequences a second of each epoch."""


def train_epochs(name: str, place: str, cache: Path, epochs: int) -> list[float]:
    """Sequences a second, epoch by epoch."""
    import torch

    from seqjepa.data.device import feed
    from seqjepa.recipes import load_recipe
    from seqjepa.training.checkpoint import initial_method
    from seqjepa.training.distributed import World
    from seqjepa.training.learner import Learner

    torch.set_num_threads(1)
    config, device = load_recipe("3die-rot-M3", SETTINGS), torch.device("cpu")
    learner = Learner(initial_method(config, 4), config, World(), device)
    import remote_peers as peers

    made_up = peers.collate([(_blank(peers), _blank_params(peers)) for _ in range(peers.BATCH)])
    for seq in feed([made_up] * 2, device, (0.5,) * 3, (0.2,) * 3):
        learner.update(seq, 0, config.optim.lr, 0.0)
    steps, rates = OBJECTS // peers.BATCH, []
    began = time.perf_counter()
    batches = our_batches(place, config) if name == OURS else peers.batches(name, place, cache)
    fed = feed(batches, device, (0.5,) * 3, (0.2,) * 3)
    for epoch in range(epochs):
        for step in range(steps):
            learner.update(next(fed), epoch * steps + step, config.optim.lr, 0.1)
        now = time.perf_counter()
        rates.append(OBJECTS / (now - began))
        began = now
    return rates


def our_batches(place: str, config: Any) -> Iterator[Any]:
    import torch

    from seqjepa.training.data import build_loader, open_training_data
    from seqjepa.training.distributed import World

    source = open_training_data(Path(place), config)
    with build_loader(source, config, World(), 2, torch.device("cpu")) as loader:
        for epoch in range(1 << 30):
            yield from loader.epoch(epoch)


def _blank(peers: Any) -> Any:
    import numpy as np

    return np.zeros((peers.SEQUENCE, peers.SIDE, peers.SIDE, 3), np.uint8)


def _blank_params(peers: Any) -> Any:
    import numpy as np

    return np.zeros((peers.SEQUENCE, len(peers.NAMES)))


def run_apart(name: str, place: str, asked: argparse.Namespace) -> list[float]:
    """One contender in a process of its own, with an empty cache. Empty where it fails."""
    cache = Path(tempfile.mkdtemp(dir=asked.work))
    try:
        command = [sys.executable, __file__, "--one", name, "--place", place, "--cache", cache]
        command += ["--epochs", asked.epochs, "--work", asked.work]
        environment = _environment(name, asked) | {"SEQJEPA_CACHE": str(cache)}
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment)
    finally:
        shutil.rmtree(cache)
    if done.returncode:
        print(f"{name}, {place} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return []
    return json.loads(done.stdout.splitlines()[-1])


def _environment(name: str, asked: argparse.Namespace) -> dict[str, str]:
    site = [str(asked.site)] if asked.site and name != OURS else []
    path = os.pathsep.join([*site, str(ROOT)])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}


def places_of(name: str, asked: argparse.Namespace, shards: Path) -> dict[str, str]:
    """Its set in a folder and in the bucket; empty where the peer is not installed or fails."""
    if name == OURS:
        return {FOLDER: str(shards), STORE: upload(shards, shards.name)}
    command = [sys.executable, __file__, "--prepare", name, "--work", str(asked.work)]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(name, asked))
    if done.returncode:
        print(f"{name}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return {}
    folder = Path(done.stdout.splitlines()[-1])
    return {FOLDER: str(folder), STORE: upload(folder, folder.name)}


def server_rate(address: str, size: int) -> float:
    """MB/s of fetching all shards of ours, with nothing beside it."""
    from shards.reader import ShardSet

    with tempfile.TemporaryDirectory() as cache:
        os.environ["SEQJEPA_CACHE"] = cache
        began = time.perf_counter()
        ShardSet.open(address).split("train")
        return size / 1e6 / (time.perf_counter() - began)


def compare(asked: argparse.Namespace) -> None:
    asked.work.mkdir(parents=True, exist_ok=True)
    shards = write_set(asked.work)
    with bucket():
        places = {name: places_of(name, asked, shards) for name in (OURS, *asked.only)}
        present = [name for name in places if places[name]]
        rounds: list[Figures] = []
        for _ in range(asked.rounds):
            found = {
                name: {at: run_apart(name, place, asked) for at, place in places[name].items()} for name in present
            }
            rounds.append(found)
            print(json.dumps(found), file=sys.stderr, flush=True)
        server = server_rate(places[OURS][STORE], size_of(shards))
    failed = [name for name in present if any(not rates for found in rounds for rates in found[name].values())]
    if OURS in failed:
        sys.exit("our own training failed")
    report(asked, rounds, [name for name in present if name not in failed], server, size_of(shards) / 1e6)


def report(asked: argparse.Namespace, rounds: list[Figures], names: list[str], server: float, megabytes: float) -> None:
    def part(rates: list[float], when: str) -> float:
        """Of the epochs after the first: the median."""
        return rates[0] if when == "first" else median(rates[1:])

    def middle(name: str, at: str, when: str) -> float:
        return median(part(found[name][at], when) for found in rounds)

    def ratio(name: str, when: str) -> float:
        return median(part(found[name][STORE], when) / part(found[name][FOLDER], when) for found in rounds)

    local = middle(OURS, FOLDER, "later")
    emit(
        "remote: training from S3 on this machine, first epoch",
        "sequences/s",
        middle(OURS, STORE, "first"),
        {name: middle(name, STORE, "first") for name in names if name != OURS},
        limit=local,
        ratio_first={name: ratio(name, "first") for name in names},
        ratio_later={name: ratio(name, "later") for name in names},
        first={name: {at: middle(name, at, "first") for at in (FOLDER, STORE)} for name in names},
        later={name: {at: middle(name, at, "later") for at in (FOLDER, STORE)} for name in names},
        mb_per_s={"server": server, "asked for": local * megabytes / OBJECTS},
        megabytes=megabytes,
        epochs=asked.epochs,
        rounds=len(rounds),
        missing=[name for name in asked.only if name not in names],
        versions=versions("torch", "numpy", "obstore", "moto", "webdataset") | _site_versions(asked),
    )


def _site_versions(asked: argparse.Namespace) -> dict[str, str]:
    import importlib.metadata

    path = [str(asked.site)] if asked.site else sys.path
    found = importlib.metadata.distributions(path=path)
    return {one.name: one.version for one in found if one.name in ("litdata", "mosaicml-streaming")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "benchmark-remote", help="folder for the data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="of each contender, in each round")
    parser.add_argument("--site", type=Path, help="packages that peers alone see")
    parser.add_argument("--only", nargs="*", choices=PEERS, default=list(PEERS), help="peers to run")
    for hidden in ("--one", "--prepare", "--place"):  # one contender in this process; one peer's data
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.work = asked.work.resolve()
    if asked.prepare:
        import remote_peers

        print(remote_peers.prepare(asked.prepare, asked.work, write_set(asked.work)), flush=True)
    elif asked.one:
        print(json.dumps(train_epochs(asked.one, asked.place, asked.cache, asked.epochs)), flush=True)
        os._exit(0)  # other people's workers must not keep us
    else:
        compare(asked)


if __name__ == "__main__":
    main()
