"""Small data sets in LeRobot's layouts v3.0 and v2.1, written with pyarrow and PyAV as its own writer does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from small_images import encoded
from usual_priority import usual_priority

TOP, WRIST = "observation.images.top", "observation.images.wrist"
LENGTHS = (7, 5, 6)
TASKS = ("push it", "pull it")
FPS = 10
PER_FILE = 2  # episodes in a file of data or video, in v3.0


def level(episode: int, frame: int) -> int:
    """Grey of a frame's pixels, different in every frame of a small set."""
    return 20 + 11 * ((9 * episode + frame) % 20)


def frame_pixels(episode: int, frame: int, size: int = 32) -> np.ndarray:
    return np.full((size, size, 3), level(episode, frame), np.uint8)


def state_of(episode: int, frame: int) -> np.ndarray:
    """float32 [3]"""
    return (np.array([1, 10, 100]) * (episode + 1) + frame).astype(np.float32)


def action_of(episode: int, frame: int) -> np.ndarray:
    """float32 [2]"""
    return np.array([episode + 0.25 * frame, -frame], np.float32)


def write_video(path: Path, frames: Sequence[np.ndarray], codec: str = "libx264", fps: int = FPS) -> None:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"libx264": {"crf": "18"}, "libsvtav1": {"crf": "20", "preset": "12", "svtav1-params": "lp=1"}}[codec]
    with usual_priority(), av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, fps)
        for pts, pixels in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts = pts
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def make_lerobot(
    root: Path,
    version: str = "v3.0",
    lengths: Sequence[int] = LENGTHS,
    kind: str = "video",
    codec: str = "libx264",
    splits: dict[str, str] | None = None,
) -> Path:
    """Episode e has task e % 2, states state_of(e, t), actions action_of(e, t), and a frame of level(e, t) a step."""
    write_info(root, version, lengths, kind, splits)
    groups = [[e] for e in range(len(lengths))]
    if version == "v3.0":
        groups = [list(range(len(lengths)))[i : i + PER_FILE] for i in range(0, len(lengths), PER_FILE)]
    rows = []
    for file, group in enumerate(groups):
        old, new = f"chunk-000/episode_{file:06d}", f"chunk-000/file-{file:03d}"
        tables = [data_of(e, lengths, kind) for e in group]
        write_table(pa.concat_tables(tables), root / "data" / f"{new if version == 'v3.0' else old}.parquet")
        if kind == "video":
            frames = [frame_pixels(e, t) for e in group for t in range(lengths[e])]
            name = f"{TOP}/{new}" if version == "v3.0" else f"chunk-000/{TOP}/episode_{file:06d}"
            write_video(root / "videos" / f"{name}.mp4", frames, codec)
        for e in group:
            before = sum(lengths[i] for i in group if i < e)
            rows.append(episode_row(e, file, lengths, before, kind))
    if version == "v3.0":
        write_table(pa.Table.from_pylist(rows), root / "meta/episodes/chunk-000/file-000.parquet")
        tasks = {"task_index": list(range(len(TASKS))), "__index_level_0__": list(TASKS)}
        write_table(pa.table(tasks), root / "meta/tasks.parquet")
    else:
        write_lines(
            root / "meta/episodes.jsonl", [{k: row[k] for k in ("episode_index", "tasks", "length")} for row in rows]
        )
        write_lines(root / "meta/tasks.jsonl", [{"task_index": i, "task": task} for i, task in enumerate(TASKS)])
    return root


def write_info(root: Path, version: str, lengths: Sequence[int], kind: str, splits: dict[str, str] | None) -> None:
    image = {"dtype": kind, "shape": [32, 32, 3], "names": ["height", "width", "channels"]}
    one = {"shape": [1], "names": None}
    new = version == "v3.0"
    info: dict[str, Any] = {
        "codebase_version": version,
        "robot_type": "so100",
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "chunks_size": 1000,
        "fps": FPS,
        "splits": splits or {"train": f"0:{len(lengths)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        if new
        else "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        if new
        else "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            TOP: image,
            "observation.state": {"dtype": "float32", "shape": [3], "names": {"motors": ["x", "y", "grip"]}},
            "action": {"dtype": "float32", "shape": [2], "names": None},
            "next.done": {"dtype": "bool", **one},
            "timestamp": {"dtype": "float32", **one},
            **{name: {"dtype": "int64", **one} for name in ("frame_index", "episode_index", "index", "task_index")},
        },
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info, indent=4))


def change_info(root: Path, **changes: Any) -> None:
    """Keys of info.json; what is a table under another name is a feature."""
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    for name, value in changes.items():
        place = info["features"] if name not in info and isinstance(value, dict) else info
        place[name] = value
    path.write_text(json.dumps(info))


def data_of(episode: int, lengths: Sequence[int], kind: str) -> pa.Table:
    n, first = lengths[episode], sum(lengths[:episode])
    states, actions = (np.concatenate([f(episode, t) for t in range(n)]) for f in (state_of, action_of))
    columns = {
        "observation.state": pa.FixedSizeListArray.from_arrays(pa.array(states), 3),
        "action": pa.array(list(actions.reshape(n, 2)), pa.list_(pa.float32())),
        "next.done": pa.array([t == n - 1 for t in range(n)]),
        "timestamp": pa.array((np.arange(n) / FPS).astype(np.float32)),
        "frame_index": pa.array(np.arange(n)),
        "episode_index": pa.array(np.full(n, episode)),
        "index": pa.array(np.arange(first, first + n)),
        "task_index": pa.array(np.full(n, episode % len(TASKS))),
    }
    if kind == "image":
        images = [{"bytes": encoded(frame_pixels(episode, t)), "path": f"frame-{t:06d}.png"} for t in range(n)]
        columns[TOP] = pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    return pa.table(columns)


def episode_row(episode: int, file: int, lengths: Sequence[int], before: int, kind: str) -> dict[str, Any]:
    """`before`: frames of earlier episodes in the same file."""
    row = {
        "episode_index": episode,
        "tasks": [TASKS[episode % len(TASKS)]],
        "length": lengths[episode],
        "data/chunk_index": 0,
        "data/file_index": file,
    }
    if kind == "video":
        begin, end = before / FPS, (before + lengths[episode]) / FPS
        row |= {f"videos/{TOP}/chunk_index": 0, f"videos/{TOP}/file_index": file}
        row |= {f"videos/{TOP}/from_timestamp": begin, f"videos/{TOP}/to_timestamp": end}
    return row


def write_table(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def write_lines(path: Path, records: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
