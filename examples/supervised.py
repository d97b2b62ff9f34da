"""What the pictures allow: the encoder of a run, trained to name the action between two views.

python examples/supervised.py shards/coil100 --epochs 400 --set model.width=0.25

A method that is never told how to read an action can hardly know more of new pictures than this. Where it stays near 0,
there are too few pictures, or the action cannot be seen in them. Encoder, images and draws are those of `seqjepa train
--shards`; two views at a time, an MLP on both features (two layers of 1,024), AdamW, cosine. Prints a line of JSON: R²
of the action, sine and cosine for an angle, averaged over dimensions, on training and on validation sequences.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import seqjepa
from seqjepa.data.actions import as_spec
from seqjepa.data.sequence import ViewSequence, normalise
from seqjepa.evaluate.heads import mlp
from seqjepa.evaluate.metrics import r2_avg, varying
from seqjepa.evaluate.targets import encode, parts_between
from seqjepa.models.pretrained import build_encoder
from seqjepa.sequences import ViewSequences
from seqjepa.training.data import TrainingData, open_training_data
from shards.schema import ActionSpec

VAL_DRAWS = 8
VAL_BATCH = 50


class Regressor(nn.Module):
    """Views uint8 [B, 2, 3, H, W] → what is read of the action between them [B, n]."""

    def __init__(self, source: TrainingData, targets: int) -> None:
        super().__init__()
        self.pixels = tuple(source.data.mean), tuple(source.data.std)
        self.encoder, features = build_encoder(source.config.model)
        self.head = mlp(2 * features, targets)

    def forward(self, views: Tensor) -> Tensor:
        z = self.encoder(normalise(views.flatten(0, 1), *self.pixels))
        return self.head(z.unflatten(0, views.shape[:2]).flatten(1))


def targets_of(batch: ViewSequence, action: ActionSpec) -> Tensor:
    """Actions [B, A] as a probe reads them: of angles [rad] sine and cosine, other numbers as they are."""
    numbers = batch.actions[:, 0].numpy()
    return torch.from_numpy(encode(numbers, parts_between(action.terms, dict.fromkeys(action.columns, "")), numbers))


def train(net: Regressor, data: ViewSequences, epochs: int, lr: float, action: ActionSpec) -> int:
    """Optimizer steps that were made."""
    optimizer = torch.optim.AdamW(net.parameters(), lr)
    steps = epochs * len(data)
    warm_up = max(1, steps // 25)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(step / warm_up, 0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    net.train()
    for _ in range(epochs):
        for batch in data:
            with torch.autocast("cpu", torch.bfloat16):
                predicted = net(batch.views)
            loss = F.mse_loss(predicted.float(), targets_of(batch, action))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return steps


@torch.no_grad()
def score(net: Regressor, data: ViewSequences, action: ActionSpec) -> float:
    """R² over VAL_DRAWS draws of two views of every sequence, of the numbers that vary, as in evaluation."""
    net.eval()
    pairs = [(targets_of(batch, action), net(batch.views)) for _ in range(VAL_DRAWS) for batch in data]
    target, predicted = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    kept = varying(target)
    return r2_avg(target[:, kept], predicted[:, kept])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the run")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    options = {"context": 1, "seed": args.seed, "settings": args.set, "workers": 0}
    data = seqjepa.open_sequences(args.shards, batch_size=args.batch_size, **options)
    val = seqjepa.open_sequences(args.shards, "val", batch_size=VAL_BATCH, **options)
    source = open_training_data(args.shards, data.config)
    action = as_spec(source.config.data.action)
    net = Regressor(source, targets_of(next(iter(data)), action).shape[1]).to(memory_format=torch.channels_last)
    steps = train(net, data, args.epochs, args.lr, action)
    print(json.dumps({"steps": steps, "r2_train": score(net, data, action), "r2_val": score(net, val, action)}))


if __name__ == "__main__":
    main()
