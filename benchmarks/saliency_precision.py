"""What a lower precision of DeepGaze IIE's backbones changes in its maps, beside float32: nats, on any device.

    python benchmarks/saliency_precision.py [--stand-in] [--device cpu] [--images 4] [--height 256 --width 256]
                                            [--precisions fp16 bf16]

Weights are random, seeded and calibrated (saliency_weights.py): the released ones are not needed. Needs
`deepgaze_pytorch`; `--stand-in` takes the tests' small network, two backbones of four convolutions, instead. A JSON
line for each precision: `ours` is the largest difference of a log density, `kl` the mean divergence from the float32
map to the other, `share` the root mean square of the differences over that of what tells the images' maps apart.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "pipelines")]

import torch  # noqa: E402
from common import emit, versions  # noqa: E402
from saliency_weights import calibrate, corner_dark_bias, noise_pictures  # noqa: E402
from torch import Tensor  # noqa: E402

from pipelines.saliency.deepgaze_fast import FastDeepGaze  # noqa: E402
from pipelines.saliency.deepgaze_package import build_untrained, import_package  # noqa: E402


def network(stand_in: bool) -> FastDeepGaze:
    torch.manual_seed(0)
    if not stand_in:
        return FastDeepGaze(calibrate(build_untrained(import_package())))
    from deepgaze_slow import small_model

    model = small_model()
    for part in model.models:  # the package's networks divide by 255 themselves
        part.features.features.register_forward_pre_hook(lambda module, inputs: (inputs[0] / 255,))
    return FastDeepGaze(model).float()


def log_density(model: FastDeepGaze, images: Tensor, bias: Tensor) -> Tensor:
    """float64 [B, H, W] whose logsumexp is 0 beyond float32's rounding."""
    log = model(images, bias).double()
    return log.flatten(1).log_softmax(1).view_as(log)


def differences(found: Tensor, expected: Tensor) -> dict[str, float]:
    """Two log densities [B, H, W], B ≥ 2 images; see above."""
    off, apart = found - expected, expected - expected.mean(0)
    return {
        "largest": float(off.abs().max()),
        "kl": float(-(expected.exp() * off).sum((1, 2)).mean()),
        "share": float(off.square().mean().sqrt() / apart.square().mean().sqrt()),
    }


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stand-in", action="store_true", help="the tests' small network")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=4, choices=range(2, 65), metavar="2…64")
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--precisions", nargs="+", default=["fp16", "bf16"], choices=("tf32", "fp16", "bf16"))
    args = parser.parse_args()
    model = network(args.stand_in).to(args.device)
    images = noise_pictures(args.images, args.height, args.width, seed=1).to(args.device)
    bias = corner_dark_bias(args.height, args.width).float().to(args.device)
    expected = log_density(model, images, bias)
    for model.precision in args.precisions:
        found = differences(log_density(model, images, bias), expected)
        emit(
            f"saliency precision: {model.precision}",
            "nats",
            found.pop("largest"),
            {},
            **found,
            network="stand-in" if args.stand_in else "DeepGaze IIE, random weights",
            size=[args.images, args.height, args.width],
            device=args.device,
            versions=versions("torch", "deepgaze_pytorch"),
        )


if __name__ == "__main__":
    main()
