"""verify(): every file of a set against its sha256, then each index against the tars that it describes.

The comparison with the tars runs in whole-array operations, because a set has millions of members.
"""

from __future__ import annotations

import collections
import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from shards.errors import DamageError, FormatError, SeqJepaError, few
from shards.json_fields import json_object
from shards.kinds import kind_of
from shards.kinds.base import Kind
from shards.layout import Layout, SetFile, set_files
from shards.machine.environment import pass_environment_on
from shards.machine.files import sha256_of_file
from shards.metadata import checksum_fits, read_info
from shards.reader import ShardSet, require_finished
from shards.reading.on_demand import bring, comes_and_goes, fetch_or_stream
from shards.reading.split_index import SplitTable
from shards.sample import label_member
from shards.schema import Spec
from shards.stores.cache import fetch, local_folder
from shards.tar import BLOCK, END, StoredTar, headers, walk_members


@dataclass(frozen=True)
class VerifyReport:
    """What verify() found: one line a problem, none if all is well. Counts are of what was checked."""

    problems: list[str] = field(default_factory=list)
    shards: int = 0
    samples: int = 0
    bytes: int = 0

    @property
    def ok(self) -> bool:
        return not self.problems


GONE = ("missing", f"unreadable: {os.strerror(errno.ENOENT)}")
TRIES = 5
"""For shards that come and go while others are read."""


def verify(path: str | Path, *, progress: bool = False) -> VerifyReport:
    """Reads every byte of the set once. `progress` shows a bar on a terminal.

    FormatError: not a finished set, or one of a newer version; anything else that is wrong is in the report.
    """
    layout = Layout(local_folder(path))
    require_finished(layout)
    try:
        info = read_info(layout.root)
    except FormatError as error:
        if checksum_fits(layout.info.read_bytes()):
            raise
        return VerifyReport([str(error)])
    fetch(layout.root, info, tars=False)
    for split in info.splits:
        fetch_or_stream(layout.root, info, split)
    files = [SetFile("README.md", info.readme_sha256), *set_files(info)]
    problems = _strays(layout, files) + _damages(layout.root, files, progress)
    entries = info.shards
    problems += [
        f"{entry.name}.tar: of another build (other sources or options) than {entries[0].name}.tar"
        for entry in entries
        if entry.build != entries[0].build
    ]
    if not problems:
        problems = list(_disagreements(ShardSet(layout.root, info)))
    return VerifyReport(problems, len(entries), info.samples, sum(entry.bytes for entry in entries))


def refuse_unsound(folder: Path, *, progress: bool) -> None:
    """DamageError, naming the first problems that verify() finds. Errors as verify()."""
    if problems := verify(folder, progress=progress).problems:
        raise DamageError(f"{folder} is not sound: {few(problems, parted='; ')}; see `seqjepa-data verify`")


def _strays(layout: Layout, files: list[SetFile]) -> list[str]:
    """Files that the set does not name; hidden ones (.git, .cache …) are nobody's business."""
    known = {layout.root / file.name for file in files} | {layout.info, layout.meta}
    inside = [*layout.root.iterdir(), *layout.meta.iterdir()]
    names = (path.relative_to(layout.root) for path in inside if path not in known and path.name[0] != ".")
    return [f"{name}: not part of this set" for name in sorted(names)]


def _damages(root: Path, files: list[SetFile], progress: bool) -> list[str]:
    paths = [root / file.name for file in files]
    total = sum(
        path.stat().st_size if path.is_file() else file.size or 0 for file, path in zip(files, paths, strict=True)
    )
    bar = tqdm(total=total, unit="B", unit_scale=True, desc="verify", disable=None if progress else True)
    # Hashing frees the GIL; more threads than this only make a disk seek.
    with bar, ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        found = pool.map(lambda file, path: _damage(file, path, bar.update), files, paths)
        return [f"{file.name}: {problem}" for file, problem in zip(files, found, strict=True) if problem]


def _damage(file: SetFile, path: Path, on_bytes: Callable[[int], object]) -> str | None:
    for _ in range(TRIES if comes_and_goes(path) else 1):
        if path.suffix == ".tar":
            bring(path)
        if (found := _damage_of(file, path, on_bytes)) not in GONE:
            return found  # else it went before it was opened
    return found


def _damage_of(file: SetFile, path: Path, on_bytes: Callable[[int], object]) -> str | None:
    if not path.is_file():
        return GONE[0]
    if file.size is not None and (size := path.stat().st_size) != file.size:
        on_bytes(size)
        return f"{abs(file.size - size):,} bytes {'short' if size < file.size else 'too long'}"
    try:
        if sha256_of_file(path, on_bytes) == file.sha256:
            return None
        return f"sha256 differs{_first_bad_header(path) if path.suffix == '.tar' else ''}"
    except OSError as error:
        if error.errno != errno.EIO:  # a sector that cannot be read is what verify is there to find
            pass_environment_on(error)
        return f"unreadable: {error.strerror}"


def _first_bad_header(path: Path) -> str:
    """Where in a damaged tar, if it is not within a member's data."""
    try:
        with StoredTar(path) as tar:
            collections.deque(walk_members(tar), maxlen=0)
        return ""
    except DamageError as error:
        return f" ({error})"


def _disagreements(shards: ShardSet) -> Iterator[str]:
    """With every file as it was written: does each index say what the tars hold?"""
    for name in shards.splits:
        try:
            table = shards.table(name)
            for number in range(len(table.shard_paths)):
                yield from shard_disagreements(table, number, shards.info.spec)
        except SeqJepaError as error:
            yield str(error)


def shard_disagreements(split: SplitTable, number: int, spec: Spec) -> Iterator[str]:
    """One line for each sample of the shard whose headers, own members, label or JSON are not the index's.

    The index has passed check_index, so that every member lies inside the tar and they leave no gaps.
    """
    path, kind = split.shard_paths[number], kind_of(spec)
    bring(path)
    samples = np.flatnonzero(split.shard == number)
    with StoredTar(path) as tar:
        bad = _other_headers(tar, split, samples, spec) | kind.differs(tar, split, samples)
        bad |= np.array([_other_ending(tar, split, int(sample), kind) for sample in samples])
        for sample in samples[bad]:
            yield f"{path.name}: sample {split.keys[sample]!r} is not what the index says"
        if tar[-len(END) :] != END:
            yield f"{path.name}: no end marker"


def _other_headers(tar: StoredTar, split: SplitTable, samples: np.ndarray, spec: Spec) -> np.ndarray:
    """bool, one a sample: a header that is not, byte for byte, the one of the member that the index has there."""
    offsets, lengths = split.offsets[samples], split.lengths[samples]
    keys = np.array([split.keys[sample] for sample in samples], "S")
    names = np.char.add(keys[:, None], np.array(spec.suffixes(), "S"))
    found = tar.blocks(offsets.ravel() // BLOCK - 1)
    same = (found == headers(names.ravel(), lengths.ravel())).all(1)
    return ~same.reshape(offsets.shape).all(1)


def _other_ending(tar: StoredTar, split: SplitTable, sample: int, kind: Kind) -> bool:
    """Whether the label or the JSON, the last two members, are others than the index's."""
    label, record = (
        tar[start : start + length]
        for start, length in zip(split.offsets[sample, -2:], split.lengths[sample, -2:], strict=True)
    )
    row = {name: column[sample] for name, column in split.columns.items()}
    meta = {name: values[sample] for name, values in split.meta.items()}
    try:
        same = json_object(record, "JSON") == {**kind.record(row), **meta}
    except FormatError:
        return True
    return not same or label != label_member(int(split.labels[sample]))
