"""Which folders are splits: train/, Training/, VALID/, dev/ … And what is refused or said where names leave it open."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import permutations
from pathlib import PurePosixPath

from pipelines.archives import printable
from shards.errors import FormatError, few

log = logging.getLogger(__name__)

SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words}
ELSEWHERE = {  # words of other programs and languages for a split, which make no folder one
    "train": "trn trainset entrenamiento treino treinamento apprentissage entrainement entraînement addestramento "
    "обучение 训练 训练集 訓練 学習 훈련 학습",
    "val": "eval evaluation valset validación validacion validação validacao validierung 验证 验证集 検証 검증",
    "test": "tst testset holdout prueba pruebas teste testes essai essais prova тест 测试 测试集 評価 시험 테스트",
}
SAID_BY = SPLIT_OF | {word: split for split, words in ELSEWHERE.items() for word in words.split()}
ALIKE = re.compile(
    r"(seg|my)?(train(ings?)?|trn|val(id(ation)?)?|dev(elopment)?|test(s|ings?)?|tst|eval(uation)?|holdout|unlabell?ed)"
    r"(set|daten|data|dataset|images?|imgs?|split)?|folds?"
)
TABLES, LISTS = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx"), (".txt", ".json", ".lst")
WORDS = re.compile(r"[^\W\d_]+?(?:(?<=[a-z])(?=[A-Z])|(?![^\W\d_]))")  # of train_X1, train.X1, TrainX1
MASK = re.compile("masks?|seg|segmentations?|gt|truth|labels?|annotations?|depth|heatmaps?|trimaps?", re.IGNORECASE)
NAMED = 3


def split_of(folder: str) -> str | None:
    """ "train", "val" or "test" for a folder that is one by its name, in upper or lower case; None for any other."""
    return SPLIT_OF.get(folder.casefold())


def is_like_a_split(folder: str) -> bool:
    """Whether a folder may be meant as a split though it is not called one: seg_train, test1, trainA, prueba."""
    plain = re.sub(r"[\W\d_]", "", re.sub("(?<=[a-z])[A-Z]$", "", in_nfc(folder)).casefold())
    return plain in SAID_BY or ALIKE.fullmatch(re.sub("[^a-z]", "", plain)) is not None


def has_split_folders(names: Sequence[PurePosixPath]) -> bool:
    """Whether all images lie below train/, val/ … or none does.

    FormatError: some do and some do not, two folders are the same split, or several only look like splits, as
    train.X1/ and val.X/ with folders in them.
    """
    tops = {name.parts[0] if len(name.parts) > 1 else "" for name in names}
    found = {top for top in tops if split_of(top)}
    if found and tops - found:
        named, other = listed(found), min(tops - found)
        raise FormatError(
            f"{named} {'lies' if len(found) == 1 else 'lie'} beside {printable(other) or 'images'}: either all images "
            f"lie below train, val or test, or none does; move the rest into one of them, or, if {named} is a class, "
            "all classes into a folder train"
        )
    refuse_twofold(found)
    alike = {top for top in tops if is_like_a_split(top)} - found
    if not found and all(len(name.parts) > 2 for name in names) and _say_splits(tops):
        alike = tops
    if len(alike) > 1:
        raise FormatError(f"{listed(alike)} look like splits, not classes; rename them to train, val or test")
    if alike:
        log.warning("%s looks like a split, and is taken as a class; splits are called train, val, test", listed(alike))
    if not found:
        _refuse_pairs(tops)
        _look_below_classes(names)
        if _say_splits(name.stem for name in names):
            line = "names of images say a split (%s), which is passed over; splits are folders called train, val, test"
            log.warning(line, listed([name.stem for name in names]))
    return bool(found)


def _say_splits(names: Iterable[str]) -> bool:
    """Whether each of these names has a word for a split, and not all for the same."""
    said: set[str] = set()
    for name in names:
        if not (words := splits_said(name)):
            return False
        said |= words
    return len(said) > 1


def splits_said(name: str) -> set[str]:
    """Splits that words of a name tell of: "in1k-validation-00.tar" of val, "my_eval" too."""
    return {split for word in WORDS.findall(name) if (split := SAID_BY.get(in_nfc(word).casefold()))}


def may_tell_splits(file: str) -> bool:
    """Whether a file beside images may say which of them are of which split or class: metadata.csv, meta/train.txt."""
    path = PurePosixPath(file.lower())
    return path.suffix in TABLES or (path.suffix in LISTS and bool(splits_said(path.stem)))


def with_splits_first(names: Sequence[PurePosixPath]) -> list[PurePosixPath]:
    """cat/train/1.jpg as train/cat/1.jpg, where all images lie so and a class has several splits.

    Not with folders below: part1/train/cat/1.jpg and part2/train/cat/1.jpg have other classes.
    """
    found: dict[str, set[str | None]] = {}
    for name in names:
        found.setdefault(name.parts[0], set()).add(split_of(name.parts[1]) if len(name.parts) == 3 else None)
    several = len(found) > 1 and any(len(splits) > 1 for splits in found.values())
    if not several or None in set().union(*found.values()) or any(map(is_like_a_split, found)):
        return [*names]
    return [PurePosixPath(split, top, file) for top, split, file in (name.parts for name in names)]


def below_splits(names: Sequence[PurePosixPath]) -> list[PurePosixPath]:
    """Paths below train/, val/ … where all images lie in such folders. train/train/, as archives are often unpacked, is
    one of them where nothing lies beside the inner one."""
    inner: dict[str, set[str]] = {}
    for name in names:
        inner.setdefault(name.parts[0], set()).add(name.parts[1] if len(name.parts) > 2 else "")
    twice = {top for top, folders in inner.items() if {split_of(top)} == {split_of(folder) for folder in folders}}
    return [PurePosixPath(*name.parts[2 if name.parts[0] in twice else 1 :]) for name in names]


def _refuse_pairs(folders: Collection[str]) -> None:
    """FormatError for cat_train and cat_test: folders that differ in the split alone that they are called by."""
    of_rest: dict[str, dict[str, str]] = {}
    for folder in sorted(folders):
        for word in WORDS.finditer(folder):
            if split := SAID_BY.get(word.group().casefold()):
                rest = f"{folder[: word.start()]} {folder[word.end() :]}".casefold()
                of_rest.setdefault(rest, {})[split] = folder
    for of_split in of_rest.values():
        if len(of_split) > 1:
            raise FormatError(
                f"{listed(of_split.values(), 'and')} look like splits of the same, not classes; put their images into "
                "folders called train, val or test, with the classes below"
            )


def refuse_twofold(folders: Collection[str]) -> None:
    """FormatError if two folders are the same split, val/ and validation/ say."""
    for split in SPLIT_WORDS:
        same = [folder for folder in folders if split_of(folder.rpartition("/")[2]) == split]
        if len(same) > 1:
            raise FormatError(
                f"{listed(same, 'and')} are both the split {split}; put their images into one folder, or move one away"
            )


def check_classes(splits: Sequence[str | None], labels: Sequence[str | None]) -> None:
    """FormatError if every class is called as a split; a line for classes that a split has no image of."""
    of_split: dict[str, set[str]] = {}
    for split, label in zip(splits, labels, strict=True):
        if split is not None:
            of_split.setdefault(split, set()).update([label] if label else [])
    classes = set().union(*of_split.values())
    told = [found and all(splits_said(name) == {split} for name in found) for split, found in of_split.items()]
    by_split = len(told) > 1 and all(told)
    if classes and (by_split or all(is_like_a_split(name) for name in classes)):
        advice = "take the split out of their names" if by_split else "give the folder above them"
        raise FormatError(f"the classes would be {listed(classes)}, which look like splits; {advice}")
    refuse_two_spellings(classes)
    say_nearly_alike(classes, log.warning)
    gaps = [_gap(split, classes - found, not found) for split, found in of_split.items() if classes - found]
    pairs = zip(splits, labels, strict=True)
    if bare := sum(label is None for split, label in pairs if split is not None and of_split[split]):
        gaps.append(f"{bare} images lie beside the folders of classes and have no label")
    if gaps:
        log.warning("%s", "; ".join(gaps))
    if of_split and "train" not in of_split:
        log.warning("there is no training split, only %s; a folder with a split's name is one", listed(of_split))


def say_ranks(labels: Iterable[str | None]) -> None:
    """A line for folders 9 and 10, whose ranks are those of texts."""
    ranked = sorted(names := class_names(labels))
    if ranked != [*names]:
        line = "classes are numbers, ranked as text (as torchvision ranks folders): %s is label %d; 01, 02 … rank alike"
        log.warning(line, names[-1], ranked.index(names[-1]))


def class_names(labels: Iterable[str | None]) -> tuple[str, ...]:
    """The different labels, ascending: as numbers where all are whole numbers, so that 10 comes after 9."""
    names = {label for label in labels if label is not None}
    if all(re.fullmatch("-?[0-9]{1,18}", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def refuse_two_spellings(names: Iterable[str], what: str = "classes") -> None:
    """FormatError for two names that look the same."""
    for other, name in pairs_alike((name for name in names if not name.isascii()), in_nfc):
        raise FormatError(
            f"the {what} {other!a} and {name!a} are one name, {printable(name)}, in two spellings (Unicode NFC and "
            "NFD); rename one to the other"
        )


def pairs_alike(names: Iterable[str], spelled: Callable[[str], str]) -> list[tuple[str, str]]:
    """Pairs of different names that `spelled` makes one."""
    seen: dict[str, str] = {}
    return [(other, name) for name in sorted(names) if (other := seen.setdefault(spelled(name), name)) != name]


def in_nfc(name: str) -> str:
    """ü as one character (NFC), also where it was u with two dots (NFD, as macOS writes it)."""
    return unicodedata.normalize("NFC", name)


def say_nearly_alike(classes: Iterable[str], say: Callable[[str], object]) -> None:
    """A line for classes whose names differ in case, blanks, leading zeros or characters without a shape alone."""
    if pairs := pairs_alike(classes, _plain):
        shown = listed([f"{other!a} and {name!a}" for other, name in pairs])
        say(f"classes that differ in upper and lower case, blanks or leading zeros alone: {shown}")


def say_own_splits(splits: Iterable[str], say: Callable[[str], object]) -> None:
    """A line for splits such as `eval`, which are read by nobody who is not told their names."""
    if others := {*splits} - {*SPLIT_WORDS, "unlabeled"}:
        say(
            f"split {listed(others)} keeps its name: training takes train, evaluation val or test, unless they are "
            "told otherwise (--val-split)"
        )


def _plain(name: str) -> str:
    shown = (letter for letter in name if not letter.isspace() and unicodedata.category(letter) != "Cf")
    plain = unicodedata.normalize("NFKC", "".join(shown)).casefold()
    return plain.lstrip("0") if plain.isdecimal() else plain


def say_one_class(places: Sequence[PurePosixPath], labels: Sequence[str | None]) -> None:
    """A line if all images are of one class and lie in several folders below it, which may be what is meant."""
    if len(set(labels)) == 1 and labels[0] is not None:
        below = {place.parts[1] for place in places if len(place.parts) > 2}
        if len(below) > 1:
            log.warning(
                "all images are of one class, %s; the folders below it (%s) are passed over",
                printable(labels[0]),
                listed(below),
            )


def say_other_files(places: Sequence[PurePosixPath], labels: Sequence[str | None]) -> None:
    """A line for JPEGImages/1.jpg and SegmentationClass/1.png: a class with the names of another one's images, and
    another suffix or a name that says so, holds their masks perhaps."""
    classes = {label for label in labels if label is not None}
    if not 2 <= len(classes) < 5:
        return
    stems, suffixes = ({label: set[str]() for label in classes} for _ in range(2))
    for place, label in zip(places, labels, strict=True):
        if label is not None:
            stems[label].add(place.stem)
            suffixes[label].add(place.suffix.lower())
    masks = {name for name in classes if any(MASK.fullmatch(word) for word in WORDS.findall(name))}
    for name, other in permutations(sorted(classes), 2):
        differ = not suffixes[name] & suffixes[other] or (other in masks and name not in masks)
        if differ and len(stems[other]) > 1 and stems[other] <= stems[name]:
            log.warning("the images of %s have the names of those of %s: are they masks?", other, name)
            return


def say_barren(folders: Sequence[str], split_folders: bool, labels: Sequence[str | None]) -> None:
    """A line for folders without an image where a class or a split would be: below a split, or at the top."""
    depth = 1 if split_folders else 0
    found = [
        name
        for name in folders
        if (name.count("/") == depth and any(labels)) or (name.count("/") == 0 and split_of(name))
    ]
    if found:
        log.warning("no image lies in %s, so that no class or split comes of it", listed(found))


def _gap(split: str, missing: Collection[str], none: bool) -> str:
    if none:
        return f"{split} has no folders of classes, so that its images have no label"
    return f"{split} has no image of {listed(missing)}"


def _look_below_classes(names: Sequence[PurePosixPath]) -> None:
    """cat/train/1.jpg beside dog/2.jpg: training and test images would be one split, which is said. So are the folders
    in as few classes as there are splits, or the same ones in all: in whatever language, Treino/cat/1.jpg and
    Teste/dog/2.jpg may be splits.

    FormatError for part1/train/cat/1.jpg beside part2/test/cat/2.jpg, where part1 and part2 are no classes.
    """
    below: dict[str, set[str]] = {}
    for name in names:
        if len(name.parts) > 2:
            below.setdefault(name.parts[0], set()).add(name.parts[1])
    if all(len(name.parts) > 2 for name in names) and all(len(folders) == 1 for folders in below.values()):
        lone = [f"{top}/{next(iter(folders))}" for top, folders in below.items()]
        splits = {split_of(folder.rpartition("/")[2]) for folder in lone}
        if None not in splits and len(splits) > 1:
            raise FormatError(f"the splits {listed(lone, 'and')} lie in several folders; put them beside each other")
    for top, folders in below.items():
        if len({split for folder in folders if (split := split_of(folder))}) > 1:
            log.warning(
                "%s holds %s, which are passed over as folders below a class; put splits above the classes",
                top,
                listed(folders, "and"),
            )
            return
    tops = {name.parts[0] for name in names if len(name.parts) > 1}
    held = set().union(*below.values())
    shared = set.intersection(*(below.get(top, set()) for top in tops)) if below else set()
    if len(tops) > 1 and (len(shared) > 1 or (len(tops) <= len(SPLIT_WORDS) and len(held) > 1)):
        line = (
            "%s are taken for classes, and the folders in them (%s) are passed over; splits are called train, val, test"
        )
        log.warning(line, listed(tops, "and"), listed(shared or held))


def listed(names: Collection[str], word: str = ",") -> str:
    """ "a, b, c and 4 more"."""
    shown = [printable(name) for name in sorted(names)]
    return few(shown, NAMED, ", " if word == "," or len(names) > NAMED else f" {word} ")
