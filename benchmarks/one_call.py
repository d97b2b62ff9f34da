"""A training step with both views in one call of each network, beside a call for each view, in processor time.

    python benchmarks/one_call.py [--methods simclr,byol] [--batch 16] [--size 64] [--width 0.5] [--rounds 5]

On a CPU, with one thread; fp32 and bf16. `ours` and `peers` are milliseconds of a step (`Learner.update`), medians over
rounds, which take turns; the first is left out. The same learner does both.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

import torch  # noqa: E402
from common import emit, versions  # noqa: E402

from seqjepa.data.sequence import ViewSequence  # noqa: E402
from seqjepa.recipes import load_recipe  # noqa: E402
from seqjepa.training.checkpoint import initial_method  # noqa: E402
from seqjepa.training.distributed import World  # noqa: E402
from seqjepa.training.learner import Learner  # noqa: E402

ACTION, PARAMS = 4, 7


def milliseconds(name: str, precision: str, asked: argparse.Namespace) -> dict[bool, float]:
    """Of a step, by whether views share calls."""
    own = [f"method={name}", "data.context=1", f"model.width={asked.width}", f"train.precision={precision}"]
    config = load_recipe("", own)
    learner = Learner(initial_method(config, ACTION), config, World(), torch.device("cpu"))
    B, views = asked.batch, torch.randn(asked.batch, 2, asked.size, asked.size, 3).permute(0, 1, 4, 2, 3)
    seq = ViewSequence(views, torch.randn(B, 1, ACTION), torch.randn(B, 2, PARAMS), torch.zeros(B).long(), [""] * B)
    took: dict[bool, list[float]] = {True: [], False: []}
    for number in range(1 + asked.rounds):
        for share in took:
            learner.method.shares_calls = share
            began = time.process_time()
            learner.update(seq, number, 1e-3, 0.1)
            took[share].append(1000 * (time.process_time() - began))
    return {share: median(times[1:]) for share, times in took.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="simclr,byol", help="separated by commas")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {"batch": asked.batch, "size": asked.size, "width": asked.width}
    for name in asked.methods.split(","):
        for precision in ("fp32", "bf16"):
            found = milliseconds(name, precision, asked)
            apart = {"a call for each view": found[False]}
            emit(f"one call: {name}, {precision}", "ms/step", found[True], apart, versions=versions("torch"), **sizes)


if __name__ == "__main__":
    main()
