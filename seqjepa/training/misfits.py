"""Whether a shard set can be trained on with some settings, and if not, what to set."""

from __future__ import annotations

from collections.abc import Iterator

from seqjepa.config import DataConfig
from seqjepa.methods.context_ssl import PARAMS as CONTEXT_SSL_PARAMS
from shards.schema import DatasetInfo, ImageSpec, MapSpec, ViewSpec


def misfits(info: DatasetInfo, data: DataConfig, method: str = "") -> Iterator[str]:
    """Everything in which the set contradicts `data` or what the method needs, as ends of the sentence "SHARDS …"."""
    match info.spec:
        case MapSpec():
            yield "holds saliency maps without images; shard the images with them (`seqjepa-data shard --maps`)"
            return
        case ViewSpec():
            yield from _of_views(data)
            if method == "context_ssl" and info.spec.param_names != CONTEXT_SSL_PARAMS:
                found, wanted = ", ".join(info.spec.param_names) or "none", ", ".join(CONTEXT_SSL_PARAMS)
                yield f"holds views with the parameters {found}; context_ssl needs 3DIEBench's: {wanted}"
        case ImageSpec():
            yield from _of_images(info.spec, data)
    yield from _of_size(info.spec, data.image_size)


def _of_views(data: DataConfig) -> Iterator[str]:
    if data.patch:
        yield (
            f"holds stored views, and data.patch = {data.patch} cuts patches out of whole images; set data.patch=0, or "
            "give shards of kind saliency"
        )
    if data.augment != "none":
        yield (
            f"holds stored views, and data.augment = {data.augment!r} augments whole images; set data.augment=none, or "
            "give shards of images"
        )


def _of_images(spec: ImageSpec, data: DataConfig) -> Iterator[str]:
    if not data.patch and data.augment == "none":
        patch = min(32, spec.height, spec.width)
        patches = f"data.patch={patch} and data.action=position (patches at fixations, as the stl-pls recipes)"
        augmented = "data.augment=equimod and data.action=augmentation (augmented images)"
        yield f"holds whole images of {spec.height}×{spec.width}; set {patches} or {augmented}"
    if data.patch and data.fixations == "saliency" and spec.saliency == "none":
        yield (
            "holds images without saliency maps; shard them with maps (`seqjepa-data build-saliency`, then "
            "`seqjepa-data shard --maps`), or set data.fixations=uniform"
        )
    if data.augment != "none" and spec.height != spec.width:
        yield f"holds images of {spec.height}×{spec.width}, and augmented views are square; shard them with --size"
    if data.patch > min(spec.height, spec.width):
        most = min(spec.height, spec.width)
        yield f"holds images of {spec.height}×{spec.width}, smaller than data.patch = {data.patch}; set at most {most}"


def _of_size(spec: ViewSpec | ImageSpec, wanted: int) -> Iterator[str]:
    height, width = spec.height, spec.width
    if wanted and (height, width) != (wanted, wanted):
        things = "views" if isinstance(spec, ViewSpec) else "images"
        any_size = "" if height == width else " (0 for any size)"
        yield (
            f"holds {height}×{width} {things}, the recipe wants {wanted}×{wanted}: shard the data at --size {wanted}, "
            f"or accept these with --set data.image_size={height}{any_size}"
        )
