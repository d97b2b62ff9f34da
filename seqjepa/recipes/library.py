"""The packaged recipes: a few TOML files in seqjepa/paper/recipes, each a base, what differs, and axes.

    extends = "3diebench"              a packaged file or recipe, a .toml beside this file, or a list: later ones win
    name = "3die-{variant}-M{data.context}"
    [axes]
    "data.context" = [1, 2, 3]         an axis over the values of a setting …
    [axes.variant]                     … or over named groups of settings
    rot = {}
    noact = { model.condition = "none" }
    [about]                            the recipes of the file by name, and what each is for
    3die-rot-M1 = "Table 1 …"

Combinations of axes that [about] does not name are no recipes; without [about], all of them are. A file without axes is
one recipe, called as the file; a packaged file without [about] is a base for others. What a file says itself goes
before what it extends, and an axis before both. A file inherits axes, but neither `name` nor [about].
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import prod
from pathlib import Path
from typing import Any

from seqjepa.paper.sets import SETS
from shards.errors import ConfigError
from shards.machine.environment import pass_environment_on

Table = dict[str, Any]
MOST_COMBINATIONS = 10_000
MOST_FILES = 100  # that one extends, each as often as it is extended: two bases a file would double with each level
OWN_VIEWS = ("views", "views-tiny")
GROUPS = (
    {"views": "Your own views and actions"}
    | {key: known.group for key, known in SETS.items()}
    | {"minutes": "Synthetic sets, minutes on a CPU"}
)
"""Group of recipes → what they are trained on."""


@dataclass(frozen=True)
class RunRecipe:
    """name; about: what it is for, the row of the paper's tables first; settings: nested, as TOML has them.

    files: the one that holds it, then those that this one extends.
    """

    name: str
    about: str
    settings: Table
    files: tuple[str, ...]

    @property
    def group(self) -> str:
        return self.settings.get("data", {}).get("set", "views" if self.name in OWN_VIEWS else "minutes")


@cache
def packaged() -> Mapping[str, RunRecipe]:
    """Every packaged recipe by name, group by group, sorted within."""
    tables = ((stem, read_packaged(stem)) for stem in _packaged_files())
    found = [recipe for stem, table in tables if "about" in table for recipe in recipes_of(table, stem)]
    order = list(GROUPS)
    return {recipe.name: recipe for recipe in sorted(found, key=lambda r: (order.index(r.group), f"{r.name}.toml"))}


def recipe_named(name: str) -> RunRecipe:
    """ConfigError: there is none of this name; of a file or folder it says what a recipe's file is."""
    known = packaged()
    if name not in known and Path(name).exists():
        raise ConfigError(f"{name} is no recipe: a file of one is TOML, and its name ends in .toml")
    if name not in known:
        raise ConfigError(f"there is no recipe {name!r}{did_you_mean(name, known)}; see `seqjepa recipes ls`")
    return known[name]


def recipe_in(path: Path, name: str = "") -> RunRecipe:
    """A recipe of a user's file; without `name` the only one. ConfigError: unreadable, no TOML, none of that name."""
    table = parse(read_text(path), str(path))
    if not table:
        raise ConfigError(f'{path} holds no settings; write what differs from the paper\'s, as method = "simclr"')
    found = {recipe.name: recipe for recipe in recipes_of(table, path.name.removesuffix(".toml"), path)}
    if name and name not in found:
        raise ConfigError(f"{path} has no recipe {name!r}{did_you_mean(name, found)}; it has: {', '.join(found)}")
    if not name and len(found) != 1:
        raise ConfigError(f"{path} has {len(found)} recipes; give one as {path}:NAME, of {', '.join(found)}")
    return found[name] if name else next(iter(found.values()))


def recipes_of(table: Table, stem: str, path: Path | None = None) -> Iterator[RunRecipe]:
    """The recipes of one file, which is called `stem`. `path`: where it lies, if it is a user's.

    ConfigError: a base that is not there or extends itself, an axis that is no table or that `name` lacks.
    """
    source = str(path or f"{stem}.toml")
    whole = _extended(table, source, path, (os.path.realpath(path) if path else stem,))
    pattern = str(table.get("name", stem))
    axes, files = whole.pop("axes", {}), tuple(whole.pop("extends"))
    if not isinstance(axes, dict) or not all(map(_is_axis, axes.values())):
        raise ConfigError(f"{source}: [axes] holds lists of values and tables of settings")
    if lost := [axis for axis in axes if f"{{{axis}}}" not in pattern]:
        raise ConfigError(f'{source}: name = "{pattern}" has no {{{lost[0]}}}, an axis of this file')
    if axes:
        found = dict(_combinations(whole, pattern, axes, source))
    else:
        found = {pattern: whole | ({"name": table["name"]} if "name" in table else {})}
    about = table.get("about", dict.fromkeys(found, ""))
    if not isinstance(about, dict) or not all(isinstance(text, str) for text in about.values()):
        raise ConfigError(f"{source}: [about] holds names of recipes, each with a text")
    if unknown := [name for name in about if name not in found]:
        raise ConfigError(f"{source}: [about] has {unknown[0]!r}, which no combination of its axes gives")
    for name, text in about.items():
        yield RunRecipe(name, text.strip(), found[name], files)


