"""Files pushed to a repository of the Hugging Face hub: large ones first, then one commit that shows them all.

What is there already, to the byte, is not sent again; a push that was stopped goes on with the files that the hub does
not have. A repository is made private unless a public one is asked for, and is never made public by accident.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from shards.errors import FailureError, FormatError, UsageError, few
from shards.machine.files import sha256_of_bytes, sha256_of_file
from shards.push.hub_card import CARD, card_that_stays
from shards.stores.hub import (
    SPELLED,
    HubAddress,
    Kind,
    Listing,
    RemoteFile,
    hub_api,
    list_repo,
    naming,
    no_bars,
    parse_address,
    quiet,
    require_hub,
)

AT_ONCE = 8
"""Files that are sent before the next is looked at."""
MOST_IN_COMMIT = 1000
PLACEHOLDERS = (".gitattributes", "README.md")
"""What the hub puts into a new repository."""
Content = Path | bytes


@dataclass(frozen=True)
class PushOptions:
    """What of a push may be chosen.

    public   whether a repository that has to be made can be read by anybody
    licence  an identifier of hub_card.LICENCES; "" leaves it out
    message  of the commit; "": the command's own
    new_card whether a README.md that was edited on the hub is replaced
    """

    public: bool = False
    licence: str = ""
    message: str = ""
    new_card: bool = False


@dataclass(frozen=True)
class Push:
    """What is to be pushed: files by name, in the order in which they are sent. README.md is the card.

    ours     whether a file of that name is one of such a push: what this one has not is removed on the hub
    marker   what every such push leaves; a repository of other files without it is somebody else's
    digests  sha256 that are known, by name
    """

    address: HubAddress
    files: dict[str, Content]
    message: str
    ours: Callable[[str], bool]
    marker: str
    digests: Mapping[str, str] = field(default_factory=dict)

    def content(self, name: str) -> bytes:
        return _content(self.files[name])

    @property
    def card(self) -> str:
        return self.content(CARD).decode()

    @property
    def sizes(self) -> dict[str, int]:
        return {name: _size(data) for name, data in self.files.items()}


@dataclass(frozen=True)
class Pushed:
    """commit, url: of what is there now. sent: files that were not there. removed: files that the new ones replace."""

    commit: str
    url: str
    sent: list[str]
    unchanged: int
    removed: list[str]
    private: bool


def push_target(address: str, kind: Kind, source: Path) -> HubAddress:
    """UsageError: not an address, or one with a revision; or `source` is no folder here."""
    where = parse_address(address, kind)
    if not source.is_dir():
        raise UsageError(f"{source} is not a folder here; what has an address is pulled first, then pushed")
    if where.revision:
        raise UsageError(f"{address}: a push goes to the main branch; give {SPELLED[kind]} without @{where.revision}")
    return where


def require_login(address: HubAddress | str) -> None:
    """UsageError where huggingface_hub is not installed, or knows no token."""
    require_hub()
    from huggingface_hub import get_token

    if not get_token():
        raise UsageError(f"{address}: you are not logged in; `hf auth login`, or set HF_TOKEN")


def open_for_push(push: Push, public: bool) -> Listing:
    """What the repository holds; it is made where there is none.

    UsageError: not logged in, no permission, or it is public and `public` was not asked for, or the other way round; or
    it holds somebody else's files.
    """
    address = push.address
    require_login(address)
    api = hub_api()
    try:
        listing = list_repo(address)
    except UsageError as error:
        if type(error.__cause__).__name__ != "RepositoryNotFoundError":
            raise
        with naming(str(address), address.kind, "pushed"), quiet():
            api.create_repo(address.repo, repo_type=address.kind, private=not public, exist_ok=True)
        listing = list_repo(address)
    if listing.private == public:
        there, wish = ("private", "--public is not needed") if public else ("public", "add --public to push there")
        raise UsageError(f"{address} is {there}: {wish}, or change who may read it on its page, under Settings")
    others = [name for name in sorted(listing.files) if name not in PLACEHOLDERS and not push.ours(name)]
    if others and push.marker not in listing.files:
        raise UsageError(f"{address} holds {few(others)} and no {push.marker}; push to a repository of its own")
    return listing


def push_files(
    push: Push, listing: Listing, new_card: bool, beside: Callable[[bytes], dict[str, Content]] = lambda card: {}
) -> tuple[Pushed, bool]:
    """Send what the hub does not have, and commit it; → also whether a card that was edited there stays.

    beside: what goes with a card that stays, in the place of files of these names. FailureError: stopped on the way;
    the same call goes on.
    """
    stays = None if new_card else card_that_stays(push.address, listing)
    files = {name: data for name, data in push.files.items() if stays is None or name != CARD}
    files |= {} if stays is None else beside(stays)
    removed = [name for name in listing.files if push.ours(name) and name not in push.files]
    return _commit(replace(push, files=files), listing, removed), stays is not None


def _commit(push: Push, listing: Listing, removed: Sequence[str]) -> Pushed:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    address, files, known = push.address, push.files, push.digests

    def missing(there: Listing) -> list[str]:
        return [name for name, data in files.items() if not _same(there.files.get(name), data, known.get(name, ""))]

    sent = missing(listing)
    api, commit = hub_api(), listing.commit
    with naming(str(address), address.kind, "pushed"), quiet(), no_bars():
        additions = [CommitOperationAdd(name, _as_given(files[name])) for name in sent]
        _send_large(api, address, additions)
        operations = [*additions, *(CommitOperationDelete(name) for name in removed)]
        for start in range(0, len(operations), MOST_IN_COMMIT):
            commit = api.create_commit(
                address.repo,
                operations[start : start + MOST_IN_COMMIT],
                commit_message=push.message,
                repo_type=address.kind,
                parent_commit=commit,
            ).oid
    if lost := missing(list_repo(address.at(commit))):  # the hub passes over names that a .gitignore there has
        raise FailureError(
            f"{address}: {lost[0]} was pushed and is not there; look whether a .gitignore in the repository names it"
        )
    url = f"{api.endpoint}/{'datasets/' if address.kind == 'dataset' else ''}{address.repo}"
    return Pushed(commit, url, sent, len(files) - len(sent), list(removed), listing.private)


def _send_large(api: Any, address: HubAddress, additions: Sequence[Any]) -> None:
    """Everything that is not small text; what the hub has already from a push that was stopped is not sent again."""
    total = sum(addition.upload_info.size for addition in additions)
    with tqdm(total=total, desc="pushing", unit="B", unit_scale=True, disable=None, leave=False) as bar:
        for start in range(0, len(additions), AT_ONCE):
            batch = additions[start : start + AT_ONCE]
            size = sum(addition.upload_info.size for addition in batch)
            api.preupload_lfs_files(address.repo, batch, repo_type=address.kind)
            bar.update(size)


def _same(there: RemoteFile | None, data: Content, sha256: str) -> bool:
    """Whether a file on the hub has these very bytes."""
    size = _size(data)
    if there is None or there.size != size:
        return False
    if there.sha256:
        known = sha256 or (sha256_of_bytes(data) if isinstance(data, bytes) else sha256_of_file(data))
        return there.sha256 == known
    return there.blob == hashlib.sha1(b"blob %d\0" % size + _content(data)).hexdigest()


def _size(data: Content) -> int:
    return len(data) if isinstance(data, bytes) else data.stat().st_size


def _content(data: Content) -> bytes:
    return data if isinstance(data, bytes) else data.read_bytes()


def _as_given(data: Content) -> bytes | str:
    if isinstance(data, bytes):
        return data
    if data.is_symlink() or not data.is_file():
        raise FormatError(f"{data} is not a plain file, and only such are pushed")
    return str(data)
