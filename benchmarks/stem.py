"""The stem of a ResNet-18 with an image's three channels, and with zeros up to four or eight: bytes, products, time.

    python benchmarks/stem.py [--batch 512] [--views 4] [--size 128] [--device cuda] [--rounds 5]

One JSON line for each number of channels: what a training step of seq-JEPA does there in bf16, channels-last. All views
go forward, those of the context have a gradient of the weights; nobody asks for one of the pixels. `limit`:
milliseconds at an H100's 3.35 TB/s and 989 TFLOP/s, whichever takes longer, forward and backward. `unpadded_pads`: the
same where the library would make of three channels as many itself, in a pass of its own each time. `ours` is measured
where there is a GPU: medians, all channels in turn.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import torch  # noqa: E402
from common import emit, versions  # noqa: E402

BYTES, PRODUCTS = 3.35e12, 989e12
OUT, KERNEL, STRIDE, PAD = 64, 7, 2, 3
CHANNELS = (3, 4, 8)
BF16 = 2  # bytes


def counted(channels: int, images: int, size: int) -> tuple[float, float]:
    """FLOP and bytes of one direction: it reads pixels, and writes the map forward or reads its gradient."""
    places = images * (size // STRIDE) ** 2
    flop = 2.0 * places * OUT * KERNEL**2 * channels
    return flop, BF16 * (images * size**2 * channels + places * OUT)


def seconds(flop: float, moved: float) -> float:
    return max(flop / PRODUCTS, moved / BYTES)


def padding(channels: int, images: int, size: int) -> float:
    """Seconds of a pass that reads three channels and writes `channels`."""
    return BF16 * images * size**2 * (3 + channels) / BYTES if channels > 3 else 0.0


def measured(sizes: tuple[int, ...], forward: int, backward: int, side: int, rounds: int) -> dict[int, float]:
    """Milliseconds of both directions on the GPU."""
    torch.backends.cudnn.benchmark = True
    found: dict[int, list[float]] = {channels: [] for channels in sizes}
    for number in range(rounds + 1):
        for channels in sizes:
            layout = {"device": "cuda", "dtype": torch.bfloat16}
            x = torch.randn(forward, channels, side, side, **layout).to(memory_format=torch.channels_last)
            weight = torch.randn(OUT, channels, KERNEL, KERNEL, **layout).to(memory_format=torch.channels_last)
            spent = _timed(x, weight, backward)
            if number:  # in the first round cuDNN looks for its kernels
                found[channels].append(spent)
    return {channels: statistics.median(times) for channels, times in found.items()}


def _timed(x: torch.Tensor, weight: torch.Tensor, backward: int, times: int = 10) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for number in range(times + 2):
        if number == 2:
            begin.record()
        y = torch.nn.functional.conv2d(x, weight, stride=STRIDE, padding=PAD)
        how = ([0], [STRIDE] * 2, [PAD] * 2, [1, 1], False, [0, 0], 1, [False, True, False])
        torch.ops.aten.convolution_backward(y[:backward], x[:backward], weight, *how)
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=512, help="sequences")
    parser.add_argument("--views", type=int, default=4, help="of a sequence, the target's too")
    parser.add_argument("--size", type=int, default=128, help="pixels a side")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    images = asked.batch * asked.views, asked.batch * (asked.views - 1)
    times = measured(CHANNELS, *images, asked.size, asked.rounds) if asked.device == "cuda" else {}
    for channels in CHANNELS:
        parts = [counted(channels, count, asked.size) for count in images]
        least = 1e3 * sum(seconds(*part) for part in parts)
        passes = 1e3 * sum(padding(channels, count, asked.size) for count in images)
        what = {
            "channels": channels,
            "gigaflop": sum(p[0] for p in parts) / 1e9,
            "gigabytes": sum(p[1] for p in parts) / 1e9,
        }
        ours = times.get(channels)
        emit("stem", "ms/step", ours, {}, least, unpadded_pads=least + passes, versions=versions("torch"), **what)


if __name__ == "__main__":
    main()
