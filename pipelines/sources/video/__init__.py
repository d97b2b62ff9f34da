"""Frames of a video file, by number or by time, as RGB pixels. Decoded by FFmpeg through PyAV (extra `video`).

A frame is found by its presentation timestamp, an integer in units of the stream's time base: `index_video` lists them
from the packets, without decoding. A worker decodes from the last keyframe at or before a wanted frame; frames that it
wants afterwards come from the decoder that is open already, so that a run of frames is decoded once.

Colours: the matrix (BT.601, 709, 2020 …) and the range (16–235 or 0–255) that the stream is tagged with; an untagged
stream counts as BT.601 and limited, as FFmpeg takes it. Transfer functions are not converted. Chroma is interpolated.
A smaller size is made in one step, by swscale's bilinear filter with antialiasing, which is PIL's but for rounding:
a full-size RGB picture, which takes longer than many a frame's decoding, is never made.

Letters: F frames of a file, K keyframes, n frames that are wanted.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pipelines.archives import readable
from pipelines.sources import Frames, Target
from pipelines.sources.content import Stat, pieces_of, short_digest, stats_of
from pipelines.sources.decode import LARGEST_SIDE, Pixels, centre_part, check_size, check_view_size
from pipelines.sources.video.files import whole_file
from shards.errors import FormatError
from shards.extras import missing
from shards.machine.environment import pass_environment_on

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mp4", ".mkv": "matroska", ".webm": "matroska"}
SUFFIXES = tuple(FORMATS)
CODECS = ("h264", "hevc", "av1", "vp9", "vp8", "mpeg4", "mjpeg", "ffv1")
MOST_PIXELS = 11_000_000  # a little more than 4096 × 2304; as an RGB file it has to be within LARGEST_FILE
FEWEST_SKIPPED = 8  # frames: fewer are decoded and passed over, for a seek starts at a keyframe and costs as much
HDR = (16, 18)  # transfer functions: PQ (SMPTE 2084) and HLG (ARIB STD-B67)
UNIT = 1 << 16  # of a display matrix


@functools.cache
def pyav() -> ModuleType:
    """The package `av`. UsageError: it is not installed."""
    try:
        av = importlib.import_module("av")
    except ImportError as error:
        raise missing("av", "reading videos") from error
    av.logging.set_level(av.logging.PANIC)  # what FFmpeg prints of damaged files; ours is one line, with the file
    return av


@dataclass(frozen=True)
class Turn:
    """How a picture lies in the file: rows and columns swapped, then mirrored; phones film so."""

    swapped: bool = False
    left_right: bool = False
    up_down: bool = False

    @classmethod
    def of(cls, frame: Any) -> Turn:
        """As the display matrix of a decoded frame says. ValueError: by other than right angles."""
        data = frame.side_data.get("DISPLAYMATRIX")
        if data is None:
            return cls()
        a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
        if b == c == 0 and abs(a) == abs(d) == UNIT:
            return cls(False, a < 0, d < 0)
        if a == d == 0 and abs(b) == abs(c) == UNIT:
            return cls(True, c < 0, b < 0)
        raise ValueError("its display matrix turns it by other than right angles, or scales it; encode it anew")

    def size(self, height: int, width: int) -> tuple[int, int]:
        return (width, height) if self.swapped else (height, width)

    def apply(self, pixels: Pixels) -> Pixels:
        """[H, W, 3] as stored → as shown."""
        if self == Turn():
            return pixels
        shown = pixels.transpose(1, 0, 2) if self.swapped else pixels
        return np.ascontiguousarray(shown[:: -1 if self.up_down else 1, :: -1 if self.left_right else 1])


@dataclass(frozen=True)
class Video:
    """What a worker needs to know of a file. `height`, `width`: pixels as shown, after `turn`."""

    path: Path
    height: int
    width: int
    turn: Turn = Turn()


@dataclass(frozen=True)
class VideoIndex:
    """A file's frames in the order in which they are shown.

    time_base  seconds of one unit of a timestamp
    pts        int64 [F], presentation timestamps, ascending; they need not begin at 0 nor be evenly spaced
    keys       int64 [K], those of the keyframes, ascending
    unlike     how its pictures, which are as they are stored, differ from what a player shows
    """

    video: Video
    time_base: Fraction
    pts: np.ndarray
    keys: np.ndarray
    unlike: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pts)

    def seconds(self, numbers: np.ndarray) -> np.ndarray:
        """float64, presentation times of these frames."""
        return self.pts[numbers] * self.time_base.numerator / self.time_base.denominator

    def nearest(self, times: np.ndarray) -> np.ndarray:
        """int64 [n]: number of the frame whose presentation time is nearest to each of float64 [n], in s."""
        own = self.seconds(np.arange(len(self)))
        after = np.searchsorted(own, times).clip(1, max(1, len(own) - 1))
        before = after - 1
        after = np.minimum(after, len(own) - 1)
        return np.where(np.abs(own[after] - times) < np.abs(own[before] - times), after, before)

    def frames(self, numbers: np.ndarray) -> VideoFrames:
        """Those of int64 [n], each from 0 to F − 1."""
        pts = self.pts[numbers]
        rank = np.searchsorted(self.keys, pts, side="right") - 1
        keys = np.where(rank < 0, self.pts[0], self.keys[rank.clip(0)])
        lead = int(numbers[0] - np.searchsorted(self.pts, keys[0]))
        return VideoFrames(self.video, numbers, pts, keys, lead)


@dataclass(frozen=True, eq=False)
class VideoFrames:
    """n frames of one video, implementing Frames: decoded in the worker, in this order. Small to pickle.

    numbers, pts  int64 [n], which frames
    keys          int64 [n], timestamp of the keyframe from which each can be decoded
    lead          how many frames there are from the keyframe of the first up to it
    """

    video: Video
    numbers: np.ndarray
    pts: np.ndarray
    keys: np.ndarray
    lead: int

    def __len__(self) -> int:
        return len(self.numbers)

    def load(self, target: Target | None = None, size: tuple[int, int] | None = None) -> Iterator[Pixels]:
        """uint8 [H, W, 3] of each, as shown; of the target's size where one is given.

        size  (height, width) that the video must have
        ValueError: it has not; the file is damaged or gone, or has another size than when it was indexed. The rest is
        not decoded then.
        """
        check_view_size((self.video.height, self.video.width), size)
        reader = _reader(self.video, *stats_of([self.video.path]))
        columns = (column.tolist() for column in (self.numbers, self.pts, self.keys))
        for number, pts, key in zip(*columns, strict=True):
            yield reader.picture(number, pts, key, target)

    def digest(self) -> str:
        """Of the file's bytes (of a large one: 64 pieces) and the timestamps."""
        path = self.video.path
        return short_digest(_file_digest(path, *stats_of([path])).encode(), self.pts.tobytes())

    def again(self, before: Frames) -> int | None:
        if not isinstance(before, VideoFrames) or self.video != before.video or before.pts[-1] > self.pts[0]:
            return None
        return self.lead


