"""Archives and JPEGs with something broken in them: read, or refused in one line; nothing else is ever raised."""

from __future__ import annotations

import subprocess
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nasty_trees import make_tar, make_tree, make_zip
from odd_jpegs import READ

from pipelines.sources import open_source
from pipelines.sources.cifar100 import read_cifar100
from pipelines.sources.decode import decode_image
from pipelines.sources.three_diebench.tar import ObjectTar
from shards.errors import SeqJepaError


def mutated(rng: np.random.Generator, data: bytes) -> bytes:
    """One to three flips, overwritten, removed or inserted stretches."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at, length = int(rng.integers(len(out))), int(rng.integers(1, 600))
        kind = rng.integers(5)
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[at] = int(rng.choice([0, 255, 128, 127, ord("0"), ord("9")]))
        elif kind == 2:
            del out[at : at + min(length, len(out) - 1)]
        elif kind == 3:
            out[at:at] = rng.bytes(length)
        else:
            out[at : at + 16] = rng.bytes(16)
    return bytes(out)


def with_checksums(data: bytes) -> bytes:
    """Tar headers whose checksums hold, so that what is broken in them is looked at."""
    out = bytearray(data)
    for at in range(0, len(out) - 511, 512):
        if out[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)


def archives(tmp_path: Path, rng: np.random.Generator) -> list[bytes]:
    made = []
    for seed in range(4):
        folder = make_tree(tmp_path / str(seed), seed)
        made += [make_tar(folder, tmp_path / "t", kind, rng) for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
        made[-2:] = [path.read_bytes() for path in made[-2:]]
        made.append(make_zip(folder, tmp_path / "z", rng, bool(seed % 2)).read_bytes())
    with (tmp_path / "x.bmp").open("wb") as file:
        for at in (0, 90_000, 200_000):
            file.seek(at)
            file.write(b"BM" * 2000)
    for options in (["--format=gnu"], *(["--format=posix", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))):
        subprocess.run(["tar", *options, "-S", "-C", tmp_path, "-cf", tmp_path / "s", "x.bmp"], check=True)
        made.append((tmp_path / "s").read_bytes())
    return made


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_broken_archives(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sound, path, counts = archives(tmp_path, rng), tmp_path / "broken", Counter[str]()
    for number in range(1000):
        data = mutated(rng, sound[number % len(sound)])
        path.write_bytes(with_checksums(data) if rng.random() < 0.6 else data)
        for read in (read_images, lambda path: ObjectTar(path).list(), read_cifar100):
            counts[one_line(read, path)] += 1
    assert counts["read"] > 100
    assert counts["refused"] > 100


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_broken_jpegs() -> None:
    rng = np.random.default_rng(0)
    pictures = list(READ.values())
    counts = Counter(one_line(decode_image, mutated(rng, pictures[i % len(pictures)])) for i in range(2000))
    assert counts["read"] > 100
    assert counts["refused"] > 100


def read_images(path: Path) -> None:
    source = open_source("folder", path)
    for record in source.records():
        one_line(source.read, record)
    assert "\n" not in str(source.others)


def one_line(read: Callable, what: object) -> str:
    """What came of it. Any other exception passes through."""
    message = ""
    try:
        read(what)
    except (SeqJepaError, ValueError) as error:
        message = str(error) or type(error).__name__
    assert "\n" not in message
    return "refused" if message else "read"
