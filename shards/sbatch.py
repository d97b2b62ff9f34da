"""An sbatch script of an array, made of a template: what may stand in it, and which file it may replace."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from shards.errors import UsageError
from shards.files import OwnFile, refuse_foreign, write_own

NOT_IN_COMMENTS = r"[^\w./+=:,@ %-]"
"""What the name of the script cannot hold: it stands in a comment, where nothing is quoted."""
NOT_IN_LOGS = r"[\s%\\\"'\x00-\x1f\x7f]"
"""What the folder of the logs cannot hold: Slurm takes it for the end of the name, or fills it in."""


def write_sbatch(
    file: Path, option: str, maker: str, template: str, command: Sequence[str], logs: Path, **values: object
) -> None:
    """Fills `template` in with these and `values`, and makes `logs`, which Slurm does not.

    option: that named `file`; maker: the command whose scripts, which name it, may be replaced. UsageError: there is
    another file of that name, or a name cannot stand in a script.
    """
    _refuse_unsafe(str(file), option, NOT_IN_COMMENTS)
    sign = maker.rpartition(" --")[0] or maker
    refuse_foreign(file, sign.encode(), maker)
    _refuse_unsafe(str(logs), "--out", NOT_IN_LOGS)
    quoted = {"file": shlex.quote(str(file)), "folder": shlex.quote(str(Path.cwd())), "command": shlex.join(command)}
    script = template.format(logs=logs, **quoted, **values)
    logs.mkdir(parents=True, exist_ok=True)
    write_own([OwnFile(file, script.encode(), sign.encode(), maker)])
    file.chmod(0o755)


def _refuse_unsafe(name: str, option: str, unsafe: str) -> None:
    """UsageError: the name has characters that match `unsafe`."""
    if odd := sorted(set(re.findall(unsafe, name))):
        held = " ".join(map(ascii, odd))
        raise UsageError(f"{option} {name!a} holds {held}, which an sbatch script cannot; choose another name")