def index_video(path: Path) -> VideoIndex:
    """Lists the frames of a file, reading all of its packets and decoding the first.

    FormatError, naming the file: it is cut or damaged, holds no video, a codec that is not read, frames without times.
    """
    av = pyav()
    try:
        whole_file(path)
        with _opened(path) as container:
            stream = _stream(container)
            pts, keys = _packets(container, stream)
            container.seek(int(keys[0]), stream=stream)
            first = next(container.decode(stream))
            turn = Turn.of(first)
            video = Video(path, *turn.size(first.height, first.width), turn)
            check_size(video.height, video.width)
            if video.height * video.width > MOST_PIXELS:
                raise ValueError(f"{video.width}×{video.height} pixels; at most {MOST_PIXELS} are read")
            return VideoIndex(video, Fraction(stream.time_base), pts, keys, _unlike_shown(stream, first))
    except (av.error.FFmpegError, StopIteration) as error:
        raise FormatError(f"{path}: {_reason(error)}") from error
    except ValueError as error:
        raise FormatError(f"{path}: {error}") from error


def _unlike_shown(stream: Any, frame: Any) -> tuple[str, ...]:
    wide = stream.sample_aspect_ratio not in (None, 0, 1)
    kinds = (wide, frame.interlaced_frame, stream.codec_context.color_trc in HDR)
    return tuple(itertools.compress(("pixels that are not square", "interlaced frames", "HDR colours"), kinds))


