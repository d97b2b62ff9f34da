"""What the three loaders have in common: endless epochs of batches, and a position that is saved and restored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Self

from seqjepa.data.sequence import ViewSequence
from shards.errors import ConfigError


class Epochs(ABC):
    """Epochs of `steps` batches, beginning at the position (epoch, step) of the next one.

    identity: what has to be equal for a position to mean the same, plain numbers and strings.
    """

    def __init__(self, steps: int, identity: dict[str, Any]) -> None:
        self._steps, self._identity = steps, identity
        self._epoch, self._step = 0, 0

    @abstractmethod
    def _batch(self, epoch: int, step: int) -> ViewSequence:
        """That batch."""

    @abstractmethod
    def close(self) -> None:
        """End the worker processes and let go of what they filled. Asking for another batch starts anew."""

    def __len__(self) -> int:
        """Batches per epoch, the same on every rank."""
        return self._steps

    def __iter__(self) -> Iterator[ViewSequence]:
        """The rest of the current epoch; the next call gives the next epoch."""
        return self.epoch(self._epoch, self._step)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[ViewSequence]:
        """The batches of an epoch from start_step on. Raises ConfigError if there is no such step."""
        self._check(start_step)
        for step in range(start_step, self._steps):
            batch = self._batch(epoch, step)
            self._epoch, self._step = following(epoch, step, self._steps)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Position of the next batch, and what has to be equal for it to mean the same. Plain numbers and strings."""
        return {"epoch": self._epoch, "step": self._step} | self._identity

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a position. Raises ConfigError saying what differs from the run that saved it."""
        differences = [
            f"{name} was {state.get(name)!r} and is {value!r}"
            for name, value in self._identity.items()
            if state.get(name) != value
        ]
        if differences:
            raise ConfigError(
                f"cannot resume the data order: {'; '.join(differences)}; use the same settings and shards"
            )
        self._check(state["step"])
        self._epoch, self._step = state["epoch"], state["step"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, step: int) -> None:
        if not 0 <= step <= self._steps:
            raise ConfigError(f"step is {step}; an epoch has {self._steps} steps")


def following(epoch: int, step: int, steps: int) -> tuple[int, int]:
    """The position after (epoch, step)."""
    return (epoch, step + 1) if step + 1 < steps else (epoch + 1, 0)
