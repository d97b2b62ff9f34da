"""Recipes name a run in TOML: found in library.py, overridden with `--set a.b=c` and validated here.

A recipe writes only what differs from the defaults of config.py, which are the paper's (§3.2, §A.2).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ValidationError

from seqjepa.config import RunConfig
from seqjepa.paper.sets import explicit_normalisation, set_by_normalisation
from seqjepa.recipes.library import GROUPS as GROUPS
from seqjepa.recipes.library import (
    RunRecipe,
    Table,
    did_you_mean,
    merge_tables,
    packaged,
    parse,
    read_text,
    recipe_in,
    recipe_named,
)
from shards.errors import ConfigError

# docs/fidelity.md #1, #2: both released scripts re-assign lr before every epoch; the one for stored and augmented views
# ignores its optimizer flags too, the one for saccades does not, but inhibits a square (#8).
_CONSTANT_LR: Table = {"schedule": "constant", "lr_update": "epoch"}
AUTHOR_VIEWS: Mapping[str, Table] = {"optim": {"optimizer": "adam", "weight_decay": 0.0, **_CONSTANT_LR}}
AUTHOR_SACCADES: Mapping[str, Table] = {"optim": _CONSTANT_LR, "data": {"inhibition": "square"}}

OF_RESNETS = ("model.width", "model.stem")


def chooses_timm(overrides: Iterable[str]) -> bool:
    """Whether `KEY=VALUE` settings give an encoder of timm, whose like ResNets' width and stem are not."""
    given = {key.strip(): value for key, _, value in (text.partition("=") for text in overrides)}
    return given.get("model.backbone", "").strip(" \"'").startswith("timm:")


def names() -> list[str]:
    """Names of the packaged recipes, group by group."""
    return list(packaged())


def group_of(name: str) -> str:
    """What a packaged recipe is trained on, one of GROUPS."""
    return recipe_named(name).group


def describe_recipes() -> dict[str, str]:
    """Name → the first line about it: the row of the paper's tables that it is for."""
    return {name: recipe.about.partition("\n")[0] for name, recipe in packaged().items()}


def find_recipe(recipe: str | Path) -> RunRecipe:
    """A packaged recipe by name, or a user's: "FILE.toml", one of several "FILE.toml:NAME". ConfigError: none such."""
    path, ends, name = str(recipe).rpartition(".toml")
    if ends and (not name or name.startswith(":")):
        return recipe_in(Path(path + ends), name.removeprefix(":"))
    return recipe_named(str(recipe))


def load_recipe(recipe: str | Path = "", overrides: Sequence[str] = ()) -> RunConfig:
    """A recipe (none: the defaults) with `a.b=c` overrides applied in order, validated.

    Values after `=` are TOML; what is not TOML is taken as a string, so that `model.backbone=resnet34` works. Where one
    chooses an encoder of timm, what was set before of ResNets (width, stem) falls away.
    Raises ConfigError with every mistake in one line.
    """
    table: Table = {}
    if recipe:
        found = find_recipe(recipe)
        # Sections are copied, since overrides write into them; a deep copy would end at 1000 levels of a file.
        sections = {key: dict(value) if isinstance(value, dict) else value for key, value in found.settings.items()}
        table = {"name": found.name, **sections}
    mistakes = [m for m in (_override(table, o) for o in overrides) if m]
    if mistakes:
        raise ConfigError("; ".join(mistakes))
    return resolve(table, source=str(recipe) or "the options")


def resolve(table: Table, source: str) -> RunConfig:
    """Validate a nested table. Author fidelity brings what the released scripts do, except for keys that are given."""
    if table.get("fidelity") == "author":
        table = _as_released(table)
    table = _with_named_constants(table)
    try:
        return RunConfig.model_validate(table)
    except ValidationError as error:
        raise ConfigError(f"{source}: {mistakes(error)}") from None


def to_toml(config: RunConfig) -> str:
    """Every setting of a run spelled out; `load_recipe` of it gives an equal configuration."""
    return tomli_w.dumps(config.model_dump())


def read_config(path: Path) -> RunConfig:
    """The resolved config.toml of a run directory. ConfigError: unreadable, or empty, which is not "all defaults"."""
    table = parse(read_text(path), str(path))
    if not table:
        raise ConfigError(f"{path} is empty, though it was written with every setting: restore it, or train anew")
    return resolve(_with_set(table), source=str(path))


