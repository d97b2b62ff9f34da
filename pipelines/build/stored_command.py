"""The command line of a build that was prepared, kept beside its parts until the set is finished: workers run it again.

In a store it is a stranger's: whoever may write there settles what it says. It is run as a builder of a set alone, with
an --out of ours, and starts no shell (Step.by_address).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.building.store_build import PARTS, StoreBuild
from shards.engines.sbatch import Array, program, write_sbatch
from shards.errors import FormatError, UsageError
from shards.json_fields import json_object
from shards.layout import Layout
from shards.machine.files import write_atomic
from shards.stores.store import as_address

NAME = "command.json"
LONGEST = 16 << 20  # bytes of it: more than a system takes for a command
BUILDERS = ("shard", "synth", "build-saliency", "import-saliency", "bake", "features")


@dataclass(frozen=True)
class StoredCommand:
    """words: of `seqjepa-data`, without --out, --overwrite and --json; folder: where relative paths in it begin."""

    words: tuple[str, ...]
    folder: str

    def at(self, out: Path | str, more: Sequence[str] = ()) -> list[str]:
        """As it is run for the set in `out`, with further options."""
        return [*self.words, *more, "--out", str(out)]


def place_of(out: Path | str) -> Path | str:
    """An address as such, also after it was made a Path; else a path."""
    return as_address(out) or Path(out)


def parse_command(words: Sequence[str]) -> tuple[StoredCommand, Path | str, list[str]]:
    """(the command, its --out, what was left out of it). UsageError: it builds nothing, or does not say where."""
    if not words or words[0] not in BUILDERS:
        raise UsageError(
            f"`seqjepa-data {' '.join(words[:2])}` builds no set by many; allowed are {', '.join(BUILDERS)}"
        )
    kept, outs, own = _sorted_out(words)
    if not outs or not outs[-1]:
        raise UsageError("--out DIR is missing: the folder or address where the set is to be built")
    return StoredCommand(tuple(kept), os.getcwd()), place_of(outs[-1]), own


def _sorted_out(words: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """(what is kept, values of --out, --overwrite and --json)."""
    kept, outs, own, rest = [], [], [], iter(words)
    for word in rest:
        if word in ("--out", "-o"):
            outs.append(next(rest, ""))
        elif word.startswith("--out="):
            outs.append(word.partition("=")[2])
        elif word in ("--overwrite", "--json"):
            own.append(word)
        else:
            kept.append(word)
    return kept, outs, own


def store_command(command: StoredCommand, out: Path | str) -> None:
    """In the place of one that gives the same set. If that was finished by others meanwhile, nothing stays there."""
    data = json.dumps({"words": list(command.words), "folder": command.folder}).encode()
    if address := as_address(out):
        StoreBuild(address).keep(NAME, data)
    else:
        with contextlib.suppress(FileNotFoundError):  # the parts have gone with the end of the build
            write_atomic(Layout(Path(out)).parts / NAME, data)


def stored_command(out: Path | str) -> StoredCommand | None:
    """None: the set in `out` is finished. UsageError: nothing was prepared there; FormatError: it is damaged."""
    address = as_address(out)
    data, path, finished = _in_store(address) if address else _in_folder(Path(out))
    if data is None and finished:
        return None
    if data is None:
        raise UsageError(
            f"no build was prepared in {place_of(out)}: run `seqjepa-data build prepare shard …` with this --out first"
        )
    record = json_object(data, path)
    words, folder = record.get("words"), record.get("folder")
    texts = isinstance(words, list) and all(isinstance(word, str) and "\0" not in word for word in words)
    if texts and words and words[0] in BUILDERS and _sorted_out(words)[0] == words and isinstance(folder, str):
        return StoredCommand(tuple(words), folder)
    raise FormatError(f"{path} is damaged: prepare the build again")


def _in_folder(out: Path) -> tuple[bytes | None, str, bool]:
    """(what is stored, where, whether the set is finished)."""
    layout = Layout(out)
    path = layout.parts / NAME
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST + 1)
    except FileNotFoundError:
        return None, str(path), layout.info.exists()
    if len(data) > LONGEST:
        raise FormatError(f"{path} has more than {LONGEST} bytes, which no command has: prepare the build again")
    return data, str(path), False


def _in_store(address: str) -> tuple[bytes | None, str, bool]:
    build = StoreBuild(address)
    data = build.kept(NAME, LONGEST)
    return data, f"{build.address}/{PARTS}/{NAME}", data is None and build.read_info() is not None


def write_build_script(file: Path, out: Path | str, tasks: int) -> None:
    """The sbatch script of an array whose tasks do the build prepared in `out`.

    UsageError: it is finished, or `file` is someone else's.
    """
    if stored_command(out) is None:
        raise UsageError(f"{out} is finished; there is nothing for an array to do")
    name, address = Path(out).name, as_address(out)
    array = Array.of_equals(f"seqjepa-data build: {name}", "seqjepa-build", tasks, "--cpus-per-task=8 --mem=16G")
    command = [program("seqjepa-data"), "build", "work", address or str(Path(out).resolve())]
    # Beside the set, whose folder holds nothing else; of one in a store, here.
    logs = Path.cwd() / f"{name}.logs" if address else Path(f"{Path(out).resolve()}.logs")
    write_sbatch(file, "--script", "seqjepa-data build", array, command, logs)
