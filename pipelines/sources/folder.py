"""Any folder (or plain tar) of images: optional train/, val/ and test/, then sub-folders as classes, or none.

photos/*.jpg                                  one split, no classes
photos/cat/*.jpg  photos/dog/*.jpg            classes by sorted name; --val-fraction takes a share of each
photos/Training/cat/…  photos/dev/cat/…       splits of their own (split_folders.py); the same class ids in all
photos/cat/train/…     photos/cat/val/…       the same, where all classes hold splits alone
tiny-imagenet-200/train/<wnid>/images/*.JPEG  folders below the class do not matter
tiny-imagenet-200/val/images/*.JPEG           … and "images" is no class; val/val_annotations.txt has the classes
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from pipelines.archives import LeftOut, printable
from pipelines.sources.file_source import Arrangement, FileSource, noted_labels
from pipelines.sources.files import NOTES, FileList
from pipelines.sources.split_folders import (
    below_splits,
    check_classes,
    has_split_folders,
    listed,
    say_barren,
    say_one_class,
    say_other_files,
    say_ranks,
    split_of,
    splits_said,
    with_splits_first,
)
from pipelines.sources.subset import RULE, check_fraction, train_or_val
from shards.errors import FormatError, UsageError

log = logging.getLogger(__name__)

NO_CLASS = "images"
MASKS = re.compile(r"(.+?)[ _.-](masks?|seg|segmentation|gt|depth|heatmap|overlay)([ _.-]?\d+)?", re.IGNORECASE)


class FolderSource(FileSource):
    """`val_fraction` of each class, chosen by a hash of the images' names, are validation; None: none are."""

    name = "folder"

    def __init__(self, path: Path, val_fraction: float | None = None):
        super().__init__(path)
        self.val_fraction = val_fraction
        if val_fraction is not None:
            check_fraction(val_fraction)

    @property
    def set_name(self) -> str:
        return re.sub(r"\.tar$", "", self.path.resolve().name)

    @property
    def options(self) -> dict[str, Any]:
        return {"val_fraction": self.val_fraction}

    @property
    def rules(self) -> dict[str, Any]:
        return {} if self.val_fraction is None else {"val_fraction_rule": RULE}

    @cached_property
    def others(self) -> LeftOut:
        """Says which of them may hold what folders do not tell."""
        found, told = self.files.others, self.arrangement
        if found.tables and (None in told.labels or len({*told.splits}) == 1):
            line = "may say classes or splits, which is not read; `shard manifest` takes a table"
            found.notes.append(f"{listed(found.tables)} {line}")
        return found

    def arrange(self, files: FileList) -> Arrangement:
        """Raises UsageError or FormatError where splits and classes cannot be told; says what is odd."""
        names = [PurePosixPath(entry.name) for entry in files.images]
        placed = with_splits_first(names)
        folders = has_split_folders(placed)
        if folders and self.val_fraction is not None:
            raise UsageError("--val-fraction is for folders without a split of their own; this one has train/ or val/")
        noted = _noted_classes(files)
        inner = below_splits(placed) if folders else names
        _refuse_beside_images(names, inner, noted)
        labels = [noted.get(str(name)) or _class(below) for name, below in zip(names, inner, strict=True)]
        splits = [split_of(name.parts[0]) for name in placed] if folders else self._splits(names, labels)
        check_classes(splits, labels)
        say_ranks(labels)
        say_one_class(inner, labels)
        say_other_files(inner, labels)
        _say_what_parts_no_folders(files, labels)
        _say_masks(names)
        top = f"{self.path.resolve().stem}/{files.reader.root}".rstrip("/")
        said = splits_said(top)
        if not folders and self.val_fraction is None and said and "train" not in said:
            line = "%s may be a split by its name, and its images are for training; put them into a folder %s of one"
            log.warning(line, printable(top), listed(said, "or"))
        say_barren([name for name in files.barren if name.rpartition("/")[2] != NO_CLASS], folders, labels)
        return Arrangement(splits, labels, [str(below) for below in inner])

    def _splits(self, names: Sequence[PurePosixPath], labels: Sequence[str | None]) -> list[str | None]:
        splits = train_or_val([str(name) for name in names], labels, self.val_fraction)
        if self.val_fraction is not None and "val" not in splits:
            log.warning("no image is validation: of a class with a single image it is for training")
        return [*splits]


def _say_what_parts_no_folders(files: FileList, labels: Sequence[str | None]) -> None:
    r"""A line for a\b.png, as Windows zips unpack on Linux; and for a lone folder of images that lies beside others."""
    if odd := [entry.name for entry in files.images if "\\" in entry.name]:
        log.warning(r"\ is a letter of %d names, %s, and parts no folders", len(odd), listed(odd))
    root = files.reader.root.rstrip("/")
    if files.beside and not any(labels) and not _wraps(root.rpartition("/")[2]):
        line = "all images lie in %s, which is taken for no class; no image lies in %s"
        log.warning(line, printable(root), listed(files.beside))


def _say_masks(names: Sequence[PurePosixPath]) -> None:
    """A line for cat_1_mask.png beside cat_1.png, which is a picture of the set like any other."""
    alike = [(name, found[1]) for name in names if (found := MASKS.fullmatch(name.stem))]
    if not alike:
        return
    there = {name.with_suffix("") for name in names}
    if masks := [str(name) for name, rest in alike if name.with_name(rest) in there]:
        line = "%d images are by their names masks of others beside them, and are taken like any: %s"
        log.warning(line, len(masks), listed(masks))


def _class(name: PurePosixPath) -> str | None:
    """The first folder that is not called "images", which is a mere wrapping."""
    return next((part for part in name.parts[:-1] if not _wraps(part)), None)


def _wraps(folder: str) -> bool:
    return folder.casefold() == NO_CLASS


def _refuse_beside_images(
    names: Sequence[PurePosixPath], inner: Sequence[PurePosixPath], noted: dict[str, str]
) -> None:
    """FormatError for images/ beside masks/: are these a class, and what lies in images/ not?"""
    of_folder: dict[str, set[str]] = {}
    for name, below in zip(names, inner, strict=True):
        if len(below.parts) > 1 and str(name) not in noted:
            above = "/".join(name.parts[: len(name.parts) - len(below.parts)])
            of_folder.setdefault(above, set()).add(below.parts[0])
    for above, tops in of_folder.items():
        wrapping = {top for top in tops if _wraps(top)}
        if wrapping and (others := tops - wrapping):
            where = f"in {printable(above)} " if above else ""
            raise FormatError(
                f"{where}{listed(wrapping)} lies beside {listed(others)}: a folder called images is no class; move "
                "away what is none of the data set's pictures, or rename it if it is a class"
            )


def _noted_classes(files: FileList) -> dict[str, str]:
    """Class of each image that an annotation file beside its folder names: `val_0.JPEG<tab>n03444034<tab>…`."""
    classes = {}
    for note in files.notes:
        folder = str(PurePosixPath(note.name).parent)
        if PurePosixPath(note.name).name.casefold() == f"{PurePosixPath(folder).name}{NOTES}".casefold():
            text = files.read_note(note, note.name, "repair it, or remove it to go without classes")
            cells = (line.partition("\t") for line in text.decode("utf-8", "replace").splitlines())
            pairs = ((str(PurePosixPath(folder, NO_CLASS, file)), rest) for file, _, rest in cells)
            classes |= noted_labels(((name, rest.partition("\t")[0].strip()) for name, rest in pairs), note.name)
    return classes
