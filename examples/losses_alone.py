"""Our losses in a loop of one's own: a network of plain torch, on pairs of views from a plain webdataset pipeline.

python examples/losses_alone.py shards/3die --loss vicreg --steps 100
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import chain, count, islice
from pathlib import Path

import torch
from torch import Tensor, nn

import seqjepa
from seqjepa.losses import VicWeights, nt_xent, vicreg_loss

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "nt_xent": lambda a, b: nt_xent(a, b, temperature=0.5),
    "vicreg": lambda a, b: vicreg_loss(a, b, VicWeights(invariance=25, variance=25, covariance=1)),
}
"""Each of two views' embeddings [N, d]."""


def network(width: int = 64) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, width, 4, 4), nn.ReLU(), nn.Conv2d(width, width, 2, 2), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, width)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--loss", choices=LOSSES, default="vicreg")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()

    torch.manual_seed(0)
    net = network()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    epochs = (seqjepa.webdataset(args.shards, context=1, batch_size=args.batch_size, epoch=e) for e in count())
    for step, batch in enumerate(islice(chain.from_iterable(epochs), args.steps), start=1):
        first, second = (batch["views"] / 255).unbind(1)
        loss = LOSSES[args.loss](net(first), net(second))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step == 1 or step == args.steps:
            print(f"step {step}: {args.loss} {loss.item():.6f}")


if __name__ == "__main__":
    main()
