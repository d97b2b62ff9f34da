"""`meta/` of a LeRobot data set: its features, its episodes, and in which file each of them lies.

v3.0   meta/info.json, tasks.parquet, episodes/chunk-000/file-000.parquet …: many episodes share a file of data or video
v2.1   meta/info.json, tasks.jsonl, episodes.jsonl: an episode has files of its own (v2.0: the same without statistics)

Written after what LeRobot 0.4.4 writes and reads (huggingface/lerobot, Apache-2.0; its code is not used). All of it
comes from strangers: paths are filled in with care and have to stay below the set. Letters: E episodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np

from pipelines.sources.parquet import numbers_of, read_parquet
from shards.errors import FormatError, UsageError
from shards.json_fields import json_object, number, take
from shards.machine.environment import system_errors_as

VERSIONS = ("v3.0", "v2.1", "v2.0")
DATA_PATHS = {3: "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"}
VIDEO_PATHS = {3: "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"}
DATA_PATHS[2] = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATHS[2] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
CAMERAS = ("video", "image")
OF_EVERY_SET = ("timestamp", "frame_index", "episode_index", "index", "task_index")
LARGEST_INFO = 16 << 20  # bytes; a set of 30 features has 10 thousand
LARGEST_LINE = 16 << 20
MOST = 2**31 - 1  # frames or episodes
LONGEST_NAME = 80
Places = list[dict[str, int]]  # what fills in the path of each episode's file


@dataclass(frozen=True)
class Feature:
    """A column of the set: `shape` without the axis of frames; `names` of its components, or none."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def components(self) -> tuple[str, ...]:
        """ "action.elbow", or "action.0" where the components have no names, or "reward" for a single number."""
        if not self.names and self.size == 1:
            return (self.key,)
        return tuple(f"{self.key}.{name}" for name in self.names or range(self.size))


@dataclass(frozen=True)
class Episodes:
    """E episodes, by ascending number.

    numbers, lengths  int64 [E], its index in the set and its frames
    data              file of its rows, below the set [E]
    videos            file of its frames, below the set [E]; empty for a camera whose images lie beside the data
    begins            float64 [E], where it begins in that file, in s
    """

    numbers: np.ndarray
    lengths: np.ndarray
    data: list[str]
    videos: list[str]
    begins: np.ndarray

    def at(self, places: np.ndarray) -> Episodes:
        """Those at int [n]."""
        data, videos = ([files[i] for i in places.tolist()] if files else [] for files in (self.data, self.videos))
        return Episodes(self.numbers[places], self.lengths[places], data, videos, self.begins[places])


