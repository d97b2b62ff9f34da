"""`seqjepa-data build …`: one set by many commands, on one machine or on all nodes of a cluster."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shards.console import (
    Address,
    AsJson,
    EngineOrArray,
    NumTasks,
    Script,
    TaskIndex,
    Workers,
    new_app,
    print_json,
    show_contents,
)

if TYPE_CHECKING:
    from shards.engines.steps import Step

build_app = new_app(
    "Build one set by many machines: prepare, work, finish.",
    "seqjepa-data build prepare shard imagenet --source imagenet/ --out shards/imagenet",
    "seqjepa-data build work shards/imagenet    # on as many machines as you like",
)

OTHERS_WORDS: dict[str, Any] = {
    "ignore_unknown_options": True,
    "allow_extra_args": True,
    "allow_interspersed_args": False,
}
Words = Annotated[
    list[str], typer.Argument(metavar="COMMAND …", help="As after `seqjepa-data`: shard folder --source … --out DIR.")
]
Set = Annotated[
    Path, typer.Argument(metavar="DIR", help="Where a build was prepared: a folder, or an address as s3://bucket/set.")
]


@build_app.command("prepare", context_settings=OTHERS_WORDS)
def prepare_command(context: typer.Context, words: Words) -> None:
    """List the source and plan its shards. The command is kept beside the plan; no shard is written.

    With --out s3://bucket/set (gs://, az://) the command is kept there too, and whoever may write there says what
    `build work` reads on your machines: prepare in buckets of your own.

    \b
    Examples:
      seqjepa-data build prepare shard imagenet --source imagenet/ --out shards/imagenet
      seqjepa-data build prepare shard imagenet --source /data/imagenet --out s3://bucket/imagenet
    """
    raise typer.Exit(_prepare(context, words)[1])


@build_app.command("work")
def work_command(
    context: typer.Context,
    folder: Set,
    task_index: TaskIndex = None,
    num_tasks: NumTasks = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Write shards that nobody else is at, until there are none. Whoever writes the last one finishes the set.

    As many at once as you like, on any machine that sees the source, and the folder or store; started again after
    whatever happened, it goes on. With --task-index each begins elsewhere, so that tasks seldom want the same shard.

    \b
    Examples:
      seqjepa-data build work shards/imagenet
      seqjepa-data build work shards/imagenet --task-index 3 --num-tasks 20 --workers 8
      seqjepa-data build work s3://bucket/imagenet
    """
    from shards.engines.steps import Step

    more = [] if workers is None else ["--workers", str(workers)]
    raise typer.Exit(_run(context, folder, Step.asked("work", task_index, num_tasks), more, as_json))


@build_app.command("finish")
def finish_command(context: typer.Context, folder: Set, as_json: AsJson = False) -> None:
    """Check every shard and write indexes, card and dataset.json. Exit code 1: shards are missing.

    \b
    Examples:
      seqjepa-data build finish shards/imagenet
      seqjepa-data build finish s3://bucket/imagenet
    """
    from shards.engines.steps import Step

    raise typer.Exit(_run(context, folder, Step("finish"), [], as_json))


@build_app.command("run", context_settings=OTHERS_WORDS)
def run_command(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="DIR|COMMAND …", help="Where a build was prepared, DIR or address; or a command."),
    ],
    engine: EngineOrArray = "local",
    address: Address = None,
    num_tasks: NumTasks = None,
    script: Script = None,
) -> None:
    """All three steps: here, on Ray or on Slurm. Of a Slurm array the script is written.

    \b
    Examples:
      seqjepa-data build run shard folder --source photos/ --out shards/photos
      seqjepa-data build run --engine ray --address auto shard folder --source photos/ --out shards/photos
      seqjepa-data build prepare shard folder --source photos/ --out shards/photos
      seqjepa-data build run --engine slurm --num-tasks 20 --script build.sbatch shards/photos
      seqjepa-data build run --engine slurm --num-tasks 20 --script build.sbatch s3://bucket/photos
    """
    from pipelines.build.stored_command import place_of, write_build_script
    from shards.engines.ray_engine import engine_of
    from shards.engines.steps import Step
    from shards.errors import UsageError

    if engine not in ("local", "ray", "slurm"):
        raise UsageError(f"--engine is {engine!r}; allowed are local, ray and slurm")
    if engine != "ray" and address:
        raise UsageError("--address is for --engine ray; give that too, or leave it out")
    if engine != "slurm" and (num_tasks or script):
        raise UsageError("--num-tasks and --script are for --engine slurm; give that too, or leave them out")
    if engine == "slurm" and (num_tasks is None or script is None):
        raise UsageError("--engine slurm needs --num-tasks N and --script FILE")
    out, code = (place_of(words[0]), 0) if len(words) == 1 else _prepare(context, words)
    if code:
        raise typer.Exit(code)
    if script is not None and num_tasks is not None:
        write_build_script(script, out, num_tasks)
        typer.echo(f"{script}: an array of {num_tasks} tasks; submit it with `sbatch {script}`")
        return
    with engine_of(engine, address):
        raise typer.Exit(_run(context, out, Step(), [], as_json=False))


def _prepare(context: typer.Context, words: list[str]) -> tuple[Path | str, int]:
    """(the folder or address, exit code) of a command whose build is prepared, or of a finished set."""
    from pipelines.build.stored_command import parse_command, store_command
    from shards.engines.steps import STEP, Step, StepDone

    if {"--help", "-h"}.intersection(words):
        raise typer.Exit(_call(context, words))
    command, out, own = parse_command(words)
    token = STEP.set(Step("prepare", by_address=isinstance(out, str)))
    try:
        return out, _call(context, command.at(out, own))
    except StepDone as done:
        store_command(command, out)
        typer.echo(f"{out}: {done.shards} shards to write; go on with `seqjepa-data build work {out}`")
        return out, 0
    finally:
        STEP.reset(token)


def _run(context: typer.Context, place: Path | str, step: Step, more: list[str], as_json: bool) -> int:
    """The exit code of the stored command, of which this process does one step."""
    from pipelines.archives import printable
    from pipelines.build.stored_command import stored_command
    from shards.engines.steps import STEP, StepDone
    from shards.stores.store import as_address

    command, address = stored_command(place), as_address(place)
    out = address or Path(place).resolve()
    if command is None:
        show_contents(out, as_json)
        return 0
    if address:
        # What is going to run here, which others may have written there: as one line, whatever it holds.
        typer.echo(f"{address}: {printable(shlex.join(['seqjepa-data', *command.words]))}", err=True)
    if os.path.isdir(command.folder):
        os.chdir(command.folder)
    token = STEP.set(replace(step, by_address=bool(address)))
    try:
        return _call(context, command.at(out, [*more, *(["--json"] if as_json else [])]))
    except StepDone as done:
        if as_json:
            print_json({"out": str(out), "finished": done.finished, "shards": done.shards})
        else:
            typer.echo(f"{out}: {done}")
        return 0
    finally:
        STEP.reset(token)


def _call(context: typer.Context, words: list[str]) -> int:
    """Another command of `seqjepa-data`, in this process."""
    sys.stdout.flush()
    root: Any = context.find_root()
    return root.command.main(words, prog_name=root.info_name, standalone_mode=False) or 0
