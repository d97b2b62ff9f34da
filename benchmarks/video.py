"""Videos → view shards, beside PyAV alone: decoding the same files to RGB, with its best threading, on the same cores.

    python benchmarks/video.py [--copies 12] [--size 128] [--rounds 3] [--work DIR]

Clips are made here, of a moving textured scene with sensor noise. H.264 at 2.5 Mbit/s (480p) and 5 Mbit/s (720p); AV1
with the settings of LeRobot's recorder (GOP 2, CRF 30), and with GOP 250.
PyAV's side decodes every frame and converts it to RGB (`frame.to_ndarray(format="rgb24")`), and keeps nothing; it is
measured with frame threads, with the threads that FFmpeg chooses, and with a process for each core that takes whole
files. Ours decodes, resizes, encodes JPEGs, checks them and writes shards. CPU time is given beside time on the clock,
which says little on a machine that others use.

ratio_threads      ours / the best of PyAV's threads, frames a second
ratio_threads_cpu  the same of CPU seconds a frame, of all threads and processes, their start included
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import av  # noqa: E402
import numpy as np  # noqa: E402
from common import emit, versions  # noqa: E402
from PIL import Image  # noqa: E402

from pipelines.build.views import shard_views  # noqa: E402
from pipelines.sources.mistakes import Mistakes  # noqa: E402
from pipelines.sources.table import TableSource, ViewTable  # noqa: E402
from pipelines.sources.video import pyav  # noqa: E402
from pipelines.sources.video.pictures import VideoPictures  # noqa: E402
from shards.machine.environment import usable_cores  # noqa: E402
from shards.schema import ParamField  # noqa: E402

X264 = {"preset": "medium", "g": "250"}
CLIPS = {  # name: codec, its options, (height, width), frames of a clip
    "h264_480p_gop250": ("libx264", {**X264, "b": "2500k"}, (480, 640), 1500),
    "h264_720p_gop250": ("libx264", {**X264, "b": "5000k"}, (720, 1280), 1000),
    "av1_480p_gop2": ("libsvtav1", {"g": "2", "crf": "30", "preset": "8"}, (480, 640), 1000),  # as LeRobot writes
    "av1_480p_gop250": ("libsvtav1", {"g": "250", "crf": "30", "preset": "8"}, (480, 640), 1000),
}
NOISE, CHUNK = 5.0, 64


def scene(count: int, height: int, width: int) -> Iterator[np.ndarray]:
    """uint8 [height, width, 3]: a textured wall that a camera pans over, an object that moves before it, noise."""
    rng = np.random.default_rng(0)
    wall = np.zeros((height + 64, width + count, 3))
    for cell, strength in ((64, 60), (16, 30), (4, 15)):  # from large shapes to fine grain
        coarse = rng.integers(0, 256, (wall.shape[0] // cell + 2, wall.shape[1] // cell + 2, 3), dtype=np.uint8)
        fine = Image.fromarray(coarse).resize((wall.shape[1], wall.shape[0]), Image.Resampling.BICUBIC)
        wall += (np.asarray(fine) / 127.5 - 1) * strength
    wall, noise = (wall + 128).astype(np.float32), rng.normal(0, NOISE, (16, height, width, 1)).astype(np.float32)
    for t in range(count):
        top = int(32 + 31 * np.sin(t / 25))
        picture = wall[top : top + height, t : t + width] + noise[rng.integers(16), :, :: -1 if t % 2 else 1]
        left, side = (5 * t) % (width - width // 5), width // 5
        picture[height // 3 : height // 3 + side // 2, left : left + side] = (200, 60, 40)
        yield picture.clip(0, 255).astype(np.uint8)


def make_clip(path: Path, codec: str, options: dict[str, str], size: tuple[int, int], count: int) -> None:
    pyav()  # which silences FFmpeg
    part = path.with_suffix(".part.mp4")
    with av.open(str(part), "w") as file:
        stream: Any = file.add_stream(codec, rate=30)
        stream.height, stream.width, stream.pix_fmt, stream.options = *size, "yuv420p", options
        for picture in scene(count, *size):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        file.mux(stream.encode(None))
    part.rename(path)


def make_source(work: Path, name: str, copies: int) -> list[Path]:
    codec, options, size, count = CLIPS[name]
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{k}.mp4" for k in range(copies)]
    if not paths[0].exists():
        # In a process of its own: as root, SVT-AV1 gives whoever encodes a real-time priority, and leaves it so.
        maker = multiprocessing.get_context("spawn").Process(
            target=make_clip, args=(paths[0], codec, options, size, count)
        )
        maker.start()
        maker.join()
    for path in paths[1:]:
        if not path.exists():
            shutil.copyfile(paths[0], path)
    return paths


def ours(paths: Sequence[Path], count: int, out: Path, size: int) -> None:
    root, names = paths[0].parent, [path.name for path in paths]
    of = np.repeat(np.arange(len(paths), dtype=np.int32), count)
    steps = np.tile(np.arange(count, dtype=np.int32), len(paths))
    pictures = VideoPictures.by_number(root, names, of, steps, "row {}".format, Mistakes())
    assert pictures is not None
    table = ViewTable(
        names, of, steps, True, steps[:, None].astype(np.float32), (ParamField("t", "1"),), ["train"] * len(names),
        [None] * len(names), pictures,
    )  # fmt: skip
    shard_views(TableSource(root, table, name="benchmark", views_per_sample=CHUNK), out, size=size)


def decode(path: Path, threads: int, kind: str) -> int:
    count = 0
    with av.open(str(path)) as file:
        stream: Any = file.streams.video[0]
        stream.thread_type, stream.thread_count = kind, threads
        for frame in file.decode(stream):
            count += len(frame.to_ndarray(format="rgb24")) > 0
    return count


def decode_one(path: Path) -> int:
    return decode(path, 1, "NONE")


def frame_threads(paths: Sequence[Path]) -> int:
    return sum(decode(path, usable_cores(), "FRAME") for path in paths)


def auto_threads(paths: Sequence[Path]) -> int:
    return sum(decode(path, 0, "AUTO") for path in paths)


def processes(paths: Sequence[Path]) -> int:
    with multiprocessing.get_context("spawn").Pool(usable_cores()) as pool:
        return sum(pool.imap(decode_one, paths))


PEERS: dict[str, Callable[[Sequence[Path]], int]] = {
    "pyav_frame_threads": frame_threads,
    "pyav_auto_threads": auto_threads,
    "pyav_processes": processes,
}


def measure(name: str, work: Path, copies: int, size: int, rounds: int) -> None:
    paths, count = make_source(work, name, copies), CLIPS[name][3]
    rates: dict[str, list[float]] = {"ours": [], **{peer: [] for peer in PEERS}}
    spent: dict[str, list[float]] = {contender: [] for contender in rates}
    for _ in range(rounds):
        for contender, values in rates.items():
            start, cpu = time.perf_counter(), cpu_seconds()
            if contender == "ours":
                ours(paths, count, work / "out", size)
            else:
                assert PEERS[contender](paths) == count * len(paths)
            values.append(count * len(paths) / (time.perf_counter() - start))
            spent[contender].append((cpu_seconds() - cpu) / (count * len(paths)) * 1e3)
            shutil.rmtree(work / "out", ignore_errors=True)
    found = {contender: median(values) for contender, values in rates.items()}
    milliseconds = {contender: median(values) for contender, values in spent.items()}
    threads = [peer for peer in PEERS if peer.endswith("threads")]
    emit(
        f"video_{name}",
        "frames/s",
        found["ours"],
        {peer: found[peer] for peer in PEERS},
        ratio_threads=found["ours"] / max(found[peer] for peer in threads),
        ratio_threads_cpu=min(milliseconds[peer] for peer in threads) / milliseconds["ours"],
        cpu_ms_a_frame=milliseconds,
        size=size,
        frames=count * len(paths),
        mbit_per_s=paths[0].stat().st_size * 8 / (count / 30) / 1e6,
        rounds=rounds,
        versions=versions("av", "pillow", "simplejpeg", "numpy"),
    )


def cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "seqjepa-video-benchmark")
    parser.add_argument("--clips", nargs="+", choices=CLIPS, default=list(CLIPS))
    parser.add_argument("--copies", type=int, default=12, help="files of each clip; a start takes two seconds of CPU")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for name in arguments.clips:
        measure(name, arguments.work, arguments.copies, arguments.size, arguments.rounds)


if __name__ == "__main__":
    main()
