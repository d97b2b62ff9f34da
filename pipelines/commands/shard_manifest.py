"""`seqjepa-data shard manifest`: one's own views and actions → `views` shards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands import with_options
from pipelines.commands.shard import ENCODED, FIT, LOSSLESS, OWN_SIZE
from shards.console import OUT, Option, option, print_json, show_contents

if TYPE_CHECKING:
    from pipelines.sources.manifest import ReadViews

make_actions: Callable[..., Any] | None = None
"""What a dry run shows actions with: build/check.MakeActions. cli.py hands it over, as pipelines know no seqjepa."""


def _column(what: str) -> Option:
    return option(str | None, what, metavar="COLUMN")


COLUMNS: dict[str, Option] = {
    "image": _column("Column with names of images. Default: file_name, or image."),
    "sequence": _column("Column that says which object, scene or episode. Default: sequence, or folders."),
    "step": _column("Column of whole numbers that order a sequence. Default: step, if there."),
    "timestamp": _column("Column of times: seconds, or dates. Default: timestamp, if there."),
    "frame": _column("Of videos: column of frame numbers, from 0. Default: frame, or else by timestamp."),
    "split": _column("Column of splits. Default: split, if there."),
    "label": _column("Column of classes, one for each sequence. Default: label, if there."),
}
MEANING: dict[str, Option] = {
    "actions": option(Path | None, "Units and action. Default: actions.toml beside the table."),
    "action": option(
        str | None, "Instead: rotation, rotation_colour, position, pose, command or none.", metavar="PRESET"
    ),
    "unit": option(list[str] | None, "Unit of a column; deg becomes rad. Repeatable.", metavar="COLUMN=UNIT"),
    "ignore": option(list[str] | None, "A column to leave out. Repeatable.", metavar="COLUMN"),
}
LAYOUT: dict[str, Option] = {
    "layout": option(
        str | None,
        "manifest, nerf (transforms.json), colmap (its text models) or pattern. Default: what is there.",
        metavar="NAME",
    ),
    "pattern": option(
        str | None, "Values in file names, without a table: {object}/{name}_{azimuth:deg}.png", metavar="NAMES"
    ),
}
CHECK: dict[str, Option] = {
    "check": option(bool, "Write no set: say what was understood and what is wrong, and draw it.", False, "--check"),
    "sheet": option(Path, "With --check: the picture of three sequences.", Path("check.png")),
    "context": option(int, "With --check: context views of a training sequence.", 3, min=1),
}
OutUnlessCheck = Annotated[Path | None, typer.Option("--out", "-o", help=OUT)]
VIEWS_PER_SAMPLE = option(
    int | None, "Frames of a sample; longer sequences take several. Default: fits.", min=1, max=1000
)
SHAPE: dict[str, Option] = {
    "views_per_sample": VIEWS_PER_SAMPLE,
    "size": OWN_SIZE,
    "fit": FIT,
    **ENCODED,
    "samples_per_shard": option(int, "Samples in one tar.", 256, min=1),
}


@with_options({**CHECK, **LAYOUT, **COLUMNS, **MEANING, **SHAPE, **LOSSLESS})
def shard_manifest_command(
    source: Annotated[Path, typer.Option(help="Folder (or plain .tar or .zip) of images.")],
    out: OutUnlessCheck = None,
    manifest: Annotated[
        Path | None, typer.Option(help="Table of the images. Default: metadata.csv, .jsonl or .parquet of the source.")
    ] = None,
    val_fraction: Annotated[
        float | None, typer.Option(help="Validation's share of each class's sequences. Default: none.")
    ] = None,
    allow_repeats: Annotated[
        bool, typer.Option("--allow-repeats", help="The same pixels may be in two splits.")
    ] = False,
    **given: Any,
) -> None:
    """Images and a table of them → `views` shards. As Hugging Face's ImageFolder, with sequences: docs/manifest.md.

    \b
    Examples:
      seqjepa-data shard manifest --source photos/ --check
      seqjepa-data shard manifest --source photos/ --size 128 --val-fraction 0.2 --out shards/photos
      seqjepa-data shard manifest --source drive.zip --manifest drive.csv --sequence run --step frame \\
                                  --unit yaw=deg --actions actions.toml --out shards/drive
      seqjepa-data shard manifest --source arm/ --action command --out shards/arm
      seqjepa-data shard manifest --source scene/ --size 96 --out shards/scene
      seqjepa-data shard manifest --source coil/ --pattern '{object}__{azimuth:deg}.png' --out shards/coil

    Without a table, scene/ may have NeRF's transforms.json or a COLMAP text model (docs/layouts.md).
    """
    from pipelines.build.views import shard_views
    from pipelines.sources.layouts import LayoutOptions, read_views
    from pipelines.sources.manifest import ManifestOptions
    from pipelines.sources.table import TableSource
    from shards.errors import UsageError
    from shards.machine.terminal import warn

    columns = {name: value for name in COLUMNS if (value := given.pop(name)) is not None}
    units, ignore = tuple(given.pop("unit") or ()), tuple(given.pop("ignore") or ())
    asked = ManifestOptions(
        manifest, columns, val_fraction, given.pop("actions"), given.pop("action"), units, ignore, allow_repeats
    )
    layout = LayoutOptions(given.pop("layout"), given.pop("pattern"), given["max_bad"])
    as_json, views = given.pop("as_json"), given.pop("views_per_sample")
    check, sheet, context = (given.pop(name) for name in CHECK)
    if out is None and not check:
        raise UsageError("--out DIR is needed: the folder to write")
    reading = read_views(source, asked, layout)
    if out is None or check:
        raise typer.Exit(show_check(reading, sheet, context, views, given["size"], as_json))
    table = reading.checked()
    for line in reading.notes:
        warn(f"{reading.path.name}: {line}")
    options = {**asked.to_json(), **layout.to_json(), "views_per_sample": views}
    origin = TableSource(source, table, name="manifest", options=options, views_per_sample=views)
    shard_views(origin, out, context=context, **given)
    show_contents(out, as_json)


def show_check(
    reading: ReadViews, sheet: Path, context: int, views: int | None, size: int | None, as_json: bool
) -> int:
    """Prints what was understood, and what is wrong. The exit code: 2 where there are mistakes."""
    from pipelines.build.check import draw_check, in_words, understood
    from pipelines.build.view_warnings import warnings_of, warnings_of_images

    mistakes, draft = reading.mistakes, reading.draft or reading.table
    found: dict[str, Any] = {"table": str(reading.path)}
    if draft is not None:
        found |= understood(draft, views)
    found["notes"] = reading.notes
    found["warnings"] = [] if draft is None else warnings_of(draft, context)
    if draft is not None:
        found["warnings"] += warnings_of_images(draft, size, readable=reading.table is not None)
    found["mistakes"] = {"count": mistakes.count, "first": mistakes.first}
    if reading.table is not None and make_actions is not None:
        found["sheet"] = str(draw_check(reading.table, sheet, reading.path.name, make_actions))
    if as_json:
        print_json(found)
    else:
        typer.echo(in_words(found))
    return 2 if mistakes.count else 0
