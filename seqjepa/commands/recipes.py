"""`seqjepa recipes …`."""

from __future__ import annotations

from typing import Annotated

import typer

from shards.console import new_app

recipes_app = new_app("The recipes that come with the package, one for each row of the paper's tables.")


@recipes_app.command("ls")
def recipes_ls_command() -> None:
    """Names of the recipes, with the table row each is for."""
    from seqjepa.recipes import describe_recipes

    for name, purpose in describe_recipes().items():
        typer.echo(f"{name:24}{purpose}")


@recipes_app.command("cat")
def recipes_cat_command(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """A recipe with every setting spelled out. Save it, change it, pass its path to `seqjepa train --recipe`.

    Example:  seqjepa recipes cat 3die-rot-M3 > mine.toml
    """
    from seqjepa.recipes import load_recipe, text, to_toml

    comment = [line for line in text(name).splitlines(keepends=True) if line.startswith("#")]
    typer.echo("".join(comment) + "\n" + to_toml(load_recipe(name)), nl=False)
