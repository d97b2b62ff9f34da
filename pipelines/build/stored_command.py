"""The command line of a build that was prepared, kept in the set's folder till it is finished: workers run it again."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.errors import FormatError, UsageError
from shards.files import write_atomic
from shards.json_fields import json_object
from shards.layout import Layout
from shards.store import as_address

NAME = "command.json"
BUILDERS = ("shard", "synth", "build-saliency", "import-saliency", "bake", "features")


@dataclass(frozen=True)
class StoredCommand:
    """words: of `seqjepa-data`, without --out, --overwrite and --json; folder: where relative paths in it begin."""

    words: tuple[str, ...]
    folder: str

    def at(self, out: Path, more: Sequence[str] = ()) -> list[str]:
        """As it is run for the set in `out`, with further options."""
        return [*self.words, *more, "--out", str(out)]


def parse_command(words: Sequence[str]) -> tuple[StoredCommand, Path, list[str]]:
    """(the command, its --out, what was left out of it). UsageError: it builds nothing, or does not say where."""
    if not words or words[0] not in BUILDERS:
        raise UsageError(
            f"`seqjepa-data {' '.join(words[:2])}` builds no set by many; allowed are {', '.join(BUILDERS)}"
        )
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
    if not outs or not outs[-1]:
        raise UsageError("--out DIR is missing: where the set is to be built")
    if as_address(outs[-1]):
        raise UsageError(
            f"{outs[-1]} is in a store, where nothing has to be prepared: start the command itself on as many machines "
            "as you like, they share the work"
        )
    return StoredCommand(tuple(kept), os.getcwd()), Path(outs[-1]), own


def store_command(command: StoredCommand, out: Path) -> None:
    record = {"words": list(command.words), "folder": command.folder}
    write_atomic(Layout(out).parts / NAME, json.dumps(record).encode())


def stored_command(out: Path) -> StoredCommand | None:
    """None: the set in `out` is finished. UsageError: nothing was prepared there; FormatError: it is damaged."""
    layout = Layout(out)
    path = layout.parts / NAME
    try:
        record = json_object(path.read_bytes(), str(path))
    except FileNotFoundError:
        if layout.info.exists():
            return None
        raise UsageError(
            f"no build was prepared in {out}: run `seqjepa-data build prepare shard …` with this --out first"
        ) from None
    words, folder = record.get("words"), record.get("folder")
    texts = isinstance(words, list) and all(isinstance(word, str) for word in words)
    if texts and words and words[0] in BUILDERS and isinstance(folder, str):
        return StoredCommand(tuple(words), folder)
    raise FormatError(f"{path} is damaged: prepare the build again")
