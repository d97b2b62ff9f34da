"""Pictures of a run in training, for loggers: RUN/pictures/NAME-STEP.png.

sequences  the first batch's first sequences with the actions between their views, as the method sees them
curves     the epochs so far: loss, scores, and what a collapse shows in (monitor.py)
features   z and z_AGG of validation samples in two dimensions, by principal components; drawn where they were measured
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure
import numpy as np
import torch
from torch import Tensor

from seqjepa.data.actions import as_spec
from seqjepa.data.sequence import ViewSequence
from seqjepa.training.representation import EncodedSample
from seqjepa.training.run import DataInfo
from shards.preview.rows import Rows, label_of_term, words_of_terms
from shards.schema import ActionSpec

SEQUENCES, VIEWS, TERMS = 4, 8, 6
"""That the sheet shows: sequences, views of each, terms of the action."""
PANELS: Mapping[str, tuple[str, ...]] = {
    "loss": ("loss",),
    "top-1": ("probe_top1", "z_knn", "agg_knn"),
    "R² of the action": ("probe_r2",),
    "spread (0: collapse)": ("z_std", "agg_std"),
    "effective rank (1: collapse)": ("z_rank", "agg_rank", "z_rankme", "agg_rankme"),
    "learning rate": ("lr",),
}
"""Of the curves: title → names in metrics.jsonl."""
CLASSES = 10
TITLES = {"z": "z", "z_agg": "z_AGG"}


def sequence_sheet(seq: ViewSequence, data: DataInfo, action: str | ActionSpec, name: str) -> bytes:
    """A PNG of sequences whose views [B, T, 3, H, W] are uint8, or normalised as `data` says."""
    terms = as_spec(action).terms
    shown = seq.views[:SEQUENCES, :VIEWS].cpu()
    if shown.dtype != torch.uint8:
        mean, std = (torch.tensor(tuple(values)).view(3, 1, 1) for values in (data.mean, data.std))
        shown = ((shown.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    pixels = shown.permute(0, 1, 3, 4, 2).numpy()
    B, T = pixels.shape[:2]
    labels = [*map(label_of_term, terms[:TERMS])]
    page = Rows(name, f"{len(seq)} sequences a batch", pixels.shape[3:1:-1], (), B, T, labels)
    for number in range(B):
        label = int(seq.labels[number])
        about = ("no class" if label < 0 else f"class {label}", seq.keys[number], f"{seq.views.shape[1]} views")
        pictures = [(view, "") for view in pixels[number]]
        words = words_of_terms(terms, seq.actions[number, : T - 1].cpu().numpy())
        page.draw(number, about, pictures, [lines[:TERMS] for lines in words])
    return page.sheet.png()


def curves(epochs: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG of lines of metrics.jsonl, a panel for what there is of PANELS. At least one epoch."""
    panels = {
        title: there
        for title, names in PANELS.items()
        if (there := [name for name in names if any(name in line for line in epochs)])
    }
    figure, axes = _figure(len(panels), 3)
    for ax, (title, names) in zip(axes, panels.items(), strict=True):
        for name in names:
            points = [(line["epoch"], line[name]) for line in epochs if name in line]
            ax.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else "", label=name)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("epoch", fontsize=8)
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8, frameon=False)
    return _png(figure)


def map_of_features(sample: EncodedSample) -> bytes:
    """A PNG of z and z_AGG, coloured by class: of the ten most frequent ones, others grey."""
    labels = sample.labels.cpu().numpy()
    frequent = np.argsort(-np.bincount(labels[labels >= 0], minlength=1), kind="stable")[:CLASSES]
    figure, axes = _figure(len(sample.features), 2)
    for ax, (name, x) in zip(axes, sample.features.items(), strict=True):
        places, shares = principal_components(x)
        rest = ~np.isin(labels, frequent)
        ax.scatter(*places[rest].T, s=6, c="0.8")
        for label in frequent:
            ax.scatter(*places[labels == label].T, s=6, label=str(label))
        ax.set_title(f"{TITLES.get(name, name)}: {shares.sum():.0%} of the variance", fontsize=10)
        ax.set_xticks([])
        ax.set_yticks([])
    return _png(figure)


def principal_components(x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """[n, D] → places [n, 2] by the first two components, each with its largest loading positive, and their shares of
    the variance [2]. Zeros where there are fewer."""
    rows = x.double().cpu().numpy()
    centred = rows - rows.mean(axis=0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    axes = (axes * np.sign(largest)[:, None])[:2]
    places, shares = np.zeros((len(rows), 2)), np.zeros(2)
    places[:, : len(axes)] = centred @ axes.T
    shares[: len(axes)] = values[:2] ** 2 / max((values**2).sum(), np.finfo(float).tiny)
    return places, shares


def _figure(panels: int, columns: int) -> tuple[matplotlib.figure.Figure, list[Any]]:
    """Drawn without pyplot, which would keep figures and look for a screen."""
    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = matplotlib.figure.Figure(figsize=(4 * columns, 2.8 * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, number) for number in range(1, panels + 1)]


def _png(figure: matplotlib.figure.Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
