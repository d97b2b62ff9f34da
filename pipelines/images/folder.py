"""Any folder (or plain tar) of images: optional train/, val/ and test/, then sub-folders as classes, or none.

photos/*.jpg                                  one split, no classes
photos/cat/*.jpg  photos/dog/*.jpg            classes by sorted name; --val-fraction chooses by name
photos/train/cat/…  photos/val/cat/…          splits of their own; the same class ids in all
tiny-imagenet-200/train/<wnid>/images/*.JPEG  folders below the class do not matter
tiny-imagenet-200/val/images/*.JPEG           … and "images" is no class; val/val_annotations.txt has the classes
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipelines.images.file_list import NOTES, SPLIT_FOLDERS, FileEntry, FileList
from pipelines.images.file_source import Arrangement, FileSource
from shards.errors import FormatError, UsageError

NO_CLASS = "images"


@dataclass(frozen=True)
class FolderRule:
    """`val_fraction` of the images, chosen by a hash of their names, are validation; None: none are."""

    val_fraction: float | None = None

    def __post_init__(self) -> None:
        if self.val_fraction is not None and not 0 < self.val_fraction < 1:
            raise UsageError(f"--val-fraction {self.val_fraction}: a number between 0 and 1 is needed, e.g. 0.2")

    def __call__(self, files: FileList) -> Arrangement:
        """Raises UsageError or FormatError where split folders and others lie side by side."""
        names = [PurePosixPath(entry.name) for entry in files.images]
        folders = has_split_folders(names)
        if folders and self.val_fraction is not None:
            raise UsageError("--val-fraction is for folders without a split of their own; this one has train/ or val/")
        noted = _noted_classes(files)
        splits, labels, places = [], [], []
        for name in names:
            inner = PurePosixPath(*name.parts[1:]) if folders else name
            splits.append(SPLIT_FOLDERS[name.parts[0]] if folders else self._split(str(name)))
            labels.append(noted.get(str(name)) or _class(inner))
            places.append(str(inner))
        return Arrangement(splits, labels, places)

    def _split(self, name: str) -> str:
        """It depends on the image's own name only, so that a grown folder keeps what it had."""
        if self.val_fraction is None:
            return "train"
        digest = hashlib.sha256(name.encode()).digest()
        return "val" if int.from_bytes(digest[:6], "big") / 2**48 < self.val_fraction else "train"


def folder_source(path: Path, val_fraction: float | None = None) -> FileSource:
    return FileSource("folder", path, FolderRule(val_fraction), {"val_fraction": val_fraction})


def has_split_folders(names: list[PurePosixPath]) -> bool:
    """Whether all images lie below train/, val/ … or none does. FormatError if some do."""
    tops = {name.parts[0] if len(name.parts) > 1 else "" for name in names}
    found = tops & SPLIT_FOLDERS.keys()
    if found and tops - found:
        other = min(tops - found)
        raise FormatError(
            f"{', '.join(sorted(found))} lie beside {other or 'images'}: either all images lie below train, val or "
            "test, or none does; give one folder of them, or move the rest"
        )
    return bool(found)


def _class(name: PurePosixPath) -> str | None:
    """The first folder; "images" is a mere wrapping."""
    return name.parts[0] if len(name.parts) > 1 and name.parts[0] != NO_CLASS else None


def _noted_classes(files: FileList) -> dict[str, str]:
    """Class of each image that an annotation file beside its folder names: `val_0.JPEG<tab>n03444034<tab>…`."""
    classes = {}
    for note in files.notes:
        folder = str(PurePosixPath(note.name).parent)
        if PurePosixPath(note.name).name == f"{PurePosixPath(folder).name}{NOTES}":
            for line in _lines(files, note):
                file, _, rest = line.partition("\t")
                classes[str(PurePosixPath(folder, NO_CLASS, file))] = rest.partition("\t")[0].strip()
    return classes


def _lines(files: FileList, note: FileEntry) -> list[str]:
    try:
        return files.reader.read(note.name, note.offset, note.length).decode("utf-8", "replace").splitlines()
    except ValueError as error:
        raise FormatError(f"{note.name}: {error}; repair it, or remove it to go without classes") from error
