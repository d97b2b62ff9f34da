"""Whose folder is it? Claims an output folder for a build, joins or resumes one, clears a superseded one.

`_meta/build.json` marks a folder as ours from the first moment: it holds the identity of what is being built and,
while an overwritten set is being removed, the names of the shards still to be removed. `_meta/dataset.json` ends it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.building.store_build import StoreBuild
from shards.building.workers import Worker, folder_lock, remove_dead
from shards.errors import DamageError, FormatError, UsageError
from shards.json_fields import json_object, plain_json, take
from shards.layout import SHARD_NAME, Layout
from shards.machine.files import write_atomic
from shards.machine.lock import FolderLock, exclusive_file
from shards.metadata import read_info, spec_to_json
from shards.schema import FORMAT_NAME, DatasetInfo, Spec, features_of
from shards.stores.store import as_address

BUILD_FORMAT = f"{FORMAT_NAME} build"
MAX_SHOWN = 40
CONTENT = "content_sha256"  # of a build's source: what its files held

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderState:
    """What a folder holds: nothing yet (identity None), a build under way, or a finished set (info)."""

    identity: dict[str, Any] | None = None
    info: DatasetInfo | None = None
    clearing: list[str] | None = None


def identity_of(name: str, spec: Spec, classes: Sequence[str], fingerprint: dict[str, Any]) -> dict[str, Any]:
    """What has to be equal for two builds to give the same set."""
    head = {"format_version": spec.format_version, "kind": spec.kind, "name": name}
    return plain_json({**head, **spec_to_json(spec), "classes": list(classes), "build": fingerprint}, "fingerprint")


def identity_of_set(info: DatasetInfo) -> dict[str, Any]:
    return identity_of(info.name, info.spec, info.classes, info.fingerprint)


def claim_folder(
    layout: Layout, identity: dict[str, Any], overwrite: bool, stale: bool = False
) -> tuple[Worker | None, DatasetInfo | None]:
    """(worker, None) to build, resume or help in, or (None, info) if the very set is there already.

    stale: another set that is there may be replaced too, unless others are at work on it.

    UsageError: the folder is not ours, holds another set (and `overwrite` is not given), or others are at work in it
    on another set. Nothing is written before these checks have passed.
    """
    found = inspect_folder(layout)
    _refuse_other(layout.root, found, identity, overwrite or stale)
    # What only a build needs:
    of_builds = (layout.build, layout.lock, exclusive_file(layout.lock), layout.parts, layout.claims, layout.workers)
    if found.info and not overwrite and not any(path.exists() for path in of_builds):
        return None, _whole(layout, found.info)
    try:
        lock = _lock(layout)
    except (PermissionError, NotADirectoryError, FileExistsError, FileNotFoundError) as error:
        raise UsageError(f"cannot write to {layout.root}: {error.strerror}; choose another --out") from error
    with lock:
        if not layout.workers.exists():  # another build has ended before we had the lock
            layout.workers.mkdir()
        others = remove_dead(layout)
        info = _settle(layout, identity, overwrite or (stale and not others), bool(others))
        return (None, info) if info else (Worker(layout, alone=not others), None)


def _lock(layout: Layout) -> FolderLock:
    """In a folder that is made for it. Errors as folder_lock."""
    while True:
        layout.workers.mkdir(parents=True, exist_ok=True)
        try:
            return folder_lock(layout)
        except UsageError as error:  # whoever had the lock ended, or took back, its build, and removed the folder
            if not isinstance(error.__cause__, FileNotFoundError):
                raise


def claim_store(
    store: StoreBuild, identity: dict[str, Any], overwrite: bool
) -> tuple[Worker | None, DatasetInfo | None]:
    """claim_folder for a set in a store. UsageError also for `overwrite`: nothing in a store is overwritten."""
    while True:
        found = inspect_store(store)
        if found.identity is not None and overwrite:
            raise UsageError(
                f"{store.address} holds a set or a build, and nothing in a store is overwritten: leave out "
                "--overwrite, choose another address, or delete it yourself"
            )
        _refuse_other(store.address, found, identity, overwrite=False)
        if found.info:
            store.tidy()  # of what a builder left that was killed at the very end
            return None, found.info
        if worker := _begin(store, identity):
            return worker, None


def _begin(store: StoreBuild, identity: dict[str, Any]) -> Worker | None:
    """Who builds, resumes or helps at an address; None: others have finished the set since we looked.

    They then remove the folder too, so that anything may fail in it. What it held before is of use for the same set.
    """
    try:
        with contextlib.ExitStack() as undo:
            worker, _ = claim_folder(store.layout, identity, overwrite=False, stale=True)
            assert worker is not None, "no dataset.json is written there"
            undo.callback(worker.leave)
            if store.begin(identity, BUILD_FORMAT):
                undo.pop_all()
                return worker
    except (UsageError, OSError):
        if store.read_info() is None:
            raise
    return None


def inspect_store(store: StoreBuild) -> FolderState:
    """What is there, without changing anything. UsageError: something that is not ours.

    In this order, for others may begin or end a build meanwhile: build.json is what it writes first and removes last.
    """
    other = store.store.any_name()
    identity = store.read_identity()
    if info := store.read_info():
        return FolderState(identity_of_set(info), info)
    if other and identity is None:
        raise UsageError(f"{store.address} holds other objects, e.g. {other}, and no shard set: choose another address")
    return FolderState(identity)


def inspect_place(out: Path | str) -> FolderState:
    """What is in a folder or at an address."""
    address = as_address(out)
    return inspect_store(StoreBuild(address)) if address else inspect_folder(Layout(Path(out)))


def take_back(layout: Layout) -> None:
    """Of a build that has no shard yet: removes what makes the folder ours, unless someone is at work there."""
    with folder_lock(layout):
        if layout.build.exists() and not remove_dead(layout) and not any(layout.root.glob("*.tar")):
            shutil.rmtree(layout.meta)


def inspect_folder(layout: Layout) -> FolderState:
    """What is there, without changing anything. UsageError: something that is not ours."""
    root = layout.root
    if not root.exists() and not root.is_symlink():
        return FolderState()
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder: choose another --out")
    if any(path.is_symlink() for path in (layout.meta, layout.parts, layout.workers, layout.claims)):
        raise UsageError(f"{layout.meta} holds symbolic links, which no build of ours makes: choose another --out")
    # Another build may begin or end while we look. What it writes first is build.json, and what it removes last, so
    # that of a folder with something in it one of the two records is found by whoever lists the folder before.
    untouched = _is_untouched(layout)
    try:
        with contextlib.suppress(FileNotFoundError):
            return _under_way(layout)
        with contextlib.suppress(FileNotFoundError):
            info = read_info(root)
            return FolderState(identity_of_set(info), info)
    except FormatError as error:  # whose set it is cannot be told, so that nothing of it is overwritten
        raise FormatError(f"{error}; choose another --out, or remove {root} yourself") from error
    if untouched or _is_untouched(layout):  # what was listed may have been of a build that was taken back since
        return FolderState()
    raise UsageError(f"{root} is not empty and is not a shard set: choose another --out, or empty it yourself")


def _under_way(layout: Layout) -> FolderState:
    """FileNotFoundError: no build is."""
    record = json_object(layout.build.read_bytes(), str(layout.build))
    if record.get("format") != BUILD_FORMAT:
        raise UsageError(f"{layout.build} is not from a build of shards: choose another --out")
    identity, clearing = {"kind": "views", **take(record, "identity", dict)}, record.get("clearing")
    if clearing is not None:
        names = take(record, "clearing", list)
        return FolderState(identity, clearing=[n for n in names if isinstance(n, str) and SHARD_NAME.fullmatch(n)])
    with contextlib.suppress(FormatError, FileNotFoundError):
        return FolderState(identity, read_info(layout.root))
    return FolderState(identity)


def _is_untouched(layout: Layout) -> bool:
    """Empty, or only what a build leaves that was killed before it wrote build.json."""
    try:
        if not all(path == layout.meta for path in layout.root.iterdir()):
            return False
        inside = set(layout.meta.iterdir())
    except FileNotFoundError:  # of a build that is taken back the folders go too
        return True
    except NotADirectoryError:
        return False
    started = layout.workers / layout.build.name
    allowed = {layout.lock, exclusive_file(layout.lock), layout.workers}
    return inside <= allowed and all(path == started for path in layout.workers.glob("*"))


def _refuse_other(place: Path | str, found: FolderState, identity: dict[str, Any], overwrite: bool) -> None:
    if overwrite or found.identity is None or found.identity == identity:
        return
    if found.identity == {**identity, "build": as_recorded(place, found, identity["build"])}:
        return
    raise UsageError(f"{place} holds another set ({differing_values(found.identity, identity)}): {instead(place)}")


def instead(place: Path | str) -> str:
    """What to do about a place that is taken."""
    if as_address(place):
        return "choose another address, for nothing in a store is overwritten"
    return "choose another --out, or give --overwrite to replace it"


def _in_words(name: str) -> str | None:
    """For what is compared by a digest, which says nothing to a reader; None for values that speak for themselves."""
    where, _, key = name.rpartition(".")
    files = {"source": "the source's ", "maps": "the maps' "}.get(where, f"{where}: ")
    return {
        "content_sha256": f"{files}files have other bytes than then",
        "listing_sha256": f"{files}files have other names, classes, splits or places than then",
        "sha256": f"{files}archive has other bytes than then",
    }.get(key)


def as_recorded(place: Path | str, found: FolderState, build: dict[str, Any]) -> dict[str, Any]:
    """`build` as the program that finished the set in `place` would have recorded it: before sets told their content.

    What a set does not say cannot differ; a line says that it is not known. A build under way is compared whole.
    """
    there = (found.identity or {}).get("build", {})
    if found.info is None:
        return build
    silent = [name for name, ours in build.items() if _tells(ours) and isinstance(there.get(name), dict)]
    silent = [name for name in silent if not _tells(there[name])]
    if silent:
        log.warning("%s does not say what its source's files held: whether they are still the same is not known", place)
    bare = {name: {key: value for key, value in build[name].items() if key != CONTENT} for name in silent}
    return {**build, **bare}


def _tells(value: Any) -> bool:
    return isinstance(value, dict) and CONTENT in value


def differing_values(old: dict[str, Any], new: dict[str, Any]) -> str:
    """ "size: 64 there, 128 here; seed: …" for every key whose value differs."""
    before, after = _flat(old), _flat(new)
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return "; ".join(
        (words if name in before and name in after and (words := _in_words(name)) else "")
        or f"{name}: {_shown(before, name)} there, {_shown(after, name)} here"
        for name in names
    )


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """With what a build's records hold one by one: "source.images"."""
    flat: dict[str, Any] = {}
    for name, value in ({**record, **record.get("build", {})}).items():
        inner = {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
        flat |= {} if name == "build" else inner
    return flat


def _shown(record: dict[str, Any], name: str) -> str:
    text = json.dumps(record[name]) if name in record else "nothing"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _settle(layout: Layout, identity: dict[str, Any], overwrite: bool, others: bool) -> DatasetInfo | None:
    """With the lock held: the folder is made ready for building, or found complete and tidied.

    It looks again, because between our first look and the lock another build may have ended. others: someone is at
    work there.
    """
    found = inspect_folder(layout)
    _refuse_other(layout.root, found, identity, overwrite)
    if found.info and not overwrite:
        if not others:
            tidy(layout)
        return _whole(layout, found.info)
    if overwrite and others:
        raise UsageError(
            f"another build is writing {layout.root}: leave out --overwrite to help it, wait for it, or stop it"
        )
    superseded = found.identity is not None and (found.identity != identity or found.info is not None)
    if superseded or found.clearing is not None:
        _clear(layout, identity, found)
    if not others:
        _write_build(layout, {"identity": identity})
    layout.parts.mkdir(exist_ok=True)
    layout.claims.mkdir(exist_ok=True)
    return None


def _clear(layout: Layout, identity: dict[str, Any], found: FolderState) -> None:
    """Removes a superseded set: only files that its own metadata name. Survives being killed at any point."""
    names = set(found.clearing or ()) | {path.stem for path in layout.parts.glob("*.parquet")}
    if found.info:
        names |= {entry.name for split in found.info.splits.values() for entry in split.shards}
    _write_build(layout, {"identity": identity, "clearing": sorted(filter(SHARD_NAME.fullmatch, names))})
    layout.info.unlink(missing_ok=True)
    layout.readme.unlink(missing_ok=True)
    layout.encoder.unlink(missing_ok=True)
    for path in [*layout.meta.glob("index-*.parquet"), *layout.parts.glob("*"), *layout.claims.glob("*")]:
        path.unlink()
    for name in filter(SHARD_NAME.fullmatch, names):
        layout.shard(name).unlink(missing_ok=True)


def _write_build(layout: Layout, record: dict[str, Any]) -> None:
    data = json.dumps({"format": BUILD_FORMAT, **record}, indent=1).encode()
    write_atomic(layout.build, data, layout.workers)


def tidy(layout: Layout) -> None:
    """Removes what only a build needs, after dataset.json is there. build.json goes last, then the caller's lock."""
    for folder in (layout.workers, layout.claims, layout.parts):  # first what other builders see that they are gone by
        shutil.rmtree(folder, ignore_errors=True)
    layout.build.unlink(missing_ok=True)


def _whole(layout: Layout, info: DatasetInfo) -> DatasetInfo:
    for split in info.splits.values():
        for entry in split.shards:
            path = layout.shard(entry.name)
            if not path.is_file() or path.stat().st_size != entry.bytes:
                raise DamageError(f"{path} is missing or cut in a finished set: give --overwrite to build it again")
    if features_of(info.spec) and not layout.encoder.is_file():
        raise DamageError(f"{layout.encoder} is missing in a finished set: give --overwrite to build it again")
    return info
