"""One file from the web: bounded in size, hashed on the way, given its name only once it is the right one."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from tqdm import tqdm

from shards.errors import FailureError
from shards.files import AtomicFile, disk_full_named

TIMEOUT = 60.0  # seconds without a byte
STEP = 1 << 20


def download_checked(url: str, path: Path, *, size: int, sha256: str) -> None:
    """Writes what `url` serves to `path`. size: its exact number of bytes; no more than these are ever read.

    FailureError if it cannot be fetched or is another file; DiskFullError. `path` is then as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".download-", dir=path.parent))  # two processes do not meet in it
    try:
        with disk_full_named(path.parent, lambda: f"{path.name} needs {size:,} bytes"):
            file = AtomicFile(path, folder)
            try:
                _refuse_unless_right(url, size, sha256, *_copy(url, file, size, path.name))
                file.publish()
            finally:
                file.discard()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy(url: str, file: AtomicFile, size: int, name: str) -> tuple[int, str]:
    """(bytes, sha256) of what came, written to `file`; stops one byte past `size`."""
    digest, count = hashlib.sha256(), 0
    with tqdm(total=size, unit="B", unit_scale=True, desc=f"downloading {name}", disable=None) as bar:
        for data in _pieces(url, size + 1):
            digest.update(data)
            file.write(data)
            count += len(data)
            bar.update(len(data))
    return count, digest.hexdigest()


def _pieces(url: str, limit: int) -> Iterator[bytes]:
    try:
        with urlopen(url, timeout=TIMEOUT) as response:
            while limit > 0 and (data := response.read(min(STEP, limit))):
                limit -= len(data)
                yield data
    except (OSError, HTTPException) as error:
        raise FailureError(f"{url} could not be downloaded: {error!r}; run the command again") from error


def _refuse_unless_right(url: str, size: int, sha256: str, found_size: int, found_sha256: str) -> None:
    if found_size != size:
        found = f"more than {size:,}" if found_size > size else f"{found_size:,}"
        raise FailureError(f"{url} served {found} bytes instead of {size:,}; run the command again")
    if found_sha256 != sha256:
        raise FailureError(f"{url} served a file with sha256 {found_sha256} instead of {sha256}; nothing was kept")
