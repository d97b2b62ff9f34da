"""Glances-Synth: STL-10's files, pictures that are functions of their number, classes that one glance cannot tell."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import STL10

from pipelines.synth.glances import write
from pipelines.synth.glances.picture import CLASS_NAMES, KINDS, Glance, draw_glance
from pipelines.synth.glances.write import GlancesConfig, synth_stl10
from shards.errors import UsageError

CONFIG = GlancesConfig(seed=5, train=20, test=10, unlabeled=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "stl10_binary"
    synth_stl10(CONFIG, out)
    return out


@pytest.fixture(scope="module")
def pictures() -> list[Glance]:
    return [draw_glance(5, "train", index) for index in range(300)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_torchvision_reads_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(STL10, "_check_integrity", lambda self: True)
    for split, count in (("train", 20), ("test", 10), ("unlabeled", 8)):
        theirs = STL10(str(folder.parent), split)
        assert len(theirs) == count
        for index in (0, count - 1):
            picture, (image, label) = draw_glance(5, split, index), theirs[index]
            assert np.array_equal(np.asarray(image), picture.pixels)
            assert label == (-1 if split == "unlabeled" else picture.label)
    assert theirs.classes == list(CLASS_NAMES)
    folds = [set(STL10(str(folder.parent), "train", folds=k).labels.tolist()) for k in range(10)]
    assert all(labels <= set(range(10)) for labels in folds)


def test_the_class_is_the_pair_of_kinds(pictures: list[Glance]) -> None:
    for picture in pictures:
        counts = Counter(sticker.kind for sticker in picture.stickers)
        assert CLASS_NAMES[picture.label] == "-".join(kind for kind in KINDS if counts[kind])
        assert all(2 <= count <= 3 for count in counts.values())
    assert len(set(CLASS_NAMES)) == 10
    assert Counter(name for pair in CLASS_NAMES for name in pair.split("-")) == dict.fromkeys(KINDS, 4)


def test_place_and_size_tell_nothing(pictures: list[Glance]) -> None:
    """Their averages over many stickers are the same for all kinds, within four standard errors."""
    values = defaultdict(list)
    for picture in pictures:
        for sticker in picture.stickers:
            values[sticker.kind].append([sticker.x, sticker.y, sticker.radius, sticker.turn])
    everything = np.concatenate([np.array(rows) for rows in values.values()])
    for rows in values.values():
        error = everything.std(0) / len(rows) ** 0.5
        assert (np.abs(np.mean(rows, axis=0) - everything.mean(0)) < 4 * error).all()


def test_colours_of_different_kinds_overlap(pictures: list[Glance]) -> None:
    """Each kind has stickers whose colour is nearest to the average of another kind."""
    colours = defaultdict(list)
    for picture in pictures:
        for sticker in picture.stickers:
            colours[sticker.kind].append(sticker.colour)
    means = np.array([np.mean(colours[kind], axis=0) for kind in KINDS])
    for number, kind in enumerate(KINDS):
        nearest = np.linalg.norm(np.array(colours[kind])[:, None] - means, axis=2).argmin(1)
        assert 0.02 < (nearest != number).mean() < 0.5


def test_the_way_between_two_stickers_tells_whether_they_are_alike(pictures: list[Glance]) -> None:
    """Rows and columns passed, rounded: an even number between stickers of one kind, an odd one otherwise."""
    right, total = 0, 0
    for picture in pictures:
        for i, one in enumerate(picture.stickers):
            for two in picture.stickers[:i]:
                steps = round((one.x - two.x) / 27) + round((one.y - two.y) / 27)
                right, total = right + ((steps % 2 == 0) == (one.kind == two.kind)), total + 1
    assert right == total


def test_a_glance_at_a_sticker_holds_no_other_middle(pictures: list[Glance]) -> None:
    """Nor does it leave the picture."""
    for picture in pictures:
        assert all(16 <= min(s.x, s.y) <= max(s.x, s.y) <= 80 for s in picture.stickers)
        places = np.array([(sticker.x, sticker.y) for sticker in picture.stickers])
        apart = np.abs(places[:, None] - places[None]).max(2) + 99 * np.eye(len(places))
        assert apart.min() > 16


def test_stickers_are_drawn_where_they_are_said_to_be(pictures: list[Glance]) -> None:
    """The colours of a sticker's middle are not the meadow's: brighter, or more saturated."""
    vivid = []
    for picture in pictures[:50]:
        spread = np.ptp(picture.pixels.astype(int), axis=2) + picture.pixels.max(2) // 2
        vivid += [spread[int(s.y) - 2 : int(s.y) + 3, int(s.x) - 2 : int(s.x) + 3].mean() for s in picture.stickers]
    corners = np.mean([np.ptp(p.pixels[46:50, ::95].astype(int), axis=2).mean() for p in pictures[:50]])
    assert np.median(vivid) > 2 * corners + 64


def test_a_larger_set_begins_with_the_smaller_one(folder: Path, tmp_path: Path) -> None:
    synth_stl10(GlancesConfig(5, 25, 10, 0), tmp_path / "out")
    large, small = contents(tmp_path / "out"), contents(folder)
    assert large["train_X.bin"].startswith(small["train_X.bin"])
    assert large["test_X.bin"] == small["test_X.bin"]
    assert "unlabeled_X.bin" not in large
    assert draw_glance(6, "train", 0).pixels.tobytes() != draw_glance(5, "train", 0).pixels.tobytes()
    assert draw_glance(5, "test", 0).pixels.tobytes() != draw_glance(5, "train", 0).pixels.tobytes()


def test_an_interrupted_build_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = write.draw_glance, iter(range(1000))

    def failing(*place):
        if next(calls) == 25:
            raise KeyboardInterrupt
        return real(*place)

    monkeypatch.setattr(write, "draw_glance", failing)
    with pytest.raises(KeyboardInterrupt):
        synth_stl10(CONFIG, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["synth.json", "train_X.bin", "train_y.bin"]
    drawn = []
    monkeypatch.setattr(write, "draw_glance", lambda *place: drawn.append(place) or real(*place))
    synth_stl10(CONFIG, tmp_path / "out")
    assert len(drawn) == 18
    assert contents(tmp_path / "out") == contents(folder)
    synth_stl10(CONFIG, tmp_path / "out")
    assert len(drawn) == 18


def test_folders_of_others_are_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/train_X.bin").write_bytes(b"precious")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="not made by this command"):
            synth_stl10(CONFIG, tmp_path / "real", overwrite)
    assert contents(tmp_path / "real") == {"train_X.bin": b"precious"}
    (tmp_path / "real/synth.json").write_text('{"format": "3die-synth tree", "finished": true, "config": {}}')
    with pytest.raises(UsageError, match="not written by this command"):
        synth_stl10(CONFIG, tmp_path / "real", True)


def test_other_pictures_are_replaced_only_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "out"
    synth_stl10(GlancesConfig(1, 3, 2, 2), out)
    before = contents(out)
    (out / "mine.txt").write_text("stays")
    with pytest.raises(UsageError, match="another set"):
        synth_stl10(GlancesConfig(1, 4, 2, 0), out)
    assert contents(out) == {**before, "mine.txt": b"stays"}
    synth_stl10(GlancesConfig(1, 4, 2, 0), out, overwrite=True)
    after = contents(out)
    assert len(after["train_X.bin"]) == 4 * 27648
    assert "unlabeled_X.bin" not in after
    assert after["mine.txt"] == b"stays"
    assert json.loads(after["synth.json"])["finished"] is True


@pytest.mark.parametrize("values", [{"train": 0}, {"test": -1}, {"seed": -1}, {"unlabeled": 10**9}])
def test_values_out_of_range(values: dict) -> None:
    with pytest.raises(UsageError, match="out of range"):
        GlancesConfig(**values)
