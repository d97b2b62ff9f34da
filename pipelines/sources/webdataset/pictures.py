"""Images of frames that lie in plain tars, by row; workers read them."""

from __future__ import annotations

import heapq
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.archives import Content, printable
from pipelines.sources.content import content_sha256, file_stats, name_rank, stamp_of
from pipelines.sources.files import FileReader
from pipelines.sources.table import PlacedFile
from pipelines.sources.webdataset import RAW
from pipelines.sources.webdataset.samples import TarSamples, read_raw
from pipelines.sources.webdataset.sequences import TarFrames


@dataclass(frozen=True)
class RawPixels:
    """A .npy of uint8 [H, W, 3], read as a bitmap."""

    file: PlacedFile

    def read(self) -> bytes:
        """ValueError: it holds anything else."""
        buffer = io.BytesIO()
        Image.fromarray(read_raw(self.file.read())).save(buffer, "BMP")
        return buffer.getvalue()


class TarPictures:
    """Images of `frames`, whose rows are taken in `order`."""

    def __init__(self, samples: TarSamples, frames: TarFrames, order: np.ndarray):
        self.readers = [FileReader(path) for path in samples.paths]
        self.tars = [tar.name for tar in samples.tars]
        self.tar = np.asarray(frames.tar, np.int32)[order]
        self.offset = np.asarray(frames.offset, np.int64)[order]
        self.length = np.asarray(frames.length, np.int64)[order]
        self.member = pa.chunked_array(frames.members, pa.large_string()).take(pa.array(order)).combine_chunks()

    def name(self, row: int) -> str:
        return f"{self.tars[self.tar[row]]}: {printable(str(self.member[row]))}"

    def contents(self, rows: np.ndarray) -> Sequence[Content]:
        return [self._content(row) for row in rows.tolist()]

    def sample(self, count: int) -> list[tuple[str, Content]]:
        ranked = heapq.nsmallest(count, ((name_rank(self._place(row)), row) for row in range(len(self.tar))))
        return [(self.name(row), self._content(row)) for _, row in ranked]

    def stamp(self, rows: np.ndarray) -> str:
        return stamp_of(file_stats(self.readers[tar].path for tar in np.unique(self.tar[rows])))

    def identity(self) -> dict[str, Any]:
        sizes = np.where(self.length >= 0, self.length, -1 - self.length).tolist()
        names = (self._place(row) for row in range(len(sizes)))
        files = zip(names, sizes, strict=True)
        return {"content_sha256": content_sha256(files, lambda row, _: self._file(row).read())}

    def _place(self, row: int) -> str:
        return f"{self.tars[self.tar[row]]}/{self.member[row]}"

    def _file(self, row: int) -> PlacedFile:
        reader = self.readers[self.tar[row]]
        return PlacedFile(reader, str(self.member[row]), int(self.offset[row]), int(self.length[row]))

    def _content(self, row: int) -> Content:
        file = self._file(row)
        return RawPixels(file) if file.name.lower().endswith(RAW) else file
