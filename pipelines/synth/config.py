"""What a synthetic set is made from, checked before anything is drawn or written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pipelines.synth.presets import PRESETS
from shards.errors import UsageError
from shards.schema import MAX_VIEWS

SIZES = (16, 1024)


@dataclass(frozen=True)
class SynthConfig:
    """A 3DIE-Synth set. Object i depends on (preset, seed, i) alone; the rest only says how much of it to render.

    objects       how many objects; object i is of family i mod families, so that the classes are balanced
    views         images per object
    size          pixels along a side
    seed          0 … 2^63 − 1
    ood           the validation objects only, under rotations with |α| ∈ [π/2, π] (paper §B.3)
    families      use the first n of the preset's families; None means all
    val_fraction  share of every family's objects that is validation
    device        "cpu" or "cuda[:n]"; the two differ in the last bit of some pixels
    preset        plain or hard: kinds, variation and stage (presets.py)
    """

    objects: int = 384
    views: int = 16
    size: int = 64
    seed: int = 0
    ood: bool = False
    families: int | None = None
    val_fraction: float = 0.2
    device: str = "cpu"
    preset: str = "plain"

    @property
    def family_count(self) -> int:
        return len(PRESETS[self.preset].families) if self.families is None else self.families

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the families in use, by label."""
        return PRESETS[self.preset].class_names(self.family_count)

    def identity(self) -> dict[str, int | float | bool | str]:
        """Everything that decides the pixels, as JSON values without nulls: what a folder is recognised by."""
        values = asdict(self) | {"families": self.family_count, "renderer": RENDERER}
        preset = PRESETS[self.preset]
        del values["preset"]
        if preset.hard:  # folders from before there were presets are plain
            values |= {"preset": preset.name, "preset_version": preset.version}
        return values


# Raised whenever the same configuration would give other pixels, so that a half-made folder is not continued.
RENDERER = 1


def check_config(cfg: SynthConfig) -> None:
    """Raise UsageError, in one line, for the first value that is out of range or a device that is not there."""
    if cfg.preset not in PRESETS:
        raise UsageError(f"preset={cfg.preset!r} is not known; use {' or '.join(PRESETS)}")
    _in_range("families", cfg.family_count, 1, len(PRESETS[cfg.preset].families))
    _in_range("views", cfg.views, 1, MAX_VIEWS)
    _in_range("size", cfg.size, *SIZES)
    _in_range("seed", cfg.seed, 0, 2**63 - 1)
    if cfg.objects < cfg.family_count:
        raise UsageError(
            f"objects={cfg.objects} is fewer than the {cfg.family_count} families; "
            f"ask for at least {cfg.family_count} objects or for fewer families"
        )
    if not 0 <= cfg.val_fraction < 1:
        raise UsageError(f"val_fraction={cfg.val_fraction} is out of range; allowed are 0 ≤ val_fraction < 1")
    _check_device(cfg.device)


def check_ranges(config: object, limits: Mapping[str, tuple[int, int]]) -> None:
    """UsageError: an attribute of `config`, which an option of that name sets, is not from low to high."""
    for name, (low, high) in limits.items():
        if not low <= (value := getattr(config, name)) <= high:
            raise UsageError(f"--{name} {value} is out of range; allowed are {low} to {high}")


def _in_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name}={value} is out of range; allowed are {low} to {high}")


def _check_device(device: str) -> None:
    import torch

    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise UsageError(f"device={device!r} is not known; use 'cpu', 'cuda' or 'cuda:0'")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UsageError(f"device={device!r} is not there (CUDA devices found: {torch.cuda.device_count()}); use 'cpu'")
