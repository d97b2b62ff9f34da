"""Shard sets on the Hugging Face hub: pushed whole, with a card that `datasets.load_dataset` reads, and pulled back.

Shards and indexes travel as they are. Of `_meta/dataset.json` only `readme_sha256` follows the card, and its checksum;
what a set is, its fingerprints and the runs that were trained on it stay the same.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from shards.building.claim import claim_folder, identity_of_set, tidy
from shards.describe import data_card
from shards.errors import DamageError, FormatError, UsageError
from shards.layout import ENCODER, SHARD_NAME, Layout, set_files
from shards.machine.files import sha256_of_bytes, sha256_of_file, write_atomic
from shards.metadata import MAX_JSON, info_from_bytes, info_to_bytes, with_readme
from shards.push.hub_card import CARD, LARGEST_CARD, is_ours, licence_of, sealed
from shards.push.hub_push import Content, Push, Pushed, PushOptions, open_for_push, push_files, push_target
from shards.reader import ShardSet
from shards.schema import DatasetInfo
from shards.stores.hub import HubAddress, HubFolder, Listing, list_repo, open_hub, parse_address, require_hub
from shards.stores.store import INFO, require_no_address
from shards.verify import refuse_unsound

_INDEX = re.compile(r"_meta/index-[a-z][a-z0-9_]{0,31}\.parquet")
_HEAD = re.compile(r"---\n(.*?\n)---\n", re.DOTALL)
LARGEST_INDEX = 4 << 30


@dataclass(frozen=True)
class PulledSet:
    """Of an address: the commit and the folder. card_edited: README.md is not the one that was pushed."""

    address: str
    commit: str
    folder: Path
    card_edited: bool


def prepare_set(folder: Path, address: str, options: PushOptions, *, check: bool = True) -> Push:
    """Reads the set, every byte of it unless `check` is off; asks the hub nothing. dataset.json comes last: without it
    there is no set.

    UsageError: another address or licence. FormatError: not a finished set. DamageError: one that is not sound.
    """
    where, licence = push_target(address, "dataset", folder), licence_of(options.licence)
    shards, layout = ShardSet.open(folder), Layout(folder)
    if check:
        refuse_unsound(folder, progress=True)
    card = set_card(layout.readme.read_text(encoding="utf-8", errors="replace"), shards.info, where, licence)
    digests = {name: digest for name, digest, _ in set_files(shards.info)}
    files: dict[str, Content] = {name: folder / name for name in digests}
    files |= {CARD: card, INFO: with_readme(layout.info.read_bytes(), sha256_of_bytes(card))}
    return Push(where, files, options.message or shards.info.name, _is_of_set, INFO, digests)


def push_set(prepared: Push, options: PushOptions) -> tuple[Pushed, bool]:
    """Sends what the hub does not have; → also whether a card that was edited there stays. Errors as push_files."""
    listing = open_for_push(prepared, options.public)
    return push_files(
        prepared,
        listing,
        options.new_card,
        lambda card: {INFO: with_readme(prepared.content(INFO), sha256_of_bytes(card))},
    )


def pull_set(address: str, out: Path, splits: Sequence[str] = ()) -> PulledSet:
    """A set on the hub as a folder, every file held against its sha256. The same call goes on where it was.

    splits: those to take, in the set's order; then the folder is a set of these alone, with a card of its own. (): all.
    UsageError: no such repository, no set, no such split, `out` is not ours or holds another set or other splits.
    DamageError: a file is not what dataset.json says. FailureError: the hub cannot be reached.
    """
    require_no_address(out, "--out")
    where = parse_address(address, "dataset")
    require_hub()
    listing = list_repo(where)
    _refuse_unlikely(where, listing, {INFO: MAX_JSON, CARD: LARGEST_CARD})
    source = open_hub(where.at(listing.commit), [INFO, CARD])
    data, card = (source.root / INFO).read_bytes(), (source.root / CARD).read_bytes()
    info = info_from_bytes(data, f"{where}: {INFO}")
    edited = sha256_of_bytes(card) != info.readme_sha256
    if splits:
        if unknown := [name for name in splits if name not in info.splits]:
            raise UsageError(f"{where} has no split {unknown[0]!r}; there are: {', '.join(info.splits)}")
        info = replace(info, splits={name: split for name, split in info.splits.items() if name in splits})
        licence = _licence_in(card.decode(errors="replace"))
        data, card = info_to_bytes(info), set_card(data_card(info), info, where, licence)
    _refuse_unlikely(where, listing, {name: size or LARGEST_INDEX for name, _, size in set_files(info)})
    layout = Layout(out)
    worker, there = claim_folder(layout, identity_of_set(info), False)
    if there and there.splits != info.splits:
        raise UsageError(f"{out} holds other shards than {where}, or other splits; choose another --out")
    if worker is not None:
        try:
            if not worker.alone:
                raise UsageError(f"another build is writing {out}: wait for it, or stop it")
            layout = worker.layout
            _refuse_other_splits(layout, info)
            _fill(layout, info, source)
            write_atomic(layout.readme, card, layout.tmp)
            write_atomic(layout.info, with_readme(data, sha256_of_bytes(card)), layout.tmp)
            tidy(layout)
        finally:
            worker.leave()
    return PulledSet(str(where), source.commit, out, edited)


def set_card(readme: str, info: DatasetInfo, address: HubAddress, licence: str) -> bytes:
    """The set's own README.md with a licence in its head, and how to have it from the hub."""
    found = _HEAD.match(readme)
    if not found or is_ours(readme.encode()):  # of a set that was pulled: what the push added is added anew
        licence = licence or (_licence_in(found[1]) if found else "")
        readme = data_card(info)
        found = _HEAD.match(readme)
    assert found
    head = re.sub(r"^license:.*\n", "", found[1], flags=re.MULTILINE) if licence else found[1]
    head = f"license: {licence}\n{head}" if licence else head
    if "\n- seqjepa\n" not in head:
        head = head.replace("tags:\n", "tags:\n- seqjepa\n", 1)
    name, first = address.repo.partition("/")[2], next(iter(info.splits))
    body = readme[found.end() :].rstrip("\n").replace('"THIS_FOLDER"', f'"{address.repo}"')
    return sealed(f"---\n{head}---\n{body}\n\n" + _FROM_THE_HUB.format(address=address, name=name, first=first))


