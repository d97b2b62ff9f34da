"""What other packages add, by entry points: `[project.entry-points."seqjepa.methods"] mine = "package.module:Mine"`.

Groups: seqjepa.methods (a Method), seqjepa.backbones (as models/backbone.py BACKBONES), seqjepa.loggers (as
training/loggers), seqjepa.sources (a command of `seqjepa-data shard`). Names are listed without importing anything; a
package is imported when one of its names is asked for.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from shards.errors import ConfigError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Group = Literal["seqjepa.methods", "seqjepa.backbones", "seqjepa.loggers", "seqjepa.sources"]


@cache
def _found(group: Group) -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # a tenth of the time that `--help` takes

    return {entry.name: entry for entry in entry_points(group=group)}


def plugin_names(group: Group) -> tuple[str, ...]:
    """What installed packages add to a group, sorted."""
    return tuple(sorted(_found(group)))


def summary_of(group: Group, name: str) -> str:
    """A line about an entry point: its package's name and what the package says of itself."""
    package = _found(group)[name].dist
    return f"{package.metadata['Summary'] or ''} (of {package.name})".lstrip() if package else "(of another package)"


def load_plugin(group: Group, name: str) -> Any:
    """The object that an entry point names. ConfigError, one line, where its package cannot be imported."""
    entry = _found(group)[name]
    try:
        return entry.load()
    except Exception as error:  # whatever a stranger's module raises
        origin = f"{entry.dist.name}'s {entry.value}" if entry.dist else entry.value
        raise ConfigError(f"{group}: {name} ({origin}) cannot be loaded: {type(error).__name__}: {error}") from error
