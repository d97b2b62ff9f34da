"""The sbatch script of an array whose tasks fill the parts of one embedding; the last of them joins the parts."""

from __future__ import annotations

import os
from pathlib import Path

from seqjepa.embedding.asked import Asked
from shards.cache_room import FOLDER, SIZE
from shards.sbatch import Array, program, write_sbatch

MAKER = "seqjepa embed --engine slurm"


def write_embed_script(
    file: Path, run: str, out: Path, asked: Asked, tasks: int, *, device: str = "auto", overwrite: bool = False
) -> None:
    """UsageError: `file` is someone else's, or cannot be named in a script."""
    gpu = "" if device == "cpu" else "--gres=gpu:1 "
    array = Array.of_equals(f"seqjepa embed: {out.name}", "seqjepa-embed", tasks, f"{gpu}--cpus-per-task=8 --mem=16G")
    words = _words(run, out, asked, device, overwrite)
    write_sbatch(file, "--script", MAKER, array, words, Path(f"{out.resolve()}.logs"))


def _words(run: str, out: Path, asked: Asked, device: str, overwrite: bool) -> list[str]:
    """The command of all tasks; paths in it begin in the folder where it was given."""
    given = {
        "--shards": asked.shards,
        "--images": asked.images,
        "--context": asked.context,
        "--dtype": asked.dtype,
        "--batch-size": asked.batch_size,
        "--device": device,
        "--cache": os.environ.get(FOLDER),
        "--cache-size": os.environ.get(SIZE),
        "--out": out,
    }
    words = [program("seqjepa"), "embed", run]
    for option, value in [*given.items(), *(("--split", split) for split in asked.splits)]:
        words += [] if value is None else [option, str(value)]
    return [*words, "--overwrite"] if overwrite else words