def _is_axis(axis: object) -> bool:
    if isinstance(axis, dict):
        return bool(axis) and all(isinstance(settings, dict) for settings in axis.values())
    return isinstance(axis, list) and bool(axis)


def _combinations(whole: Table, pattern: str, axes: Mapping[str, Any], source: str) -> Iterator[tuple[str, Table]]:
    """(name, settings) for each choice of one value on every axis."""
    if wrong := [axis for axis in re.findall(r"\{(.*?)\}", pattern) if axis not in axes]:
        raise ConfigError(f"{source}: name has {{{wrong[0]}}}; its axes are: {', '.join(axes) or 'none'}")
    if (many := prod(map(len, axes.values()))) > MOST_COMBINATIONS:
        raise ConfigError(f"{source}: its axes have {many:,} combinations; at most {MOST_COMBINATIONS:,} are recipes")
    choices = [[(axis, value) for value in values] for axis, values in axes.items()]
    for combination in itertools.product(*choices):
        name, settings = pattern, whole
        for axis, value in combination:
            name = name.replace(f"{{{axis}}}", str(value))
            own = axes[axis][value] if isinstance(axes[axis], dict) else table_of(axis, value)
            settings = merge_tables(settings, own)
        yield name, settings


def _extended(table: Table, source: str, path: Path | None, seen: tuple[str, ...]) -> Table:
    """A file's settings and axes over those of the files that it extends, whose names "extends" then lists."""
    bases = table.get("extends", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{source}: extends = {bases!r:.80} should be a name or a list of names")
    whole, files = {}, [source]
    for base in bases:
        found = _base(base, source, path, seen)
        whole, files = merge_tables(whole, found), [*files, *found.get("extends", [base])]
        if len(files) > MOST_FILES:
            raise ConfigError(f"{source}: extends more than {MOST_FILES} files, which extend others; name each once")
    own = {key: value for key, value in table.items() if key not in ("extends", "name", "about")}
    return {**merge_tables(whole, own), "extends": files}


def _base(name: str, source: str, path: Path | None, seen: tuple[str, ...]) -> Table:
    other = (path.parent if path else Path()) / name if name.endswith(".toml") else None
    text = read_text(other) if other else ""
    key = os.path.realpath(other) if other else name
    if key in seen:
        raise ConfigError(f"{source}: extends {name!r}, which extends it in turn")
    if other:
        return _extended(parse(text, str(other)), str(other), other, (*seen, key))
    if name in _packaged_files():
        return _extended(read_packaged(name), f"{name}.toml", None, (*seen, key))
    if path and name in packaged():
        return packaged()[name].settings
    known = [*_packaged_files(), *(packaged() if path else ())]
    raise ConfigError(f"{source}: extends {name!r}, which is not there{did_you_mean(name, known)}")


@cache
def _packaged_files() -> tuple[str, ...]:
    folder = resources.files("seqjepa") / "paper" / "recipes"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def read_packaged(stem: str) -> Table:
    return parse(_packaged_text(f"{stem}.toml"), f"{stem}.toml")


def comments_of(file: str) -> list[str]:
    """The comment at the beginning of a packaged file, line by line; none of any other."""
    if file.removesuffix(".toml") not in _packaged_files():
        return []
    head = itertools.takewhile(lambda line: line.startswith("#"), _packaged_text(file).splitlines())
    return [line.lstrip("# ") for line in head]


def _packaged_text(file: str) -> str:
    return (resources.files("seqjepa") / "paper" / "recipes" / file).read_text(encoding="utf-8")


def read_text(path: Path, what: str = "recipe") -> str:
    """ConfigError: unreadable."""
    try:
        return path.read_text(encoding="utf-8-sig")  # with the mark that Windows' editors put before a text, or without
    except (OSError, ValueError) as error:
        pass_environment_on(error)
        raise ConfigError(f"cannot read the {what} {path}: {getattr(error, 'strerror', error)}") from None


def parse(toml: str, source: str) -> Table:
    """The table that `toml` says. ConfigError, one line, that begins with `source`."""
    try:
        return tomllib.loads(toml)
    except RecursionError:
        raise ConfigError(f"{source} is not TOML of ours: nested too deeply") from None
    except ValueError as error:  # also a number of thousands of digits
        raise ConfigError(f"{source} is not TOML: {str(error).partition(';')[0]}") from None


def merge_tables(base: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    """`base` with the values of `over`, table by table; neither is changed."""
    both = {
        key: merge_tables(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in over.items()
    }
    return {**base, **both}


def table_of(key: str, value: object) -> Table:
    """("a.b", 1) → {"a": {"b": 1}}."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return value  # type: ignore[return-value]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' (did you mean X?)', or nothing where nothing is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
