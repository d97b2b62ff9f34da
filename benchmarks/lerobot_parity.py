"""Shards of LeRobot sets held against what LeRobot itself reads: which frame stands at each step, and every value.

    python benchmarks/lerobot_parity.py write DIR      where lerobot is installed (0.3.3 writes v2.1, 0.4.4 v3.0)
    python benchmarks/lerobot_parity.py compare DIR    here; one JSON object on one line

The first makes small sets with LeRobot's own recorder (AV1 and h264 where it lets choose, and images in Parquet) and
keeps beside each what `LeRobotDataset` gives for every row: DIR/NAME, DIR/NAME.npz. The second shards them. `values`,
`steps`, `tasks`: whether all are equal to the bit. `frames`: how many of ours are nearest to LeRobot's own of that row,
among all rows. Pixels of videos differ, for LeRobot's decoder does not interpolate chroma: `pixels` is the mean
difference in levels of 255, `error` and `error_lerobot` what each is from the pictures that were recorded.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

CAMERA, HEIGHT, WIDTH = "observation.images.top", 96, 128
LENGTHS = (37, 20, 33, 8, 25, 37, 20)
STATES, ACTION = ("observation.state", "observation.grid", "next.reward"), "action"
KINDS = {"av1": ("video", "libsvtav1"), "h264": ("video", "h264"), "image": ("image", None)}


def picture(episode: int, frame: int) -> np.ndarray:
    """uint8 [H, W, 3]: slopes of colour, and a square that moves."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    slopes = (2 * x + 11 * episode, 2 * y + 5 * frame, np.full_like(x, 20 * episode + frame))
    pixels = np.stack([slope % 256 for slope in slopes], -1).astype(np.uint8)
    pixels[10 + frame : 30 + frame, 5 + 2 * frame : 25 + 2 * frame] = (255, 40 * episode % 256, 0)
    return pixels


def write(folder: Path) -> None:
    dataset: Any = importlib.import_module("lerobot.datasets.lerobot_dataset").LeRobotDataset
    chooses = "vcodec" in inspect.signature(dataset.create).parameters
    for name, (kind, codec) in KINDS.items():
        if name == "h264" and not chooses:  # 0.3.3 writes AV1 alone
            continue
        options = {"vcodec": codec} if codec and chooses else {}
        record(dataset, folder / name, kind, options)
        found = dataset(f"local/{name}", root=folder / name)
        rows = [found[i] for i in range(len(found))]
        keys = (*STATES, ACTION, "episode_index", "frame_index")
        values: dict[str, Any] = {key: np.stack([row[key].numpy() for row in rows]) for key in keys}
        pixels = np.stack([np.rint(row[CAMERA].numpy() * 255).astype(np.uint8).transpose(1, 2, 0) for row in rows])
        np.savez(folder / f"{name}.npz", **values, pixels=pixels, tasks=np.array([row["task"] for row in rows]))


def record(dataset: Any, root: Path, kind: str, options: dict[str, Any]) -> None:
    """A few episodes, in several files where the format allows it."""
    image = {"dtype": kind, "shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channels"]}
    floats = {"observation.state": (3,), "observation.grid": (2, 2), "next.reward": (1,), ACTION: (2,)}
    features = {key: {"dtype": "float32", "shape": shape, "names": None} for key, shape in floats.items()}
    made = dataset.create(f"local/{root.name}", 30, {CAMERA: image, **features}, root=root, **options)
    if hasattr(made.meta, "update_chunk_settings"):
        made.meta.update_chunk_settings(data_files_size_in_mb=0.02, video_files_size_in_mb=0.03, chunks_size=2)
    rng = np.random.default_rng(0)
    for episode, length in enumerate(LENGTHS):
        for frame in range(length):
            values = {key: rng.normal(size=shape).astype(np.float32) for key, shape in floats.items()}
            row, task = {CAMERA: picture(episode, frame), **values}, ("push", "pull")[episode % 2]
            if "task" in inspect.signature(made.add_frame).parameters:
                made.add_frame(row, task=task)
            else:
                made.add_frame({**row, "task": task})
        made.save_episode()
    if hasattr(made, "finalize"):
        made.finalize()


def compare(folder: Path) -> dict[str, Any]:
    results = {name: compare_set(folder / name) for name in KINDS if (folder / f"{name}.npz").exists()}
    return {"name": "lerobot_parity", "sets": results}


def compare_set(root: Path) -> dict[str, Any]:
    from pipelines.build.views import shard_views
    from pipelines.sources.lerobot import LeRobotOptions, LeRobotSource
    from shards.reader import ShardSet

    theirs = np.load(root.with_suffix(".npz"))
    with tempfile.TemporaryDirectory() as out:
        shard_views(LeRobotSource(root, LeRobotOptions(CAMERA)), out, size=None, encoding="raw", workers=0)
        found = ShardSet.open(out)
        split = found.split("train")
        rows, slots = split.sequences.locate(np.arange(len(theirs["pixels"])))
        ours = np.stack([split.read_view(int(row), int(slot)) for row, slot in zip(rows, slots, strict=True)])
        params, labels = split.params[rows, slots], [found.info.classes[label] for label in split.labels[rows]]
        steps = split.sequences.steps
    values = [theirs[key].reshape(len(ours), -1) for key in (*STATES, ACTION)]
    real = zip(theirs["episode_index"].tolist(), theirs["frame_index"].tolist(), strict=True)
    truth = np.stack([picture(episode, frame) for episode, frame in real])
    nearest = [int(distance(theirs["pixels"], pixels).argmin()) for pixels in ours]
    return {
        "version": json.loads((root / "meta/info.json").read_text())["codebase_version"],
        "rows": len(ours),
        "frames": int((np.array(nearest) == np.arange(len(ours))).sum()),
        "values": bool(np.array_equal(params, np.concatenate(values, axis=1))),
        "steps": bool(np.array_equal(steps, theirs["frame_index"])),
        "tasks": labels == theirs["tasks"].tolist(),
        "pixels": round(float(distance(ours, theirs["pixels"]).mean()), 3),
        "error": round(float(distance(ours, truth).mean()), 3),
        "error_lerobot": round(float(distance(theirs["pixels"], truth).mean()), 3),
    }


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float64 [n], mean absolute difference of uint8 pictures [n, H, W, 3]; b may be one."""
    return np.abs(a.astype(np.int16) - b.astype(np.int16)).mean(axis=(1, 2, 3))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("write", "compare"))
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    if given.step == "write":
        given.folder.mkdir(parents=True)
        write(given.folder)
    else:
        print(json.dumps(compare(given.folder)))
