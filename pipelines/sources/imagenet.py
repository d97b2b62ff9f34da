"""ImageNet's folders, or a plain tar or zip of them: train/<wnid>/*.JPEG and val/<wnid>/*.JPEG.

Also as people have it: below other folders (Kaggle's ILSVRC/Data/CLS-LOC/), with a flat, unlabelled test/, which is
left out, and with a flat val/ whose labels lie in Kaggle's file or in the development kit's two:

LOC_val_solution.csv                          ImageId,PredictionString: the image's stem; "<wnid> x y x y …" of boxes
ILSVRC2012_validation_ground_truth.txt        line i: the ILSVRC2012_ID of image ILSVRC2012_val_<i, eight digits>
meta.mat                                      "synsets": the WordNet id of each ILSVRC2012_ID

The class is the rank of the WordNet id among all ids of all splits in ascending order, so that training and validation
agree (docs/fidelity.md #57).
"""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Iterable
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.archives.tar import TarStream
from pipelines.sources.file_source import Arrangement, FileSource, noted_labels
from pipelines.sources.files import FileEntry, FileList, list_files
from pipelines.sources.keys import file_keys
from pipelines.sources.split_folders import check_classes, listed, refuse_twofold, say_barren, split_of
from shards.errors import FormatError

log = logging.getLogger(__name__)

WNID = re.compile(r"n\d{8}")
FETCH = "fetch it again"
SOLUTION, TRUTH, SYNSETS = "LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
PACKED = re.compile(r"(.*/)?n\d{8}\.tar")
PACKED_CLASSES = ("n????????.tar", "train/n????????.tar", "*/train/n????????.tar")
OFFICIAL = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
UNPACK = (
    "mkdir -p imagenet/train imagenet/val && tar -xf ILSVRC2012_img_train.tar -C imagenet/train && "
    'for t in imagenet/train/*.tar; do mkdir "${t%.tar}" && tar -xf "$t" -C "${t%.tar}" && rm "$t"; done && '
    "tar -xf ILSVRC2012_img_val.tar -C imagenet/val && tar -xzf ILSVRC2012_devkit_t12.tar.gz -C imagenet"
)
DEVKIT = (
    "the labels of a flat val/ come from Kaggle's LOC_val_solution.csv, or from the development kit (tar -xzf "
    "ILSVRC2012_devkit_t12.tar.gz); put either beside val/, in an archive too"
)


class ImageNetSource(FileSource):
    """FormatError where the official archives are not unpacked yet: the message has the commands."""

    name = "imagenet"
    texts = (SOLUTION, TRUTH, SYNSETS)

    @cached_property
    def files(self) -> FileList:
        try:
            files = list_files(self.path, self.texts)
        except FormatError as error:
            if packed := _packed(self.path):
                raise _not_unpacked(self.path, packed) from error
            raise
        if packed := _packed(self.path, unpacked=files):
            raise _not_unpacked(self.path, packed)
        return files

    def arrange(self, files: FileList) -> Arrangement:
        """Keys are file names, "n01440764_10026", or paths below the split where names recur.

        Raises FormatError for an image that lies in no split or, but for test/, has no WordNet id.
        """
        places = [_Place(entry.name) for entry in files.images]
        refuse_twofold({place.folder for place in places})
        flat = [place for place in places if place.wnid is None]
        refuse_copies(place.below for place in places if place.split == "val")
        noted = validation_wnids(files) if any(place.split == "val" for place in flat) else {}
        labels = [place.wnid or noted.get(place.below.rpartition(".")[0]) for place in places]
        splits = [_kept(place, label) for place, label in zip(places, labels, strict=True)]
        check_classes(splits, labels)
        say_barren([name for name in files.barren if WNID.fullmatch(name.rpartition("/")[2])], True, labels)
        if unlabelled := splits.count(None):
            log.warning("%d images of test/ have no labels and are left out", unlabelled)
        return Arrangement(splits, labels, [place.below for place in places], file_keys)


def refuse_copies(below_val: Iterable[str]) -> None:
    """FormatError: images of a flat val/ that lie in folders of their classes too, as scripts leave them that copy."""
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for path in below_val:
        folder, _, name = path.rpartition("/")
        found[bool(WNID.fullmatch(folder.partition("/")[0]))].add(name)
    if both := found[True] & found[False]:
        raise FormatError(f"{listed(both)} lie in val/ both in folders of classes and outside; remove either copy")


