"""Which runs each table and figure of the paper needs, and on which kinds of shards (seqjepa/paper/runs.toml)."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from itertools import chain
from typing import Any

from seqjepa.config import RunConfig
from seqjepa.recipes import did_you_mean
from shards.errors import UsageError


@dataclass(frozen=True)
class TableRuns:
    """What one table or figure is made of; the head of runs.toml says what each field means."""

    title: str
    recipes: tuple[str, ...]
    seeds: int = 1
    ood: bool = False
    path: bool = False
    patches: Sequence[int] = ()
    scale: str = "paper"
    note: str = ""


@dataclass(frozen=True)
class Variant:
    """A row of an experiment. method: "" for the name of the row. settings: nested tables, over the method's recipe.

    views_per_step  0: as the scale has it
    """

    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    views_per_step: int = 0


@dataclass(frozen=True)
class ExperimentRuns:
    """What an experiment is made of; the head of runs.toml says what each field means."""

    title: str
    kind: str
    base: str
    methods: Mapping[str, Variant]
    changes: Mapping[str, Mapping[str, Variant]]
    seeds: int = 1
    scale: str = "paper"
    note: str = ""


@dataclass(frozen=True)
class ShardKind:
    """suite: of `seqjepa evaluate`, "" for what no run trains on. made_by: the command that makes such shards."""

    suite: str
    made_by: str


@cache
def paper_tables() -> dict[str, TableRuns]:
    """By name: table-1 … table-12, figure-3 … figure-15, and two that the paper does not have."""
    groups = _file()["groups"]
    return {
        name: TableRuns(**{**table, "recipes": tuple(_expand(table["recipes"], groups))})
        for name, table in _file()["tables"].items()
    }


@cache
def shard_kinds() -> dict[str, ShardKind]:
    """By name, as in `--shards NAME=DIR`."""
    return {name: ShardKind(**kind) for name, kind in _file()["kinds"].items()}


@cache
def paper_experiments() -> dict[str, ExperimentRuns]:
    """By name: what several methods score over lengths of training, and what one change at a time does."""
    return {name: _experiment(**given) for name, given in _file()["experiments"].items()}


def find_table(name: str) -> TableRuns:
    """The runs of a table or figure. UsageError lists the names."""
    known = paper_tables()
    if name not in known:
        words = ("ls", "grid", *paper_experiments(), *known)
        raise UsageError(f"there is no {name!r}{did_you_mean(name, words)}; there are: {', '.join(words)}")
    return known[name]


def shard_kind_of(config: RunConfig) -> str:
    """The kind of shards that a packaged recipe trains on."""
    name = config.data.set
    return "3diebench-256" if name == "3diebench" and config.data.image_size == 256 else name


@cache
def _file() -> dict[str, Any]:
    return tomllib.loads((resources.files("seqjepa") / "paper" / "runs.toml").read_text(encoding="utf-8"))


def _experiment(methods: Mapping[str, Any], changes: Mapping[str, Any], **fields: Any) -> ExperimentRuns:
    base = fields["base"]
    return ExperimentRuns(
        methods={name: Variant(**given) for name, given in methods.items()},
        changes={
            part: {name: Variant(**{"method": base, **given}) for name, given in rows.items()}
            for part, rows in changes.items()
        },
        **fields,
    )


def _expand(recipes: Iterable[str], groups: Mapping[str, list[str]]) -> Iterable[str]:
    """The recipes, with those of a group in the place of "@group"."""
    return chain.from_iterable(
        _expand(groups[name[1:]], groups) if name.startswith("@") else (name,) for name in recipes
    )
