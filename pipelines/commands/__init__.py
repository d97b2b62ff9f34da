"""`seqjepa-data shard`, `synth`, `build-saliency` …: what each command asks for. Anything heavy is imported inside."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

Command = Callable[..., None]
Option = tuple[Any, Any]  # Annotated type with its help, and the default


def with_options(options: dict[str, Option], **changes: Any) -> Callable[[Command], Command]:
    """Adds options to a command that takes them as `**given`, in their order; `changes`: other defaults of some."""

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        named = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        for name, (kind, default) in options.items():
            default = changes.get(name, default)
            named.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind))
        command.__signature__ = signature.replace(parameters=named)  # type: ignore[attr-defined]
        return command

    return decorate
