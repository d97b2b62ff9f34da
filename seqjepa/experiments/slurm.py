"""A sweep as a Slurm array: task i of the array is task i of the sweep."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib import resources
from pathlib import Path

from shards.errors import UsageError
from shards.sbatch import write_sbatch


def write_script(file: Path, table: str, title: str, tasks: Collection[int], command: Sequence[str], out: Path) -> None:
    """The sbatch script; `command` is that of the whole sweep. Near its time limit a task saves and is queued again.

    UsageError: there is a file of that name that is not such a script, or nothing is left to do.
    """
    if not tasks:
        raise UsageError(f"{table}: every run is trained and evaluated; there is nothing for an array to do")
    template = (resources.files("seqjepa") / "experiments" / "slurm.sh").read_text(encoding="utf-8")
    settled = {
        "title": f"seqjepa sweep {table}: {title}",
        "job": f"seqjepa-{table}",
        "array": ",".join(map(str, tasks)),
    }
    logs = (out / "logs").resolve()
    write_sbatch(file, "--slurm", "seqjepa sweep --slurm", template, command, logs, **settled)
