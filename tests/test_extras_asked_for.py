"""Packages of extras are imported where they are asked for, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from noise_shards import noise_shards

ROOT = Path(__file__).resolve().parents[1]
CODE = """
import sys
from cli import seqjepa_app
from shards.extras import EXTRAS
try:
    seqjepa_app()
except SystemExit as ended:
    assert not ended.code, ended.code
print("imported:", *sorted((set(EXTRAS) | {"boto3", "fsspec"}) & set(sys.modules)))
"""


def test_training_from_a_folder_imports_no_extra(tmp_path: Path) -> None:
    settings = ["data.image_size=0", "model.width=0.125", "model.layers=1", "optim.epochs=1", "optim.batch_size=4"]
    words = ["train", "--shards", noise_shards(tmp_path / "noise"), "--out", tmp_path / "run", "--workers", "0"]
    words += ["--recipe", "3die-rot-M3", "--device", "cpu", *(word for text in settings for word in ("--set", text))]
    command = [sys.executable, "-c", CODE, *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported:"
