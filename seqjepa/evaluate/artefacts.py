"""Arrays that figures are drawn from, beside a run's numbers: RUN/evaluation/{trained,untrained}/NAME.npz.

Top-1 class by class: confusion matrices in RUN/evaluation/…/confusion.npz, and what stands out in results.json.

C classes, of which only those with validation samples count.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqjepa.evaluate.probes import nested
from seqjepa.files import write_file
from shards.environment import pass_environment_on
from shards.errors import FormatError, reason_of

LARGEST = 256 * 2**20


def artefacts_folder(run: Path, weights: str) -> Path:
    return run / "evaluation" / weights


def save_arrays(folder: Path, name: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes `folder`/NAME.npz at once or not at all. No object arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_file(folder / f"{name}.npz", buffer.getvalue())


def load_arrays(folder: Path, name: str) -> dict[str, np.ndarray]:
    """What `save_arrays` wrote; {} if there is none. FormatError: not such a file, objects in it, more than 256 MiB."""
    path = folder / f"{name}.npz"
    if not path.exists():
        return {}
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > LARGEST:
            raise FormatError(f"{path} unpacks to {size} bytes, more than {LARGEST}; remove it and evaluate again")
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        pass_environment_on(error)
        raise FormatError(
            f"{path} does not hold plain arrays ({reason_of(error)}); remove it and evaluate again"
        ) from None


CONFUSION = "confusion"
"""Of the file, for artefacts.load_arrays."""
MOST_CLASSES = 1000
"""Beyond these only how often each class was hit is kept: a matrix of 20,000 classes takes 3 GB."""
SHOWN = 5


def save_confusions(folder: Path, confusions: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, Any]:
    """Writes confusion.npz and returns {"per_class": …} for results.json; nothing without any top-1.

    confusion.npz has class_names U [C]; and for each top-1, under the name of the number ("top1_z", "top1_agg.5"),
    int32 [C, C]: true classes by predicted ones, over all validation samples and draws. With more than 1,000 classes
    int32 [2, C]: samples of each class, and those that were hit.
    """
    if not confusions:
        return {}
    classes = len(next(iter(confusions.values())))
    shown = [names[c] if c < len(names) else str(c) for c in range(classes)]
    kept = {name: _kept(counts) for name, counts in confusions.items()}
    save_arrays(folder, CONFUSION, {"class_names": np.array(shown), **kept})
    return {"per_class": nested({name: summary(counts, shown) for name, counts in confusions.items()})}


def _kept(counts: np.ndarray) -> np.ndarray:
    if len(counts) > MOST_CLASSES:
        counts = np.stack([counts.sum(axis=1), counts.diagonal()])
    return counts.astype(np.int32)


def summary(counts: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """What stands out in counts int64 [C, C].

    mean      accuracy averaged over classes, which is scikit-learn's balanced_accuracy_score
    lowest    up to five classes with the lowest accuracy: {"class", "accuracy", "count"}, count of samples and draws
    confused  up to five pairs, by the share of a class that is taken for another: {"class", "taken_for", "share"}
    """
    total = counts.sum(axis=1)
    seen = np.flatnonzero(total)
    shares = counts[seen] / total[seen, None]
    hit = shares[np.arange(len(seen)), seen]
    lowest = [
        {"class": names[int(seen[k])], "accuracy": float(hit[k]), "count": int(total[seen[k]])}
        for k in np.argsort(hit, kind="stable")[:SHOWN]
    ]
    return {
        "mean": float(hit.mean()),
        "classes": len(seen),
        "lowest": lowest,
        "confused": _confused(shares, seen, names),
    }


def _confused(shares: np.ndarray, seen: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Of shares [seen classes, C]; the largest ones off the diagonal, without zeros."""
    mistaken = shares.copy()
    mistaken[np.arange(len(seen)), seen] = 0
    largest = np.argsort(-mistaken, axis=None, kind="stable")[:SHOWN]
    rows, columns = np.unravel_index(largest, mistaken.shape)
    return [
        {"class": names[int(seen[r])], "taken_for": names[c], "share": float(mistaken[r, c])}
        for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
        if mistaken[r, c] > 0
    ]
