"""`seqjepa recipes …`."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated

import typer

from shards.console import AsJson, new_app, print_json
from shards.errors import UsageError

recipes_app = new_app("Settings by name, for each row of the paper's tables.", "seqjepa recipes ls 3die")


@recipes_app.command("ls")
def recipes_ls_command(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WORD]…", help="List only recipes whose names or texts hold every word."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Names of the recipes, with the table row each is for.

    \b
    Examples:
      seqjepa recipes ls
      seqjepa recipes ls sie 3die
      seqjepa recipes ls "table 4"
    """
    from seqjepa.recipes import GROUPS, describe_recipes, group_of

    wanted = [word.lower() for word in words or []]
    found = {
        name: purpose
        for name, purpose in describe_recipes().items()
        if all(word in f"{name} {purpose}".lower() for word in wanted)
    }
    if not found:
        raise UsageError(f"no recipe holds {' and '.join(map(repr, wanted))}; `seqjepa recipes ls` has them all")
    if as_json:
        listed = [{"name": name, "group": group_of(name), "purpose": purpose} for name, purpose in found.items()]
        print_json({"recipes": listed})
        return
    width = max(map(len, found)) + 2
    for group, members in groupby(found, key=group_of):
        typer.echo(f"\n{GROUPS[group]}")
        for name in members:
            typer.echo(f"  {name:{width}}{found[name]}")


@recipes_app.command("cat")
def recipes_cat_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from `recipes ls`, or a TOML file.")],
) -> None:
    """A recipe with every setting spelled out. Save it, change it, pass its path to `seqjepa train --recipe`.

    Example:  seqjepa recipes cat 3die-rot-M3 > mine.toml
    """
    from seqjepa.recipes import find_recipe, load_recipe, to_toml
    from seqjepa.recipes.library import comments_of

    recipe = find_recipe(name)
    file, *bases = recipe.files
    source = f"From {file}" + (f", which extends {', '.join(bases)}." if bases else ".")
    lines = [*recipe.about.splitlines(), *(line for one in recipe.files for line in comments_of(one)), source]
    typer.echo("".join(f"# {line}\n" for line in lines) + f"\n{to_toml(load_recipe(name))}", nl=False)
