"""`seqjepa-data build-saliency …`, `import-saliency …` and `score-saliency`: saliency maps, and what they are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.commands import ENGINE, with_options
from shards.console import AsJson, Option, Out, Overwrite, Workers, new_app, option, print_json, show_contents

build_saliency_app = new_app(
    "Compute the saliency map of every image of a source.",
    "seqjepa-data build-saliency folder --source photos/ --out maps/photos --model spectral-residual",
)
import_saliency_app = new_app(
    "Take published saliency arrays over into a set of maps.",
    "seqjepa-data import-saliency stl10 --maps salmap-stl10/ --source stl10_binary/ --out maps/stl10",
)

Source = Annotated[Path, typer.Option(help="Folder (or plain .tar or .zip) of the images.")]
CentreBias = Annotated[Path | None, typer.Option(help="centerbias_mit1003.npy, or its folder.")]

IN_SHARDS: dict[str, Option] = {
    "samples_per_shard": option(int, "Maps in one tar.", 1024, min=1),
    "max_bad": option(int, "How many images that cannot be read may be left out.", 0, min=0),
    "limit": option(int | None, "For a trial: so many images of each split, evenly over classes. Default: all.", min=1),
}
LAST: dict[str, Option] = {**ENGINE, "overwrite": (Overwrite, False), "as_json": (AsJson, False)}
STORAGE: dict[str, Option] = {
    "storage": option(str, "float16, or log8: half the size, 8 bits of log density.", "float16")
}
BUILD: dict[str, Option] = {
    "model": option(str, "deepgaze-iie; or spectral-residual, centre-bias: offline, and not DeepGaze.", "deepgaze-iie"),
    "input_scale": option(
        str, "DeepGaze: 255 (right), or author: pixels in [0, 1] as the released scripts feed them.", "255"
    ),
    "pooling": option(
        str, "DeepGaze, to a smaller map: area keeps probability mass; author: bilinear log density.", "area"
    ),
    **STORAGE,
    "weights": option(Path | None, "deepgaze2e.pth, or its folder. Default: usual places."),
    "centre_bias": (CentreBias, None),
    "download": option(bool, "Download whichever of these two files is missing (420 MB).", False, "--download"),
    "forward": option(str, "DeepGaze: fast, or package: the package's own, for comparison.", "fast"),
    "precision": option(
        str | None, "DeepGaze's backbones: fp32, tf32, fp16, bf16 (docs/saliency.md). Default: tf32 on CUDA, else fp32."
    ),
    "device": option(str, "auto, cpu, cuda, cuda:N; or several with commas, one process each.", "auto"),
    "processes": option(int | None, "On the CPU: how many share the cores. Default: one.", min=1),
    "batch_size": option(
        int | None, "Images of 512×512 at a time. Default: the model's; DeepGaze's on a GPU fits its memory.", min=1
    ),
    "workers": (Workers, None),
    **IN_SHARDS,
}
INPUT_SIZE: dict[str, Option] = {
    "input_size": option(int | None, "DeepGaze sees images of this side.", min=32, max=8192)
}
IMPORT: dict[str, Option] = {**STORAGE, **IN_SHARDS, "workers": (Workers, None), **LAST}


@build_saliency_app.command("stl10")
@with_options({**BUILD, **INPUT_SIZE, **LAST}, input_size=512)
def build_stl10_command(source: Source, out: Out, **given: Any) -> None:
    """Maps of STL-10, 96×96. DeepGaze IIE computes them on 512×512; they are pooled by area.

    \b
    Examples:
      seqjepa-data build-saliency stl10 --source stl10_binary/ --out maps/stl10 --download --device cuda
      seqjepa-data build-saliency stl10 --source stl10_binary/ --out maps/stl10-sr --model spectral-residual
    """
    _build("stl10", source, out, out_size=96, **given)


@build_saliency_app.command("imagenet")
@with_options({**BUILD, **LAST})
def build_imagenet_command(source: Source, out: Out, **given: Any) -> None:
    """Maps of ImageNet, at native resolution. Images of one size are computed together.

    \b
    Examples:
      seqjepa-data build-saliency imagenet --source imagenet/ --out maps/in1k --storage log8 --device cuda:0,cuda:1
      seqjepa-data build-saliency imagenet --source imagenet/ --out maps/in1k --storage log8 --engine ray --address auto
    """
    _build("imagenet", source, out, out_size=None, input_size=None, **given)


@build_saliency_app.command("folder")
@with_options(
    {
        **BUILD,
        "val_fraction": option(float | None, "As in `shard folder`: validation's share of each class. Default: none."),
        "out_size": option(int | None, "Side of the maps. Default: of each image.", min=8, max=8192),
        **INPUT_SIZE,
        **LAST,
    }
)
def build_folder_command(source: Source, out: Out, **given: Any) -> None:
    """Maps of any folder of images. At native resolution, unless --out-size says otherwise.

    \b
    Examples:
      seqjepa-data build-saliency folder --source photos/ --out maps/photos --model spectral-residual
      seqjepa-data build-saliency folder --source photos.tar --out maps/photos --weights deepgaze2e.pth --device cuda
    """
    _build("folder", source, out, **given)


def _build(
    kind: str, source: Path, out: Path, model: str, as_json: bool, val_fraction: float | None = None, **given: Any
) -> None:
    from pipelines.saliency.build import build_saliency
    from pipelines.saliency.models import ModelChoice
    from pipelines.sources import open_source

    of_build = ("storage", "samples_per_shard", "device", "processes", "workers", "limit", "max_bad", "overwrite")
    build = {name: given.pop(name) for name in of_build}
    choice, speeds = ModelChoice(model, **given), []
    build_saliency(open_source(kind, source, val_fraction=val_fraction), out, choice, on_speed=speeds.append, **build)
    show_contents(out, as_json, {"speed": speeds[0].to_json()} if speeds else {})
    if speeds and not as_json:
        typer.echo(f"  speed   {speeds[0]}")


MapsRoot = Annotated[Path, typer.Option(help="Folder of the published arrays: <split>/…")]


@import_saliency_app.command("stl10")
@with_options(IMPORT)
def import_stl10_command(maps: MapsRoot, source: Source, out: Out, **given: Any) -> None:
    """Published maps of STL-10. They are <maps>/<split>/saliency_<split>.npy, one for each image, in order.

    \b
    Example:
      seqjepa-data import-saliency stl10 --maps salmap-stl10/ --source stl10_binary/ --out maps/stl10
    """
    _import("stl10", maps, source, out, **given)


@import_saliency_app.command("imagenet")
@with_options(IMPORT)
def import_imagenet_command(maps: MapsRoot, source: Source, out: Out, **given: Any) -> None:
    """Published maps of ImageNet. They are <maps>/<split>/<wnid>/<stem>-sal.npy or <stem>_sal.npy.

    \b
    Example:
      seqjepa-data import-saliency imagenet --maps saliency/ --source imagenet/ --out maps/in1k --storage log8
    """
    _import("imagenet", maps, source, out, **given)


def _import(kind: str, maps: Path, source: Path, out: Path, as_json: bool, **options: Any) -> None:
    from pipelines.saliency.published import import_saliency
    from pipelines.sources import open_source

    import_saliency(open_source(kind, source), maps, out, **options)
    show_contents(out, as_json)


SCORE: dict[str, Option] = {
    "subjects": option(str | None, "People to score: last8, first7, or names with commas. Default: all."),
    "centre_bias": (CentreBias, None),
    "drop_outside": option(bool, "Leave out fixations that lie outside their image.", False, "--drop-outside"),
    "as_json": (AsJson, False),
}


@with_options(SCORE)
def score_saliency_command(
    maps: Annotated[Path, typer.Option(help="Folder of a set with saliency maps.")],
    fixations: Annotated[Path, typer.Option(help="CSV with columns image, subject, x, y (pixels of the image).")],
    **given: Any,
) -> None:
    """Score saliency maps against recorded fixations. AUC, shuffled AUC, NSS, and bits gained over the centre bias.

    AUC is against all pixels; shuffled AUC against where those people who are not scored looked in other images.

    \b
    Example:
      seqjepa-data score-saliency --maps maps/osie --fixations osie/fixations.csv --subjects last8 --json
    """
    from pipelines.saliency.scoring import score_saliency

    as_json = given.pop("as_json")
    found = score_saliency(maps, fixations, **given, progress=not as_json)
    if as_json:
        print_json(found)
        return
    name = found["model"].get("what") or found["model"].get("model", "unknown model")
    people, images = len(found["subjects"]), found["images"]
    typer.echo(f"{maps} ({name}): {found['fixations']:,} fixations of {people} people on {images} images")
    for metric in ("auc", "sauc", "nss", "ig"):
        typer.echo(f"  {metric:4} {found[metric]:6.3f}")