class _Place:
    """Where an image lies: `folder`/`below`; `folder` means `split`; `wnid` is the folder below it, None for none."""

    def __init__(self, name: str):
        parts = name.split("/")
        depth = next((i for i in range(len(parts) - 2, -1, -1) if split_of(parts[i])), None)
        if depth is None:
            if name.startswith("ILSVRC2012_val_"):
                raise FormatError(f"{name} lies in no split: put all of these images into a folder val. {DEVKIT}")
            raise _misplaced(name)
        below = parts[depth + 1 :]
        self.name, self.folder, self.below = name, "/".join(parts[: depth + 1]), "/".join(below)
        self.split = str(split_of(parts[depth]))
        self.wnid = below[0] if len(below) > 1 else None
        if self.wnid is not None and not WNID.fullmatch(self.wnid):
            raise _misplaced(name)


def _kept(place: _Place, label: str | None) -> str | None:
    """The split; None for an unlabelled test image. FormatError: any other image without a label."""
    if label is not None:
        return place.split
    if place.split == "val":
        raise FormatError(f"{place.name} has no label: {DEVKIT}")
    if place.split == "train":
        raise _misplaced(place.name)
    return None


def _misplaced(name: str) -> FormatError:
    return FormatError(
        f"{name} does not lie in train/<wnid>/ or val/<wnid>/ (a wnid is n and eight digits); sort the images into "
        "these folders (a set that is one split, as ImageNet-Sketch: mkdir val && mv n* val), or use `shard folder`"
    )


def _packed(path: Path, unpacked: FileList | None = None) -> str | None:
    """A tar of images that still is to be unpacked, by name: in the folder `path`, or in the tar `path`."""
    if path.is_file():
        return None if unpacked else _packed_in_tar(path)
    found = [file for pattern in PACKED_CLASSES for file in path.glob(pattern)]
    there = {split_of(part) for entry in unpacked.images for part in entry.name.split("/")[:-1]} if unpacked else set()
    found += [path / name for split, name in OFFICIAL.items() if (path / name).is_file() and split not in there]
    return min((str(file.relative_to(path)) for file in found), default=None)


def _packed_in_tar(path: Path) -> str | None:
    try:
        with TarStream(path, seek=True) as stream:
            return next((member.name for member in islice(stream, 8) if PACKED.fullmatch(member.name)), None)
    except FormatError:
        return None


def _not_unpacked(path: Path, packed: str) -> FormatError:
    return FormatError(f"{path} holds {packed}, a tar inside it that is not unpacked; unpack all with: {UNPACK}")


def validation_wnids(files: FileList) -> dict[str, str]:
    """WordNet id of each validation image by its stem; empty where no such file lies there.

    Raises FormatError for a file that is there and is not what it should be.
    """
    notes = {note.name.rpartition("/")[2]: note for note in reversed(files.notes)}
    if SOLUTION in notes:
        return _solution_wnids(_text(files, notes[SOLUTION]), notes[SOLUTION].name)
    if TRUTH not in notes or SYNSETS not in notes:
        return {}
    truth, synsets = notes[TRUTH], notes[SYNSETS]
    wnids = _synset_wnids(files.read_note(synsets, synsets.name, FETCH), synsets.name)
    numbers = _text(files, truth).split()
    for number in numbers:
        if number not in wnids:
            raise FormatError(f"{truth.name} has {number!a}, which {synsets.name} does not know; fetch the kit again")
    return {f"ILSVRC2012_val_{i:08d}": wnids[number] for i, number in enumerate(numbers, 1)}


def _text(files: FileList, note: FileEntry) -> str:
    return files.read_note(note, note.name, FETCH).decode("utf-8", "replace")


def _solution_wnids(text: str, where: str) -> dict[str, str]:
    rows = [[*row, ""] for row in csv.reader(text.splitlines()[1:]) if row]
    found = [(row[0].strip().removesuffix(".JPEG"), row[1].strip().partition(" ")[0]) for row in rows]
    for stem, wnid in found:
        if not WNID.fullmatch(wnid):
            raise FormatError(f"{where}: the line of {stem!a} has no WordNet id; fetch it again")
    return noted_labels(found, where)


def _synset_wnids(data: bytes, where: str) -> dict[str, str]:
    """ILSVRC2012_ID, as text, to WordNet id."""
    from scipy.io import loadmat

    try:
        synsets: Any = loadmat(io.BytesIO(data), squeeze_me=True)["synsets"]
        found = {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in synsets.ravel()}
    except Exception as error:  # whatever a MATLAB file that is none makes SciPy raise
        raise FormatError(f"{where} is not the development kit's table of synsets; fetch it again") from error
    if not all(WNID.fullmatch(wnid) for wnid in found.values()):
        raise FormatError(f"{where} has synsets without a WordNet id; fetch the kit again")
    return found
