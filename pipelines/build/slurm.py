"""The sbatch script of an array whose tasks build one set."""

from __future__ import annotations

from pathlib import Path

from pipelines.build.stored_command import stored_command
from shards.engines.sbatch import Array, program, write_sbatch
from shards.errors import UsageError
from shards.stores.store import as_address


def write_build_script(file: Path, out: Path | str, tasks: int) -> None:
    """Of a build that was prepared in `out`. UsageError: it is finished, or `file` is someone else's."""
    if stored_command(out) is None:
        raise UsageError(f"{out} is finished; there is nothing for an array to do")
    name, address = Path(out).name, as_address(out)
    array = Array.of_equals(f"seqjepa-data build: {name}", "seqjepa-build", tasks, "--cpus-per-task=8 --mem=16G")
    command = [program("seqjepa-data"), "build", "work", address or str(Path(out).resolve())]
    # Beside the set, whose folder holds nothing else; of one in a store, here.
    logs = Path.cwd() / f"{name}.logs" if address else Path(f"{Path(out).resolve()}.logs")
    write_sbatch(file, "--script", "seqjepa-data build", array, command, logs)
