"""`seqjepa sweep`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from shards.console import AsJson, Device, Workers, print_json


def sweep_command(
    table: Annotated[
        str, typer.Argument(help="table-1 … table-12, figure-3 … figure-15, poster; ls: all; grid: of --vary.")
    ],
    shards: Annotated[
        list[str] | None,
        typer.Option(
            "--shards", metavar="KIND=DIR", help="Of one kind, as 3diebench=shards/3die; repeatable. grid: one DIR."
        ),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option("--vary", metavar="KEY=A,B,…", help="grid: a setting and the values it takes; repeatable."),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="grid: of all runs. Default: what fits the shards.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="grid: a setting of all runs; repeatable.")
    ] = None,
    run: Annotated[bool, typer.Option("--run", help="Train and evaluate what is missing, instead of listing.")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run directories.")] = Path("runs"),
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of each recipe. Default: as published.")] = None,
    scale: Annotated[
        str | None, typer.Option(help="paper, medium, small, or a TOML file: what makes runs fit the machine.")
    ] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Evaluate every run at its initial weights too, as the floor.")
    ] = False,
    task: Annotated[int | None, typer.Option(min=0, help="This one of the list alone.")] = None,
    devices: Annotated[str | None, typer.Option(help="Side by side, one run a GPU: 0,1,2,3.")] = None,
    slurm: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an sbatch script of an array: one run a task.")
    ] = None,
    device: Device = "auto",
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """The runs that a table or figure of the paper, or a grid, needs, and how far each has got; --run does the rest.

    \b
    Examples:
      seqjepa sweep ls
      seqjepa sweep table-1 --shards 3diebench=shards/3die
      seqjepa sweep table-4 --shards 3diebench=shards/3die --run --devices 0,1,2,3
      seqjepa sweep figure-9 --shards stl10=shards/stl10 --slurm figure-9.sbatch
      seqjepa sweep small-reproduction --shards 3diebench=shards/synth --run
      seqjepa sweep grid --shards shards/mine --vary method=seq_jepa,simclr --vary data.context=1,3 --seeds 3 --run
    """
    from seqjepa.experiments import grid, sweep
    from seqjepa.experiments.run_sweep import Resources, run_sweep
    from shards.store import require_no_address

    if table == "ls":
        if as_json:
            print_json(sweep.tables_as_json())
        else:
            typer.echo(sweep.tables_as_text())
        return
    require_no_address(out, "--out")
    _refuse_several_ways(task, devices, slurm)
    asked: sweep.Runs
    if table == "grid":
        asked = grid.Grid(
            grid.one_folder(shards or []), tuple(vary or ()), recipe, tuple(set_ or ()), seeds, scale, untrained
        )
    else:
        _refuse_options_of_grids(vary, recipe, set_)
        asked = sweep.Sweep(table, sweep.parse_shards(shards or []), seeds, scale, untrained)
    jobs = asked.jobs(task)
    doing = run or slurm is not None
    if doing:
        run_sweep(asked, jobs, out, Resources(device, workers, devices, slurm), partial(typer.echo, err=as_json))
    results = grid.grid_results(asked, out) if isinstance(asked, grid.Grid) else []
    if as_json:
        listed = sweep.jobs_as_json(asked, jobs, out)
        print_json({**listed, "results": results} if isinstance(asked, grid.Grid) else listed)
        return
    if not doing:
        typer.echo(sweep.jobs_as_text(asked, jobs, out))
    if results:
        typer.echo(grid.results_table(results))


def _refuse_several_ways(task: int | None, devices: str | None, slurm: Path | None) -> None:
    """UsageError where more than one way to run the list is asked for."""
    from shards.errors import UsageError

    if sum(way is not None for way in (task, devices, slurm)) > 1:
        raise UsageError("--task, --devices and --slurm are three ways to do the list; give one of them")


def _refuse_options_of_grids(vary: list[str] | None, recipe: str | None, settings: list[str] | None) -> None:
    """UsageError where an option is given that a table of the paper, whose runs are settled, does not take."""
    from shards.errors import UsageError

    given = {"--vary": vary, "--recipe": recipe, "--set": settings}
    if named := [name for name, value in given.items() if value]:
        raise UsageError(
            f"{', '.join(named)}: the runs of a table are settled; `seqjepa sweep grid` takes such options"
        )
