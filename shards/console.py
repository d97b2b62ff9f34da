"""What every command shares: errors in one line, the options that mean the same everywhere. Imports typer only."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from shards.errors import SeqJepaError

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write; made if missing, resumed if it is ours.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what an earlier, different run of ours wrote there.")
]
Workers = Annotated[int | None, typer.Option(min=0, help="Worker processes. Default: one for each usable core.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Shards = Annotated[Path, typer.Option("--shards", help="Folder of a shard set.")]
ShardFolder = Annotated[Path, typer.Argument(help="Folder of a shard set.", metavar="DIR")]


OF_PATHS = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.ENOENT, errno.EROFS, errno.ELOOP)
"""What is wrong with a path that was given, rather than with a disk."""


class OneLineErrors(TyperGroup):
    """Prints a SeqJepaError, or a path that cannot be used, as one line and exits with its code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SeqJepaError as error:
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            if error.errno not in OF_PATHS or error.filename is None:
                raise
            typer.echo(f"error: cannot use {error.filename}: {error.strerror}; give another path", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("stopped; what is finished is kept, and the same command goes on from there", err=True)
            raise typer.Exit(130) from None


def new_app(help_text: str) -> typer.Typer:
    return typer.Typer(
        cls=OneLineErrors,
        help=help_text,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, sort_keys=False, default=str))


def show_contents(folder: Path, as_json: bool) -> None:
    """What `info` prints, which is also what a build ends with."""
    from shards.describe import describe
    from shards.summary import summarise

    contents = describe(folder)
    if as_json:
        print_json(contents)
    else:
        typer.echo(summarise(contents))
