"""A sweep as a Slurm array: task i of the array is task i of the sweep."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from importlib import resources
from pathlib import Path

from shards.errors import UsageError
from shards.files import OwnFile, refuse_foreign, write_own

SIGN = b"seqjepa sweep"
NOT_IN_COMMENTS = r"[^\w./+=:,@ %-]"
"""What the name of the script cannot hold: it stands in a comment, where nothing is quoted."""
NOT_IN_LOGS = r"[\s%\\\"'\x00-\x1f\x7f]"
"""What the folder of the logs cannot hold: Slurm takes it for the end of the name, or fills it in."""


def write_script(file: Path, table: str, title: str, tasks: Collection[int], command: Sequence[str], out: Path) -> None:
    """The sbatch script; `command` is that of the whole sweep. Near its time limit a task saves and is queued again.

    UsageError: there is a file of that name that is not such a script, or nothing is left to do.
    """
    if not tasks:
        raise UsageError(f"{table}: every run is trained and evaluated; there is nothing for an array to do")
    _refuse_unsafe(str(file), "--slurm", NOT_IN_COMMENTS)
    refuse_foreign(file, SIGN, "seqjepa sweep --slurm")
    logs = (out / "logs").resolve()
    _refuse_unsafe(str(logs), "--out", NOT_IN_LOGS)
    template = resources.files("seqjepa") / "experiments" / "slurm.sh"
    script = template.read_text(encoding="utf-8").format(
        title=f"seqjepa sweep {table}: {title}",
        file=shlex.quote(str(file)),
        job=f"seqjepa-{table}",
        array=",".join(map(str, tasks)),
        logs=logs,
        folder=shlex.quote(str(Path.cwd())),
        command=shlex.join(command),
    )
    logs.mkdir(parents=True, exist_ok=True)  # Slurm does not make it, and loses what it cannot write
    write_own([OwnFile(file, script.encode(), SIGN, "seqjepa sweep --slurm")])
    file.chmod(0o755)


def _refuse_unsafe(name: str, option: str, unsafe: str) -> None:
    """UsageError: the name has characters that match `unsafe`."""
    if odd := sorted(set(re.findall(unsafe, name))):
        held = " ".join(map(ascii, odd))
        raise UsageError(f"{option} {name!a} holds {held}, which an sbatch script cannot; choose another name")
