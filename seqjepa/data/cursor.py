"""Where a loader stands between two batches, and how that is saved and restored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from seqjepa.data.sequence import ViewSequence
from shards.errors import ConfigError


class Cursor:
    """Position of the next batch, as (epoch, step) with `steps` to an epoch.

    identity: what has to be equal for a position to mean the same, plain numbers and strings.
    """

    def __init__(self, steps: int, identity: dict[str, Any]) -> None:
        self.steps, self.identity = steps, identity
        self.epoch, self.step = 0, 0

    def walk(self, fetch: Callable[[int, int], ViewSequence], epoch: int, start: int) -> Iterator[ViewSequence]:
        """The batches of an epoch from step `start` on. Raises ConfigError if there is no such step."""
        self._check(start)
        for step in range(start, self.steps):
            batch = fetch(epoch, step)
            self.epoch, self.step = following(epoch, step, self.steps)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "step": self.step} | self.identity

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ConfigError saying what differs from the run that saved the state."""
        differences = [
            f"{name} was {state.get(name)!r} and is {value!r}"
            for name, value in self.identity.items()
            if state.get(name) != value
        ]
        if differences:
            raise ConfigError(
                f"cannot resume the data order: {'; '.join(differences)}; use the same settings and shards"
            )
        self._check(state["step"])
        self.epoch, self.step = state["epoch"], state["step"]

    def _check(self, step: int) -> None:
        if not 0 <= step <= self.steps:
            raise ConfigError(f"step is {step}; an epoch has {self.steps} steps")


def following(epoch: int, step: int, steps: int) -> tuple[int, int]:
    """The position after (epoch, step)."""
    return (epoch, step + 1) if step + 1 < steps else (epoch + 1, 0)
