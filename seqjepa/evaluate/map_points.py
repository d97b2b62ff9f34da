"""The points of maps of features: which views and sequences, and how they are coloured (Figures 5, 12–14)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from seqjepa.data.actions import POSITION_COLUMNS, ROTATION_COLUMNS, quaternion
from seqjepa.data.draws import Purpose
from seqjepa.evaluate.bank import FeatureBank
from seqjepa.evaluate.inputs import label_of_prefixes
from seqjepa.evaluate.probes import Gather
from seqjepa.evaluate.study import Case
from seqjepa.methods.base import Aggregating

ENOUGH_SEQUENCES = 1000
ROWS_PER_PASS = 1024


@dataclass(frozen=True)
class Points:
    """n points: x float32 [n, D], label int16 [n] among the chosen classes, colours by name, [n] or [n, 2]."""

    x: np.ndarray
    label: np.ndarray
    colours: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.x)


def most_frequent(bank: FeatureBank, most: int) -> list[int]:
    """Up to `most` classes with the most samples, of equally frequent ones the first; ascending."""
    count = np.bincount(bank.labels.cpu().numpy())
    chosen = np.argsort(-count, kind="stable")[:most]
    return sorted(int(label) for label in chosen if count[label])


def views(bank: FeatureBank, classes: list[int], most: int, seed: int) -> Points:
    """z of the distinct views of these classes; where there are more than `most`, that many of them at random.

    colours: angle_deg, 2 acos |w| of the absolute rotation, 0 … 180; position (x, y) in fractions of the image.
    """
    labels = bank.labels.cpu().numpy()
    whole = np.isin(labels, classes)[:, None] & (np.arange(bank.z.shape[1]) < bank.n_views[:, None])
    sample, slot = np.nonzero(whole)
    keep = _some(len(sample), most, seed)
    sample, slot = sample[keep], slot[keep]
    x = bank.z[torch.from_numpy(sample).to(bank.z.device), torch.from_numpy(slot).to(bank.z.device)]
    number = np.searchsorted(classes, labels[sample]).astype(np.int16)
    return Points(x.float().cpu().numpy(), number, _colours(bank, sample, slot))


def aggregates(case: Case, classes: list[int], size: int, most: int) -> Points:
    """z_AGG of the first `size` views of fixed draws: one of every sample, or as many as make 1,000 points."""
    bank, seed = case.banks.val, case.bench.seed
    labels = bank.labels.cpu().numpy()
    rows = np.flatnonzero(np.isin(labels, classes))
    wanted = -(-ENOUGH_SEQUENCES // len(rows))
    draws = min(wanted, bank.runs) if bank.run_length else wanted
    gathers = [_sequences(case, size, draw) for draw in range(draws)]
    passes = torch.from_numpy(rows).to(case.bench.device).split(ROWS_PER_PASS)
    x = torch.cat([gather(part)[0][:, 0] for gather in gathers for part in passes])
    number = np.searchsorted(classes, np.tile(labels[rows], draws)).astype(np.int16)
    kept = _some(len(x), most, seed)
    return Points(x.cpu().numpy()[kept], number[kept], {})


def _sequences(case: Case, size: int, draw: int) -> Gather:
    """Of runs the whole one is drawn: released actions depend on it (docs/fidelity.md #22)."""
    bank, method = case.banks.val, case.loaded.method
    assert isinstance(method, Aggregating), "or it has no z_AGG"
    slots = bank.draw(case.bench.seed, draw, Purpose.EVALUATION, bank.run_length or size)
    return label_of_prefixes(method, case.subject.action, [size])(bank, slots)


def _colours(bank: FeatureBank, sample: np.ndarray, slot: np.ndarray) -> dict[str, np.ndarray]:
    names = set(bank.param_names)
    if set(ROTATION_COLUMNS) <= names:
        euler = np.stack([bank.column(name)[sample, slot] for name in ROTATION_COLUMNS], axis=-1)
        w = np.abs(quaternion(euler.astype(np.float64))[:, 3])
        return {"angle_deg": np.degrees(2 * np.arccos(np.minimum(w, 1))).astype(np.float32)}
    if set(POSITION_COLUMNS) <= names:
        return {"position": np.stack([bank.column(name)[sample, slot] for name in POSITION_COLUMNS], axis=-1)}
    return {}


def _some(n: int, most: int, seed: int) -> np.ndarray:
    """Ascending positions of all n, or of `most` at random."""
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(seed).permutation(n)[:most])
