"""`seqjepa-data shard cifar100` and `tiny-imagenet`: small pictures, lossless, for augmented views."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.shard import ImagesPerShard, Limit, MaxBad, shard_images_of
from shards.console import AsJson, Out, Overwrite, Workers


def shard_cifar100_command(
    source: Annotated[
        Path, typer.Option(help="cifar-100-python/ with train, test and meta, or cifar-100-python.tar.gz.")
    ],
    out: Out,
    samples_per_shard: ImagesPerShard = 2048,
    limit: Limit = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """CIFAR-100 from its Python files, lossless → `image` shards with splits train and test.

    \b
    Examples:
      seqjepa-data shard cifar100 --source cifar-100-python.tar.gz --out shards/cifar100
      seqjepa-data shard cifar100 --source patterns/ --out shards/patterns

    Labels are the 100 fine classes, `coarse` is in the metadata. The pickles can name nothing but arrays of bytes.
    """
    shard_images_of(
        "cifar100",
        source,
        out=out,
        encoding="raw",
        samples_per_shard=samples_per_shard,
        limit=limit,
        workers=1,  # which is no slower here: a worker of its own would have to read the files again
        overwrite=overwrite,
        as_json=as_json,
    )


def shard_tiny_imagenet_command(
    source: Annotated[Path, typer.Option(help="tiny-imagenet-200.zip, a plain .tar of it, or the unpacked folder.")],
    out: Out,
    samples_per_shard: ImagesPerShard = 1024,
    max_bad: MaxBad = 0,
    limit: Limit = None,
    workers: Workers = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Tiny ImageNet, decoded once and lossless → `image` shards with splits train and val.

    \b
    Examples:
      seqjepa-data shard tiny-imagenet --source tiny-imagenet-200.zip --out shards/tiny
      seqjepa-data shard tiny-imagenet --source tiny-imagenet-200/ --limit 2000 --out shards/tiny-try

    Labels are line numbers of wnids.txt, also for validation; the unlabelled test split is left out.
    """
    shard_images_of(
        "tiny-imagenet",
        source,
        out=out,
        encoding="raw",
        samples_per_shard=samples_per_shard,
        max_bad=max_bad,
        limit=limit,
        workers=workers,
        overwrite=overwrite,
        as_json=as_json,
    )
