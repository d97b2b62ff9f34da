"""Images per second of DeepGaze IIE: our equivalent forward beside the installed package's own.

    python benchmarks/saliency.py [--device cpu] [--batch 4] [--height 512 --width 512] [--rounds 5] [--precision fp32]

Needs `deepgaze_pytorch` (docs/saliency.md has the line), no weights: they are random, seeded and calibrated
(saliency_weights.py). Both give log densities of the full size from the same images and centre bias; they take turns
in one process, figures are medians over the rounds. `fastest` and `slowest` show how calm the machine was: where
others use its cores, threads wait for each other at every small operation, and no figure means anything. `pooled_96`
is our forward as `build-saliency stl10` uses it; `scripted` is the package with a float64 centre bias, as in the
released scripts. `max_difference` is that of the two log densities, in nats. `limit` is what large products of matrices
on the same device and in the same precision allow: their FLOP/s, measured in every round, over the FLOPs of an image in
our forward, which are counted. `ratio_limit` is the median over the rounds of our share of it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from common import emit, versions  # noqa: E402
from saliency_weights import calibrate, corner_dark_bias, noise_pictures  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from pipelines.saliency.deepgaze import PackageDeepGaze  # noqa: E402
from pipelines.saliency.deepgaze_fast import FastDeepGaze  # noqa: E402
from pipelines.saliency.deepgaze_package import build_untrained, import_package  # noqa: E402
from pipelines.saliency.speed import matmul_ceiling  # noqa: E402


def contenders(args: argparse.Namespace) -> dict[str, Callable[[], Tensor]]:
    package = import_package()
    torch.manual_seed(0)
    model = calibrate(build_untrained(package))
    twin = build_untrained(package)
    twin.load_state_dict(model.state_dict())
    theirs = PackageDeepGaze(model).to(args.device)
    ours = FastDeepGaze(twin, args.precision).to(args.device)
    images = noise_pictures(args.batch, args.height, args.width, seed=1).to(args.device)
    bias64 = corner_dark_bias(args.height, args.width).to(args.device)
    bias = bias64.float()
    return {
        "ours": lambda: ours(images, bias),
        "package": lambda: theirs(images, bias),
        "pooled_96": lambda: ours.pooled(images, bias, (96, 96)),
        "scripted": lambda: theirs(images, bias64),
    }


def seconds(run: Callable[[], Tensor], device: str) -> float:
    start = time.perf_counter()
    run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--precision", choices=("fp32", "tf32", "fp16", "bf16"), help="default: tf32 on CUDA, else fp32"
    )
    args = parser.parse_args()
    args.precision = args.precision or ("tf32" if args.device.startswith("cuda") else "fp32")
    runs = contenders(args)
    difference = float((runs["ours"]() - runs["package"]()).abs().max())  # the first run warms up
    with FlopCounterMode(display=False) as counter:
        runs["ours"]()
    flops = counter.get_total_flops() / args.batch
    taken, products = {name: [] for name in runs}, []
    for turn in range(args.rounds):
        order = list(runs)[turn % len(runs) :] + list(runs)[: turn % len(runs)]  # nobody always follows the same one
        for name in order:
            taken[name].append(seconds(runs[name], args.device))
        products.append(matmul_ceiling(torch.device(args.device), args.precision))
    rate = {name: args.batch / statistics.median(times) for name, times in taken.items()}
    emit(
        "saliency",
        "images/s",
        rate["ours"],
        {"deepgaze_pytorch": rate["package"]},
        statistics.median(products) / flops,
        ratio_limit=statistics.median(
            args.batch * flops / spent / product for spent, product in zip(taken["ours"], products, strict=True)
        ),
        versions=versions("torch", "torchvision", "deepgaze_pytorch"),
        gflop_an_image=flops / 1e9,
        gflop_per_s_of_products=[product / 1e9 for product in products],
        pooled_96=rate["pooled_96"],
        scripted=rate["scripted"],
        fastest={name: args.batch / min(times) for name, times in taken.items()},
        slowest={name: args.batch / max(times) for name, times in taken.items()},
        max_difference=difference,
        threads=torch.get_num_threads(),
        **{key: getattr(args, key) for key in ("device", "precision", "batch", "height", "width", "rounds")},
    )


if __name__ == "__main__":
    main()
