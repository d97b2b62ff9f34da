"""`seqjepa sweep`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shards.console import AsJson, Device, Workers, print_json

if TYPE_CHECKING:
    from seqjepa.experiments.experiment_results import Results
    from seqjepa.experiments.job import Job
    from seqjepa.experiments.sweep import Runs


def sweep_command(
    table: Annotated[
        str,
        typer.Argument(
            help="table-1 … table-12, figure-3 … figure-15, poster; paper-small: the claim at lengths; ls: all; "
            "grid: of --vary.",
            metavar="WHICH",
        ),
    ],
    shards: Annotated[
        list[str] | None,
        typer.Option(
            "--shards",
            metavar="KIND=DIR",
            help="Shards of one kind, as 3diebench=shards/3die. Repeatable. grid: one DIR. "
            "paper-small renders its own without.",
        ),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option("--vary", metavar="KEY=A,B,…", help="grid: a setting and the values it takes. Repeatable."),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="grid: recipe of all runs. Default: what fits the shards.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="grid: a setting of all runs. Repeatable.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="KEY=A,B",
            help="paper-small: a part of the runs, by part, name, length or seed. Repeatable.",
        ),
    ] = None,
    run: Annotated[bool, typer.Option("--run", help="Train and evaluate what is missing, instead of listing.")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run directories.")] = Path("runs"),
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of each recipe. Default: as published.")] = None,
    scale: Annotated[
        str | None,
        typer.Option(help="paper, medium, small, or a TOML file: runs that fit the machine. Default: the table's."),
    ] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Evaluate every run at its initial weights too, to compare with.")
    ] = False,
    task: Annotated[int | None, typer.Option(min=0, help="Take only this run of the list.")] = None,
    devices: Annotated[
        str | None, typer.Option(help="Run side by side, one run on each: 0,1,2,3 (GPUs), or cpu,cpu.")
    ] = None,
    slurm: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an sbatch script of a job array, one run a task.")
    ] = None,
    device: Device = "auto",
    workers: Workers = None,
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="paper-small: print its tables as Markdown.")] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="paper-small: draw scores over steps, as .png, .svg or .pdf.")
    ] = None,
    numbers: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="paper-small: numbers of another machine, as its --json printed them. Repeatable."
        ),
    ] = None,
) -> None:
    """List or do the runs that a table or a grid needs. How far each has got is shown; --run does the rest.

    \b
    Examples:
      seqjepa sweep ls
      seqjepa sweep table-1 --shards 3diebench=shards/3die
      seqjepa sweep table-4 --shards 3diebench=shards/3die --run --devices 0,1,2,3
      seqjepa sweep figure-9 --shards stl10=shards/stl10 --slurm figure-9.sbatch
      seqjepa sweep small-reproduction --shards 3diebench=shards/synth --run
      seqjepa sweep paper-small --run --devices cpu,cpu
      seqjepa sweep paper-small --numbers other-machine.json --markdown --plot curves.svg
      seqjepa sweep grid --shards shards/mine --vary method=seq_jepa,simclr --vary data.context=1,3 --seeds 3 --run
    """
    from seqjepa.experiments import sweep
    from seqjepa.experiments.experiment import Experiment
    from seqjepa.experiments.experiment_table import check_plot, draw_curves
    from seqjepa.experiments.run_sweep import Resources, run_sweep
    from shards.stores.store import require_no_address

    if table == "ls":
        if as_json:
            print_json(sweep.tables_as_json())
        else:
            typer.echo(sweep.tables_as_text())
        return
    require_no_address(out, "--out")
    _refuse_several_ways((task, devices, slurm), as_json and markdown)
    given = {"--vary": vary, "--recipe": recipe, "--set": set_, "--only": only, "--markdown": markdown, "--plot": plot}
    given |= {"--numbers": numbers}
    _refuse_options_of_others(table, given)
    asked = _asked(table, shards or [], out, (seeds, scale, untrained), given)
    jobs, say = asked.jobs(task), partial(typer.echo, err=as_json or markdown)
    if plot is not None:
        check_plot(plot)
    if run or slurm is not None:
        if numbers:  # hours before they are wanted
            _results(asked, out, numbers)
        if isinstance(asked, Experiment) and asked.to_render is not None:
            from seqjepa.experiments.demos import render_set  # and what draws reports

            render_set(asked.to_render.model_dump(), asked.shards, say)
        run_sweep(asked, jobs, out, Resources(device, workers, devices, slurm), say)
    results = _results(asked, out, numbers or [])
    _show(asked, jobs, out, results, as_json=as_json, markdown=markdown, listed=not run and slurm is None)
    if plot is not None and results is not None:
        draw_curves(results, plot)
        say(f"{plot}: drawn")


def _asked(
    table: str, shards: list[str], out: Path, how: tuple[int | None, str | None, bool], given: Mapping[str, Any]
) -> Runs:
    """A grid, an experiment, or a table or figure. how: seeds, scale, and whether untrained weights are evaluated."""
    from seqjepa.experiments.experiment import experiment_named
    from seqjepa.experiments.grid import Grid, one_folder
    from seqjepa.experiments.paper_runs import find_table, paper_experiments
    from seqjepa.experiments.sweep import Sweep, parse_shards

    vary, settings, only = (tuple(given[name] or ()) for name in ("--vary", "--set", "--only"))
    if table == "grid":
        return Grid(one_folder(shards), vary, given["--recipe"], settings, *how)
    if table in paper_experiments():
        return experiment_named(table, parse_shards(shards), out, *how, only)
    find_table(table)  # a name that is mistaken before what its shards would be
    return Sweep(table, parse_shards(shards), *how)


def _results(asked: Runs, out: Path, numbers: list[Path]) -> Results | None:
    """What is measured so far, here and elsewhere, of an experiment."""
    from seqjepa.experiments.experiment import Experiment
    from seqjepa.experiments.experiment_results import experiment_results, with_numbers

    return with_numbers(experiment_results(asked, out), numbers) if isinstance(asked, Experiment) else None


def _show(
    asked: Runs,
    jobs: Mapping[int, Job],
    out: Path,
    found: Results | None,
    *,
    as_json: bool,
    markdown: bool,
    listed: bool,
) -> None:
    """The list of runs, and what is measured so far: of grids and experiments."""
    from seqjepa.experiments import experiment_table, grid, sweep
    from seqjepa.experiments.experiment import Experiment
    from seqjepa.experiments.time_left import time_left

    results = text = None
    if isinstance(asked, grid.Grid):
        results = grid.grid_results(asked, out)
        text = grid.results_table(results) if results else ""
    elif found is not None:
        results = found.as_json()
        text = experiment_table.as_markdown_tables(found) if markdown else experiment_table.as_text(found)
    if as_json:
        more = {} if results is None else {"results": results}
        print_json({**sweep.jobs_as_json(asked, jobs, out), **more})
        return
    if listed and not markdown:
        typer.echo(sweep.jobs_as_text(asked, jobs, out))
        if isinstance(asked, Experiment) and jobs:
            typer.echo(time_left(jobs.values(), out, 1, assumed=asked.pace, samples=asked.training_samples))
    if text:
        typer.echo(text)


def _refuse_several_ways(ways: Sequence[object], two_forms: bool) -> None:
    """UsageError where more than one way to run the list, or to print it, is asked for."""
    from shards.errors import UsageError

    if sum(way is not None for way in ways) > 1:
        raise UsageError("--task, --devices and --slurm are three ways to do the list; give one of them")
    if two_forms:
        raise UsageError("--json and --markdown are two forms of one table; give one of them")


def _refuse_options_of_others(table: str, given: Mapping[str, object]) -> None:
    """UsageError where an option is given that this table, grid or experiment does not take."""
    from seqjepa.experiments.paper_runs import paper_experiments
    from shards.errors import UsageError

    of_grids, of_experiments = ("--vary", "--recipe", "--set"), ("--only", "--markdown", "--plot", "--numbers")
    taken = of_grids if table == "grid" else of_experiments if table in paper_experiments() else ()
    named = [name for name, value in given.items() if value and name not in taken]
    if wrong := [name for name in named if name in of_grids]:
        raise UsageError(
            f"{', '.join(wrong)}: the settings of a table's runs are fixed; `seqjepa sweep grid` takes such options"
        )
    if named:
        raise UsageError(f"{', '.join(named)}: these options are only for {', '.join(paper_experiments())}")
