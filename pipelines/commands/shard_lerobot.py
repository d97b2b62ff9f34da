"""`seqjepa-data shard lerobot`: robot data sets in LeRobot's format → `views` shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.commands import with_options
from pipelines.commands.shard import LOSSLESS, MaxBadViews
from pipelines.commands.shard_manifest import CHECK, SHAPE, OutUnlessCheck, show_check
from shards.console import show_contents

Source = Annotated[str, typer.Option(help="Folder of the set, or hf://datasets/USER/REPO[@REVISION].")]
Camera = Annotated[
    str | None,
    typer.Option(help="Feature whose frames become views, e.g. observation.images.top. Default: the only one."),
]
Stride = Annotated[int, typer.Option(min=1, help="Keep every so many frames; the commands between are one.")]
Over = Annotated[str, typer.Option(help="What the commands of several steps become: last, sum or mean.")]
State = Annotated[
    str | None,
    typer.Option(help="Features that become parameters, with commas; none. Default: all floats but the commands."),
]
CommandKeys = Annotated[
    str | None, typer.Option("--command", help="Features that were done, with commas; none. Default: action, action.*")
]
Unit = Annotated[
    list[str] | None,
    typer.Option(help="Unit of a feature or component; deg becomes rad. Several times.", metavar="NAME=UNIT"),
]
Actions = Annotated[
    Path | None, typer.Option(help="actions.toml: units, and an action made of states instead of the commands.")
]
EpisodeRanges = Annotated[str | None, typer.Option("--episodes", help="Which, e.g. 0:50,73. Default: all.")]
ValFraction = Annotated[float | None, typer.Option(help="This share of each task's episodes is validation.")]
Tolerance = Annotated[float, typer.Option(help="Seconds that a frame may be from its row's timestamp.")]


@with_options({**CHECK, **SHAPE, **LOSSLESS, "max_bad": (MaxBadViews, 0)}, size=128)
def shard_lerobot_command(
    source: Source,
    out: OutUnlessCheck = None,
    camera: Camera = None,
    stride: Stride = 1,
    over: Over = "last",
    state: State = None,
    command: CommandKeys = None,
    unit: Unit = None,
    actions: Actions = None,
    episodes: EpisodeRanges = None,
    val_fraction: ValFraction = None,
    tolerance: Tolerance = 1e-4,
    **given: Any,
) -> None:
    """Robots' episodes in LeRobot's format (v3.0, v2.1) → `views` shards: frames, states, actions as commands.

    \b
    Examples:
      seqjepa-data shard lerobot --source pusht/ --check
      seqjepa-data shard lerobot --source pusht/ --camera observation.image --out shards/pusht
      seqjepa-data shard lerobot --source hf://datasets/lerobot/pusht --camera observation.image \\
                                 --stride 5 --over mean --val-fraction 0.1 --size 96 --out shards/pusht
      seqjepa-data shard lerobot --source so100/ --camera observation.images.top --state observation.state \\
                                 --unit observation.state=deg --unit action=deg --episodes 0:20 --out shards/so100

    Of a set on the hub only meta/, the data and this camera's videos are loaded. Killed, the same command goes on.
    """
    from pipelines.build.views import shard_views
    from pipelines.sources.lerobot import LeRobotOptions, LeRobotSource, check_over
    from pipelines.sources.manifest import ReadViews
    from pipelines.sources.mistakes import Mistakes
    from shards.errors import UsageError

    as_json, views = given.pop("as_json"), given.pop("views_per_sample")
    check, sheet, context = (given.pop(name) for name in CHECK)
    asked = LeRobotOptions(
        camera, stride, state, command, check_over(over), tuple(unit or ()), actions, episodes, val_fraction, tolerance
    )
    if out is None and not check:
        raise UsageError("--out DIR is needed: the folder to write")
    origin = LeRobotSource(source, asked, views_per_sample=views)
    if out is None or check:
        reading = ReadViews(Path(str(origin.identity["name"])), Mistakes(), [], origin.table)
        raise typer.Exit(show_check(reading, sheet, context, views, given["size"], as_json))
    shard_views(origin, out, **given)
    show_contents(out, as_json)
