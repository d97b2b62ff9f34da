"""`seqjepa-data shard`, `synth`, `build-saliency` …: what each command asks for. Anything heavy is imported inside."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from shards.console import Address, Engine

Command = Callable[..., None]
Option = tuple[Any, Any]  # Annotated type with its help, and the default


def option(kind: Any, told: str, default: Any = None, *names: str, **more: Any) -> Option:
    """An option of this type; told: its help; names, more: as of typer.Option."""
    return Annotated[kind, typer.Option(*names, help=told, **more)], default


ENGINE: dict[str, Option] = {"engine": (Engine, "local"), "address": (Address, None)}


def with_options(options: dict[str, Option], **changes: Any) -> Callable[[Command], Command]:
    """Adds options to a command that takes them as `**given`, in their order; `changes`: other defaults of some.

    With those of ENGINE among them the command runs within that engine, and does not see them.
    """

    def decorate(command: Command) -> Command:
        run = _on_engine(command) if "engine" in options else command
        signature = inspect.signature(command, eval_str=True)
        named = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        for name, (kind, default) in options.items():
            default = changes.get(name, default)
            named.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind))
        run.__signature__ = signature.replace(parameters=named)  # type: ignore[attr-defined]
        return run

    return decorate


def _on_engine(command: Command) -> Command:
    @functools.wraps(command)
    def run(*args: Any, engine: str = "local", address: str | None = None, **given: Any) -> None:
        from shards.engines.ray_engine import engine_of

        with engine_of(engine, address):
            command(*args, **given)

    return run
