"""`seqjepa-data shard …`: data sets on disk → shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.commands import ENGINE, with_options
from shards.console import AsJson, Option, Out, Overwrite, Workers, new_app, option, show_contents

shard_app = new_app(
    "Write shards from a data set on disk.",
    "seqjepa-data shard manifest --source photos/ --size 96 --out shards/photos",
    "seqjepa-data shard folder --source flowers/ --size 96 --out shards/flowers",
)

MAPS = option(Path | None, "Saliency maps of the same source (build-saliency): gives `saliency` shards.")
FIT = option(str, "squash the whole image, or crop its centred square.", "squash")
SIZE = option(int, "Side in pixels after resizing.", 224, min=8, max=1024)
STL10_SIZE = option(int | None, "Side in pixels. Default: 96, as they are.", min=8, max=1024)
OWN_SIZE = option(int | None, "Side in pixels. Default: as they are, if all are equal.", min=8, max=4096)
MAX_BAD_VIEWS = option(int, "How many views with a corrupt image or parameters may be left out.", 0, min=0)
LAST: dict[str, Option] = {
    "limit": option(
        int | None, "For a trial: so many samples of each split, evenly over classes. Default: all.", min=1
    ),
    **ENGINE,
    "overwrite": (Overwrite, False),
    "as_json": (AsJson, False),
}
LOSSLESS: dict[str, Option] = {
    "max_bad": option(int, "How many corrupt images may be left out.", 0, min=0),
    "workers": (Workers, None),
    **LAST,
}
IN_SHARDS: dict[str, Option] = {"samples_per_shard": option(int, "Images in one tar.", 1024, min=1)}
ENCODED: dict[str, Option] = {
    "encoding": option(str, "jpeg, or raw pixels.", "jpeg"),
    "jpeg_quality": option(str, "auto: the fastest to decode with 41 dB or more; or e.g. 444-90, 420-95.", "auto"),
}
IMAGES: dict[str, Option] = {"maps": MAPS, "size": SIZE, "fit": FIT, **ENCODED}
THREE_DIEBENCH: dict[str, Option] = {
    "split_lists": option(Path | None, "Folder with the distributed val_images.npy (and train_images.npy)."),
    "val_match": option(str | None, "Other data: objects of this name are the validation split."),
    "val_fraction": option(float | None, "Other data: validation's share of each class. Default: none."),
    "split": option(str, "all, train, val, or ood for the out-of-distribution set.", "all"),
}
OBJECTS: dict[str, Option] = {
    "size": SIZE,
    **ENCODED,
    "samples_per_shard": option(int, "Objects in one tar.", 256, min=1),
    **LOSSLESS,
    "max_bad": MAX_BAD_VIEWS,
}


@shard_app.command("3diebench")
@with_options({**THREE_DIEBENCH, **OBJECTS}, size=128)
def shard_3diebench_command(
    source: Annotated[Path, typer.Option(help="Unpacked tree, or 3DIEBench.tar.gz read as a stream (never unpacked).")],
    out: Out,
    **given: Any,
) -> None:
    """3DIEBench (or any data set in its layout) → `views` shards.

    \b
    Examples:
      seqjepa-data shard 3diebench --source 3DIEBench.tar.gz --split-lists lists/ --out shards/3die
      seqjepa-data shard 3diebench --source 3DIEBench-OOD/ --split ood --split-lists lists/ --out shards/ood
      seqjepa-data shard 3diebench --source my_renders/ --val-fraction 0.2 --out shards/mine
    """
    from pipelines.build.views import shard_views
    from pipelines.sources.three_diebench import ThreeDIEBenchSource

    as_json = given.pop("as_json")
    origin = ThreeDIEBenchSource(source, **{name: given.pop(name) for name in THREE_DIEBENCH})
    shard_views(origin, out, **given)
    show_contents(out, as_json)


@shard_app.command("stl10")
@with_options({"maps": MAPS, "size": STL10_SIZE, **ENCODED, **IN_SHARDS, **LOSSLESS}, encoding="raw")
def shard_stl10_command(
    source: Annotated[Path, typer.Option(help="stl10_binary/ with train_X.bin … (all splits that are there).")],
    out: Out,
    **given: Any,
) -> None:
    """STL-10 from its binary files → `image` shards. Lossless; with --maps `saliency` shards.

    \b
    Examples:
      seqjepa-data shard stl10 --source stl10_binary/ --maps maps/stl10 --out shards/stl10
      seqjepa-data shard stl10 --source glances/ --out shards/glances

    Labels are 0 to 9, -1 in `unlabeled`.
    """
    _shard_images("stl10", source, out, **given)


@shard_app.command("imagenet")
@with_options({**IMAGES, **IN_SHARDS, **LOSSLESS}, samples_per_shard=2048)
def shard_imagenet_command(
    source: Annotated[Path, typer.Option(help="Folder (or plain .tar or .zip) with train/<wnid>/ and val/<wnid>/.")],
    out: Out,
    **given: Any,
) -> None:
    """ImageNet → `image` shards. With --maps `saliency` shards. Classes are the sorted WordNet ids.

    \b
    Examples:
      seqjepa-data shard imagenet --source imagenet/ --maps maps/imagenet --out shards/imagenet
      seqjepa-data shard imagenet --source imagenet.tar --fit crop --out shards/imagenet-cropped
      seqjepa-data shard imagenet --source imagenet/ --out shards/imagenet --engine ray --address auto

    Image and map are resized together.
    """
    _shard_images("imagenet", source, out, **given)


@shard_app.command("folder")
@with_options({**IMAGES, "size": OWN_SIZE, **IN_SHARDS, **LOSSLESS})
def shard_folder_command(
    source: Annotated[Path, typer.Option(help="Folder (or plain .tar or .zip) of images; sub-folders are classes.")],
    out: Out,
    val_fraction: Annotated[float | None, typer.Option(help="Validation's share of each class. Default: none.")] = None,
    **given: Any,
) -> None:
    """Any folder of images → `image` shards. With or without train/, val/ and classes; with --maps `saliency` shards.

    \b
    Examples:
      seqjepa-data shard folder --source flowers/ --size 96 --out shards/flowers
      seqjepa-data shard folder --source photos/ --val-fraction 0.1 --size 128 --fit crop --out shards/photos
      seqjepa-data shard folder --source photos.tar --maps maps/photos --size 224 --out shards/photos

    JPEG, PNG, WebP and BMP; the pixels as stored, EXIF orientation left alone.
    """
    _shard_images("folder", source, out, val_fraction=val_fraction, **given)


@shard_app.command("cifar100")
@with_options({**IN_SHARDS, **LAST}, samples_per_shard=2048)
def shard_cifar100_command(
    source: Annotated[
        Path, typer.Option(help="cifar-100-python/ with train, test and meta, or cifar-100-python.tar.gz.")
    ],
    out: Out,
    **given: Any,
) -> None:
    """CIFAR-100 from its Python files → `image` shards. Lossless; splits train and test.

    \b
    Examples:
      seqjepa-data shard cifar100 --source cifar-100-python.tar.gz --out shards/cifar100
      seqjepa-data shard cifar100 --source patterns/ --out shards/patterns

    Labels are the 100 fine classes, `coarse` is in the metadata. The pickles can name nothing but arrays of bytes.
    """
    # One worker is no slower here: a worker of its own would have to read the files again.
    _shard_images("cifar100", source, out, encoding="raw", workers=1, **given)


@shard_app.command("tiny-imagenet")
@with_options({"size": OWN_SIZE, "fit": FIT, **IN_SHARDS, **LOSSLESS})
def shard_tiny_imagenet_command(
    source: Annotated[Path, typer.Option(help="tiny-imagenet-200.zip, a plain .tar of it, or the unpacked folder.")],
    out: Out,
    **given: Any,
) -> None:
    """Tiny ImageNet → `image` shards. Decoded once and lossless; splits train and val.

    \b
    Examples:
      seqjepa-data shard tiny-imagenet --source tiny-imagenet-200.zip --out shards/tiny
      seqjepa-data shard tiny-imagenet --source tiny-imagenet-200/ --limit 2000 --out shards/tiny-try

    Labels are line numbers of wnids.txt, also for validation; the unlabelled test split is left out.
    """
    _shard_images("tiny-imagenet", source, out, encoding="raw", **given)


def _shard_images(
    kind: str, source: Path, out: Path, *, as_json: bool, val_fraction: float | None = None, **options: Any
) -> None:
    """Opens the source, shards it, shows what came of it."""
    from pipelines.build.images import shard_images
    from pipelines.sources import open_source

    shard_images(open_source(kind, source, val_fraction=val_fraction), out, **options)
    show_contents(out, as_json)
