"""The list of tables against the matrix of runs of the paper (Tables 1–11), written out here a second time."""

from __future__ import annotations

import re
from itertools import product

import pytest

from seqjepa import recipes
from seqjepa.experiments.paper_runs import find_table, paper_tables, shard_kind_of, shard_kinds
from seqjepa.recipes import load_recipe
from shards.errors import UsageError

EQUIVARIANT = ("sen", "equimod", "sie", "conditional-byol")
INVARIANT = ("simclr", "byol", "vicreg", "vicreg-traj")
PICTURES = ("c100", "tiny")


def matrix() -> dict[str, set[str]]:
    """Blocks of runs as the paper counts them → recipes."""
    blocks = {
        "invariant": {f"{m}-3die" for m in INVARIANT},
        "rotation": {f"{m}-3die-rot" for m in EQUIVARIANT} | {f"3die-rot-M{k}" for k in range(1, 6)},
        "import": {"context-ssl-3die"},
        "rotation and colour": {f"{m}-3die-rotcolour" for m in EQUIVARIANT} | {"3die-rotcolour-M4"},
        "ablations": {
            f"3die-{w}-M3" for w in ("noact", "nopred", "notrans", *(f"adim{d}" for d in (16, 64, 128, 256)))
        },
        "plus": {f"{m}-3die-plus" for m in INVARIANT} | {f"{m}-3die-rot-plus" for m in ("sen", "conditional-byol")},
        "high compute": {"sie-3die-rot-hc", "simclr-3die-hc", "equimod-3die-rot-hc", "3die-hc-M1", "3die-hc-M3"},
        "saccades": {f"stl-pls-M{k}" for k in range(1, 6)}
        | {f"stl-pls-{w}-M4" for w in ("noact", "nosal", "noior")}
        | {"simclr-stl", "conv-jepa-stl-M4"},
        "poster": {f"{m}-stl" for m in ("simclr", "byol", "vicreg", "equimod", "sen", "sie")}
        | {"stl-fullsize-M4", "stl-pls-stdstem-M4"},
    }
    for data in PICTURES:
        conditioned = {f"{m}-{data}-{part}" for m, part in product(EQUIVARIANT, ("all", "crop", "jitter", "blur"))}
        ours = {f"{data}-all-M{k}" for k in range(1, 5)} | {f"{data}-noact-M2"}
        ours |= {f"{data}-{part}-M{k}" for part, k in product(("crop", "jitter", "blur"), (2, 3))}
        blocks[data] = {f"{m}-{data}" for m in INVARIANT} | conditioned | ours
    return blocks


def test_the_tables_and_figures_need_exactly_the_runs_of_the_matrix() -> None:
    listed = {recipe for table in paper_tables().values() for recipe in table.recipes}
    assert listed == set().union(*matrix().values())


def test_every_recipe_is_in_some_table_but_those_of_the_demos_and_of_own_views() -> None:
    others = {"synth-tiny", "saccades-tiny", "cifar-tiny", "views", "views-tiny"}
    assert {recipe for table in paper_tables().values() for recipe in table.recipes} == set(recipes.names()) - others


def test_all_tables_and_figures_of_the_paper_are_there() -> None:
    tables, figures = (f"table-{n}" for n in range(1, 13)), (f"figure-{n}" for n in range(3, 16))
    assert set(paper_tables()) == {*tables, *figures, "poster", "small-reproduction"}
    assert all(len(set(table.recipes)) == len(table.recipes) for table in paper_tables().values())


@pytest.mark.parametrize("number", [1, 2, 3, 4, 7, 8, 11])
def test_a_recipe_whose_first_line_names_a_table_is_listed_there(number: int) -> None:
    said = {name for name, line in recipes.describe_recipes().items() if re.match(rf"Table {number}\b", line)}
    assert said
    assert said <= set(paper_tables()[f"table-{number}"].recipes)


def test_the_numbers_of_rows_are_the_papers() -> None:
    rows = {"table-1": 12, "table-2": 54, "table-3": 6, "table-4": 7, "table-5": 7, "table-7": 5, "table-8": 6}
    rows |= {"table-9": 10, "table-10": 4, "table-11": 5, "table-12": 22, "figure-8": 5, "figure-10": 10}
    assert {name: len(paper_tables()[name].recipes) for name in rows} == rows
    assert paper_tables()["table-4"].seeds == paper_tables()["figure-6"].seeds == 3


def test_every_recipe_is_of_a_kind_that_has_a_suite() -> None:
    kinds = {
        recipe: shard_kind_of(load_recipe(recipe)) for table in paper_tables().values() for recipe in table.recipes
    }
    assert all(shard_kinds()[kind].suite for kind in kinds.values())
    by_name = {"stl": "stl10", "c100": "cifar100", "tiny": "tiny-imagenet", "3die": "3diebench"}
    for recipe, kind in kinds.items():
        token = next(part for part in recipe.split("-") if part in by_name)
        assert kind == by_name[token] + ("-256" if "-hc" in recipe else "")


def test_an_unknown_table_is_said_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'figure-15'"):
        find_table("figrue-15")


def test_figure_4_compares_seq_jepa_with_every_baseline_of_table_1() -> None:
    table_1 = find_table("table-1").recipes
    compared = find_table("figure-4").recipes
    assert compared[0] == "3die-rot-M3"
    assert set(compared) == {r for r in table_1 if not r.startswith(("3die-", "context-ssl"))} | {"3die-rot-M3"}
    assert len(compared) == 9
