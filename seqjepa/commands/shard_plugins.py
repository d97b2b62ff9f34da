"""`seqjepa-data shard NAME` of other packages: entry points of seqjepa.sources, each a function with typer parameters.

The help lists them by what their packages say of themselves; a package is imported when its command is called.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

from seqjepa.plugins import load_plugin, plugin_names, summary_of
from shards.console import OneLineErrors
from shards.errors import ConfigError


class ShardCommands(OneLineErrors):
    """Our own sources, then those of other packages; a name of ours stays ours."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(dict.fromkeys((*super().list_commands(ctx), *plugin_names("seqjepa.sources"))))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        ours = super().get_command(ctx, cmd_name)
        return LoadedWhenCalled(cmd_name) if ours is None and cmd_name in plugin_names("seqjepa.sources") else ours


class LoadedWhenCalled(TyperCommand):
    """A line of the help; everything else is the command of the package, `--help` too."""

    def __init__(self, name: str) -> None:
        super().__init__(name, help=summary_of("seqjepa.sources", name), rich_markup_mode=None)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        assert self.name
        return plugin_command(self.name).make_context(info_name, args, parent, **extra)


def plugin_command(name: str) -> Any:
    """The command of an entry point. ConfigError: its package cannot be loaded, or it is no function."""
    function = load_plugin("seqjepa.sources", name)
    if not callable(function) or isinstance(function, type | typer.Typer):
        raise ConfigError(f"seqjepa.sources: {name} is {function!r:.80}; a function with typer parameters is needed")
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name)(function)
    return typer.main.get_command(app)
