"""Would threads do in place of our ring of worker processes? Sequences per second of both over the same shards.

    python benchmarks/loader_threads.py [--work DIR] [--rounds 5] [--seconds 4]

The data, the batches and the rate are those of loader.py. `ours` is the ring, two workers a core; `threads` is
concurrent.futures, `spdl` spdl's pipeline of threads, `spdl apart` that pipeline in one process of its own with spdl's
ring of shared memory; each decodes as many batches at once as our ring, with our code. Each round runs every contender
once alone and once while a thread of the consuming process runs a pure-Python loop, as a trainer does (`spin`),
each in a fresh process. Our workers have sessions of their own; where other work competes for the cores, a scheduler
that shares them between sessions (Linux's autogroups) favours them, so `ours, one session` has them in the trainer's.
Figures are medians over rounds, ratios (ours / theirs) medians of the rounds' own ratios.
`equal` says that the first batches are ours, byte for byte, also of a pipeline that begins at the third.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common import emit, versions  # noqa: E402
from loader import CORES, our_batches, rate, spinning  # noqa: E402
from loader_data import prepare  # noqa: E402
from peers import spdl_our_shards as threaded  # noqa: E402


def in_one_session(work: Path) -> Iterator[Any]:
    """Our batches, by workers in the session of this process."""
    start = subprocess.Popen
    subprocess.Popen = lambda *given, **options: start(*given, **(options | {"start_new_session": False}))
    yield from our_batches(work, None)


CONTENDERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    "ours": partial(our_batches, workers=None),
    "ours, one session": in_one_session,
    "threads": partial(threaded.pool_batches, threads=2 * CORES),
    "spdl": partial(threaded.batches, threads=2 * CORES),
    "spdl apart": partial(threaded.subprocess_batches, threads=2 * CORES),
}


def measure(name: str, work: Path, seconds: float) -> float:
    """Of "NAME" or "NAME, spin"."""
    plain = name.removesuffix(", spin")
    batches = CONTENDERS[plain](work)
    if plain != name:
        next(batches)
        spinning()
    return rate(batches, seconds)


def same_batches(work: Path) -> bool:
    """Whether all give the same bytes, from the start and from the third batch on."""
    wanted = [_bytes(seq.views, seq.actions) for seq in islice(our_batches(work, 0), 4)]
    starts = [contender(work) for name, contender in CONTENDERS.items() if not name.startswith("ours")]
    found = [[_bytes(*batch) for batch in islice(batches, 4)] for batches in starts]
    resumed = [_bytes(*batch) for batch in islice(threaded.batches(work, 2, epoch=2), 2)]
    return all(batches == wanted for batches in found) and resumed == wanted[2:]


def _bytes(views: Any, actions: Any) -> tuple[bytes, bytes]:
    return views.contiguous().numpy().tobytes(), actions.numpy().tobytes()


def in_a_process(name: str, arguments: argparse.Namespace) -> str:
    command = [sys.executable, __file__, "--one", name, "--work", arguments.work, "--seconds", arguments.seconds]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{name} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout.split()[-1]


def compare(arguments: argparse.Namespace) -> None:
    prepare(arguments.work)
    equal = in_a_process("equal", arguments) == "True"
    names, rounds = [name + how for name in CONTENDERS for how in ("", ", spin")], []
    for number in range(arguments.rounds):
        rounds.append({name: float(in_a_process(name, arguments)) for name in names})
        print(json.dumps({"round": number} | rounds[-1]), file=sys.stderr, flush=True)
    summary(rounds, equal)


def summary(rounds: list[dict[str, float]], equal: bool) -> None:
    figures = {name: median(r[name] for r in rounds) for name in rounds[0]}
    others = [name for name in CONTENDERS if name != "ours"]
    emit(
        "loader: processes or threads, 128 px, M=3, batch 512, page cache hot",
        "sequences/s",
        figures["ours"],
        {name: figures[name] for name in others if not name.startswith("ours")},
        spin={name: figures[f"{name}, spin"] for name in CONTENDERS},
        ratios={name: _ratio(rounds, "ours", name) for name in others},
        spin_ratios={name: _ratio(rounds, "ours, spin", f"{name}, spin") for name in others},
        one_session_ratios={name: _ratio(rounds, others[0], name) for name in others[1:]},
        one_session_spin_ratios={name: _ratio(rounds, f"{others[0]}, spin", f"{name}, spin") for name in others[1:]},
        equal=equal,
        rounds=rounds,
        versions=versions("torch", "numpy", "simplejpeg", "spdl"),
    )


def _ratio(rounds: list[dict[str, float]], top: str, bottom: str) -> dict[str, float]:
    ratios = [r[top] / r[bottom] for r in rounds]
    return {"median": median(ratios), "least": min(ratios), "most": max(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "benchmark-loader", help="folder for the data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="measured per contender and round")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # measure one contender in this process
    arguments = parser.parse_args()
    if not arguments.one:
        compare(arguments)
        return
    equal = arguments.one == "equal"
    print(same_batches(arguments.work) if equal else measure(arguments.one, arguments.work, arguments.seconds))
    sys.stdout.flush()
    os._exit(0)  # spinning threads and other people's workers must not keep us


if __name__ == "__main__":
    main()
