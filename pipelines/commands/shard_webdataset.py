"""`seqjepa-data shard webdataset`: tars of anybody's, as images or as sequences of views."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.commands import with_options
from pipelines.commands.shard import ENCODED, FIT, LOSSLESS, OWN_SIZE
from pipelines.commands.shard_manifest import MEANING, VIEWS_PER_SAMPLE
from shards.console import Option, Out, option, show_contents

TARS: dict[str, Option] = {
    "split": option(str, "Of tars that are given without a split: train, val, test.", "train"),
    "val_fraction": option(float | None, "Validation's share of each class. Default: none."),
    "label": option(str | None, "JSON field that holds the label. Default: the cls member."),
    "classes": option(Path | None, "Text file: the name of class 0, of class 1 …, a line each."),
    "image": option(str | None, "Which member is the image, where several are: e.g. left.jpg."),
}
SEQUENCES: dict[str, Option] = {
    "sequence": option(str | None, "Views: JSON field that names a sample's sequence."),
    "sequence_key": option(
        str | None, "Views: or a regular expression of the key; its group (or group sequence) names it."
    ),
    "step": option(str | None, "Views: JSON field that orders a sequence; or group step of --sequence-key."),
    "columns": option(str | None, "Views: which fields are parameters, e.g. yaw,pose. Default: all numbers."),
    "ordered": option(
        bool, "Views: the images' numbers (03.jpg), or their order, are steps in time.", False, "--ordered"
    ),
}
OTHERS: dict[str, Option] = {
    "allow_repeats": option(bool, "Views: the same pixels may be in two splits.", False, "--allow-repeats"),
    "spool": option(Path | None, "Where streams and packed tars are copied to. Default: OUT.spool, then removed."),
    **{name: MEANING[name] for name in ("actions", "action", "unit")},
    "views_per_sample": VIEWS_PER_SAMPLE,
    "size": OWN_SIZE,
    "fit": FIT,
    **ENCODED,
    "samples_per_shard": option(int | None, "Samples in one tar. Default: 1024 images, 256 sequences.", min=1),
    **LOSSLESS,
}


@with_options({**TARS, **SEQUENCES, **OTHERS})
def shard_webdataset_command(
    source: Annotated[
        list[str],
        typer.Option(
            help="Tars as webdataset names them: 'dir/{000..099}.tar', a folder or glob of tars, https://… or "
            "pipe:COMMAND; with train=, val= or test= in front, a split's. Repeatable.",
            metavar="[SPLIT=]TARS",
        ),
    ],
    out: Out,
    **given: Any,
) -> None:
    """Tars in webdataset's format → `image` or `views` shards. Anybody's: img2dataset's, ImageNet in tars.

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
    Streams that were copied whole are not fetched again.
    """
    from pipelines.build.webdataset import shard_webdataset
    from pipelines.sources.webdataset.columns import read_classes
    from pipelines.sources.webdataset.options import TarOptions
    from pipelines.sources.webdataset.sequences import SequenceOptions
    from pipelines.sources.webdataset.table import Meaning

    as_json, tars = given.pop("as_json"), {name: given.pop(name) for name in TARS}
    if tars["classes"]:
        tars |= {"classes_file": tars["classes"].name, "classes": read_classes(tars["classes"])}
    how = SequenceOptions.parse(*(given.pop(name) for name in SEQUENCES))
    units, allow_repeats = tuple(given.pop("unit") or ()), given.pop("allow_repeats")
    meaning = Meaning(given.pop("actions"), given.pop("action"), units, allow_repeats)
    shard_webdataset(TarOptions(tuple(source), **tars), how, out, meaning=meaning, **given)
    show_contents(out, as_json)