def _packets(container: Any, stream: Any) -> tuple[np.ndarray, np.ndarray]:
    """(pts [F], those of keyframes [K]), ascending. Without what edit lists cut away."""
    shown, keys = [], []
    for packet in container.demux(stream):
        if packet.size == 0:  # the end
            continue
        if packet.pts is None:
            raise ValueError("its frames have no timestamps (a raw stream in a container?); encode it anew")
        if packet.is_corrupt:
            raise ValueError("a packet is damaged; copy or encode it anew")
        if stream.codec_context.name == "vp8" and not bytes(packet)[0] >> 4 & 1:  # a frame that is never shown
            continue
        if packet.is_keyframe:
            keys.append(packet.pts)
        if not packet.is_discard:
            shown.append(packet.pts)
    pts = np.unique(np.array(shown, np.int64))
    if not len(pts):
        raise ValueError("it holds no frame")
    if len(pts) != len(shown):
        raise ValueError(f"{len(shown) - len(pts)} of its {len(shown)} frames share a timestamp; encode it anew")
    return pts, np.array(sorted(keys) or pts[:1], np.int64)


def _opened(path: Path) -> Any:
    """A container whose first video stream is ready to be decoded by one thread: workers share the cores.

    ValueError: not a file, no video in it, a codec that is not read.
    """
    av, kind = pyav(), FORMATS.get(path.suffix.lower())
    with readable():
        if kind is None or not stat.S_ISREG(path.stat().st_mode):
            raise ValueError(f"not a file of the kinds that are read: {', '.join(SUFFIXES)}")
    # A given format: one that refers to other files (a playlist) cannot pass for a video.
    container = av.open(f"file:{path.absolute()}", format=kind, metadata_errors="replace")
    try:
        context = _stream(container).codec_context
        if context is None or context.name.removeprefix("lib") not in (*CODECS, "dav1d", "vpx-vp9", "vpx"):
            raise ValueError(f"its codec is {getattr(context, 'name', 'unknown')}; {', '.join(CODECS)} are read")
        check_size(context.height, context.width)
        context.thread_count = 1
        context.options = {"max_pixels": str(LARGEST_SIDE**2)}
    except ValueError:
        container.close()
        raise
    return container


def _stream(container: Any) -> Any:
    """The first video that is no cover picture. ValueError: there is none."""
    cover = pyav().stream.Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & cover:
            return stream
    raise ValueError("it has no video stream")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        pass_environment_on(error)
    why = getattr(error, "strerror", None) or "it ends too early"
    return f"cannot be read as a video ({why}): it is damaged or cut; copy or encode it anew"


