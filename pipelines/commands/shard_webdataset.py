"""`seqjepa-data shard webdataset`: tars of anybody's, as images or as sequences of views."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.commands import Option, option, with_options
from pipelines.commands.shard import ENCODED, LOSSLESS, Fit, OwnSize
from pipelines.commands.shard_manifest import MEANING, ViewsPerSample
from shards.console import Out, show_contents

SHAPE: dict[str, Option] = {
    "views_per_sample": (ViewsPerSample, None),
    "size": (OwnSize, None),
    "fit": (Fit, "squash"),
    **ENCODED,
    "samples_per_shard": option(int | None, "Samples in one tar. Default: 1024 images, 256 sequences.", min=1),
}


@with_options({**{name: MEANING[name] for name in ("actions", "action", "unit")}, **SHAPE, **LOSSLESS})
def shard_webdataset_command(
    source: Annotated[
        list[str],
        typer.Option(
            help="Tars as webdataset names them: 'dir/{000..099}.tar', a folder or glob of tars, https://… or "
            "pipe:COMMAND; with train=, val= or test= in front, a split's. May be given several times.",
            metavar="[SPLIT=]TARS",
        ),
    ],
    out: Out,
    split: Annotated[str, typer.Option(help="Of tars that are given without a split: train, val, test.")] = "train",
    val_fraction: Annotated[float | None, typer.Option(help="This share of each class is validation.")] = None,
    label: Annotated[str | None, typer.Option(help="JSON field that holds the label. Default: the cls member.")] = None,
    classes: Annotated[
        Path | None, typer.Option(help="Text file: the name of class 0, of class 1 …, a line each.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Which member is the image, where several are: e.g. left.jpg.")
    ] = None,
    sequence: Annotated[str | None, typer.Option(help="Views: JSON field that names a sample's sequence.")] = None,
    sequence_key: Annotated[
        str | None,
        typer.Option(help="Views: or a regular expression of the key; its group (or group sequence) names it."),
    ] = None,
    step: Annotated[
        str | None, typer.Option(help="Views: JSON field that orders a sequence; or group step of --sequence-key.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Views: which fields are parameters, e.g. yaw,pose. Default: all numbers.")
    ] = None,
    ordered: Annotated[
        bool, typer.Option("--ordered", help="Views: the images' numbers (03.jpg), or their order, are steps in time.")
    ] = False,
    allow_repeats: Annotated[
        bool, typer.Option("--allow-repeats", help="Views: the same pixels may be in two splits.")
    ] = False,
    spool: Annotated[
        Path | None, typer.Option(help="Where streams and packed tars are copied to. Default: OUT.spool, then removed.")
    ] = None,
    **given: Any,
) -> None:
    """Tars in webdataset's format, anybody's (img2dataset's, ImageNet in tars) → `image` or `views` shards.

    \b
    Examples:
      seqjepa-data shard webdataset --source 'laion/{00000..00099}.tar' --size 224 --out shards/laion
      seqjepa-data shard webdataset --source 'train=in1k/train-*.tar' --source 'val=in1k/val-*.tar' \\
                                    --classes names.txt --size 224 --out shards/in1k
      seqjepa-data shard webdataset --source 'https://host/set-{000..009}.tar' --size 96 --out shards/set
      seqjepa-data shard webdataset --source 'walks-{00..09}.tar' --sequence scene --step frame --columns x,y,yaw \\
                                    --unit yaw=deg --actions actions.toml --size 128 --out shards/walks

    Samples of several images (00.jpg, 01.jpg …), or what --sequence groups, are sequences of views: `views` shards.
    A source that begins with pipe: is a command, which a shell runs as you: give none that you have not read.
    Killed, the same command goes on; streams that were copied whole are not fetched again.
    """
    from pipelines.build.webdataset import shard_webdataset
    from pipelines.sources.webdataset.columns import read_classes
    from pipelines.sources.webdataset.options import TarOptions
    from pipelines.sources.webdataset.sequences import SequenceOptions
    from pipelines.sources.webdataset.table import Meaning

    as_json, names = given.pop("as_json"), read_classes(classes) if classes else None
    shard_webdataset(
        TarOptions(tuple(source), split, label, names, image, val_fraction),
        SequenceOptions.parse(sequence, sequence_key, step, columns, ordered),
        out,
        meaning=Meaning(given.pop("actions"), given.pop("action"), tuple(given.pop("unit") or ()), allow_repeats),
        spool=spool,
        **given,
    )
    show_contents(out, as_json)
