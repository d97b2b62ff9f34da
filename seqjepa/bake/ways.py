"""The two ways in which images become sequences, behind one interface: patches at fixations, and augmentations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from seqjepa.data.actions import AUGMENTATION_FIELDS
from seqjepa.data.augment.recipes import RECIPES, Recipe
from seqjepa.data.augmented import Augmenting, augmented
from seqjepa.data.fixations import Fixating
from seqjepa.data.images import ImageBatch
from seqjepa.data.patches import POSITION_NAMES
from seqjepa.data.saccades import check_fixating, look
from shards.errors import ConfigError
from shards.schema import ParamField

if TYPE_CHECKING:
    from shards.reader import ImageIndex, ShardSet


class Way(Protocol):
    """How the images of one set become sequences of views."""

    @property
    def side(self) -> int:
        """Pixels a side of a view."""
        ...

    @property
    def params(self) -> tuple[ParamField, ...]:
        """The P parameters of a view."""
        ...

    @property
    def maps(self) -> bool:
        """Whether saliency maps are read."""
        ...

    def make(self, batch: ImageBatch, views: int, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        """What the loader makes in one epoch: uint8 [B, T, 3, s, s] and float32 [B, T, P], T = `views`."""
        ...

    def record(self) -> dict[str, Any]:
        """What determines the views, and what training on them needs to know: JSON values without nulls."""
        ...


def way_of(how: Fixating | Recipe, source: ShardSet, indices: Sequence[ImageIndex]) -> Way:
    """ConfigError where the images (of `source`, the splits `indices`) cannot be seen that way."""
    if isinstance(how, Recipe):
        return _Augmented(Augmenting.of(indices[0], how, "augmentation"))
    if (how.fidelity, how.fill) == ("author", "mean"):
        raise ConfigError(
            "the released patches over the mean are fractions, which a set of 8-bit views cannot hold; "
            "use fill black, or fidelity paper"
        )
    for index in indices:
        check_fixating(index, how)
    return _Fixated(how, tuple(source.info.normalisation["mean"]))


@dataclass(frozen=True)
class _Fixated:
    """mean  per channel, in [0, 1]: what is outside the image where fixating.fill is "mean"."""

    fixating: Fixating
    mean: tuple[float, ...]
    params = tuple(ParamField(name, "1") for name in POSITION_NAMES)

    @property
    def side(self) -> int:
        return self.fixating.patch

    @property
    def maps(self) -> bool:
        return self.fixating.fixations == "saliency"

    def make(self, batch: ImageBatch, views: int, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        return look(batch, self.fixating, views, seed, epoch, self.mean)

    def record(self) -> dict[str, Any]:
        return {"fixating": asdict(self.fixating)}


@dataclass(frozen=True)
class _Augmented:
    augmenting: Augmenting
    params = AUGMENTATION_FIELDS
    maps = False

    @property
    def side(self) -> int:
        return self.augmenting.size

    def make(self, batch: ImageBatch, views: int, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        made = augmented(batch, self.augmenting, views, seed, epoch)
        return made.views, made.params

    def record(self) -> dict[str, Any]:
        recipe, scaling = self.augmenting.recipe, self.augmenting.scaling
        assert scaling is not None, "Augmenting.of() gives z-scores their constants"
        name = next((name for name, known in RECIPES.items() if known == recipe), "custom")
        pipelines = {
            which: {field: value for field, value in values.items() if value is not None}
            for which, values in asdict(recipe).items()
        }
        return {"augmenting": {"recipe": name, **pipelines, "scaling": scaling.as_json()}}
