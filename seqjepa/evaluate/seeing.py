"""How a run sees a set of images: patches or augmentations as in training, and how their pixels are normalised.

What does not fit together is said here.
"""

from __future__ import annotations

from dataclasses import replace

from seqjepa.data.augment.recipes import build_recipe
from seqjepa.data.augmented import Augmenting
from seqjepa.data.fixations import Fixating
from seqjepa.data.normalisation import NORMALISATIONS, explicit
from seqjepa.evaluate.encode import PixelStats
from seqjepa.training.checkpoint import LoadedRun
from seqjepa.training.data import pixel_stats
from shards.errors import ConfigError
from shards.reader import ImageIndex, ShardSet
from shards.schema import ImageSpec


def how_seen(loaded: LoadedRun, stored: ShardSet, index: ImageIndex, patch: int | None) -> Fixating | Augmenting:
    """As in training, of patches with another size if `patch` is given. ConfigError where such views cannot be had."""
    spec = stored.info.spec
    assert isinstance(spec, ImageSpec), "other sets have no images"
    if loaded.data.augment != "none":
        return _augmenting(loaded, stored, index)
    return _fixating(loaded, stored, spec, patch)


def _augmenting(loaded: LoadedRun, stored: ShardSet, index: ImageIndex) -> Augmenting:
    data = loaded.data
    found, wanted = (index.height, index.width), (data.image_height, data.image_width)
    if found != wanted:
        raise ConfigError(
            f"{stored.path} holds images of {found[0]}×{found[1]}, the run was trained on {wanted[0]}×{wanted[1]}; "
            "evaluate on shards of the same size"
        )
    scaling = "author" if loaded.config.fidelity == "author" else "zscore"
    return Augmenting.of(index, build_recipe(data.augment), data.action, scaling)


def _fixating(loaded: LoadedRun, stored: ShardSet, spec: ImageSpec, patch: int | None) -> Fixating:
    data = loaded.data
    if data.action != "position" or not (data.patch or patch):
        raise ConfigError(
            f"{stored.path} holds whole images, the run was trained on stored views with actions of kind "
            f"{data.action!r}; evaluate on `views` shards"
            + (", or give the side of its patches with --patch" if data.action == "position" else "")
        )
    how = Fixating(**data.fixating)
    how = replace(how, patch=patch) if patch is not None else how
    how.check_size(spec.height, spec.width)
    if spec.saliency == "none" and how.fixations == "saliency":
        raise ConfigError(
            f"{stored.path} holds images without saliency maps, the run's fixations are drawn from maps; "
            "build maps and shard the images with them"
        )
    return how


def usual_normalisation(stored: ShardSet, transfer: bool) -> str:
    """The run's constants on the images of its training, those of the set where it sees others (Figure 15)."""
    if not transfer:
        return "run"
    return "imagenet" if stored.info.name.startswith("imagenet") else "shards"


def statistics(loaded: LoadedRun, stored: ShardSet, name: str) -> PixelStats:
    """ "run", "shards" or a name in NORMALISATIONS → constants. ConfigError for other names."""
    if name == "run":
        return tuple(loaded.data.mean), tuple(loaded.data.std)
    name = explicit(name, loaded.config.fidelity)
    if name not in (known := ("shards", *NORMALISATIONS)):
        raise ConfigError(f"normalisation is {name!r}; choose one of run, {', '.join(known)}")
    data = loaded.config.data.model_copy(update={"normalisation": name})
    return pixel_stats(stored.info, loaded.config.model_copy(update={"data": data}))
