"""What watching a run costs: steps a second with loggers on over off, and k-NN and RankMe as a share of an epoch.

    python benchmarks/watch.py [--work DIR] [--epochs 10] [--rounds 3] [--loggers csv tensorboard]

The set is 3DIE-Synth, 300 objects × 8 views of 32 px; the model a ResNet-18 of an eighth of the width, M = 3, batch 32.
`off` and each logger (with pictures every five epochs) train the same run in turns. Steps a second are of the epochs
after the first, in which the logger's process starts, as metrics.jsonl times them: the pictures are outside these, and
`whole_ratio` is of the whole call, pictures, start and end of the logger included. `monitor_share` is what k-NN and
RankMe of all samples (236 and 64) add to an epoch at train.monitor_epochs = 10. Medians over rounds.
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
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common import emit, versions  # noqa: E402

from seqjepa.recipes import load_recipe  # noqa: E402
from seqjepa.training.train import train  # noqa: E402

OBJECTS, VIEWS, SIDE = 300, 8, 32
SETTINGS = (
    *("data.image_size=0", "data.normalisation=shards", "model.width=0.125", "model.stem=cifar"),
    *("optim.batch_size=32", "train.monitor_epochs=5", "train.picture_epochs=5"),
)
EVERY = 10  # epochs: the default of train.monitor_epochs


def make_shards(work: Path) -> Path:
    shards = work / "shards"
    words = ["synth", "3die", "--shards", "--out", shards, "--objects", OBJECTS, "--views", VIEWS, "--size", SIDE]
    code = "from cli import seqjepa_data_app; seqjepa_data_app()"
    subprocess.run([sys.executable, "-c", code, *map(str, words)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return shards


def train_once(shards: Path, run: Path, epochs: int, loggers: list[str]) -> dict[str, float]:
    """Steps a second, seconds of the whole call, and the share of an epoch that measuring takes."""
    shutil.rmtree(run, ignore_errors=True)
    settings = [*SETTINGS, f"optim.epochs={epochs}", f"train.loggers={json.dumps(loggers)}"]
    start = time.perf_counter()
    train(load_recipe("3die-rot-M3", settings), shards, run, workers=0, progress=False)
    whole = time.perf_counter() - start
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epoch = median(line["seconds"] for line in lines[1:])
    measuring = median(line["monitor_seconds"] for line in lines if "monitor_seconds" in line)
    return {"rate": lines[0]["step"] / epoch, "whole": whole, "share": measuring / epoch / EVERY}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loggers", nargs="*", default=["csv", "tensorboard"])
    asked = parser.parse_args()
    os.environ.setdefault("WANDB_MODE", "offline")
    with tempfile.TemporaryDirectory(dir=asked.work) as name:
        work = Path(name)
        os.environ.setdefault("TRACKIO_DIR", str(work / "trackio"))
        shards = make_shards(work)
        found: dict[str, list[dict[str, float]]] = {}
        for _ in range(asked.rounds):
            for logger in ("off", *asked.loggers):
                chosen = [] if logger == "off" else [logger]
                found.setdefault(logger, []).append(train_once(shards, work / "run", asked.epochs, chosen))
    middle = {name: {key: median(one[key] for one in rounds) for key in rounds[0]} for name, rounds in found.items()}
    off = middle["off"]
    emit(
        "watch",
        "steps/s",
        off["rate"],
        {},
        ratio={name: middle[name]["rate"] / off["rate"] for name in asked.loggers},
        whole_ratio={name: off["whole"] / middle[name]["whole"] for name in asked.loggers},
        monitor_share=off["share"],
        versions=versions("torch", *(name if name != "mlflow" else "mlflow-skinny" for name in asked.loggers)),
    )


if __name__ == "__main__":
    main()
