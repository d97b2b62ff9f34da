"""Arrays that figures are drawn from, beside a run's numbers: RUN/evaluation/{trained,untrained}/NAME.npz."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from seqjepa.files import write_atomic
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
    write_atomic(folder / f"{name}.npz", buffer.getvalue())


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
