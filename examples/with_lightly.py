"""SimCLR of lightly – its loss, its projection head, its augmentations – on our shards; k-NN accuracy before and after.

python examples/with_lightly.py shards/synth --steps 200                  # two stored views of an object are a pair
python examples/with_lightly.py shards/synth --steps 200 --pairs lightly  # two augmentations of one view, by lightly
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from lightly.utils.benchmarking import knn_predict
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.transforms.functional import to_pil_image

import seqjepa
from seqjepa.data.sequence import ViewSequence, normalise
from shards.reader import ShardSet

NEIGHBOURS = 20


def forever(data: seqjepa.sequences.ViewSequences) -> Iterator[ViewSequence]:
    while True:  # each iteration is an epoch, with views and an order of its own
        yield from data


def augmented(views: Tensor, transform: SimCLRTransform) -> tuple[Tensor, Tensor]:
    """uint8 [B, 3, H, W] → two augmentations of each, float [B, 3, H, W]."""
    pairs = [transform(to_pil_image(view)) for view in views]
    return torch.stack([first for first, _ in pairs]), torch.stack([second for _, second in pairs])


@torch.no_grad()
def features(encoder: nn.Module, shards: Path, split: str, constants: dict[str, list[float]]) -> tuple[Tensor, Tensor]:
    """Of a view of every sample: [N, D], of length 1, and labels [N]."""
    encoder.eval()
    samples = ShardSet.open(shards).info.splits[split].samples
    data = seqjepa.open_sequences(shards, split, context=1, batch_size=min(256, samples), workers=0)
    found = [(encoder(normalise(seq.views[:, 0], **constants)), seq.labels) for seq in data]
    return F.normalize(torch.cat([z for z, _ in found])), torch.cat([labels for _, labels in found])


def knn_accuracy(encoder: nn.Module, shards: Path, val: str, constants: dict[str, list[float]]) -> float:
    bank, known = features(encoder, shards, "train", constants)
    z, labels = features(encoder, shards, val, constants)
    predicted = knn_predict(z, bank.T, known, int(known.max()) + 1, knn_k=min(NEIGHBOURS, len(known)))
    return (predicted[:, 0] == labels).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--pairs", choices=("stored", "lightly"), default="stored")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()

    torch.manual_seed(0)
    info = ShardSet.open(args.shards).info
    constants, val = info.normalisation, next(name for name in info.splits if name != "train")
    encoder, head = resnet18(), SimCLRProjectionHead(512, 512, 128)
    encoder.fc = nn.Identity()  # type: ignore[assignment]
    loss_of, transform = NTXentLoss(temperature=0.5), SimCLRTransform(info.spec.height, normalize=constants)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-3, weight_decay=1e-3)
    data = seqjepa.open_sequences(args.shards, context=1, batch_size=args.batch_size)
    print(f"{NEIGHBOURS}-NN top-1 at random weights: {knn_accuracy(encoder, args.shards, val, constants):.3f}")
    for step, seq in enumerate(islice(forever(data), args.steps), start=1):
        views = normalise(seq.views, **constants)
        first, second = views.unbind(1) if args.pairs == "stored" else augmented(seq.views[:, 0], transform)
        encoder.train()
        loss = loss_of(head(encoder(first)), head(encoder(second)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0 or step == args.steps:
            print(f"step {step}: loss {loss.item():.4f}")
    print(f"{NEIGHBOURS}-NN top-1 after {args.steps} steps: {knn_accuracy(encoder, args.shards, val, constants):.3f}")


if __name__ == "__main__":
    main()
