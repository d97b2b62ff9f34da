"""`seqjepa-data shard lerobot`: robot data sets in LeRobot's format → `views` shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.commands import with_options
from pipelines.commands.shard import LOSSLESS, MAX_BAD_VIEWS
from pipelines.commands.shard_manifest import CHECK, SHAPE, OutUnlessCheck, show_check
from shards.console import Option, option, show_contents

LEROBOT: dict[str, Option] = {
    "camera": option(
        str | None, "Feature whose frames become views, e.g. observation.images.top. Default: the only one."
    ),
    "stride": option(int, "Keep every so many frames; the commands between are one.", 1, min=1),
    "over": option(str, "What the commands of several steps become: last, sum or mean.", "last"),
    "state": option(
        str | None, "Features that become parameters, with commas; none. Default: all floats but the commands."
    ),
    "command": option(str | None, "Features that were done, with commas; none. Default: action, action.*"),
    "unit": option(
        list[str] | None, "Unit of a feature or component; deg becomes rad. Repeatable.", metavar="NAME=UNIT"
    ),
    "actions": option(Path | None, "actions.toml: units, and an action made of states instead of the commands."),
    "episodes": option(str | None, "Which, e.g. 0:50,73. Default: all."),
    "val_fraction": option(float | None, "Validation's share of each task's episodes. Default: none."),
    "tolerance": option(float, "Seconds that a frame may be from its row's timestamp.", 1e-4),
}

SIDE = option(int, "Side in pixels after resizing.", 128, min=8, max=4096)


@with_options({**LEROBOT, **CHECK, **SHAPE, "size": SIDE, **LOSSLESS, "max_bad": MAX_BAD_VIEWS})
def shard_lerobot_command(
    source: Annotated[str, typer.Option(help="Folder of the set, or hf://datasets/USER/REPO[@REVISION].")],
    out: OutUnlessCheck = None,
    **given: Any,
) -> None:
    """Robots' episodes in LeRobot's format → `views` shards. v3.0 and v2.1: frames, states, actions as commands.

    \b
    Examples:
      seqjepa-data shard lerobot --source pusht/ --check
      seqjepa-data shard lerobot --source pusht/ --camera observation.image --out shards/pusht
      seqjepa-data shard lerobot --source hf://datasets/lerobot/pusht --camera observation.image \\
                                 --stride 5 --over mean --val-fraction 0.1 --size 96 --out shards/pusht
      seqjepa-data shard lerobot --source so100/ --camera observation.images.top --state observation.state \\
                                 --unit observation.state=deg --unit action=deg --episodes 0:20 --out shards/so100

    Of a set on the hub only meta/, the data and this camera's videos are loaded.
    """
    from pipelines.build.views import shard_views
    from pipelines.sources.lerobot import LeRobotOptions, LeRobotSource
    from pipelines.sources.manifest import ReadViews
    from pipelines.sources.mistakes import Mistakes
    from shards.errors import UsageError

    as_json, views = given.pop("as_json"), given.pop("views_per_sample")
    check, sheet, context = (given.pop(name) for name in CHECK)
    given["unit"] = tuple(given["unit"] or ())
    asked = LeRobotOptions(**{name: given.pop(name) for name in LEROBOT})
    if out is None and not check:
        raise UsageError("--out DIR is needed: the folder to write")
    origin = LeRobotSource(source, asked, views_per_sample=views)
    if out is None or check:
        reading = ReadViews(Path(str(origin.identity["name"])), Mistakes(), [], origin.table)
        raise typer.Exit(show_check(reading, sheet, context, views, given["size"], as_json))
    shard_views(origin, out, context=context, **given)
    show_contents(out, as_json)
