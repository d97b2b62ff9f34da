"""A sweep as a Slurm array: task i of the array is task i of the sweep."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from shards.errors import UsageError
from shards.sbatch import NUMBER, Array, write_sbatch


def write_script(file: Path, table: str, title: str, tasks: Collection[int], command: Sequence[str], out: Path) -> None:
    """The sbatch script; `command` is that of the whole sweep. Near its time limit a task saves and is queued again.

    UsageError: there is a file of that name that is not such a script, or nothing is left to do.
    """
    if not tasks:
        raise UsageError(f"{table}: every run is trained and evaluated; there is nothing for an array to do")
    array = Array(
        f"seqjepa sweep {table}: {title}",
        f"seqjepa-{table}",
        ",".join(map(str, tasks)),
        f"--task {NUMBER}",
        "--gres=gpu:1 --cpus-per-task=8 --mem=32G",
        notice=120,
    )
    write_sbatch(file, "--slurm", "seqjepa sweep --slurm", array, command, (out / "logs").resolve())
