"""The sbatch script of an array whose tasks build one set."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

from pipelines.build.stored_command import stored_command
from shards.errors import UsageError
from shards.sbatch import write_sbatch


def write_build_script(file: Path, out: Path, tasks: int) -> None:
    """Of a build that was prepared in `out`. UsageError: it is finished, or `file` is someone else's."""
    if stored_command(out) is None:
        raise UsageError(f"{out} is finished; there is nothing for an array to do")
    template = (resources.files("pipelines") / "build" / "slurm.sh").read_text(encoding="utf-8")
    command = [_program(), "build", "work", str(out.resolve())]
    values = {"title": f"seqjepa-data build: {out.name}", "last": tasks - 1, "tasks": tasks}
    logs = Path(f"{out.resolve()}.logs")  # beside the set, whose folder holds nothing else
    write_sbatch(file, "--script", "seqjepa-data build", template, command, logs, **values)


def _program() -> str:
    """`seqjepa-data` of this very installation: a node's PATH may lead to another, or to none."""
    beside = Path(sys.executable).with_name("seqjepa-data")
    return str(beside) if beside.exists() else "seqjepa-data"
