"""What every command shares: errors in one line, the options that mean the same everywhere. Imports typer only."""

from __future__ import annotations

import errno
import functools
import inspect
import json
import logging
import os
import re
import shlex
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from shards.errors import SeqJepaError, UsageError
from shards.extras import OPENCV_LIBRARIES, SYSTEM_LIBRARY
from shards.machine.environment import describe_error, raise_file_limit, torch_out_of_memory, usable_cores
from shards.machine.terminal import finish, is_broken_pipe, prepare_streams, silence, warn

OUT = "Folder to write. Interrupted, the same command goes on where it was."
Out = Annotated[Path, typer.Option("--out", "-o", help=OUT)]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what seqjepa made there of other data or options.")
]


def bounded_workers(asked: int | None) -> int | None:
    """No more processes than help: four for each usable core, 16 at least. What is asked beyond is said, not done."""
    cores = usable_cores()
    most = max(16, 4 * cores)
    if asked is None or asked <= most:
        return asked
    warn(f"--workers {asked}: this machine has {cores} usable cores; going on with {most} workers")
    return most


Workers = Annotated[
    int | None,
    typer.Option(min=0, callback=bounded_workers, help="Worker processes. Default: one for each usable core."),
]
Engine = Annotated[str, typer.Option(help="local, or ray: the nodes of a Ray cluster do the work.")]
EngineOrArray = Annotated[
    str, typer.Option(help="local; ray: on the nodes of a Ray cluster; slurm: write the script of a job array.")
]
Script = Annotated[Path | None, typer.Option(metavar="FILE", help="--engine slurm: the sbatch script to write.")]
Address = Annotated[
    str | None,
    typer.Option(
        help="Address of a running Ray cluster, HOST:PORT or auto. Default: RAY_ADDRESS, else a new cluster here."
    ),
]
TaskIndex = Annotated[int | None, typer.Option(min=0, help="Number of this command among --num-tasks, from 0.")]
NumTasks = Annotated[
    int | None, typer.Option(min=1, help="How many commands share the work, e.g. the size of a Slurm array.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Shards = Annotated[Path, typer.Option("--shards", help="Folder of a shard set, or its address, as s3://bucket/set.")]
ShardFolder = Annotated[
    Path, typer.Argument(help="Folder of a shard set, or its address, as s3://bucket/set.", metavar="DIR")
]

Option = tuple[Any, Any]  # Annotated type with its help, and the default


def option(kind: Any, told: str, default: Any = None, *names: str, **more: Any) -> Option:
    """An option of this type; told: its help; names, more: as of typer.Option."""
    return Annotated[kind, typer.Option(*names, help=told, **more)], default


def add_options(run: Callable[..., Any], command: Callable[..., Any], options: dict[str, Option]) -> None:
    """`run`, which calls `command`, has its parameters and these options; `command` takes them as `**given`."""
    signature = inspect.signature(command, eval_str=True)
    named = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    for name, (kind, default) in options.items():
        named.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind))
    vars(run)["__signature__"] = signature.replace(parameters=named)


CACHE: dict[str, Option] = {
    "cache": option(
        str | None,
        "Folder for copies of sets that are read from an address. Default: SEQJEPA_CACHE, or ~/.cache/seqjepa/shards.",
        metavar="DIR",
    ),
    "cache_size": option(
        str | None,
        "Most that it may hold, as 200GB. Default: SEQJEPA_CACHE_SIZE, or half of what is free.",
        metavar="SIZE",
    ),
}