class LeRobotMeta:
    """`root`: folder of the set. FormatError, one line, for whatever is not as LeRobot writes it."""

    def __init__(self, root: Path):
        self.root = root
        self.where = root / "meta/info.json"
        self.info = json_object(read_file(self.where, LARGEST_INFO), str(self.where))
        self.version = str(self.info.get("codebase_version"))
        if self.version not in VERSIONS:
            raise FormatError(
                f"{self.where}: codebase_version {self.version!r:.40} is unknown, there are {', '.join(VERSIONS)}; "
                "convert the set with LeRobot's own scripts"
            )
        self.major = int(self.version[1])

    @cached_property
    def features(self) -> dict[str, Feature]:
        records = self._take("features", dict)
        return {key: self._feature(key, record) for key, record in records.items()}

    @property
    def fps(self) -> float:
        fps = self.info.get("fps")
        if not isinstance(fps, int | float) or not 0 < fps <= 1e6:
            raise FormatError(f"{self.where}: fps must be a positive number, found {fps!r:.40}")
        return float(fps)

    @property
    def splits(self) -> dict[str, str]:
        """Name → which episodes, e.g. "0:50"; empty where the set says nothing."""
        splits = self.info.get("splits") or {}
        if not isinstance(splits, dict) or not all(isinstance(value, str) for value in splits.values()):
            raise FormatError(f'{self.where}: splits must be ranges such as {{"train": "0:50"}}, found {splits!r:.60}')
        return splits

    @property
    def robot(self) -> str:
        robot = self.info.get("robot_type")
        return robot if isinstance(robot, str) and robot.isprintable() else ""

    def camera(self, key: str | None) -> Feature:
        """None: the only one that there is. UsageError, naming the cameras that there are."""
        there = [name for name, feature in self.features.items() if feature.dtype in CAMERAS]
        if key is None and len(there) == 1:
            return self.features[there[0]]
        if key not in there:
            asked = "--camera KEY is needed" if key is None else f"--camera {key}: there is no such camera"
            raise UsageError(f"{asked}; {self.root} has {', '.join(there) or 'none'}")
        return self.features[key]

    def tasks(self) -> dict[int, str]:
        """Task by its number."""
        rows = _jsonl(self.root / "meta/tasks.jsonl") if self.major == 2 else self._tasks_of_parquet()
        tasks: dict[int, str] = {}
        for where, row in rows:
            task, name = _field(row, "task_index", where), row.get("task")
            if not isinstance(name, str):
                raise FormatError(f"{where}: task must be a string, found {name!r:.60}")
            if tasks.setdefault(task, name) != name:
                raise FormatError(f"{where}: task_index {task} is {name!r:.60} and {tasks[task]!r:.60}; copy it again")
        return tasks

    def _tasks_of_parquet(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """pandas wrote the tasks as the index of a table, whose column is called so or so."""
        path = self.root / "meta/tasks.parquet"
        table = read_parquet(path, None)
        names = [name for name in ("task", "__index_level_0__") if name in table.column_names]
        if "task_index" not in table.column_names or not names:
            raise FormatError(f"{path} has columns {', '.join(table.column_names)}; task_index and task are needed")
        for place, task in zip(table["task_index"].to_pylist(), table[names[0]].to_pylist(), strict=True):
            yield str(path), {"task_index": place, "task": task}

    def episodes(self, camera: Feature) -> Episodes:
        """All of them, with the files of their rows and of this camera's frames."""
        found = self._episodes_of_lines(camera) if self.major == 2 else self._episodes_of_parquet(camera)
        found = found.at(np.argsort(found.numbers, kind="stable"))
        if (twice := np.flatnonzero(np.diff(found.numbers) == 0)).size:
            raise FormatError(f"{self.root}/meta: episode {found.numbers[twice[0]]} is listed twice")
        total = self.info.get("total_episodes")
        if isinstance(total, int) and total != len(found.numbers):
            raise FormatError(
                f"{self.where} says {total} episodes, and {self.root}/meta lists {len(found.numbers)}: a file is "
                "missing, or the set was not finished; copy it again"
            )
        if not len(found.numbers):
            raise FormatError(f"{self.root}/meta lists no episode")
        return found

    def _episodes_of_lines(self, camera: Feature) -> Episodes:
        rows = [
            (_field(row, "episode_index", where), _field(row, "length", where))
            for where, row in _jsonl(self.root / "meta/episodes.jsonl")
        ]
        numbers, lengths = np.array(rows, np.int64).reshape(-1, 2).T
        size = number(self.info, "chunks_size", 1, MOST)
        total = number({"total_episodes": len(rows), **self.info}, "total_episodes", 0, MOST)  # in early v2.0 names
        places = [{"episode_index": n, "episode_chunk": n // size, "total_episodes": total} for n in numbers.tolist()]
        data, videos = self._paths(places, places, camera)
        return Episodes(numbers, lengths, data, videos, np.zeros(len(rows)))

    def _episodes_of_parquet(self, camera: Feature) -> Episodes:
        there = (self.root / "meta/episodes").glob("*/*.parquet")
        paths = sorted(path for path in there if not path.name.startswith("."))  # as macOS puts beside files
        if not paths:
            raise FormatError(f"{self.root}/meta/episodes holds no chunk-*/file-*.parquet")
        own = ["episode_index", "length", "data/chunk_index", "data/file_index"]
        video = [f"videos/{camera.key}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
        names = own + (video if camera.dtype == "video" else [])
        tables = [(path, read_parquet(path, names)) for path in paths]
        columns = {name: np.concatenate([numbers_of(t, name, path)[:, 0] for path, t in tables]) for name in names}
        for name in names:
            wrong = (columns[name] < 0) | (columns[name] > MOST) | ~np.isfinite(columns[name])
            if wrong.any():
                raise FormatError(f"{self.root}/meta/episodes: {name} is {columns[name][wrong][0]:g}")
        whole = {name: columns[name].astype(np.int64).tolist() for name in names}

        def places(of: str) -> Places:
            pairs = zip(whole[f"{of}/chunk_index"], whole[f"{of}/file_index"], strict=True)
            return [{"chunk_index": chunk, "file_index": file} for chunk, file in pairs]

        moving = camera.dtype == "video"
        data, videos = self._paths(places("data"), places(f"videos/{camera.key}") if moving else [], camera)
        begins = columns[video[-1]].astype(np.float64) if moving else np.zeros(len(data))
        numbers, lengths = (np.array(whole[name], np.int64) for name in own[:2])
        return Episodes(numbers, lengths, data, videos, begins)

    def _paths(self, data: Places, videos: Places, camera: Feature) -> tuple[list[str], list[str]]:
        """Files of all episodes. Equal paths are one string."""
        shared: dict[str, str] = {}
        template = self._template("data_path", DATA_PATHS)
        of_data = [fill(template, f"{self.where}: data_path", **place) for place in data]
        of_video: list[str] = []
        if camera.dtype == "video":
            template, where = self._template("video_path", VIDEO_PATHS), f"{self.where}: video_path"
            of_video = [fill(template, where, video_key=camera.key, **place) for place in videos]
        return [shared.setdefault(path, path) for path in of_data], [shared.setdefault(p, p) for p in of_video]

    def _template(self, name: str, usual: dict[int, str]) -> str:
        template = self.info.get(name) or usual[self.major]
        if not isinstance(template, str):
            raise FormatError(f"{self.where}: {name} must be a string, found {template!r:.60}")
        return template

    def _feature(self, key: str, record: Any) -> Feature:
        if not isinstance(record, dict) or not key.isprintable() or not 1 <= len(key) <= LONGEST_NAME:
            raise FormatError(f"{self.where}: feature {key!r:.60} is malformed")
        shape, dtype = record.get("shape"), record.get("dtype")
        if not isinstance(dtype, str) or not isinstance(shape, list) or len(shape) > 5:
            raise FormatError(f"{self.where}: feature {key} needs a dtype and a shape, found {record!r:.60}")
        if not all(type(side) is int and 0 <= side <= MOST for side in shape):
            raise FormatError(f"{self.where}: feature {key} has shape {shape!r:.60}")
        size = int(np.prod(shape, dtype=object))
        return Feature(key, dtype, tuple(shape), () if dtype in CAMERAS else _names(record.get("names"), size))

    def _take(self, name: str, kind: type) -> Any:
        try:
            return take(self.info, name, kind)
        except FormatError as error:
            raise FormatError(f"{self.where}: {error}") from None


def _names(names: Any, count: int) -> tuple[str, ...]:
    """Of `count` components, from a list, {"motors": list} or {name: place}; () where that is not what they are."""
    if isinstance(names, dict):
        if all(type(value) is int for value in names.values()):
            names = sorted(names, key=lambda name: names[name])
        elif all(isinstance(value, list) for value in names.values()):
            names = [name for value in names.values() for name in value]
    if not isinstance(names, list) or len(names) != count:
        return ()
    good = all(isinstance(name, str) and name.isprintable() and 1 <= len(name) <= LONGEST_NAME for name in names)
    return tuple(names) if good and len(set(names)) == count else ()


def fill(template: str, where: str, **values: int | str) -> str:
    """A path below the set: "data/chunk-{chunk_index:03d}…" with its placeholders filled in.

    FormatError: a placeholder that is not among `values` or asks for more than a number of digits; a path that is
    absolute or has "..".
    """
    parts = []
    try:
        for text, name, width, conversion in Formatter().parse(template):
            parts.append(text)
            if name is None:
                continue
            if name not in values or conversion or not re.fullmatch(r"(0?[1-9])?d?", width or ""):
                raise ValueError(f"{{{name}}} is not one of {', '.join(values)}")
            parts.append(format(values[name], width or ""))
    except ValueError as error:
        raise FormatError(f"{where} {template!r:.100}: {error}") from None
    path = "".join(parts)
    if not path or "\\" in path or not path.isprintable() or any(part in ("", ".", "..") for part in path.split("/")):
        raise FormatError(f"{where} {template!r:.100} leads to {path!r:.100}, which is no path below the set")
    return path


def read_file(path: Path, largest: int) -> bytes:
    """FormatError: it is not there, cannot be read, or is larger."""
    refused = FormatError(f"{path} is not there or cannot be read; give the folder of a LeRobot data set")
    with system_errors_as(lambda why: refused):
        if path.stat().st_size > largest:
            raise FormatError(f"{path} is larger than {largest >> 20} MiB")
        return path.read_bytes()


def _jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("episodes.jsonl, line 3", object) of each line."""
    refused = FormatError(f"{path} is not there or cannot be read: the set is not complete")
    with system_errors_as(lambda why: refused), path.open("rb") as file:
        for count, line in enumerate(iter(lambda: file.readline(LARGEST_LINE), b""), 1):
            if line.strip():
                yield f"{path}, line {count}", json_object(line, f"{path}, line {count}", nan=True)


def _field(row: dict[str, Any], name: str, where: str) -> int:
    try:
        return number(row, name, 0, MOST)
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from None
