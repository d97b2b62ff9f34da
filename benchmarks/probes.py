"""A whole set of probes: every view encoded once, beside the paper's protocol, which encodes views anew every epoch.

    python benchmarks/probes.py [--objects 256] [--views 50] [--size 128] [--peer-epochs 2] [--device auto] [--work DIR]

ResNet-18 with random weights on 3DIE-Synth. The probes are those of Table 1 for seq-JEPA: top-1 on z and on z_AGG of 1
to 8 views, R² of rotations (300 epochs each) and of hues (50). `ours` is the time of all of them, with decoding and
encoding of both splits. Peers, whose epochs are measured for `--peer-epochs` and scaled to all (`peer_scaled_by`):

    as released     one pass over an epoch's views serves all probes, the model is called plainly, and the validation
                    split goes through it after every epoch, as in `val_all_one_epoch_3diebench` of the released
                    engine.py (commit 73e0550, lines 392–475)
    kindest         the same pass through our encoder, never validated
    each by itself  every probe encodes its own views, by our encoder, never validated

Scores of each probe either way are compared after the same few epochs; ours after all epochs stand beside them.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import torch  # noqa: E402
from common import emit, versions  # noqa: E402
from probes_recomputed import Encoded, decoded, probe_recomputed, validation_seconds, wait  # noqa: E402
from torch import Tensor  # noqa: E402

from pipelines.synth import SynthConfig, synth_shards  # noqa: E402
from seqjepa.config import CPU_AGG_DRAWS, PAPER_PROBE_EPOCHS, EvalConfig  # noqa: E402
from seqjepa.data.actions import PRESETS  # noqa: E402
from seqjepa.devices import take_device  # noqa: E402
from seqjepa.evaluate.features import encode_views  # noqa: E402
from seqjepa.evaluate.probe_training import fit_and_score  # noqa: E402
from seqjepa.evaluate.probes import Bench, ProbeTask  # noqa: E402
from seqjepa.evaluate.run import frozen  # noqa: E402
from seqjepa.evaluate.studies import Capabilities  # noqa: E402
from seqjepa.evaluate.tasks import tasks_for  # noqa: E402
from seqjepa.methods.base import Method  # noqa: E402
from seqjepa.models.embed import PixelStats  # noqa: E402
from seqjepa.recipes import load_recipe  # noqa: E402
from seqjepa.training.checkpoint import initial_method  # noqa: E402
from shards.reader import ShardSet, SplitIndex  # noqa: E402

STATS: PixelStats = ((0.5,) * 3, (0.25,) * 3)
SIZES = range(1, 9)


@dataclass(frozen=True)
class Task:
    """What is probed, and for how long."""

    method: Method
    splits: tuple[SplitIndex, SplitIndex]
    classes: int
    device: torch.device
    config: EvalConfig
    peer_epochs: int
    threads: int


def prepare(work: Path, objects: int, views: int, size: int) -> ShardSet:
    """3DIE-Synth as shards, four training objects to one for validation, made where it is not there yet."""
    out = work / f"synth-{objects}x{views}-{size}"
    synth_shards(SynthConfig(objects=objects * 5 // 4, views=views, size=size, families=10, val_fraction=0.2), out)
    return ShardSet.open(out)


def encode(task: Task) -> tuple[Bench, float]:
    """The bench of cached features, and the seconds that decoding and encoding took."""
    began = wait(task.device)
    train, val = (encode_views(task.method, index, STATS, task.device, threads=task.threads) for index in task.splits)
    return Bench(train, val, task.device, seed=0), wait(task.device) - began


def measures_of(task: Task, bench: Bench) -> list[ProbeTask]:
    views = min(bank.most_views for bank in (bench.train, bench.val))
    subject = Capabilities(
        task.method,
        PRESETS["rotation"],
        task.classes,
        bench.train.param_names,
        views,
        labelled=True,
        no_path="not timed",
    )
    return tasks_for(subject, task.config.model_copy(update={"m_val": tuple(m for m in SIZES if m <= views)}))[0]


def compare(task: Task, measure: ProbeTask, bench: Bench, encoded: Encoded) -> dict[str, Any]:
    """Seconds of one probe either way, and scores after as many epochs as the peer was given."""
    peer_epochs = min(task.peer_epochs, measure.epochs)
    began = wait(task.device)
    scores = fit_and_score(measure, bench).last
    ours = wait(task.device) - began
    early = fit_and_score(replace(measure, epochs=peer_epochs), bench).last
    measured, theirs = probe_recomputed(measure, bench, encoded, peer_epochs)
    peer = measured * measure.epochs / peer_epochs
    return {
        "epochs": measure.epochs,
        "ours_s": ours,
        "peer_s": peer,
        "ratio_from_cache": peer / ours,
        "peer_measured_epochs": peer_epochs,
        "peer_measured_s": measured,
        "largest_difference": max(abs(early[name] - theirs[name]) for name in theirs),
        "scores_compared": {"ours": early, "peer": theirs},
        "scores_ours": scores,
    }


def as_released(task: Task, longest: ProbeTask, bench: Bench, pixels: Tensor) -> dict[str, float]:
    """Seconds of an epoch of the probe that sees the most views, and of the validation after it, by a plain model."""
    train = Encoded.plainly(task.method, pixels, STATS)
    trained = probe_recomputed(longest, bench, train, 1)[0]
    val = replace(train, pixels=decoded(task.splits[1], task.device, task.threads))
    return {"epoch_s": trained, "validation_s": validation_seconds(longest, bench, val)}


def main() -> None:
    arguments = parsed()
    device = take_device(arguments.device)
    arguments.work.mkdir(parents=True, exist_ok=True)
    stored = prepare(arguments.work, arguments.objects, arguments.views, arguments.size)
    method = initial_method(load_recipe("3die-rot-M3", [f"data.image_size={arguments.size}"]), 4)
    module = method.to(device).to(memory_format=torch.channels_last)
    draws = arguments.epochs if device.type == "cuda" else CPU_AGG_DRAWS
    config, threads = EvalConfig(probe_epochs=arguments.epochs, agg_draws=draws), min(16, len(os.sched_getaffinity(0)))
    splits = stored.split("train"), stored.split("val")
    task = Task(method, splits, len(stored.info.classes), device, config, arguments.peer_epochs, threads)
    with frozen(module):
        bench, encoding = encode(task)
        pixels = decoded(splits[0], device, threads)
        measures = measures_of(task, bench)
        found = {m.name: compare(task, m, bench, Encoded(method, pixels, STATS)) for m in measures}
        longest = max(measures, key=lambda measure: measure.views)
        released = as_released(task, longest, bench, pixels)
    report(arguments, task, encoding, found, longest.name, released)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "benchmark-probes", help="folder for the data")
    parser.add_argument("--objects", type=int, default=256, help="training objects")
    parser.add_argument("--views", type=int, default=50)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=PAPER_PROBE_EPOCHS)
    parser.add_argument("--peer-epochs", type=int, default=2, help="as many as --epochs measures all of them")
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def report(
    arguments: argparse.Namespace,
    task: Task,
    encoding: float,
    found: dict[str, dict[str, Any]],
    longest: str,
    released: dict[str, float],
) -> None:
    ours, alone = (sum(part[key] for part in found.values()) for key in ("ours_s", "peer_s"))
    heads = sum(part["ours_s"] for name, part in found.items() if name != longest)  # of features that are there
    peers = {
        "as released": arguments.epochs * sum(released.values()) + heads,
        "kindest": found[longest]["peer_s"] + heads,
        "each by itself": alone,
    }
    train, val = (len(index) for index in task.splits)
    emit(
        f"probes: {arguments.epochs} epochs, {train} + {val} objects × {arguments.views} views, {arguments.size} px",
        "s for all probes, encoding counted",
        ours + encoding,
        peers,
        ratio_best_peer=min(peers.values()) / (ours + encoding),
        ratios={name: peer / (ours + encoding) for name, peer in peers.items()},
        ratios_once_encoded={name: peer / ours for name, peer in peers.items()},
        ratio_from_cache_least=min(p["ratio_from_cache"] for p in found.values() if p["epochs"] == arguments.epochs),
        encoding_s=encoding,
        probing_s=ours,
        released=released,
        peer_scaled_by={name: part["epochs"] / part["peer_measured_epochs"] for name, part in found.items()},
        probes=found,
        device=str(task.device),
        versions=versions("torch", "numpy", "simplejpeg"),
    )


if __name__ == "__main__":
    main()
