"""Patches at fixations for runs on augmented whole images, whose position R² stands in Table 3 beside that of runs on
patches ("SimCLR (augmentations)"): the frozen encoder sees pairs of patches, as it does for those runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from seqjepa.data.draws import Purpose
from seqjepa.data.fixations import Fixating
from seqjepa.evaluate.bank import FeatureBank
from seqjepa.evaluate.drawn_views import DrawnViews, Draws, Glances
from seqjepa.evaluate.protocol import Protocol
from seqjepa.training.checkpoint import LoadedRun
from shards.errors import ConfigError
from shards.reader import ShardSet
from shards.schema import ImageSpec

PAPER_PATCH = 32
"""Pixels a side of a patch on STL-10's images of 96 (§A.1)."""
PAIR = 2


@dataclass(frozen=True)
class PatchBanks:
    """z of pairs of patches of both splits, and how these were taken."""

    train: FeatureBank
    val: FeatureBank
    how: Fixating

    def as_json(self) -> dict[str, Any]:
        """For the protocol."""
        return {**asdict(self.how), "train_draws": self.train.runs, "views_per_draw": PAIR}


def patches_for_position(loaded: LoadedRun, stored: ShardSet, patch: int | None) -> Fixating | None:
    """How patches are taken of the images that a run on augmentations is evaluated on; None where they cannot be.

    As the recipes of seq-JEPA on patches take them, with the run's fidelity. Without `patch` those of 32 pixels, where
    they fit. ConfigError: a `patch` that was asked for cannot be had.
    """
    spec = stored.info.spec
    assert isinstance(spec, ImageSpec), "other sets have no images"
    author = loaded.config.fidelity == "author"
    how = Fixating(patch or PAPER_PATCH, "square" if author else "disc", fidelity="author" if author else "paper")
    if spec.saliency == "none":
        if patch is not None:
            raise ConfigError(
                f"{stored.path} holds images without saliency maps, and --patch probes patches at fixations drawn from "
                "maps; build maps and shard the images with them, or leave out --patch"
            )
        return None
    try:
        how.check_size(spec.height, spec.width)
    except ConfigError:
        if patch is not None:
            raise
        return None
    return how


def encode_patches(
    how: Fixating,
    protocol: Protocol,
    mean: Sequence[float],
    count: Callable[[DrawnViews], int],
    encode: Callable[[tuple[DrawnViews, DrawnViews]], tuple[FeatureBank, FeatureBank]],
) -> PatchBanks:
    """count: how many training draws fit; encode: views of both splits → their banks. mean: what fill "mean" is."""

    def drawn(draws: int, purpose: Purpose) -> DrawnViews:
        return Glances(how, Draws(draws, PAIR, protocol.seed, purpose), mean)

    training = drawn(count(drawn(1, Purpose.PROBE)), Purpose.PROBE)
    train, val = encode((training, drawn(protocol.val_draws, Purpose.EVALUATION)))
    return PatchBanks(train, val, how)
