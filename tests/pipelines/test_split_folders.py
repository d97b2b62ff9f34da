"""Which folders are splits, in whatever spelling, in a folder, a tar and a zip alike; and what is refused or said."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from small_images import make_folder, make_tar

from pipelines.sources import ImageSource, open_source
from pipelines.sources.split_folders import is_like_a_split, split_of
from shards.errors import FormatError


def make_zip(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            archive.write(file, file.relative_to(folder))
    return path


def make_zip_with_folders(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def make_tar_with_folders(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        archive.add(folder, ".")
    return path


def described(source: ImageSource) -> list[tuple[str, str, str | None]]:
    classes = (*source.classes, None)
    return [(record.split, record.key, classes[record.label]) for record in source.records()]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("Training", "dev", "Testing"), ("TRAIN", "Valid", "Test"), ("train", "VALIDATION", "TESTING")],
)
def test_splits_in_any_spelling(tmp_path: Path, train: str, val: str, test: str) -> None:
    """Above the classes, or below every one of them."""
    of_split = [(split, kind, i) for i, split in enumerate((train, val, test)) for kind in ("cat", "dog")]
    folder = make_folder(tmp_path / "f", [f"pets/{split}/{kind}/{i}.png" for split, kind, i in of_split], 2, 2)
    below = make_folder(tmp_path / "b", [f"pets/{kind}/{split}/{i}.png" for split, kind, i in of_split], 2, 2)
    for path in (folder, below, make_tar(folder, tmp_path / "t.tar"), make_zip(below, tmp_path / "t.zip")):
        source = open_source("folder", path)
        assert source.classes == ("cat", "dog")
        assert described(source) == [
            *[("train", f"{kind}_0", kind) for kind in ("cat", "dog")],
            *[("test", f"{kind}_2", kind) for kind in ("cat", "dog")],
            *[("val", f"{kind}_1", kind) for kind in ("cat", "dog")],
        ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat/1.png", "dog/1.png", "dev/1.png"], "dev lies beside cat: .*if dev is a class, all classes into a"),
        (["Train/a/1.png", "Test/a/1.png", "1.png"], "Test, Train lie beside images"),
        (["train/a/1.png", "val/a/1.png", "validation/a/2.png"], "val and validation are both the split val"),
        (["train/a/1.png", "Train/a/2.png"], "Train and train are both the split train"),
        (["seg_train/a/1.png", "seg_test/a/1.png"], "seg_test, seg_train look like splits, not classes; rename"),
        (
            ["seg_train/a/1.png", "seg_test/a/1.png", "seg_pred/1.png"],
            "seg_test, seg_train look like splits, not classes",
        ),
        (["training_set/a/1.png", "test_set/a/1.png"], "test_set, training_set look like splits"),
        (["Trainings/a/1.png", "Tests/a/1.png"], "Tests, Trainings look like splits"),
        (["Trainingsdaten/a/1.png", "Testdaten/a/1.png"], "Testdaten, Trainingsdaten look like splits"),
        (["训练集/1.png", "测试集/1.png"], "测试集, 训练集 look like splits, not classes"),
        (["Entrenamiento/gato/1.png", "Validacio\u0301n/gato/1.png"], "Entrenamiento, Validacio.n look like splits"),
        (["trainA/1.png", "trainB/1.png", "testA/1.png"], "testA, trainA, trainB look like splits"),
        (["fold_0/a/1.png", "fold_1/a/1.png"], "fold_0, fold_1 look like splits"),
        (["cat_train/1.png", "cat_test/1.png", "dog/1.png"], "cat_test and cat_train look like splits of the same"),
        (["TrainCats/1.png", "TestCats/1.png", "dog/1.png"], "TestCats and TrainCats look like splits of the same"),
        (
            ["train.X1/n1/1.png", "train.X2/n2/1.png", "val.X/n1/2.png", "val.X/n2/2.png"],
            "train.X1, train.X2, val.X look like splits, not classes; rename",
        ),
        (["a/train/x/1.png", "b/test/x/2.png"], "the splits a/train and b/test lie in several folders"),
        (["train/d\xfc/1.png", "val/du\u0308/2.png"], "'du.u0308' and 'd.xfc' are one name, d.+, in two spellings"),
        (
            ["train/images/a/1.png", "train/masks/a/1.png"],
            "in train images lies beside masks: a folder called images is",
        ),
        (["train/train/a/1.png", "train/2.png"], "the classes would be train, which look like splits"),
        (["train/train_v2/a/1.png", "val/val_v2/a/1.png"], "would be train_v2, val_v2, which .* take the split out"),
        (["train/train/a/1.png", "train/cat_train/1.png", "val/cat_val/1.png"], "cat_train, cat_val, train, which"),
        (["train/val/a/1.png", "test/val/a/1.png"], "the classes would be val, which look like splits"),
    ],
)
def test_what_would_give_wrong_labels_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    folder = make_folder(tmp_path / "f", names, 2, 2)
    for path in (folder, make_tar(folder, tmp_path / "t.tar"), make_zip(folder, tmp_path / "t.zip")):
        with pytest.raises(FormatError, match=message):
            open_source("folder", path).records()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat/1.png", "dog/1.png", "test_set/1.png"], "test_set looks like a split, and is taken as a class"),
        (["cat/train/1.png", "cat/test/1.png"], None),  # the lone folder is passed through: splits
        (["cat/train/1.png", "cat/test/2.png", "dog/train/1.png"], "test has no image of dog"),
        (["cat/train/1.png", "cat/test/2.png", "dog/1.png"], "cat holds test and train, which are passed over"),
        (["a/train/x/1.png", "a/test/x/2.png", "b/train/x/3.png"], "a holds test and train, which are passed over"),
        (["train/cat/1.png", "train/dog/1.png", "val/cat/1.png"], "val has no image of dog"),
        (["train/cat/1.png", "test/1.png"], "test has no folders of classes, so that its images have no label"),
        (["train/cat/1.png", "train/2.png"], "1 images lie beside the folders of classes and have no label"),
        (
            ["train/pets/cat/1.png", "train/pets/dog/2.png"],
            "all images are of one class, pets; the folders below it (cat",
        ),
        (["bullet_train/1.png", "steam_train/1.png", "test_tube/1.png"], None),
        (["bullet_train/a/1.png", "test_tube/1.png", "cat/1.png"], None),
        (["cat/train_1.png", "cat/test_1.png", "dog/trainX2.png"], "say a split (test_1, trainX2, train_1), which is"),
        (["COCO_val2014_1.png", "COCO_train2014_1.png"], "(COCO_train2014_1, COCO_val2014_1), which is passed over"),
        (
            ["a/b (1).png", "a/b (1)_mask.png", "a/b (1)_mask_1.png", "a/c_mask.png", "b/c.png"],
            "2 images are by their names masks of others beside them, and are taken like any: a/b (1)_mask.png, ",
        ),
        (["a/1.jpg", "a/1-depth.png", "b/mask.png", "b/2_mask.png"], "1 images are by their names masks"),
        (
            ["JPEGImages/1.jpg", "JPEGImages/2.jpg", "JPEGImages/3.jpg", "SegClass/1.png", "SegClass/3.png"],
            "the images of SegClass have the names of those of JPEGImages: are they masks?",
        ),
        (["cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg", "ant/1.png"], None),
        (
            [f"{split}/{kind}/{i}.png" for split in ("train", "val") for kind in ("img", "gtMask") for i in range(2)],
            "the images of gtMask have the names of those of img: are they masks?",
        ),
        (["with_mask/1.png", "with_mask/2.png", "without_mask/1.png", "without_mask/2.png"], None),
        (["pets/seg_test/a/1.png", "pets/seg_test/b/1.png"], "f/pets/seg_test may be a split by its name, and its im"),
        (["pets/train_set/a/1.png", "pets/train_set/b/1.png"], None),
        (["cat/train_1.png", "cat/train_2.png", "dog/dog_1.png"], None),
        (["Testing/cat/1.png", "Testing/dog/1.png"], "there is no training split, only test"),
        (["Cat/1.png", "cat/1.png"], "differ in upper and lower case, blanks or leading zeros alone: 'Cat' and 'cat'"),
        (["cat/1.png", "cat /1.png", "c\u200bat/1.png"], "alone: 'cat' and 'c\\u200bat', 'cat' and 'cat '"),
        (
            [f"{split}/{name}/1.png" for split in ("Koulutus", "Testaus") for name in ("cat", "dog")],
            "Koulutus and Testaus are taken for classes, and the folders in them (cat, dog) are passed over; splits",
        ),
        (
            ["opetus/chat/1.png", "koe/chien/1.png"],
            "folders in them (chat, chien) are passed over; splits are",
        ),
        (
            ["opetus/gato/1.png", "opetus/perro/1.png", "koe/1.png"],
            "koe and opetus are taken",
        ),
        ([f"{kind}/a/1.png" for kind in ("cat", "dog")], None),
        ([f"{kind}/{kind}-a/1.png" for kind in ("ant", "cat", "cow", "dog")], None),
        (["1/1.png", "01/1.png"], "blanks or leading zeros alone: '01' and '1'"),
        (["9/1.png", "10/1.png"], "ranked as text (as torchvision ranks folders): 10 is label 0; 01, 02"),
        (["0/1.png", "9/1.png"], None),
        (["09/1.png", "10/1.png"], None),
        (["cat\\1.png", "dog\\1.png"], r"\ is a letter of 2 names, cat\1.png, dog\1.png, and parts no folders"),
    ],
)
def test_what_is_odd_is_said_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, names: list[str], message: str | None
) -> None:
    assert len(open_source("folder", make_folder(tmp_path / "f", names, 2, 2)).records()) == len(names)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (message is not None)
    assert all(str(message) in line for line in said)


@pytest.mark.parametrize(
    ("name", "split"), [("my_eval.tar", "val"), ("测试.zip", "test"), ("dev", "val"), ("train_test.tar", None)]
)
def test_a_source_that_is_one_split_by_its_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, split: str | None
) -> None:
    folder = make_folder(tmp_path / (name if "." not in name else "f"), ["cat/1.png", "dog/1.png"], 2, 2)
    path = {"tar": make_tar, "zip": make_zip}.get(name[-3:], lambda folder, _: folder)(folder, tmp_path / name)
    assert {record.split for record in open_source("folder", path).records()} == {"train"}
    said = f"{path.stem} may be a split by its name, and its images are for training; put them into a folder {split}"
    assert [record.getMessage()[: len(said)] for record in caplog.records] == [said] * (split is not None)


@pytest.mark.parametrize(("wrapping", "said"), [("cat", True), ("images", False)])
def test_a_lone_folder_beside_empty_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wrapping: str, said: bool
) -> None:
    """It may be a class whose neighbours hold nothing yet."""
    folder = make_folder(tmp_path / "f", [f"pets/{wrapping}/1.png", f"pets/{wrapping}/2.png"], 2, 2)
    (folder / "pets/dog/deep").mkdir(parents=True)
    assert {record.label for record in open_source("folder", folder).records()} == {-1}
    line = f"all images lie in pets/{wrapping}, which is taken for no class; no image lies in pets/dog"
    assert [record.getMessage() for record in caplog.records] == [line] * said


@pytest.mark.parametrize("kinds", [["cat/", "dog/"], [""]])
def test_a_split_in_a_folder_of_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture, kinds: list[str]) -> None:
    """As some programs unpack train.zip, beside a split that was unpacked otherwise."""
    names = [f"{split}/{kind}1.png" for split in ("train/Train", "val") for kind in kinds]
    folder = make_folder(tmp_path / "f", names, 2, 2)
    for path in (folder, make_tar(folder, tmp_path / "t.tar"), make_zip(folder, tmp_path / "t.zip")):
        found = [(key, kind) for split, key, kind in described(open_source("folder", path)) if split == "train"]
        assert found == [(f"{kind}1".replace("/", "_"), kind[:-1] or None) for kind in kinds]
    assert not caplog.records


@pytest.mark.parametrize("wrapping", ["images", "Images"])
def test_classes_below_images_below_a_split(tmp_path: Path, wrapping: str) -> None:
    names = [f"{split}/{wrapping}/{kind}/{split}.png" for split in ("train", "val") for kind in ("cat", "dog")]
    folder = make_folder(tmp_path / "f", names, 2, 2)
    for path in (folder, make_tar(folder, tmp_path / "t.tar"), make_zip(folder, tmp_path / "t.zip")):
        found = [(record.split, record.meta["file"], record.label) for record in open_source("folder", path).records()]
        assert found == [(name.split("/")[0], name, int("dog" in name)) for name in names]


def test_a_class_may_be_called_as_a_split_below_a_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"train/{kind}/1.png" for kind in ("dev", "cat", "Test", *map(str, range(48)))]
    source = open_source("folder", make_folder(tmp_path / "f", names, 2, 2))
    assert len(source.classes) == 51
    assert {"dev", "Test"} < set(source.classes)
    assert not caplog.records


def test_words() -> None:
    assert [split_of(word) for word in ("Training", "DEV", "valid", "tests", "trains")] == [
        "train", "val", "val", None, None
    ]  # fmt: skip
    alike = ("seg_test", "test1", "Training_Set", "val_images", "unlabeled", "EVAL", "train2017")
    assert all(map(is_like_a_split, alike))
    assert not any(map(is_like_a_split, ("trainer", "testa", "trains", "device", "valve", "contest", "evaluator")))


@pytest.mark.parametrize("pack", [lambda f, p: f, make_tar_with_folders, make_zip_with_folders])
def test_an_empty_class_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, pack: Callable) -> None:
    """A folder is there for it, with nothing or no image in it; what lies deeper, or is hidden, is nobody's class."""
    names = ["train/cat/1.png", "train/dog/1.png", "test/cat/1.png", "test/dog/1.png"]
    folder = make_folder(tmp_path / "f", names, 2, 2)
    for empty in ("train/cow", "test/cow/deep", "val", "train/cat/deep", ".git/train", "train/images"):
        (folder / empty).mkdir(parents=True)
    (folder / "train/cow/1.gif").write_bytes(b"GIF89a")
    assert len(open_source("folder", pack(folder, tmp_path / "f.archive")).records()) == 4
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == "no image lies in test/cow, train/cow, val, so that no class or split comes of it"
    caplog.clear()
    flat = make_folder(tmp_path / "flat", ["cat/1.png", "dog/1.png"], 2, 2)
    (flat / "cow").mkdir()
    open_source("folder", pack(flat, tmp_path / "flat.archive")).records()
    assert "no image lies in cow, so" in caplog.text
