"""The distributed split files: `train_images.npy`, `val_images.npy` and the labels beside them.

An image list is a unicode array of "/<synset>/<object>/"; labels are integers, the rank of the synset in ascending
order. Both are only read, never unpickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.environment import pass_environment_on
from shards.errors import FormatError

SPLITS = ("train", "val")
LARGEST_LIST = 256 << 20  # bytes


@dataclass(frozen=True)
class SplitLists:
    """Objects ("synset/object") and, where a labels file was there, their labels. A split without a list is None."""

    folder: Path
    objects: dict[str, list[str]]
    labels: dict[str, np.ndarray]
    sha256: dict[str, str]

    def synsets(self) -> set[str]:
        return {path.split("/")[0] for paths in self.objects.values() for path in paths}

    def check_labels(self, classes: Sequence[str]) -> None:
        """Raises FormatError if a distributed label is not the rank of its synset among `classes`."""
        rank = {synset: label for label, synset in enumerate(classes)}
        for split, paths in self.objects.items():
            for path, stored in zip(paths, self.labels.get(split, []), strict=False):
                if rank[path.split("/")[0]] != stored:
                    raise FormatError(
                        f"{self.folder / split}_labels.npy says {stored} for {path}, but its synset has rank "
                        f"{rank[path.split('/')[0]]} of {len(classes)}; lists and data must be of the same data set"
                    )


def find_split_lists(folder: Path) -> SplitLists | None:
    """The lists in `folder`; None if it has no val_images.npy. Raises FormatError for a file that is no such list."""
    if not (folder / "val_images.npy").is_file():
        return None
    objects, labels, sha256 = {}, {}, {}
    for split in SPLITS:
        for kind in ("images", "labels"):
            path = folder / f"{split}_{kind}.npy"
            if path.is_file():
                array = _load(path, "iu" if kind == "labels" else "U")
                sha256[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
                if kind == "images":
                    objects[split] = [_object_path(text, path) for text in array.tolist()]
                else:
                    labels[split] = array
    lists = SplitLists(folder, objects, labels, sha256)
    _check(lists)
    return lists


def _load(path: Path, kinds: str) -> np.ndarray:
    if path.stat().st_size > LARGEST_LIST:
        raise FormatError(f"{path} has {path.stat().st_size} bytes; a split list has at most {LARGEST_LIST}")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        pass_environment_on(error)
        raise FormatError(f"{path} is not a NumPy file of plain values: {error}") from error
    if array.ndim != 1 or array.dtype.kind not in kinds:
        wanted = "integers" if kinds == "iu" else 'strings such as "/02691156/abc/"'
        raise FormatError(f"{path} holds {array.dtype} {array.shape}; a one-dimensional array of {wanted} is needed")
    return np.array(array)


def _object_path(text: str, file: Path) -> str:
    parts = text.strip("/").split("/")
    if len(parts) != 2 or not all(parts):
        raise FormatError(f"{file} lists {text!r}; /<synset>/<object>/ is needed")
    return "/".join(parts)


def _check(lists: SplitLists) -> None:
    for split, paths in lists.objects.items():
        labelled = len(lists.labels.get(split, paths))
        if labelled != len(paths):
            raise FormatError(f"{lists.folder / split}_images.npy has {len(paths)} rows, its labels file {labelled}")
    both = set(lists.objects.get("train", ())) & set(lists.objects["val"])
    if both:
        raise FormatError(f"{lists.folder}: {len(both)} objects are in both lists, e.g. {min(both)}")
