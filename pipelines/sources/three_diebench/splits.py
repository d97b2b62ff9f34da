"""Which object belongs to which split, and which number its class has.

3DIEBench's own split files are `train_images.npy`, `val_images.npy` and the labels beside them. An image list is a
unicode array of "/<synset>/<object>/"; labels are integers, the rank of the synset in ascending order. Both are only
read, never unpickled.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.sources.split_folders import split_of
from pipelines.sources.subset import RULE, train_or_val
from pipelines.sources.three_diebench.tree import OF_SPLITS, ListedObject
from shards.errors import FormatError, UsageError
from shards.machine.environment import pass_environment_on

log = logging.getLogger(__name__)

SPLITS = ("all", "train", "val", "ood")
LISTED_SPLITS = ("train", "val")
LARGEST_LIST = 256 << 20  # bytes
THREE_WAYS = (
    "no split is given: pass --split-lists DIR with the distributed val_images.npy (and train_images.npy), or "
    "--val-match NAME (objects of that name are validation), or --val-fraction F (of each class, chosen by name)"
)


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


@dataclass(frozen=True)
class SplitRule:
    """How to tell training from validation: one of the three, or none of them for "ood"."""

    lists: SplitLists | None = None
    val_match: str | None = None
    val_fraction: float | None = None

    def describe(self) -> dict:
        """What of it belongs into a fingerprint and provenance: JSON values."""
        if self.val_match is not None:
            return {"val_match": self.val_match}
        if self.val_fraction is not None:
            return {"val_fraction": self.val_fraction, "val_fraction_rule": RULE}
        return {"lists_sha256": self.lists.sha256} if self.lists else {}


def split_rule(
    source: Path, split_lists: Path | None, val_match: str | None, val_fraction: float | None, split: str
) -> SplitRule:
    """The one rule that was given; else the lists that lie in the tree's root.

    Raises UsageError for a split that is not known, and for no rule or two.
    """
    if split not in SPLITS:
        raise UsageError(f"--split {split!r} is not known; allowed are {', '.join(SPLITS)}")
    given = [name for name in (split_lists, val_match, val_fraction) if name is not None]
    if len(given) > 1 or (split == "ood" and given and split_lists is None):
        raise UsageError(
            "give one of --split-lists, --val-match and --val-fraction, and only --split-lists with --split ood"
        )
    if val_match is not None or val_fraction is not None:
        return SplitRule(val_match=val_match, val_fraction=val_fraction)
    lists = find_split_lists(split_lists or source)
    if lists is None and split_lists is not None:
        raise FormatError(f"{split_lists} holds no val_images.npy; give the folder of the distributed split lists")
    if lists is None and split != "ood":
        raise UsageError(THREE_WAYS)
    return SplitRule(lists=lists)


def find_split_lists(folder: Path) -> SplitLists | None:
    """The lists in `folder`; None if it has no val_images.npy. Raises FormatError for a file that is no such list."""
    if not (folder / "val_images.npy").is_file():
        return None
    lists = SplitLists(folder, {}, {}, {})
    for split in LISTED_SPLITS:
        for kind in ("images", "labels"):
            path = folder / f"{split}_{kind}.npy"
            if path.is_file():
                array = _load_list(path, "iu" if kind == "labels" else "U")
                lists.sha256[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
                if kind == "images":
                    lists.objects[split] = [_object_path(text, path) for text in array.tolist()]
                else:
                    lists.labels[split] = array
    for split, paths in lists.objects.items():
        labelled = len(lists.labels.get(split, paths))
        if labelled != len(paths):
            raise FormatError(f"{folder / split}_images.npy has {len(paths)} rows, its labels file {labelled}")
    if both := set(lists.objects.get("train", ())) & set(lists.objects["val"]):
        raise FormatError(f"{folder}: {len(both)} objects are in both lists, e.g. {min(both)}")
    return lists


def _load_list(path: Path, kinds: str) -> np.ndarray:
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


@dataclass(frozen=True)
class Assignment:
    """`split[i]` and `label[i]` of object i; None where an object is left out. `classes[label]` is a synset."""

    split: Sequence[str | None]
    label: list[int]
    classes: tuple[str, ...]


def assign(objects: Sequence[ListedObject], rule: SplitRule, split: str = "all") -> Assignment:
    """Labels are the rank of the synset in ascending order among all synsets of source and lists, as in 3DIEBench's.

    Raises UsageError or FormatError if the rule does not fit the objects, or disagrees with distributed labels.
    """
    synsets = {item.synset for item in objects} | (rule.lists.synsets() if rule.lists else set())
    classes = tuple(sorted(synsets))
    if len(classes) > 1 and all(map(split_of, classes)):
        raise FormatError(f"{', '.join(classes)} would be classes, and lie where <synset> does; {OF_SPLITS}")
    rank = {synset: label for label, synset in enumerate(classes)}
    if rule.lists:
        rule.lists.check_labels(classes)
    labels = [rank[item.synset] for item in objects]
    splits: Sequence[str | None] = ["ood"] * len(objects) if split == "ood" else _train_or_val(objects, rule)
    if split in LISTED_SPLITS:
        splits = [name if name == split else None for name in splits]
    if rule.lists and split in ("all", "train"):
        _compare_histogram(labels, splits, rule.lists)
    return Assignment(splits, labels, classes)


def _train_or_val(objects: Sequence[ListedObject], rule: SplitRule) -> list[str | None]:
    if rule.val_match is not None:
        names = {item.object for item in objects}
        if rule.val_match not in names:
            examples = ", ".join(sorted(names)[:5])
            raise UsageError(f"--val-match {rule.val_match}: no object has this name; there are {examples} …")
        return ["val" if item.object == rule.val_match else "train" for item in objects]
    if rule.val_fraction is not None:
        names, synsets = [item.name for item in objects], [item.synset for item in objects]
        return [*train_or_val(names, synsets, rule.val_fraction)]
    if rule.lists is not None:
        return _by_lists(objects, rule.lists)
    raise UsageError(THREE_WAYS)


def _by_lists(objects: Sequence[ListedObject], lists: SplitLists) -> list[str | None]:
    """Listed objects take the split of their list; without a training list, all others are training."""
    rest = None if "train" in lists.objects else "train"
    listed = {path: split for split, paths in lists.objects.items() for path in paths}
    here = {item.name for item in objects}
    missing = [path for path in listed if path not in here]
    if len(missing) == len(listed):
        raise FormatError(
            f"none of the {len(listed)} objects listed in {lists.folder} is in the source, e.g. {min(listed)}; "
            "the lists belong to another data set"
        )
    if missing:
        log.warning(
            "%d of %d listed objects are missing from the source, e.g. %s", len(missing), len(listed), missing[0]
        )
    splits = [listed.get(item.name, rest) for item in objects]
    if left_out := splits.count(None):
        log.warning("%d objects of the source are in neither list and are left out", left_out)
    return splits


def _compare_histogram(labels: list[int], splits: Sequence[str | None], lists: SplitLists) -> None:
    """Where only the labels of the training split were distributed, its class counts are all that can be compared."""
    if "train" in lists.objects or "train" not in lists.labels:
        return
    found = Counter(label for label, split in zip(labels, splits, strict=True) if split == "train")
    there = lists.labels["train"].tolist()
    if found != Counter(there):
        message = "class counts of the training split differ from %s: %d objects here, %d there"
        log.warning(message, lists.folder / "train_labels.npy", found.total(), len(there))