def takes_sets(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with --cache and --cache-size, which stand for environment variables: processes inherit them."""

    @functools.wraps(command)
    def with_cache(*args: Any, **kwargs: Any) -> Any:
        given = {f"SEQJEPA_{name.upper()}": kwargs.pop(name) for name in CACHE}
        if (size := given["SEQJEPA_CACHE_SIZE"]) is not None:  # also where no set comes from a store: the next one may
            from shards.stores.cache_room import parse_size

            parse_size(size)
        before = {variable: os.environ.get(variable) for variable in given}
        os.environ.update({variable: str(value) for variable, value in given.items() if value is not None})
        try:
            return command(*args, **kwargs)
        finally:
            for variable, value in before.items():
                os.environ.pop(variable, None) if value is None else os.environ.update({variable: value})

    add_options(with_cache, command, CACHE)
    return with_cache


log = logging.getLogger(__name__)

OF_PATHS = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.ENOENT, errno.EROFS, errno.ELOOP)
"""What is wrong with a path that was given, rather than with a disk."""


def _folded(line: str, width: int) -> str:
    """An example of a help within this width, which a shell still takes as one command: it breaks before options."""
    if len(line) <= width:
        return line
    whole = re.sub(r" (?!--?[a-z])", "\0", line.strip())
    lines = textwrap.wrap(
        whole,
        width - 2,
        initial_indent="    ",
        subsequent_indent=" " * 8,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return " \\\n".join(lines).replace("\0", " ")


def _fitted(text: str, width: int) -> str:
    """A help whose examples, the only lines that are not wrapped, fit the terminal too."""
    return "\n".join(_folded(line, width) for line in re.sub(r" \\\n +", " ", text).split("\n"))


APPS: dict[str, typer.Typer] = {}
"""What can be started from a shell, by name: who asks one for a command of another is told."""


class OneLineErrors(TyperGroup):
    """Prints what went wrong as one line and exits with its code; a reader that has gone (`| head`) ends it quietly."""

    def main(self, args: Sequence[str] | None = None, **kwargs: Any) -> Any:
        prepare_streams()
        raise_file_limit()
        given = [_at_home(arg) for arg in (sys.argv[1:] if args is None else args)]
        _refuse_empty(given)
        try:
            return super().main(given, **kwargs)
        except OSError as error:  # of the help, which is printed before a command is invoked
            raise SystemExit(_say(error)) from None
        finally:
            if (error := finish(sys.stdout)) and not is_broken_pipe(error):
                warn(f"error: cannot write to standard output: {describe_error(error)}")
                raise SystemExit(1) from None

    def get_help(self, ctx: Any) -> str:
        return _fitted(super().get_help(ctx), ctx.make_formatter().width)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if ctx.parent is None and self.get_command(ctx, args[0]) is None:
            for name, app in APPS.items():
                if args[0] in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
                    raise UsageError(f"{args[0]} is a command of {name}: give `{name} {shlex.join(args)}`")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (SeqJepaError, OSError, MemoryError, RecursionError, UnicodeError) as error:
            raise typer.Exit(_say(error)) from None
        except ImportError as error:
            if SYSTEM_LIBRARY not in str(error):
                raise
            raise typer.Exit(_say(error)) from None
        except RuntimeError as error:
            if not torch_out_of_memory(error):
                raise
            raise typer.Exit(_say(error)) from None
        except KeyboardInterrupt:
            warn("stopped; what is finished is kept, and the same command goes on from there")
            raise typer.Exit(130) from None


def _at_home(argument: str) -> str:
    """With ~ as the home folder, also where no shell puts it there (`--out=~/x`): a folder called ~ is a trap."""
    begin, home, rest = re.fullmatch(r"((?:[\w.-]+=)?)(~(?=/|$)|)(.*)", argument, re.DOTALL).groups()  # type: ignore[union-attr]
    return begin + os.path.expanduser(home) + rest


def _refuse_empty(args: Sequence[str]) -> None:
    """SystemExit: `--source "$PHOTOS"` of a variable that is not set would be the folder one stands in."""
    for before, arg in zip(("", *args), args, strict=False):
        if not arg or re.fullmatch("--[a-z-]+=", arg):
            option = arg.rstrip("=") or (before if before.startswith("-") else "an argument")
            warn(f"error: {option} is empty; is a variable of the shell not set?")
            raise SystemExit(2)


def _say(error: Exception) -> int:
    """Prints the line; the exit code."""
    line, code = _line(error)
    if not isinstance(error, SeqJepaError):
        log.info("%s", type(error).__name__, exc_info=error)
    if line:
        warn(f"error: {' '.join(line.split())}")
    return code


def _line(error: Exception) -> tuple[str, int]:
    if isinstance(error, SeqJepaError):
        return str(error), error.exit_code
    if isinstance(error, MemoryError):
        return describe_error(error), 1
    if isinstance(error, ImportError):
        names = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        cure = OPENCV_LIBRARIES if any("cv2" in name for name in names) else "install it with the system's packages"
        return f"a library of the system is missing: {error}; {cure}", 1
    if isinstance(error, RecursionError):
        return "what was read is nested too deeply to be anything of ours; restore it from a copy", 2
    if isinstance(error, RuntimeError):
        return torch_out_of_memory(error), 1
    if isinstance(error, UnicodeError):
        return f"a name or text is not UTF-8 ({error}); rename or repair it", 2
    assert isinstance(error, OSError)
    if is_broken_pipe(error):
        silence(sys.stdout)
        return "", 1
    printing = traceback.extract_tb(error.__traceback__)[-1].name in (typer.echo.__name__, "flush")
    if error.filename is None and printing:
        silence(sys.stdout)
        return f"cannot write to standard output: {describe_error(error)}", 1
    if error.errno in OF_PATHS and error.filename is not None:
        return f"cannot use {error.filename}: {error.strerror}; give another path", 2
    return describe_error(error), 1


DATA = ("source", "shards", "maps", "images", "out")


PLACEHOLDERS = {"int": "N", "float": "X", "Path": "PATH"}
"""Of an option's value in the help, by its type; of all others TEXT."""


class OneOfData(TyperCommand):
    """Refuses --source a --source b, of which the last would be taken and the other one forgotten.

    Values stand as N, X, PATH or TEXT in its help, where typer writes <int range> or <list[str]>; arguments as they are
    named, where typer writes {RUN} and RUN <path>.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for param in self.params:
            told = getattr(param, "bare_type", None)  # of typer's own parameters
            if told and param.metavar is None and not getattr(param, "is_flag", False):
                param.metavar = PLACEHOLDERS.get(re.sub(r"list\[|\]", "", told()), "TEXT")
            if param.param_type_name == "argument":
                named = param.metavar
                vars(param).update(_usage_display_name=lambda named=named: named, display_type_rich=lambda ctx: None)

    def get_help(self, ctx: Any) -> str:
        return _fitted(super().get_help(ctx), ctx.make_formatter().width)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        order = self.make_parser(ctx).parse_args(args=list(args))[2]
        given = [param.name for param in order if not getattr(param, "multiple", False)]
        for name in DATA:
            if (times := given.count(name)) > 1:
                raise UsageError(f"--{name} was given {times} times, and one is taken; leave out the others")
        return super().parse_args(ctx, args)


class Application(typer.Typer):
    """A command as it is started from a shell."""

    def command(self, *args: Any, cls: type[TyperCommand] | None = None, **kwargs: Any) -> Any:
        return super().command(*args, cls=cls or OneOfData, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _names_in_utf8()
        return super().__call__(*args, **kwargs)


def _names_in_utf8() -> None:
    """Start again in Python's UTF-8 mode where the locale is another: file names are the bytes on the disk, in UTF-8.

    How Python decodes names is fixed when it starts. What is printed stays in the locale's encoding.
    """
    if sys.flags.utf8_mode or sys.getfilesystemencoding() == "utf-8" or not sys.executable:
        return
    shown = getattr(sys.stdout, "encoding", None) or "ascii"
    os.environ.setdefault("PYTHONIOENCODING", shown)
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def new_app(help_text: str, *examples: str) -> typer.Typer:
    """An application, or a group of commands. examples: calls that its help shows."""
    return Application(
        cls=OneLineErrors,
        help="\n  ".join((f"{help_text}\n\n\b\nExamples:", *examples)) if examples else help_text,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, sort_keys=False, default=str))


def show_contents(folder: Path | str, as_json: bool, more: dict[str, Any] | None = None, origin: bool = False) -> None:
    """What a build ends with, and with its origin what `info` prints. more: of the JSON object alone."""
    from shards.describe import describe_set, summarise

    contents = describe_set(folder)
    if as_json:
        print_json(contents | (more or {}))
    else:
        typer.echo(summarise(contents, origin))
