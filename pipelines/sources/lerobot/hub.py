"""hf:// addresses: those files of a data set on the Hugging Face hub that are needed, in huggingface_hub's own cache.

HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE mean what they mean there. What is in the cache is not loaded again;
an interrupted download goes on where it was.
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

from tqdm import tqdm

from shards.environment import NO_SPACE, error_number
from shards.errors import DiskFullError, FailureError, FormatError, UsageError, reason_of
from shards.extras import missing

SCHEME = "hf://"
ADDRESS = re.compile(r"hf://(?:datasets/)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?/?", re.ASCII)
THREADS = 4
CLIENTS = ("huggingface_hub", "httpx", "httpx2", "requests", "hf_xet")  # whose errors are the network's


@dataclass(frozen=True)
class HubFolder:
    """One commit of a data set: `address` without revision, the commit's hash, and the folder in the cache."""

    address: str
    commit: str
    root: Path

    @property
    def repo(self) -> str:
        return self.address.removeprefix(f"{SCHEME}datasets/")

    def fetch(self, names: Sequence[str]) -> None:
        """Load what is missing of these files below the folder, with a bar. Errors as open_hub."""
        from huggingface_hub import hf_hub_download

        def load(name: str) -> None:
            with _naming(f"{self.address}: {name}"):
                hf_hub_download(self.repo, name, repo_type="dataset", revision=self.commit, endpoint=_endpoint())

        missing = [name for name in dict.fromkeys(names) if not (self.root / name).exists()]
        pool = ThreadPoolExecutor(THREADS)
        try:
            for _ in tqdm(pool.map(load, missing), "downloading", len(missing), unit="file", disable=None, leave=False):
                pass
        finally:
            pool.shutdown(cancel_futures=True)


def is_hub_address(source: str) -> bool:
    return source.startswith("hf:")


def open_hub(address: str, patterns: Sequence[str]) -> HubFolder:
    """hf://datasets/USER/REPO@REVISION (or hf://USER/REPO), of which the files that fit `patterns` are loaded.

    UsageError: another address, no such data set or revision; FailureError: it cannot be reached.
    """
    if not (found := ADDRESS.fullmatch(address)):
        raise UsageError(f"{address}: hf://datasets/USER/REPO or hf://datasets/USER/REPO@REVISION is needed")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise missing("huggingface_hub", "an hf:// address") from error
    plain = f"{SCHEME}datasets/{found[1]}"
    with _naming(address), _bars_on_terminals():
        root = Path(
            snapshot_download(
                found[1], repo_type="dataset", revision=found[2], allow_patterns=list(patterns), endpoint=_endpoint()
            )
        )
    return HubFolder(plain, root.name, root)


def _endpoint() -> str | None:
    """Given anew, for huggingface_hub reads the variable when it is first imported."""
    return os.environ.get("HF_ENDPOINT") or None


@contextlib.contextmanager
def _bars_on_terminals() -> Iterator[None]:
    """huggingface_hub draws its bars into files and pipes too."""
    from huggingface_hub import utils

    hidden = not sys.stderr.isatty() and not utils.are_progress_bars_disabled()
    if hidden:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        if hidden:
            utils.enable_progress_bars()


@contextlib.contextmanager
def _naming(what: str) -> Iterator[None]:
    """Says of what the hub's refusals are, in a line."""
    from huggingface_hub import errors

    try:
        yield
    except errors.LocalEntryNotFoundError as error:  # also where only the cache may be asked
        raise FailureError(
            f"{what}: the hub cannot be reached, and it is not in the cache ({_first(error)})"
        ) from error
    except errors.GatedRepoError as error:
        raise UsageError(
            f"{what}: its owner lets in who asked for it; ask on its page, then `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UsageError(
            f"{what}: there is no such data set, or it is private; see the name, `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UsageError(
            f"{what}: there is no such revision; give a branch, tag or commit that its page lists"
        ) from error
    except errors.EntryNotFoundError as error:
        raise FormatError(f"{what} is not there: the set on the hub is not complete") from error
    except errors.HFValidationError as error:
        raise UsageError(f"{what}: {_first(error)}") from error
    except OSError as error:
        if error_number(error) in NO_SPACE:
            raise DiskFullError(
                f"{what}: no space left for huggingface_hub's cache; free some, or set HF_HOME"
            ) from error
        raise FailureError(f"{what}: cannot be loaded ({_first(error)}); the same command goes on") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in CLIENTS:
            raise
        raise FailureError(f"{what}: cannot be loaded ({_first(error)}); the same command goes on") from error


def _first(error: BaseException) -> str:
    return reason_of(error)[:200]
