"""Packages of extras are imported where they are asked for, and nowhere else."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from forked_ranks import RunForked
from noise_shards import noise_shards

from shards.extras import EXTRAS


def train_and_list(*words: str) -> None:
    """In a process that has imported no more than torch and the trainer."""
    from cli import seqjepa_app

    with contextlib.suppress(SystemExit):  # how a command ends
        seqjepa_app([*words])
    sys.stdout.write("imported: " + " ".join(sorted((set(EXTRAS) | {"boto3", "fsspec"}) & set(sys.modules))) + "\n")


def test_training_from_a_folder_imports_no_extra(run_forked: RunForked, tmp_path: Path) -> None:
    settings = ["data.image_size=0", "model.width=0.125", "model.layers=1", "optim.epochs=1", "optim.batch_size=4"]
    words = ["train", "--shards", noise_shards(tmp_path / "noise"), "--out", tmp_path / "run", "--workers", "0"]
    words += ["--recipe", "3die-rot-M3", "--device", "cpu", *(word for text in settings for word in ("--set", text))]
    code, said = run_forked(train_and_list, *map(str, words))
    assert code == 0, said
    assert (tmp_path / "run" / "model.safetensors").exists(), said
    assert said.splitlines()[-1] == "imported: "
