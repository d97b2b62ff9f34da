"""hf:// addresses: files of a repository on the Hugging Face hub, read into huggingface_hub's own cache.

The one place that knows the addresses and what the hub's refusals mean; push/hub_push.py writes. HF_ENDPOINT, HF_HOME,
HF_TOKEN and HF_HUB_OFFLINE mean what they mean to huggingface_hub. What is in the cache is not loaded again; an
interrupted download goes on where it was.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from shards.errors import DiskFullError, FailureError, FormatError, SeqJepaError, UsageError, reason_of
from shards.extras import missing
from shards.machine.environment import NO_SPACE, error_number

SCHEME = "hf://"
Kind = Literal["model", "dataset"]
_REPO = r"\w[\w.-]{0,95}/\w[\w.-]{0,95}"
ADDRESS = re.compile(rf"hf://(?:(models|datasets)/)?({_REPO})(?:@([\w./-]+))?/?", re.ASCII)
SPELLED = {"dataset": "hf://datasets/USER/REPO", "model": "hf://USER/REPO"}
WORDS = {"dataset": "data set", "model": "model"}
THREADS = 4
CLIENTS = ("huggingface_hub", "httpx", "httpx2", "requests", "hf_xet")  # whose errors are the network's


@dataclass(frozen=True)
class HubAddress:
    """A repository, and a branch, tag or commit of it (None: its main branch)."""

    kind: Kind
    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        folder = "datasets/" if self.kind == "dataset" else ""
        return f"{SCHEME}{folder}{self.repo}{f'@{self.revision}' if self.revision else ''}"

    def at(self, revision: str | None) -> HubAddress:
        """The same repository at a branch, tag or commit."""
        return HubAddress(self.kind, self.repo, revision)


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub lists it. sha256: of large files alone; blob: git's id of small ones, "" where not told."""

    size: int
    sha256: str = ""
    blob: str = ""


@dataclass(frozen=True)
class Listing:
    """What a repository holds at one commit, by path, and whether anybody may read it."""

    commit: str
    files: dict[str, RemoteFile]
    private: bool


@dataclass(frozen=True)
class HubFolder:
    """One commit of a repository: `address` without revision, the commit's hash, and the folder in the cache."""

    address: HubAddress
    commit: str
    root: Path

    @property
    def repo(self) -> str:
        return self.address.repo

    def fetch(self, names: Sequence[str], to: Path | None = None) -> None:
        """Load what is missing of these files below the folder (or `to`), with a bar. Errors as open_hub."""
        from huggingface_hub import hf_hub_download

        def load(name: str) -> None:
            with naming(f"{self.address}: {name}", self.address.kind):
                hf_hub_download(
                    self.repo,
                    name,
                    repo_type=self.address.kind,
                    revision=self.commit,
                    endpoint=endpoint(),
                    local_dir=to,
                )

        missing = [name for name in dict.fromkeys(names) if not ((to or self.root) / name).exists()]
        pool = ThreadPoolExecutor(THREADS)
        try:
            with quiet():
                loaded = pool.map(load, missing)
                for _ in tqdm(loaded, "downloading", len(missing), unit="file", disable=None, leave=False):
                    pass
        finally:
            pool.shutdown(cancel_futures=True)


def is_hub_address(source: object) -> bool:
    """Also of what a Path made of an address, whose second slash is gone."""
    return str(source).startswith("hf:")


def parse_address(address: str, kind: Kind) -> HubAddress:
    """hf://USER/REPO@REVISION; of data sets hf://datasets/USER/REPO too. UsageError: anything else."""
    found = ADDRESS.fullmatch(address if address.startswith(SCHEME) else address.replace("hf:/", SCHEME, 1))
    if not found or found[1] not in (None, f"{kind}s") or found[2].startswith(("datasets/", "models/")):
        raise UsageError(f"{address}: {SPELLED[kind]} or {SPELLED[kind]}@REVISION is needed")
    return HubAddress(kind, found[2], found[3])


def open_hub(address: str | HubAddress, patterns: Sequence[str]) -> HubFolder:
    """The repository (text: of a data set), of which the files that fit `patterns` are loaded.

    UsageError: another address, no such repository or revision; FailureError: it cannot be reached.
    """
    where = parse_address(address, "dataset") if isinstance(address, str) else address
    require_hub()
    from huggingface_hub import snapshot_download

    bars = contextlib.nullcontext() if sys.stderr.isatty() else no_bars()  # which are drawn into files and pipes too
    with naming(str(where), where.kind), quiet(), bars:
        root = Path(
            snapshot_download(
                where.repo,
                repo_type=where.kind,
                revision=where.revision,
                allow_patterns=list(patterns),
                endpoint=endpoint(),
            )
        )
    return HubFolder(where.at(None), root.name, root)


