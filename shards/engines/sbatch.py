"""The sbatch script of an array whose tasks share some work: what may stand in it, and which file it may replace."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.errors import UsageError
from shards.machine.files import OwnFile, refuse_foreign, write_own

NOT_IN_COMMENTS = r"[^\w./+=:,@ %-]"
"""What the name of the script cannot hold: it stands in a comment, where nothing is quoted."""
NOT_IN_LOGS = r"[\s%\\\"'\x00-\x1f\x7f]"
"""What the folder of the logs cannot hold: Slurm takes it for the end of the name, or fills it in."""
NUMBER = '"$SLURM_ARRAY_TASK_ID"'

SCRIPT = """#!/bin/bash
# {title}
# Submit with `sbatch {file}`; options given there win over those here. Submitted again, it does what is left to do.
#SBATCH --job-name={job}
#SBATCH --array={tasks}
#SBATCH {resources} --time=24:00:00
#SBATCH --output={logs}/%x-%a.out --open-mode=append
#SBATCH --signal=B:USR1@{notice} --requeue
cd {folder}
again=
trap 'again=1; kill -TERM $pid' USR1 # the time limit is near: what is done is kept, and the task is queued again
trap 'kill -TERM $pid' TERM          # scancel or preemption
{command} {of_task} & pid=$!
until wait $pid; code=$?; ! kill -0 $pid 2>/dev/null; do :; done
[ -z "$again" ] || scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
exit $code
"""


@dataclass(frozen=True)
class Array:
    """title: begins with the command that makes such scripts. tasks: their numbers, as Slurm writes them, "0-19".

    of_task    shell words that follow the command, with NUMBER for the task's
    resources  options of sbatch, for one task
    notice     seconds before the time limit in which a task ends
    """

    title: str
    job: str
    tasks: str
    of_task: str
    resources: str
    notice: int = 60

    @classmethod
    def of_equals(cls, title: str, job: str, count: int, resources: str) -> Array:
        """Tasks of a command that takes --task-index and --num-tasks."""
        return cls(title, job, f"0-{count - 1}", f"--task-index {NUMBER} --num-tasks {count}", resources)


def write_sbatch(file: Path, option: str, maker: str, array: Array, command: Sequence[str], logs: Path) -> None:
    """Writes the script, and makes `logs`, which Slurm does not.

    option: that named `file`; maker: the command whose scripts, which name it, may be replaced. UsageError: there is
    another file of that name, or a name cannot stand in a script.
    """
    _refuse_unsafe(str(file), option, NOT_IN_COMMENTS)
    sign = maker.rpartition(" --")[0] or maker
    refuse_foreign(file, sign.encode(), maker)
    _refuse_unsafe(str(logs), "--out", NOT_IN_LOGS)
    quoted = {"file": shlex.quote(str(file)), "folder": shlex.quote(str(Path.cwd())), "command": shlex.join(command)}
    script = SCRIPT.format(logs=logs, **quoted, **vars(array))
    logs.mkdir(parents=True, exist_ok=True)
    write_own([OwnFile(file, script.encode(), sign.encode(), maker)])
    file.chmod(0o755)


def program(name: str) -> str:
    """`seqjepa` or `seqjepa-data` of this very installation: a node's PATH may lead to another, or to none."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else name


def _refuse_unsafe(name: str, option: str, unsafe: str) -> None:
    """UsageError: the name has characters that match `unsafe`."""
    if odd := sorted(set(re.findall(unsafe, name))):
        held = " ".join(map(ascii, odd))
        raise UsageError(f"{option} {name!a} holds {held}, which an sbatch script cannot; choose another name")
