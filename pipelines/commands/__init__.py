"""`seqjepa-data shard`, `synth`, `build-saliency` …: what each command asks for. Anything heavy is imported inside."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from shards.console import Address, Engine, Option, add_options

Command = Callable[..., None]
ENGINE: dict[str, Option] = {"engine": (Engine, "local"), "address": (Address, None)}


def with_options(options: dict[str, Option], **changes: Any) -> Callable[[Command], Command]:
    """Adds options to a command that takes them as `**given`, in their order; `changes`: other defaults of some.

    With those of ENGINE among them the command runs within that engine, and does not see them.
    """

    def decorate(command: Command) -> Command:
        run = _on_engine(command) if "engine" in options else command
        add_options(run, command, {name: (kind, changes.get(name, of)) for name, (kind, of) in options.items()})
        return run

    return decorate


def _on_engine(command: Command) -> Command:
    @functools.wraps(command)
    def run(*args: Any, engine: str = "local", address: str | None = None, **given: Any) -> None:
        from shards.engines.ray_engine import engine_of

        with engine_of(engine, address):
            command(*args, **given)

    return run
