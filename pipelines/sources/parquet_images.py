"""Images within Parquet files, as on the Hugging Face hub: a column of {bytes, path} and, mostly, one of labels.

Splits are in the files' names: train-00000-of-00002.parquet, validation/0000.parquet. Labels of a `ClassLabel` are its
numbers, and its names the classes; of other columns the ranks of what is in them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pyarrow.types as pt

from pipelines.archives import read_content
from pipelines.sources.file_source import Arrangement
from pipelines.sources.files import HIDDEN, FileEntry, FileList
from pipelines.sources.folder import FolderSource
from pipelines.sources.parquet import ParquetPictures, read_parquet
from pipelines.sources.split_folders import check_classes, class_names, listed, splits_said
from pipelines.sources.subset import train_or_val
from shards.errors import FormatError, UsageError
from shards.json_fields import json_object, strings, take

log = logging.getLogger(__name__)

CLASSES = (pt.is_integer, pt.is_boolean, pt.is_string, pt.is_large_string, pt.is_dictionary, pt.is_null)
LABELS, IMAGES = ("label", "labels", "fine_label", "class", "target"), ("image", "img", "png", "jpg")


class ParquetReader(ParquetPictures):
    """A FileReader of cells: an image's name is its file and row, "data/train-00000-of-00002.parquet/17"."""

    is_folder = False

    def __reduce__(self) -> tuple:
        return ParquetReader, (self.root, self.column, self.files, self.of, self.places)  # a worker opens files itself

    def read(self, name: str, offset: int, length: int) -> bytes:
        return read_content(self.cell(name.rpartition("/")[0], offset))

    def content_sha256(self, *_: object) -> str:
        return self.identity()["content_sha256"]


class ParquetSource(FolderSource):
    """`path`: a Parquet file, or a folder of those of one configuration. Images are in the order of files and rows."""

    @cached_property
    def tables(self) -> list[str]:
        """Names below the folder. FormatError: those of several configurations, which may hold the same images."""
        below = (path for path in self.path.rglob("*.*") if path.suffix.lower() == ".parquet")
        found = sorted(below) if self.path.is_dir() else [self.path]
        names = [str(file.relative_to(self.folder)) for file in found]
        names = [name for name in names if not HIDDEN.search(name)]
        above = {"/".join(part for part in PurePath(name).parts[:-1] if not splits_said(part)) for name in names}
        if len(above) > 1:
            raise FormatError(f"{self.path} holds Parquet files in {listed(above)}; give one of these folders")
        return names

    @property
    def folder(self) -> Path:
        return self.path if self.path.is_dir() else self.path.parent

    @cached_property
    def columns(self) -> tuple[str, str | None, tuple[str, ...]]:
        """(of images, of labels, names of the labels by number). FormatError: no images, or several columns of them."""
        first = self.folder / self.tables[0]
        read_parquet(first, [])  # which says what is wrong with it
        schema = pq.read_schema(first)
        named = _names_of_labels((schema.metadata or {}).get(b"huggingface", b"{}"), f"{first}: what datasets noted")
        structs = [field for field in schema if pt.is_struct(field.type)]
        image = _one([field.name for field in structs if field.type.get_field_index("bytes") >= 0], IMAGES)
        label = _one([*named], LABELS) or _one([name for name in schema.names if name in LABELS], LABELS)
        if image is None:
            raise FormatError(f"{first} has no one column of images, {{bytes, path}}; there are {listed(schema.names)}")
        if label is None:
            log.warning("no column is called %s, so that images have no labels", ", ".join(LABELS))
        names = named.get(label or "", ())
        return image, label, names if len({*names}) == len(names) else ()

    @cached_property
    def labels(self) -> dict[str, list[str | None]]:
        """Of the rows of each file; None for none (null, −1, ""). FormatError: no labels, or one without a name."""
        _, column, names = self.columns
        found: dict[str, list[str | None]] = {}
        for file in self.tables:
            table = read_parquet(self.folder / file, [column] if column else [])
            if column and not any(is_kind(table[column].type) for is_kind in CLASSES):
                raise FormatError(f"{file}: {column} is of {table[column].type}; labels are whole numbers or texts")
            cells = table[column].to_pylist() if column else [None] * table.num_rows
            if names and (odd := {*cells} - {None, -1, *range(len(names))}):
                raise FormatError(f"{file}: {column} {min(odd)} has no name; there are {len(names)} names")
            found[file] = [None if cell in (None, -1, "") else names[cell] if names else str(cell) for cell in cells]
        return found

    @cached_property
    def files(self) -> FileList:
        rows = ((file, row) for file, labels in self.labels.items() for row in range(len(labels)))
        reader: Any = ParquetReader(self.folder, self.columns[0], self.tables, np.zeros(0), np.zeros(0))
        return FileList(reader, [FileEntry(f"{file}/{row}", row) for file, row in rows])

    def arrange(self, files: FileList) -> Arrangement:
        """FormatError: some files' names say a split, and not all; UsageError: --val-fraction beside splits."""
        paths = map(PurePath, self.tables)
        said = {str(path): splits_said(path.stem) or splits_said(str(path.parent)) for path in paths}
        doubtful = [file for file, splits in said.items() if len(splits) != 1]
        if any(said.values()) and doubtful:
            raise FormatError(f"{self.path}: {listed(doubtful)} say no one split each; rename them, or move them away")
        if not doubtful and self.val_fraction is not None:
            raise UsageError(f"--val-fraction is for files without a split of their own; {self.tables[0]} has one")
        labels = [label for labels in self.labels.values() for label in labels]
        names = [entry.name for entry in files.images]
        splits = train_or_val(names, labels, self.val_fraction)
        if not doubtful:
            splits = [min(said[file]) for file, labels in self.labels.items() for _ in labels]
        check_classes(splits, labels)
        return Arrangement(splits, labels, [re.sub(r"\.parquet/", "/", name, flags=re.IGNORECASE) for name in names])

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return self.columns[2] or class_names(label for labels in self.labels.values() for label in labels)


def _names_of_labels(noted: bytes, where: str) -> dict[str, tuple[str, ...]]:
    """The names of each column of ClassLabels. FormatError: what is noted is no such JSON."""
    info = take({"info": {}, **json_object(noted, where)}, "info", dict)
    features = take({"features": {}, **info}, "features", dict)
    labels = {name: kind for name, kind in features.items() if isinstance(kind, dict) and "names" in kind}
    return {name: strings(kind, "names") for name, kind in labels.items()}


def _one(names: Sequence[str], usual: Sequence[str]) -> str | None:
    """The lone one of these names, or the first usual one; None: it cannot be told."""
    return names[0] if len(names) == 1 else next((name for name in usual if name in names), None)
