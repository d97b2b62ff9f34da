"""`seqjepa embed`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shards.console import Address, AsJson, Device, EngineOrArray, NumTasks, Overwrite, Script, TaskIndex, print_json

if TYPE_CHECKING:
    from seqjepa.embedding.run import Asked

SHOWN = 5


def embed_command(
    run: Annotated[
        str, typer.Argument(help="Run directory, hf://USER/REPO, or an address as s3://bucket/run.", metavar="RUN")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .parquet, .npz or .npy.")],
    shards: Annotated[Path | None, typer.Option(help="Shard set, of views or images, to embed.")] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of images to embed, with all folders below it.")
    ] = None,
    split: Annotated[list[str] | None, typer.Option(help="Split to embed. Repeatable. Default: all.")] = None,
    context: Annotated[
        int | None, typer.Option(min=1, max=64, help="M: views that a z_AGG is made from. Default: as in training.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Type of the features: float32 or float16.")] = "float32",
    batch_size: Annotated[int, typer.Option(min=1, max=65_536, help="Images to encode at once.")] = 256,
    device: Device = "auto",
    engine: EngineOrArray = "local",
    address: Address = None,
    task_index: TaskIndex = None,
    num_tasks: NumTasks = None,
    script: Script = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write features of shards or images to a file. z of every view or image, and z_AGG of sequences of views.

    Interrupted, the same command goes on where it was. Image files that cannot be read are left out and named; then
    the exit code is 1. Layout of the files: docs/embed.md. Several commands with --task-index fill parts at the same
    time; the last one joins them, or the same command without it.

    \b
    Examples:
      seqjepa embed runs/3die-rot-M3 --shards shards/3die -o features.parquet
      seqjepa embed runs/3die-rot-M3 --shards shards/3die --split val --context 5 -o val.npz
      seqjepa embed runs/3die-rot-M3 --images photos --dtype float16 -o photos.npy
      seqjepa embed runs/3die-rot-M3 --images photos -o photos.npz --engine ray --address auto
      seqjepa embed runs/3die-rot-M3 --images photos -o photos.npz --engine slurm --num-tasks 8 --script embed.sbatch
      seqjepa embed runs/3die-rot-M3 --images photos -o photos.npz --task-index 3 --num-tasks 8
    """
    from seqjepa.embedding.run import Asked, embed_run
    from shards.engines.ray_engine import engine_of
    from shards.engines.steps import Step
    from shards.errors import UsageError
    from shards.stores.store import require_no_address

    require_no_address(out, "--out")
    if dtype not in ("float32", "float16"):
        raise UsageError(f"--dtype is {dtype!r}; allowed are float32, float16")
    asked = Asked(shards, images, tuple(split or ()), context, dtype, batch_size)
    given: dict[str, Any] = {"device": device, "overwrite": overwrite}
    if array := _array_asked(engine, address, script, task_index, num_tasks):
        _write_script(*array, run, out, asked, given, as_json)
        return
    shared = task_index is not None or num_tasks is not None
    task, given["progress"] = Step.asked("work", task_index, num_tasks) if shared else None, not as_json
    if task and engine != "local":
        raise UsageError(f"--task-index is one way to share the work, --engine {engine} another; choose one")
    with engine_of(engine, address) as cluster:
        facts = embed_run(run, out, asked, cluster=cluster, task=task, **given)
    if as_json:
        print_json({"out": str(out), **facts})
    elif "task" in facts:
        typer.echo(f"task {task_index} of {num_tasks}: {facts['parts']:,} parts of {out}, {facts['rows']:,} rows")
    else:
        for line in _told(out, facts):
            typer.echo(line)
    raise typer.Exit(1 if facts.get("broken_files") else 0)


def _array_asked(
    engine: str, address: str | None, script: Path | None, task_index: int | None, num_tasks: int | None
) -> tuple[Path, int] | None:
    """The script and the number of its tasks; None: no array. UsageError: options of different engines."""
    from shards.errors import UsageError

    if engine not in ("local", "ray", "slurm"):
        raise UsageError(f"--engine is {engine!r}; allowed are local, ray and slurm")
    if engine != "slurm":
        if script is not None:
            raise UsageError("--script is for --engine slurm; give that too, or leave it out")
        return None
    if script is None or num_tasks is None:
        raise UsageError("--engine slurm needs --num-tasks N and --script FILE")
    if task_index is not None or address is not None:
        named = "--address" if task_index is None else "--task-index"
        raise UsageError(f"{named} is not for --engine slurm, whose script numbers its tasks; leave it out")
    return script, num_tasks


def _write_script(
    script: Path, tasks: int, run: str, out: Path, asked: Asked, given: dict[str, Any], as_json: bool
) -> None:
    from seqjepa.embedding.request import write_embed_script
    from seqjepa.embedding.run import check_embedding

    check_embedding(run, out, asked, given["overwrite"])
    write_embed_script(script, run, out, asked, tasks, **given)
    if as_json:
        print_json({"script": str(script), "tasks": tasks})
    else:
        typer.echo(f"{script}: an array of {tasks} tasks; submit it with `sbatch {script}`")


def _told(out: Path, facts: dict[str, Any]) -> list[str]:
    from seqjepa.embedding.formats import companion

    splits = [f"{name} {rows:,}" for name, rows in facts["splits"].items() if name]
    what = f"views ({', '.join(splits)})" if splits else "images"
    lines = [f"{out}: z of {facts['rows']:,} {what}, {facts['features']} numbers each, {facts['dtype']}"]
    if about := facts["z_agg"]:
        of = f"{about['sequences']:,} sequences of {about['context']} views"
        where = companion(out) or out
        lines.append(f"{where}: z_agg of {of}, {about['features']} numbers each")
    else:
        lines.append(f"no z_agg: {facts['without_z_agg']}")
    if facts["broken_files"]:
        named = [f"{path} ({why})" for path, why in facts["broken"][:SHOWN]]
        more = f" and {facts['broken_files'] - SHOWN:,} more" if facts["broken_files"] > SHOWN else ""
        lines.append(f"{facts['broken_files']:,} files cannot be read and are left out: {', '.join(named)}{more}")
    return lines
