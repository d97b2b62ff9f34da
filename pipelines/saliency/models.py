"""The saliency models by name, and how one is set up (ModelChoice)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from pipelines.build.options import check_choice, check_counts
from pipelines.saliency.deepgaze_fast import Precision
from shards.errors import UsageError

MODELS = ("deepgaze-iie", "spectral-residual", "centre-bias")
InputScale = Literal["255", "author"]
Pooling = Literal["area", "author"]
Forward = Literal["fast", "package"]


class SaliencyModel(Protocol):
    """`provenance` goes into the metadata of a set and tells two sets of maps apart: strings and numbers, no nulls."""

    name: str
    provenance: dict[str, str | int | float]
    batch_size: int

    def density(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W], RGB, on any device → float32 [B, H', W'] on the model's: probabilities, each sums to 1.

        H', W' are H, W, or `out_size` squared if the model was made with one.
        """
        ...


def pixels_seen(model: SaliencyModel, height: int, width: int) -> int:
    """Of an image H × W, as the model resizes it first."""
    side = getattr(model, "input_size", None)
    return height * width if side is None else height * width * side**2 // min(height, width) ** 2


@dataclass(frozen=True)
class ModelChoice:
    """Which model, and how it is set up: what a worker process needs to make its own.

    out_size     side in pixels of the (square) maps; None: of the image
    input_size   images are resized to this side first; None: as they are. Of DeepGaze only
    precision    of DeepGaze's backbones; None: TF32 on CUDA, else float32
    """

    name: str
    out_size: int | None = None
    input_size: int | None = None
    input_scale: InputScale = "255"
    pooling: Pooling = "area"
    weights: Path | None = None
    centre_bias: Path | None = None
    download: bool = False
    forward: Forward = "fast"
    batch_size: int | None = None
    precision: Precision | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for an unknown name or a value out of range."""
        if self.name not in MODELS:
            raise UsageError(f"model {self.name!r} is not known; allowed are {', '.join(MODELS)}")
        check_choice("input_scale", self.input_scale, get_args(InputScale))
        check_choice("pooling", self.pooling, get_args(Pooling))
        check_choice("forward", self.forward, get_args(Forward))
        check_choice("precision", self.precision, (*get_args(Precision), None))
        if self.precision is not None and self.name != "deepgaze-iie":
            raise UsageError(f"--precision {self.precision} is for deepgaze-iie; leave it out for {self.name}")
        check_counts(out_size=self.out_size, input_size=self.input_size, batch_size=self.batch_size)

    def identity(self) -> dict[str, str | int | None]:
        """What settles the maps, None where it does not apply. The released files are known by their names."""
        deepgaze = self.name == "deepgaze-iie"
        given = {name: getattr(self, name) for name in ("input_size", "input_scale", "pooling", "forward")}
        prior = "MIT1003" if self.centre_bias or self.download else "Gaussian"
        return {
            "model": self.name,
            "out_size": self.out_size,
            **{name: value if deepgaze else None for name, value in given.items()},
            "model_precision": self.precision,  # as the model's own provenance has it, whoever chose it
            "prior": prior if self.name == "centre-bias" else None,
        }

    def build(self, device: torch.device | str) -> SaliencyModel:
        """Raises UsageError where what the model needs is missing or is not what it should be."""
        if self.name == "deepgaze-iie":
            from pipelines.saliency.deepgaze import DeepGazeIIE

            return DeepGazeIIE(device=device, **{name: value for name, value in vars(self).items() if name != "name"})
        from pipelines.saliency.offline_models import CentrePrior, SpectralResidual

        options: dict[str, Any] = {"device": device, "out_size": self.out_size, "batch_size": self.batch_size or 64}
        if self.name == "spectral-residual":
            return SpectralResidual(**options)
        return CentrePrior(template=self.centre_bias, download=self.download, **options)
