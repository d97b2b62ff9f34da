"""Why a folder or tar is no set of objects in 3DIEBench's layout: its pictures are PNG, or called otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from pipelines.archive_member import FILE
from pipelines.left_out import shown
from pipelines.tar_stream import TarStream
from shards.errors import FormatError

KINDS = {".png": "PNG", ".webp": "WebP", ".bmp": "BMP", ".exr": "EXR", ".tif": "TIFF", ".tiff": "TIFF"}
PICTURES = (*KINDS, ".jpg", ".jpeg")
LOOKED_AT = 10_000  # files
WANTED = "<synset>/<object>/image_<k>.jpg beside latent_<k>.npy"
PAGE = "docs/3diebench-layout.md"


def no_layout(path: Path) -> FormatError:
    """What to raise where `path`, a folder or a tar, holds no view at all."""
    names = sorted(name for name in islice(_files(path), LOOKED_AT) if _suffix(name) in PICTURES)
    example = shown(names[0]) if names else ""
    if kinds := sorted({KINDS[suffix] for suffix in map(_suffix, names) if suffix in KINDS}):
        return FormatError(
            f"{path} holds no {WANTED}: its pictures are {' and '.join(kinds)} ({example}), and views have to be JPEG "
            f"files called image_<k>.jpg, k from 0; convert them ({PAGE})"
        )
    there = f" (it has {example})" if names else ""
    return FormatError(f"{path} holds no {WANTED}{there}; give the folder (or tar) that has this layout ({PAGE})")


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _files(path: Path) -> Iterator[str]:
    if path.is_dir():
        for folder, _, names in os.walk(path):
            yield from (os.path.relpath(os.path.join(folder, name), path) for name in names)
        return
    with TarStream(path) as stream:
        yield from (str(PurePosixPath(member.name)) for member in stream if member.kind == FILE)
