"""Rows of a table that are frames of videos: which frame each row names, by number or by time."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tqdm import tqdm

from pipelines.archives import Content, printable
from pipelines.sources import Frames, Target
from pipelines.sources.content import file_stats, name_rank, pieces_sha256, short_digest, stamp_of
from pipelines.sources.decode import Pixels, bitmap_of
from pipelines.sources.mistakes import Mistakes
from pipelines.sources.video import VideoFrames, VideoIndex, index_video, pyav
from shards.errors import FormatError, few
from shards.machine.environment import usable_cores

log = logging.getLogger(__name__)

TOLERANCE_S = 1e-4  # as LeRobot's datasets have it
SAMPLE_PICTURES, SAMPLE_BYTES = 64, 64 << 20


@dataclass(frozen=True)
class VideoPictures:
    """A frame of a video for each of R rows, implementing Pictures of sources/table.py.

    names    [V] of the videos, below `root`, with "/"
    indexes  [V], their frames
    of       int [R], which video each row is in
    numbers  int64 [R], which of its frames, from 0, in the order in which they are shown
    """

    resampler: ClassVar[str] = "swscale bilinear, antialiased"

    root: Path
    names: Sequence[str]
    indexes: Sequence[VideoIndex]
    of: np.ndarray
    numbers: np.ndarray

    @classmethod
    def by_number(
        cls,
        root: Path,
        names: Sequence[str],
        of: np.ndarray,
        numbers: np.ndarray,
        where: Callable[[int], str],
        mistakes: Mistakes,
    ) -> VideoPictures | None:
        """numbers: int [R]; where: row → "metadata.csv, row 17". None: `mistakes` gets what is wrong with videos, or
        else with rows."""
        if (indexes := index_videos(root, names, mistakes)) is None:
            return None
        counts = np.array([len(index) for index in indexes])[of]
        wrong = np.flatnonzero((numbers < 0) | (numbers >= counts)).tolist()
        line = "{}: {} has frames 0 to {}, not {}".format
        mistakes.add_each(wrong, lambda row: line(where(row), names[of[row]], counts[row] - 1, numbers[row]), "frames")
        return None if wrong else cls(root, names, indexes, of, np.asarray(numbers, np.int64))

    @classmethod
    def by_time(
        cls,
        root: Path,
        names: Sequence[str],
        of: np.ndarray,
        times: np.ndarray,
        where: Callable[[int], str],
        mistakes: Mistakes,
        tolerance_s: float = TOLERANCE_S,
    ) -> VideoPictures | None:
        """times: float64 [R], presentation times in s, as ffprobe prints them (`pts_time`), with a frame as near as
        `tolerance_s`. None: as by_number."""
        if (indexes := index_videos(root, names, mistakes)) is None:
            return None
        numbers, found = np.zeros(len(times), np.int64), np.zeros(len(times))
        for video, rows in _rows_of(of, len(names)):
            numbers[rows] = indexes[video].nearest(times[rows])
            found[rows] = indexes[video].seconds(numbers[rows])
        wrong = np.flatnonzero(~(np.abs(found - times) <= tolerance_s)).tolist()

        def line(row: int) -> str:
            asked = f"{where(row)}: {names[of[row]]} has no frame within {tolerance_s:g} s of {times[row]:.6f} s"
            return f"{asked}, the nearest is frame {numbers[row]} at {found[row]:.6f} s"

        mistakes.add_each(wrong, line, "times")
        return None if wrong else cls(root, names, indexes, of, numbers)

    def name(self, row: int) -> str:
        return f"{self.names[self.of[row]]}, frame {self.numbers[row]}"

    def contents(self, rows: np.ndarray) -> Frames:
        of = self.of[rows]
        edges = [0, *(np.flatnonzero(np.diff(of)) + 1).tolist(), len(rows)]
        parts = [
            self.indexes[of[start]].frames(self.numbers[rows[start:stop]]) for start, stop in itertools.pairwise(edges)
        ]
        return parts[0] if len(parts) == 1 else FramesInTurn(tuple(parts))

    def sample(self, count: int) -> list[tuple[str, Content]]:
        """Keyframes, spread over the videos by a hash of their names: any other would take the decoding of many."""
        videos = [self.indexes[video].video for video in self._used()]
        largest = max(video.height * video.width * 3 for video in videos)
        count = min(count, SAMPLE_PICTURES, max(1, SAMPLE_BYTES // largest))
        used = sorted(self._used(), key=lambda video: name_rank(self.names[video]))[:count]
        chosen = [
            (video, int(key))
            for rank, video in enumerate(used)
            for key in _spread(self.indexes[video].keys, count // len(used) + (rank < count % len(used)))
        ]
        return [(f"{self.names[video]} at {key}", KeyFrame(self.indexes[video], key)) for video, key in chosen]

    def stamp(self, rows: np.ndarray) -> str:
        return stamp_of(file_stats(self.root / self.names[video] for video in self._used(rows)))

    def identity(self) -> dict[str, Any]:
        """Also which FFmpeg: what comes out of it is what the set holds."""
        libraries = pyav().library_versions
        return {
            "content_sha256": pieces_sha256(self.root, [self.names[video] for video in self._used()]),
            "decoder": {name: ".".join(map(str, libraries[name])) for name in ("libavcodec", "libswscale")},
        }

    def _used(self, rows: np.ndarray | slice = slice(None)) -> list[int]:
        """Which videos these rows are in, ascending."""
        return [int(video) for video in np.unique(self.of[rows])]


@dataclass(frozen=True)
class KeyFrame:
    """The keyframe at a timestamp, as an image file that is made when it is read."""

    index: VideoIndex
    key: int

    def read(self) -> bytes:
        number = min(int(np.searchsorted(self.index.pts, self.key)), len(self.index) - 1)
        (pixels,) = self.index.frames(np.array([number])).load()
        return bitmap_of(pixels)


@dataclass(frozen=True)
class FramesInTurn:
    """Frames of several videos, one after the other: a sequence may go on in another file."""

    parts: tuple[VideoFrames, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def load(self, target: Target | None = None, size: tuple[int, int] | None = None) -> Iterator[Pixels]:
        for part in self.parts:
            yield from part.load(target, size)

    def again(self, before: Frames) -> int | None:
        return self.parts[0].again(before.parts[-1] if isinstance(before, FramesInTurn) else before)

    def digest(self) -> str:
        return short_digest(*(part.digest().encode() for part in self.parts))


def index_videos(root: Path, names: Sequence[str], mistakes: Mistakes) -> list[VideoIndex] | None:
    """None: some cannot be read, which `mistakes` gets. UsageError: PyAV is missing."""
    pyav()
    indexes = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        found = pool.map(lambda name: _indexed(root / name), names)
        for result in tqdm(found, "reading videos", len(names), unit="video", disable=None, leave=False):
            if isinstance(result, VideoIndex):
                indexes.append(result)
            else:
                mistakes.add(result, "videos")
    if len(indexes) < len(names):
        return None
    _say_unlike(names, indexes)
    return indexes


def _say_unlike(names: Sequence[str], indexes: Sequence[VideoIndex]) -> None:
    for kind in dict.fromkeys(kind for index in indexes for kind in index.unlike):
        which = [printable(name) for name, index in zip(names, indexes, strict=True) if kind in index.unlike]
        log.warning("%d videos have %s, which stay as they are stored: %s", len(which), kind, few(which))


def _indexed(path: Path) -> VideoIndex | str:
    try:
        return index_video(path)
    except FormatError as error:
        return str(error)


def _rows_of(of: np.ndarray, videos: int) -> Iterator[tuple[int, np.ndarray]]:
    """(video, its rows) of each that has any."""
    order = np.argsort(of, kind="stable")
    bounds = np.searchsorted(of[order], np.arange(videos + 1))
    for video, (start, stop) in enumerate(itertools.pairwise(bounds.tolist())):
        if stop > start:
            yield video, order[start:stop]


def _spread(values: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of them, evenly."""
    return values[np.unique(np.linspace(0, len(values) - 1, min(count, len(values))).astype(int))]