def _licence_in(head: str) -> str:
    found = re.search(r"^license: (\S+)$", head, re.MULTILINE)
    return found[1] if found else ""


_FROM_THE_HUB = """As a folder, checked, for webdataset and seqjepa:

    seqjepa-data pull {address} --out shards/{name}
    seqjepa train --shards shards/{name} --out runs/{name}
"""


def _is_of_set(name: str) -> bool:
    stem, _, ending = name.rpartition(".")
    shard = ending == "tar" and SHARD_NAME.fullmatch(stem)
    return name in (INFO, CARD, ENCODER) or bool(shard) or bool(_INDEX.fullmatch(name))


def _refuse_unlikely(where: HubAddress, listing: Listing, largest: dict[str, int]) -> None:
    """UsageError: a file is not there. FormatError: it is larger than it can be."""
    if missing := [name for name in largest if name not in listing.files]:
        hint = " (`seqjepa-data shard webdataset` reads other people's tars)" if INFO in missing else ""
        raise UsageError(f"{where} is not a shard set of `seqjepa-data push`: it has no {missing[0]}{hint}")
    for name, most in largest.items():
        if listing.files[name].size > most:
            raise FormatError(f"{where}: {name} has {listing.files[name].size:,} bytes, at most {most:,} are right")


def _refuse_other_splits(layout: Layout, info: DatasetInfo) -> None:
    """UsageError: a pull of more splits was stopped here; what it left would be no part of the set."""
    names = {name for name, *_ in set_files(info)}
    there = sorted(path.name for path in layout.root.glob("*.tar"))
    if others := [name for name in there if name not in names]:
        raise UsageError(
            f"{layout.root} holds {others[0]} of a pull of other splits; go on with that, or choose another --out"
        )


def _fill(layout: Layout, info: DatasetInfo, source: HubFolder) -> None:
    """Shards, indexes and an encoder into a claimed folder. DamageError: one is not what dataset.json says; what was
    loaded so goes, what was there stays."""
    files = list(set_files(info))
    before = {name for name, *_ in files if (layout.root / name).exists()}
    source.fetch([name for name, *_ in files], layout.root)
    with tqdm(total=len(files), desc="checking", unit="file", disable=None, leave=False) as bar:
        for name, digest, _ in files:
            path = layout.root / name
            if path.is_symlink() or sha256_of_file(path) != digest:
                if name in before:
                    raise DamageError(f"{path} was there and is not the one on the hub: remove it, then pull again")
                path.unlink()
                raise DamageError(f"{source.address}: {name} is damaged: its sha256 is not the one in {INFO}")
            bar.update()
    notes = layout.root / ".cache" / "huggingface"  # huggingface_hub's, of what it loads
    shutil.rmtree(notes, ignore_errors=True)
    with contextlib.suppress(OSError):
        notes.parent.rmdir()