def flatten(table: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """{"a": {"b": 1}} → {"a.b": 1}."""
    flat: dict[str, object] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _with_set(table: Table) -> Table:
    """With data.set, which runs of before did not note: told by the constants that they normalise with."""
    data = table.get("data", {})
    normalisation = data.get("normalisation", "") if isinstance(data, dict) else ""
    return merge_tables({"data": {"set": set_by_normalisation(str(normalisation))}}, table)


def _as_released(table: Table) -> Table:
    data = table.get("data", {})
    saccades = isinstance(data, dict) and (data.get("action") == "position" or data.get("patch"))
    return merge_tables(AUTHOR_SACCADES if saccades else AUTHOR_VIEWS, table)


def _with_named_constants(table: Table) -> Table:
    """data.normalisation by the name that means the same under any fidelity."""
    data = table.get("data", {})
    if not isinstance(data, dict) or not isinstance(name := data.get("normalisation"), str):
        return table
    named = explicit_normalisation(name, str(table.get("fidelity", "paper")))
    return merge_tables(table, {"data": {"normalisation": named}})


def _override(table: Table, assignment: str) -> str | None:
    """Write one `a.b=c` into `table`; returns what is wrong with it, if anything."""
    key, equals, value = assignment.partition("=")
    *parents, last = key.strip().split(".")
    if not equals or not last:
        return f"--set {assignment!r} has no value; write it as optim.lr=1e-4"
    for name in parents:
        child = table.setdefault(name, {})
        if not isinstance(child, dict):
            return f"--set {key}: {name} holds a value, not a table"
        table = child
    table[last] = toml_value(value.strip())
    if chooses_timm([assignment]):
        for name in OF_RESNETS:
            table.pop(name.removeprefix("model."), None)
    return None


def toml_value(value: str) -> object:
    """What stands after `=`, as TOML; a string where it is none."""
    try:
        parsed = tomllib.loads(f"v = {value}")
    except (ValueError, RecursionError):
        return value
    return parsed["v"] if list(parsed) == ["v"] else value


def mistakes(error: ValidationError, root: type[BaseModel] = RunConfig, prefix: str = "") -> str:
    """Validation errors in words. root: what was validated; prefix: of its keys."""
    return "; ".join(_explain(one, root, prefix) for one in error.errors())


OUR_WORDS = {
    "tuple_type": "should be a list in brackets",
    "model_type": "should be a table of settings",
    "string_pattern_mismatch": "should be the name of a folder: no slash, no dot in front, nothing that is not printed",
}
"""Types of pydantic's errors → what is said in the place of its message, which speaks of Python."""


def _explain(error: Mapping, root: type[BaseModel], prefix: str) -> str:
    """One of them: the key, what was found, what is allowed."""
    if not error["loc"]:
        return str(error["ctx"]["error"])  # of config.contradictions
    path = prefix + ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        parent, last = error["loc"][:-1], str(error["loc"][-1])
        allowed = list(_section(root, parent).model_fields)
        meant = _elsewhere(last, root) or did_you_mean(last, allowed)
        return f"unknown key {path}{meant}, allowed here: {', '.join(allowed) or 'none'}"
    message = OUR_WORDS.get(error["type"]) or str(error["msg"]).replace("Input should be", "should be")
    return f"{path} = {error['input']!r} {message}"


def _elsewhere(key: str, root: type[BaseModel]) -> str:
    """The same key where it is one, as of `lr` for `optim.lr`; "" where it is none anywhere."""
    sections = {name: field.annotation for name, field in root.model_fields.items()}
    kinds = {name: kind for name, kind in sections.items() if isinstance(kind, type)}
    found = [f"'{name}.{key}'" for name, kind in kinds.items() if key in getattr(kind, "model_fields", ())]
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def _section(section: Any, loc: Sequence[object]) -> type[BaseModel]:
    """The class of the table at `loc`; of tables by any name, that of each."""
    for name in loc:
        section = get_args(section)[1] if get_origin(section) is dict else section.model_fields[str(name)].annotation
    return section
