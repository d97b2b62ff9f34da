"""Training as the released code does it (hafezgh/seq-jepa@73e0550 main_transformed_views.py), written anew.

A 256-px JPEG and a .npy a view; PIL → Resize → ToTensor → Normalize in DataLoader workers; scipy for each pair of
views; float32, eager, plain Adam; the target encoder's average parameter by parameter; the loss read after every step.
Kinder than the original in that workers stay alive between epochs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation
from torchvision import transforms
from train_data import CLASSES, VIEWS, Data

from seqjepa.config import RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.training.checkpoint import initial_method

_MEAN, _STD = (0.5016, 0.5037, 0.5060), (0.1030, 0.0999, 0.0969)


class Objects(torch.utils.data.Dataset):
    def __init__(self, data: Data, sequence: int) -> None:
        steps = [transforms.Resize((data.side, data.side)), transforms.ToTensor(), transforms.Normalize(_MEAN, _STD)]
        self.data, self.sequence, self.transform = data, sequence, transforms.Compose(steps)

    def __len__(self) -> int:
        return self.data.objects

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        folder, chosen = self.data.folder(number), np.random.permutation(VIEWS)[: self.sequence]
        views = [self.transform(Image.open(folder / f"image_{v}.jpg").convert("RGB")) for v in chosen]
        angles = [np.load(folder / f"latent_{v}.npy")[:3].astype(np.float32) for v in chosen]
        turns = [Rotation.from_euler("xyz", angle) for angle in angles]
        actions = [(turns[i].inv() * turns[i + 1]).as_quat() for i in range(self.sequence - 1)]
        return torch.stack(views), torch.from_numpy(np.stack(actions).astype(np.float32)), number % CLASSES


def steps(data: Data, config: RunConfig, device: torch.device, workers: int) -> Iterator[float]:
    """Yields the loss of each training step, endlessly."""
    loader = torch.utils.data.DataLoader(
        Objects(data, config.data.context + 1),
        batch_size=config.optim.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    method = initial_method(config, 4)
    module = method.to(device).train()
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=config.optim.lr)
    for views, actions, labels in itertools.chain.from_iterable(itertools.repeat(loader)):
        views, actions = views.to(device, non_blocking=True), actions.to(device, non_blocking=True)
        seq = ViewSequence(views, actions, actions, labels, [""] * len(views))
        optimizer.zero_grad()
        loss = method.step(seq).loss
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            pairs = zip(module.target_encoder.parameters(), module.encoder.parameters(), strict=True)
            for target, online in pairs:
                target.data = target.data * 0.996 + online.data * 0.004
        yield loss.item()
