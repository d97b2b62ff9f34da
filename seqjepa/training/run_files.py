"""Which files of a run directory are ours, what they are called, and how they are removed when a run begins anew.

config.toml        every setting, resolved
run.json           versions, shard fingerprints, what the views looked like
metrics.jsonl      one line an epoch (metrics_log.py)
state.pt           what a resumed run needs (checkpoint.py); state-previous.pt: the one before it
model.safetensors  weights of the last checkpoint
model-epoch-000080.safetensors  those after epoch 80, where train.keep_epochs has it
SHA256SUMS         of all these (seqjepa/files.py)
loggers/           what train.loggers remember, and their local files (loggers/)
pictures/          drawn for loggers (pictures.py)
results.json       written by `seqjepa evaluate`, as are results-SET-SIZE-patchN.json and evaluation/; numbers of kept
                   weights: evaluation/checkpoints/epoch-000080/results.json
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from seqjepa.files import SUMS, TEMPORARY

CONFIG, METRICS, WEIGHTS, STATE = "config.toml", "metrics.jsonl", "model.safetensors", "state.pt"
PREVIOUS = "state-previous.pt"
RUN = "run.json"
OURS = (STATE, PREVIOUS, WEIGHTS, METRICS, CONFIG, SUMS, RUN)
"""In the order in which they are removed: settings outlive what was learned under them, and run.json outlives all, so
that a kill in between leaves a folder that is still known as ours and is not taken for another run's."""
EVALUATED = re.compile(r"results(-[A-Za-z0-9._-]+-\d+-patch\d+)?\.json")
KEPT = re.compile(r"model-epoch-(\d{6,12})\.safetensors")
OF_KEPT = "checkpoints/epoch-*"
ARRAYS = (
    *("trained*/*.npz", "untrained*/*.npz", "asked.json", f"{OF_KEPT}/results*.json"),
    *(f"{OF_KEPT}/evaluation/{inner}" for inner in ("trained*/*.npz", "asked.json")),
)  # of evaluation/
WATCHED = {
    "loggers": ("*.json", "*.log", "*.lock", "metrics.csv", "events.out.tfevents.*"),
    "pictures": ("sequences-*.png", "curves-*.png", "features-*.png"),
}
"""What loggers and the trainer write for those who watch (loggers/, progress.py): folder → our files."""
LOCK = f"{TEMPORARY}lock"


def kept_weights(epoch: int) -> str:
    """The file of the weights after `epoch` epochs, where train.keep_epochs has it."""
    return f"model-epoch-{epoch:06d}.safetensors"


def kept_epochs(out: Path) -> list[int]:
    """Epochs after which weights were kept, ascending."""
    return sorted(int(found[1]) for path in out.iterdir() if (found := KEPT.fullmatch(path.name)))


def has_state(out: Path) -> bool:
    """Whether there is a state that training could go on from."""
    return (out / STATE).exists() or (out / PREVIOUS).exists()


def remove_ours(out: Path) -> None:
    """Removes all files of a run; folders only where nothing else is left in them."""
    _remove_evaluation(out)
    _remove_watched(out)
    for epoch in kept_epochs(out):
        (out / kept_weights(epoch)).unlink()
    for name in OURS:
        (out / name).unlink(missing_ok=True)


def _remove_watched(out: Path) -> None:
    """What loggers remember of the run, and our own files for them: a run that begins anew is another one there. What
    W&B and MLflow wrote stays, which may not have been sent yet."""
    for folder, patterns in WATCHED.items():
        if (out / folder).is_symlink():
            continue
        for path in (found for pattern in patterns for found in (out / folder).glob(pattern)):
            path.unlink()
        if (out / folder).is_dir() and not any((out / folder).iterdir()):
            (out / folder).rmdir()


def _remove_evaluation(out: Path) -> None:
    folder = out / "evaluation"
    for path in out.iterdir():
        if path.is_file() and EVALUATED.fullmatch(path.name):
            path.unlink()
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in (found for pattern in ARRAYS for found in folder.glob(pattern)):
        path.unlink()
    for inner, _, _ in os.walk(folder, topdown=False):
        if not any(Path(inner).iterdir()):
            Path(inner).rmdir()