class _Reader:
    """An open decoder and how far it is."""

    def __init__(self, video: Video):
        av = pyav()
        self.video = video
        self.convert = av.video.reformatter.VideoReformatter()
        flags = av.video.reformatter.Interpolation
        # Without these, swscale leaves out half of the chroma, rounds coarsely, and differently from CPU to CPU.
        self.flags = int(flags.BILINEAR | flags.FULL_CHR_H_INT | flags.ACCURATE_RND | flags.BITEXACT)
        self.container: Any = None
        self.frames: Iterator[Any] = iter(())
        self.at: tuple[int, Any] | None = None  # number and frame that came last
        self.crop: tuple[str, Any] | None = None  # of which part, and the graph that cuts it out

    def picture(self, number: int, pts: int, key: int, target: Target | None) -> Pixels:
        try:
            frame = self._frame(number, pts, key)
            self.at = number, frame
            return self._pixels(frame, target)
        except (pyav().error.FFmpegError, OSError) as error:
            self.close()
            if isinstance(error, OSError):
                pass_environment_on(error)
            raise ValueError(f"it or one soon after it cannot be decoded ({error.strerror}): damaged or cut") from error
        except ValueError:
            self.close()
            raise

    def close(self) -> None:
        if self.container is not None:
            self.container.close()
        self.container, self.frames, self.at = None, iter(()), None

    def _frame(self, number: int, pts: int, key: int) -> Any:
        if self.at and self.at[1].pts == pts:
            return self.at[1]
        if not self.at or pts < self.at[1].pts or (key > self.at[1].pts and number - self.at[0] > FEWEST_SKIPPED):
            self._start(key)
        frame = self._advance(pts)
        if frame is None:  # some keyframes are none (intra refresh), or their place is told wrongly
            self._start(None)
            frame = self._advance(pts)
        if frame is None:
            raise ValueError("does not come out of the decoder: the file is damaged or cut")
        if frame.is_corrupt:
            raise ValueError("is damaged: the decoder had to invent a part of it")
        return frame

    def _start(self, key: int | None) -> None:
        """From the keyframe there, or from the very beginning."""
        if key is None or self.container is None:
            self.close()
            self.container = _opened(self.video.path)
        stream = _stream(self.container)
        if key is not None:
            self.container.seek(key, stream=stream)
        self.frames = self.container.decode(stream)

    def _advance(self, pts: int) -> Any:
        for frame in self.frames:
            if frame.pts is not None and frame.pts >= pts:
                return frame if frame.pts == pts else None
        return None

    def _pixels(self, frame: Any, target: Target | None) -> Pixels:
        turn = self.video.turn
        if turn.size(frame.height, frame.width) != (self.video.height, self.video.width):
            raise ValueError(f"{frame.width}×{frame.height} pixels: the size changes within the file; encode it anew")
        height, width = turn.size(target.height, target.width) if target else (frame.height, frame.width)
        if target and target.fit == "crop":
            frame = self._centre(frame, height, width)
        rgb = self.convert.reformat(
            frame, width, height, "gbrp", interpolation=self.flags, dst_color_range="JPEG", threads=1
        )
        return turn.apply(rgb.to_ndarray())

    def _centre(self, frame: Any, height: int, width: int) -> Any:
        """The part with these proportions: pointers into the same planes."""
        rows, columns = centre_part(frame.height, frame.width, (height, width))
        size = f"{columns.stop - columns.start}:{rows.stop - rows.start}:{columns.start}:{rows.start}:exact=1"
        if self.crop is None or self.crop[0] != size:
            graph = pyav().filter.Graph()
            self.crop = size, graph
            given = {"width": frame.width, "height": frame.height, "format": frame.format}
            source = graph.add_buffer(**given, time_base=Fraction(1))
            graph.link_nodes(source, graph.add("crop", size), graph.add("buffersink")).configure()
        self.crop[1].push(frame)
        return self.crop[1].pull()


@functools.lru_cache(maxsize=1)
def _reader(video: Video, state: Stat) -> _Reader:
    """The decoder that is open in this process: frames that follow each other are decoded once. Of a file that was
    written to, another one."""
    return _Reader(video)


@functools.lru_cache(maxsize=64)
def _file_digest(path: Path, state: Stat) -> str:
    try:
        return short_digest(str(state[0]).encode(), pieces_of(path))
    except ValueError:
        return short_digest(b"")
