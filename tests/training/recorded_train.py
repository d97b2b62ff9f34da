"""`train` as torchrun starts it: ranks write which samples each of their steps was of, and may be killed or stopped.

    recorded_train.py SHARDS OUT RECORDS WORKERS SETTINGS…

CACHES=DIR: each rank has a cache of its own below it.
HIT="SIGKILL RANK STEP": that rank gets the signal before its step, once: RECORDS/hit has its process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from train_helpers import tiny_config

from seqjepa.training.learner import Learner
from seqjepa.training.train import Trainer, train
from shards.errors import SeqJepaError


def record(records: Path, rank: int) -> None:
    """Of this process, from now on."""
    update, build, steps = Learner.update, Trainer.__init__, []

    def recorded_build(self: Trainer, *args: Any) -> None:
        build(self, *args)
        steps.append(self.epoch_steps)

    def recorded_update(self: Learner, seq: Any, step: int, *rest: float):
        name, hit_rank, hit_step = os.environ.get("HIT", "SIGKILL -1 0").split()
        if (rank, step) == (int(hit_rank), int(hit_step)) and not (records / "hit").exists():
            (records / "hit").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.Signals[name])
        done = update(self, seq, step, *rest)
        world = int(os.environ.get("WORLD_SIZE", "1"))
        line = {"time": time.time(), "step": step, "steps": steps[-1], "world": world, "keys": seq.keys}
        with (records / f"rank-{rank}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return done

    Learner.update, Trainer.__init__ = recorded_update, recorded_build  # pyright: ignore[reportAttributeAccessIssue]


def main(shards: str, out: str, records: str, workers: str, *settings: str) -> None:
    rank = os.environ.get("RANK", "0")
    if "CACHES" in os.environ:  # as many machines: nobody sees what another has
        os.environ["SEQJEPA_CACHE"] = os.path.join(os.environ["CACHES"], rank)
    record(Path(records), int(rank))
    torch.set_num_threads(1)
    try:
        train(tiny_config(*settings), Path(shards), Path(out), device="cpu", workers=int(workers), progress=False)
    except SeqJepaError as error:
        sys.stderr.write(f"error: {error}\n")
        (Path(records) / f"ended-{rank}").touch()
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(*sys.argv[1:])