def list_repo(address: HubAddress) -> Listing:
    """Names and sizes of what is there. Errors as open_hub."""
    with naming(str(address), address.kind), quiet():
        info = hub_api().repo_info(address.repo, repo_type=address.kind, revision=address.revision, files_metadata=True)
    found = {}
    for file in info.siblings or []:
        large: Any = file.lfs
        digest = large["sha256"] if isinstance(large, dict) else getattr(large, "sha256", None)
        found[file.rfilename] = RemoteFile(file.size or 0, digest or "", file.blob_id or "")
    return Listing(str(info.sha), found, bool(info.private))


def require_hub() -> None:
    """UsageError where huggingface_hub is not installed."""
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise missing("huggingface_hub", "an hf:// address") from error


def hub_api() -> Any:
    """huggingface_hub.HfApi at the endpoint that the environment names."""
    require_hub()
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint())


def endpoint() -> str | None:
    """Given anew, for huggingface_hub reads the variable when it is first imported."""
    return os.environ.get("HF_ENDPOINT") or None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """huggingface_hub logs each of its attempts as a warning; what comes of them is said once, by `naming`."""
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextlib.contextmanager
def no_bars() -> Iterator[None]:
    """Without huggingface_hub's bars."""
    from huggingface_hub import utils

    hidden = not utils.are_progress_bars_disabled()
    if hidden:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        if hidden:
            utils.enable_progress_bars()


_REFUSALS: dict[str, tuple[type[SeqJepaError], str]] = {
    "LocalEntryNotFoundError": (FailureError, ": the hub cannot be reached, and it is not in the cache ({why})"),
    "DisabledRepoError": (UsageError, ": the hub has closed it; its page says why"),
    "GatedRepoError": (UsageError, ": its owner lets in who asked for it; ask on its page, then `hf auth login`"),
    "RepositoryNotFoundError": (
        UsageError,
        ": there is no such {kind}, or it is private; see the name, `hf auth login`",
    ),
    "RevisionNotFoundError": (
        UsageError,
        ": there is no such revision; give a branch, tag or commit that its page lists",
    ),
    "EntryNotFoundError": (FormatError, " is not there: the {kind} on the hub is not complete"),
    "HFValidationError": (UsageError, ": {why}"),
}
"""huggingface_hub's errors by name, each before those that it is a kind of."""


@contextlib.contextmanager
def naming(what: str, kind: Kind = "dataset", done: str = "loaded") -> Iterator[None]:
    """Says of what the hub's refusals are, in a line. done: what could not be, "loaded" or "pushed"."""
    from huggingface_hub import errors

    try:
        yield
    except Exception as error:
        # A file that is not in the cache either may be one that the hub refused.
        refused = isinstance(error, errors.LocalEntryNotFoundError) and _status(error)
        told = error.__cause__ if refused and isinstance(error.__cause__, Exception) else error
        for name, (ours, line) in _REFUSALS.items():
            if isinstance(told, getattr(errors, name)):
                raise ours(what + line.format(kind=WORDS[kind], why=_first(told))) from error
        if (said := _explained(what, done, told)) is None:
            raise
        raise said from error


def _explained(what: str, done: str, error: Exception) -> Exception | None:
    """By the answer's status, wherever in the chain of causes it stands; None for what is not the network's."""
    chain = _chain(error)
    if any(error_number(one) in NO_SPACE for one in chain):
        return DiskFullError(f"{what}: no space left for huggingface_hub's cache; free some, or set HF_HOME")
    theirs = [one for one in chain if type(one).__module__.partition(".")[0] in CLIENTS]
    if not theirs and not isinstance(error, OSError):
        return None
    status = _status(error)
    if status == 401:
        return UsageError(f"{what}: you are not logged in, or the token is not valid; `hf auth login`, or set HF_TOKEN")
    if status == 403:
        do = "a token that may read it" if done == "loaded" else "a token that may write, or a name of your own"
        return UsageError(f"{what}: your token gives no permission for that; take {do}")
    if status in (409, 412):
        return FailureError(f"{what}: it was changed there meanwhile; the same command goes on")
    if status == 429:
        return FailureError(f"{what}: the hub asks for fewer requests; wait some minutes, the same command goes on")
    reason = _first(theirs[-1] if theirs else error)
    if "xet-write-token" in reason and "404" in reason:
        return FailureError(f"{what}: the server there has no Xet storage; set HF_HUB_DISABLE_XET=1 and push again")
    unreached = ("OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "ConnectionError")
    if isinstance(error, ConnectionError) or any(type(one).__name__ in unreached for one in chain):
        return FailureError(f"{what}: the hub cannot be reached ({reason}); the same command goes on")
    return FailureError(f"{what}: cannot be {done} ({reason}); the same command goes on")


def _chain(error: BaseException) -> list[BaseException]:
    """The error and its causes."""
    return [error, *(_chain(error.__cause__) if error.__cause__ else [])]


def _status(error: BaseException) -> int:
    """Of the hub's answer, wherever in the chain of causes; 0: there was none."""
    return next((r.status_code for one in _chain(error) if (r := getattr(one, "response", None)) is not None), 0)


def _first(error: BaseException) -> str:
    return reason_of(error)[:200]
