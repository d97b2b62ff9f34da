"""Runs on the Hugging Face hub: pulled into a folder of one's own, or into the hub's cache when a command names one.

A run there comes from a stranger. Only files of the names below are loaded, each up to its size; weights are
safetensors, held against SHA256SUMS; nothing is unpickled but state.pt, which comes only when it is asked for and is
read with weights_only.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from seqjepa.files import SUMS, TEMPORARY, read_checksums, write_file
from seqjepa.training.run import data_info, read_run_config, read_run_json
from seqjepa.training.run_files import CONFIG, EVALUATED, METRICS, RUN, STATE, WEIGHTS
from shards.errors import DamageError, FailureError, FormatError, UsageError
from shards.machine.files import AtomicFile, sha256_of_file
from shards.push.hub_card import CARD, LARGEST_CARD
from shards.stores.hub import HubAddress, HubFolder, is_hub_address, list_repo, open_hub, parse_address, require_hub
from shards.stores.store import as_address

logger = logging.getLogger(__name__)

MIB = 1 << 20
LARGEST = {
    CONFIG: MIB,
    SUMS: MIB,
    RUN: 16 * MIB,
    CARD: LARGEST_CARD,
    METRICS: 256 * MIB,
    WEIGHTS: 32 << 30,
    STATE: 96 << 30,
}
"""Bytes that a file of a run may have; what `seqjepa evaluate` wrote: as metrics.jsonl."""
NEEDED = (CONFIG, RUN, WEIGHTS)
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")


@dataclass(frozen=True)
class Pulled:
    """Of an address: the commit, the run directory that was made, and which files of the repository it has not."""

    address: str
    commit: str
    run: Path
    left_out: list[str]


def is_run_file(name: str) -> bool:
    """Whether a run on the hub has a file of this name."""
    return name in LARGEST or bool(EVALUATED.fullmatch(name))


def run_folder(run: str | Path, *, kept: bool = False) -> Path:
    """The folder of a run; of an hf:// address the run directory in the hub's cache, loaded where it is not there; of
    one in a store a folder in the cache, with what is there now, and if `kept` with weights kept on the way.

    UsageError: `run` is no text and no path. Errors of addresses: as pull_run and run_store.pulled_run.
    """
    if not isinstance(run, str | os.PathLike):
        raise UsageError(f"run is {run!r:.40}; give a run directory or an address, as 'runs/3die-rot-M3'")
    if not is_hub_address(run):
        from seqjepa.training.run_store import pulled_run

        return pulled_run(address, kept=kept) if (address := as_address(run)) else Path(run)
    source, names, _ = _load(parse_address(str(run), "model"))
    return _in_cache(source, names)


def pull_run(address: str, out: Path | None = None, *, state: bool = False) -> Pulled:
    """A run on the hub as a run directory, `out` or one named like the repository. The same call goes on where it was.

    state: with state.pt, to train on. UsageError: no such repository, no run, `out` holds something else.
    DamageError: a file is not what SHA256SUMS says. FailureError: the hub cannot be reached.
    """
    where = parse_address(address, "model")
    out = out or Path(where.repo.partition("/")[2])
    _refuse_other_folders(out)
    source, names, left_out = _load(where, state)
    _fill(out, source, names)
    return Pulled(str(where), source.commit, out, left_out)


def _load(where: HubAddress, state: bool = False) -> tuple[HubFolder, list[str], list[str]]:
    """A commit's files in the hub's cache, checked; their names, run.json last; and names that were left out."""
    require_hub()
    try:
        listing = list_repo(where)
    except FailureError:  # the cache may have it
        source = open_hub(where, [name for name in LARGEST if name != STATE or state] + ["results*.json"])
        there = {path.name: path.stat().st_size for path in source.root.iterdir() if path.is_file()}
    else:
        there = {name: file.size for name, file in listing.files.items()}
        source = open_hub(where, _chosen(where, there, state))
        if source.commit != listing.commit:
            raise FailureError(f"{where}: it was changed there meanwhile; the same command goes on") from None
    names = _chosen(where, there, state)
    _check(where, source.root, names)
    return source, names, sorted(name for name in there if name not in names and name != ".gitattributes")


def _chosen(where: HubAddress, sizes: Mapping[str, int], state: bool) -> list[str]:
    """Names of the files to load, run.json last. UsageError: this is no run. FormatError: a file is too large."""
    if missing := [name for name in NEEDED if name not in sizes]:
        pickles = [name for name in sizes if name.endswith(PICKLES)]
        never = f"; {pickles[0]} is a pickle, which is never opened" if pickles and WEIGHTS in missing else ""
        raise UsageError(f"{where} is not a run that `seqjepa push` made: it has no {', '.join(missing)}{never}")
    if state and STATE not in sizes:
        raise UsageError(f"{where} has no {STATE}: it was pushed without --state, so nobody can train it on")
    names = sorted(name for name in sizes if is_run_file(name) and (name != STATE or state))
    for name in names:
        if sizes[name] > (most := LARGEST.get(name, LARGEST[METRICS])):
            raise FormatError(f"{where}: {name} has {sizes[name]:,} bytes, a run's has at most {most:,}")
    return sorted(names, key=lambda name: name == RUN)


def _check(where: HubAddress, folder: Path, names: Iterable[str]) -> None:
    """Every file against its checksum; then whether settings can be read. DamageError, FormatError, ConfigError."""
    sums, unknown = read_checksums(folder), []
    for name in names:
        if not (folder / name).is_file():
            raise FormatError(f"{where}: {name} is not there: the run on the hub is not complete")
        if name in (SUMS, CARD):
            continue
        if name not in sums:
            unknown.append(name)
        elif sha256_of_file(folder / name) not in sums[name]:
            raise DamageError(f"{where}: {name} is damaged or was changed: its SHA-256 is not the one in {SUMS}")
    if unknown:
        logger.warning("%s: %s has no checksum of %s: whether they are whole is not known", where, SUMS, unknown)
    data_info(read_run_json(folder), folder / RUN)
    read_run_config(folder)


def _refuse_other_folders(out: Path) -> None:
    """Before anything is loaded: `out` has to be free, empty or a run directory."""
    if out.is_symlink() and not out.exists():
        raise UsageError(f"{out} is a link that leads nowhere; choose another --out")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; --out needs a folder")
    entries = [path.name for path in out.iterdir()] if out.exists() else []
    others = [name for name in sorted(entries) if not is_run_file(name) and not name.startswith(TEMPORARY)]
    if others and RUN not in entries:
        raise UsageError(f"{out} holds {others[0]!r} and is not a run directory; choose a new or empty --out")


def _fill(out: Path, source: HubFolder, names: Iterable[str]) -> None:
    """Copy what is missing, each file whole or not at all, run.json last. UsageError, before anything is written:
    a file there is another."""
    missing = []
    for name in names:
        path = out / name
        if not path.exists() and not path.is_symlink():
            missing.append(name)
        elif path.is_symlink() or not path.is_file() or sha256_of_file(path) != sha256_of_file(source.root / name):
            raise UsageError(f"{path} is there and differs from the one on the hub; choose a new or empty --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {out}: {error.strerror}; choose another --out") from None
    for name in missing:
        _copy(source.root / name, out / name)


def _copy(source: Path, path: Path) -> None:
    if source.stat().st_size < MIB:
        write_file(path, source.read_bytes())
        return
    with AtomicFile(path) as file, source.open("rb") as data:
        while piece := data.read(8 * MIB):
            file.write(piece)


def _link_or_copy(source: Path, path: Path) -> None:
    """Large files by a link, where the file system has them: whoever replaces one leaves the other as it is."""
    if source.stat().st_size >= MIB:
        try:
            return os.link(source, path)
        except OSError:
            pass
    return _copy(source, path)


def _in_cache(source: HubFolder, names: Iterable[str]) -> Path:
    """The run directory of a commit among huggingface_hub's assets. Weights are links to its cache's, not copies."""
    from huggingface_hub import cached_assets_path

    parent = cached_assets_path("seqjepa", namespace=source.repo, subfolder=source.commit)
    folder = Path(parent) / source.repo.partition("/")[2]
    if (folder / RUN).exists():
        return folder
    made = folder.with_name(f"{TEMPORARY}{os.getpid()}")
    shutil.rmtree(made, ignore_errors=True)  # of a process of that number that was killed
    made.mkdir()
    for name in names:
        _link_or_copy((source.root / name).resolve(), made / name)
    try:
        made.rename(folder)
    except OSError:  # another process was first
        shutil.rmtree(made)
    return folder
