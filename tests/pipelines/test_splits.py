from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipelines.sources.three_diebench.splits import SplitRule, assign, find_split_lists, split_rule
from pipelines.sources.three_diebench.tree import ListedObject
from shards.errors import FormatError, UsageError

OBJECTS = [ListedObject(f"{synset}/{name}", (0,)) for synset in ("0300", "0100", "0200") for name in ("a", "b")]
VAL = ["/0100/b/", "/0300/a/"]
TRAIN = ["/0300/b/", "/0200/a/", "/0200/b/", "/0100/a/"]


def write_lists(folder: Path, *, val=VAL, train=None, val_labels=None, train_labels=None) -> Path:
    folder.mkdir(exist_ok=True)
    for name, values in {"val_images": val, "train_images": train}.items():
        if values is not None:
            np.save(folder / f"{name}.npy", np.array(values, "<U43"))
    for name, values in {"val_labels": val_labels, "train_labels": train_labels}.items():
        if values is not None:
            np.save(folder / f"{name}.npy", np.array(values, np.int64))
    return folder


def by_path(folder: Path, split="all") -> dict[str, str | None]:
    found = assign(OBJECTS, SplitRule(lists=find_split_lists(folder)), split)
    return {item.name: name for item, name in zip(OBJECTS, found.split, strict=True)}


def test_training_is_all_that_is_not_validation(tmp_path: Path) -> None:
    found = by_path(write_lists(tmp_path))
    assert {path for path, name in found.items() if name == "val"} == {"0100/b", "0300/a"}
    assert set(found.values()) == {"train", "val"}
    assert by_path(tmp_path, "val")["0100/a"] is None
    assert by_path(tmp_path, "train")["0100/b"] is None


def test_both_lists_leave_others_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = by_path(write_lists(tmp_path, train=TRAIN[:-1]))
    assert found["0100/a"] is None
    assert found["0200/a"] == "train"
    assert "1 objects of the source are in neither" in caplog.text


def test_labels_are_ranks_over_source_and_lists(tmp_path: Path) -> None:
    lists = find_split_lists(write_lists(tmp_path, val=[*VAL, "/0150/z/"], val_labels=[0, 3, 1]))
    found = assign(OBJECTS, SplitRule(lists=lists))
    assert found.classes == ("0100", "0150", "0200", "0300")
    assert found.label == [3, 3, 0, 0, 2, 2]


def test_ood_takes_all_and_labels_by_the_lists(tmp_path: Path) -> None:
    lists = find_split_lists(write_lists(tmp_path, val=["/0050/elsewhere/"]))
    found = assign(OBJECTS, SplitRule(lists=lists), "ood")
    assert set(found.split) == {"ood"}
    assert found.label == [3, 3, 1, 1, 2, 2]
    assert assign(OBJECTS, SplitRule(), "ood").label == [2, 2, 0, 0, 1, 1]


def test_distributed_labels_that_disagree(tmp_path: Path) -> None:
    lists = find_split_lists(write_lists(tmp_path, val_labels=[0, 1]))
    with pytest.raises(FormatError, match=r"says 1 for 0300/a.*rank 2 of 3"):
        assign(OBJECTS, SplitRule(lists=lists))


def test_training_histogram_is_compared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    by_path(write_lists(tmp_path, train_labels=[2, 0, 1, 1]))
    assert not caplog.records
    by_path(write_lists(tmp_path, train_labels=[2, 0, 1]))
    assert "4 objects here, 3 there" in caplog.text


def test_missing_objects(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    by_path(write_lists(tmp_path, val=[*VAL, "/0300/gone/"]))
    assert [(r.levelno, "1 of 3 listed objects" in r.getMessage()) for r in caplog.records] == [(logging.WARNING, True)]
    with pytest.raises(FormatError, match="none of the 1 objects"):
        by_path(write_lists(tmp_path, val=["/0300/gone/"]))


def test_an_object_in_both_lists(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"both lists, e\.g\. 0100/b"):
        find_split_lists(write_lists(tmp_path, train=["/0100/b/"]))


@pytest.mark.parametrize(
    "array", [np.zeros(3), np.array([["/a/b/"]]), np.array(["/a/b/c/"]), np.array(["/a/b/", None], object)]
)
def test_files_that_are_no_lists(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "val_images.npy", array, allow_pickle=True)
    with pytest.raises(FormatError, match=r"val_images\.npy"):
        find_split_lists(tmp_path)


def test_label_rows_have_to_match(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="2 rows, its labels file 3"):
        find_split_lists(write_lists(tmp_path, val_labels=[0, 2, 1]))


def test_val_match() -> None:
    found = assign(OBJECTS, SplitRule(val_match="b"))
    assert found.split == ["train", "val"] * 3
    with pytest.raises(UsageError, match=r"there are a, b"):
        assign(OBJECTS, SplitRule(val_match="i5"))


def test_val_fraction_is_a_share_of_each_synset() -> None:
    """48 objects of 8 synsets at 0.2: once 15 of 48 and 6 of 8 synsets, by a hash of each name alone."""
    many = [ListedObject(f"{synset:04d}/o{i}", (0,)) for synset in range(8) for i in range(6)]
    found = assign(many, SplitRule(val_fraction=0.2))
    of_synset = Counter(label for label, name in zip(found.label, found.split, strict=True) if name == "val")
    assert (of_synset.total(), len(of_synset), max(of_synset.values())) == (10, 8, 2)
    backwards = assign(many[::-1], SplitRule(val_fraction=0.2))
    assert backwards.split == found.split[::-1]
    for fraction in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="between 0 and 1"):
            assign(many, SplitRule(val_fraction=fraction))


def test_exactly_one_rule(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--split-lists.*--val-match.*--val-fraction"):
        split_rule(tmp_path, None, None, None, "all")
    with pytest.raises(UsageError, match="give one of"):
        split_rule(tmp_path, None, "i5", 0.2, "all")
    with pytest.raises(UsageError, match="only --split-lists with --split ood"):
        split_rule(tmp_path, None, "i5", None, "ood")
    with pytest.raises(FormatError, match=r"holds no val_images\.npy"):
        split_rule(tmp_path, tmp_path, None, None, "all")
    assert split_rule(tmp_path, None, None, None, "ood").lists is None


def test_lists_in_the_root_are_found_but_do_not_override(tmp_path: Path) -> None:
    write_lists(tmp_path)
    assert split_rule(tmp_path, None, None, None, "all").lists is not None
    assert split_rule(tmp_path, None, "i5", None, "all") == SplitRule(val_match="i5")
