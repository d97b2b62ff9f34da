"""`seqjepa-data shard …`: data sets on disk → shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shards.console import AsJson, Out, Overwrite, Workers, new_app, show_contents

shard_app = new_app("Write shards from a data set on disk.")


@shard_app.command("3diebench")
def shard_3diebench_command(
    source: Annotated[Path, typer.Option(help="Unpacked tree, or 3DIEBench.tar.gz read as a stream (never unpacked).")],
    out: Out,
    split_lists: Annotated[
        Path | None, typer.Option(help="Folder with the distributed val_images.npy (and train_images.npy).")
    ] = None,
    val_match: Annotated[
        str | None, typer.Option(help="Other data: objects of this name are the validation split.")
    ] = None,
    val_fraction: Annotated[
        float | None, typer.Option(help="Other data: this share of objects, chosen by name.")
    ] = None,
    split: Annotated[str, typer.Option(help="all, train, val, or ood for the out-of-distribution set.")] = "all",
    size: Annotated[int, typer.Option(min=8, max=1024, help="Pixels of a side after resizing.")] = 128,
    encoding: Annotated[str, typer.Option(help="jpeg, or raw pixels.")] = "jpeg",
    jpeg_quality: Annotated[
        str, typer.Option(help="auto: the fastest to decode with 41 dB or more; or e.g. 444-90, 420-95.")
    ] = "auto",
    samples_per_shard: Annotated[int, typer.Option(min=1, help="Objects in one tar.")] = 256,
    max_bad: Annotated[
        int, typer.Option(min=0, help="How many corrupt views or latents to leave out before giving up.")
    ] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many objects, for a try.")] = None,
    workers: Workers = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """3DIEBench (or any data set in its layout) → `views` shards.

    \b
    Examples:
      seqjepa-data shard 3diebench --source 3DIEBench.tar.gz --split-lists lists/ --out shards/3die
      seqjepa-data shard 3diebench --source 3DIEBench-OOD/ --split ood --split-lists lists/ --out shards/ood
      seqjepa-data shard 3diebench --source my_renders/ --val-fraction 0.2 --out shards/mine

    Killed or interrupted, the same command goes on where it was.
    """
    from pipelines.three_diebench import shard_3diebench

    shard_3diebench(
        source,
        out,
        split_lists=split_lists,
        val_match=val_match,
        val_fraction=val_fraction,
        split=split,  # type: ignore[arg-type]
        size=size,
        encoding=encoding,  # type: ignore[arg-type]
        jpeg_quality=jpeg_quality,
        samples_per_shard=samples_per_shard,
        max_bad=max_bad,
        workers=workers,
        limit=limit,
        overwrite=overwrite,
    )
    show_contents(out, as_json)
