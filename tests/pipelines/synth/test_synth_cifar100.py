"""Patterns-Synth: CIFAR-100's files, pictures that are functions of their number, classes that colours do not tell."""

from __future__ import annotations

import json
import pickle
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR100
from typer.testing import CliRunner

import cli
from pipelines.sources import open_source
from pipelines.synth.patterns import write
from pipelines.synth.patterns.picture import EXTENT, PATTERNS, SHAPES, distances, draw_pattern, fine_names, parts_of
from pipelines.synth.patterns.write import ByteRows, PatternsConfig, python2_pickle, synth_cifar100
from shards.errors import UsageError

CONFIG = PatternsConfig(seed=5, train=120, test=30)
FILES = ["cifar-100-python/meta", "cifar-100-python/test", "cifar-100-python/train", "synth.json"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "patterns"
    synth_cifar100(CONFIG, out)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_torchvision_reads_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    for split, count in (("train", 120), ("test", 30)):
        theirs = CIFAR100(str(folder), train=split == "train")
        assert len(theirs) == count
        assert theirs.classes == list(fine_names())
        for index in (0, 7, count - 1):
            picture, (image, label) = draw_pattern(5, split, index), theirs[index]
            assert np.array_equal(np.asarray(image), picture.pixels)
            assert label == picture.fine == index % 100


def test_our_own_source_reads_it(folder: Path) -> None:
    source = open_source("cifar100", folder)
    records = source.records()
    assert len(records) == 150
    assert source.classes == fine_names()
    assert source.fingerprint["coarse_classes"] == list(SHAPES)
    for record in (records[3], records[-1]):
        assert np.array_equal(source.read(record), draw_pattern(5, record.split, record.position).pixels)
        assert record.meta["coarse"] == parts_of(record.label)[0]
        assert str(record.meta["file"]).startswith(f"{source.classes[record.label]}_")


def test_files_are_spelled_as_python_2_did(folder: Path) -> None:
    """Byte strings all through, so that a reader that asks for bytes gets the distributed files' keys."""
    found = pickle.loads((folder / "cifar-100-python/train").read_bytes(), encoding="bytes")
    assert set(found) == {b"filenames", b"batch_label", b"fine_labels", b"coarse_labels", b"data"}
    assert (found[b"data"].shape, found[b"data"].dtype) == ((120, 3072), np.uint8)
    assert found[b"filenames"][1] == b"striped_fish_000001.png"
    assert (folder / "cifar-100-python/train").read_bytes().startswith(b"\x80\x02}")


def test_pickles_of_any_length_of_text_and_number() -> None:
    table = {"text": "x" * 300, "texts": ["", "ü" * 200], "numbers": [0, 255, 256, -1, 2**31 - 1], "number": -(2**31)}
    assert pickle.loads(b"".join(python2_pickle({**table})), encoding="utf-8") == table
    with pytest.raises(ValueError, match="5 bytes of rows, 6 were announced"):
        list(python2_pickle({"data": ByteRows(2, 3, [b"abc", b"de"])}))


def test_classes_are_all_pairs_of_shape_and_pattern() -> None:
    assert len(set(fine_names())) == 100
    pairs = [parts_of(fine) for fine in range(100)]
    assert Counter(pairs) == Counter((s, p) for s in range(len(SHAPES)) for p in range(len(PATTERNS)))
    assert [shape for shape, _ in pairs[:20]] == list(range(20))
    assert Counter(pattern for _, pattern in pairs[:10]) == dict.fromkeys(range(5), 2)


def test_shapes_fill_their_place_and_differ() -> None:
    axis = (np.arange(96) + 0.5) / 96 * 2 * EXTENT - EXTENT
    inside = {shape: distances(shape) < 0 for shape in SHAPES}
    for shape, mask in inside.items():
        rows, columns = np.nonzero(mask)
        assert np.abs(axis[[rows.min(), rows.max(), columns.min(), columns.max()]]).max() < 1.3, shape
        assert 0.08 < mask.mean() < 0.45, shape
    for one in SHAPES:
        for two in SHAPES:
            both, either = (inside[one] & inside[two]).sum(), (inside[one] | inside[two]).sum()
            assert one == two or both / either < 0.88, (one, two)


def test_distances_are_distances() -> None:
    """From a disc with a hole the distance is known."""
    axis = (np.arange(96) + 0.5) / 96 * 2 * EXTENT - EXTENT
    radius = np.hypot(axis[:, None], axis[None])
    expected = np.maximum(radius - 1.05, 0.5 - radius)
    assert np.abs(distances("ring") - expected)[radius > 0.15].max() < 0.02


def test_colours_say_nothing_of_the_class() -> None:
    """The pictures' mean colours are alike for all patterns and shapes, within four standard errors."""
    means = np.array([draw_pattern(1, "train", index).pixels.mean((0, 1)) for index in range(800)])
    spread = means.std(0)
    groups = defaultdict(list)
    for index, mean in enumerate(means):
        groups["shape", parts_of(index % 100)[0]].append(mean)
        if parts_of(index % 100)[1]:  # a plain shape has one colour, dark or light, but not another mean
            groups["pattern", parts_of(index % 100)[1]].append(mean)
    for name, rows in groups.items():
        assert (np.abs(np.mean(rows, 0) - means.mean(0)) < 4 * spread / len(rows) ** 0.5).all(), name


def test_either_colour_may_be_the_lighter_one() -> None:
    """The middle of a plain cross is darker than its picture about as often as lighter."""
    fine = fine_names().index("plain_cross")
    pictures = [draw_pattern(2, "test", fine + 100 * i).pixels.astype(float) for i in range(100)]
    lighter = [picture[14:18, 14:18].mean() > picture.mean() for picture in pictures]
    assert 0.25 < np.mean(lighter) < 0.75


def test_a_picture_depends_on_its_own_number_only() -> None:
    assert draw_pattern(5, "train", 3).pixels.tobytes() == draw_pattern(5, "train", 3, 50).pixels.tobytes()
    assert draw_pattern(6, "train", 0).pixels.tobytes() != draw_pattern(5, "train", 0).pixels.tobytes()
    assert draw_pattern(5, "test", 0).pixels.tobytes() != draw_pattern(5, "train", 0).pixels.tobytes()


def test_fewer_classes(tmp_path: Path) -> None:
    synth_cifar100(PatternsConfig(1, 14, 7, 7), tmp_path / "out")
    source = open_source("cifar100", tmp_path / "out")
    assert source.classes == fine_names()[:7]
    assert [record.label for record in source.records()] == [*range(7)] * 3
    assert len(source.fingerprint["coarse_classes"]) == 7


def test_an_interrupted_build_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls, drawn = write.draw_pattern, iter(range(1000)), []

    def failing(*place):
        if next(calls) == 125:
            raise KeyboardInterrupt
        return real(*place)

    out = tmp_path / "out"
    monkeypatch.setattr(write, "draw_pattern", failing)
    with pytest.raises(KeyboardInterrupt):
        synth_cifar100(CONFIG, out)
    assert sorted(contents(out)) == ["cifar-100-python/train", "synth.json"]
    assert json.loads((out / "synth.json").read_bytes())["finished"] is False
    monkeypatch.setattr(write, "draw_pattern", lambda *place: drawn.append(place) or real(*place))
    for _ in range(2):
        synth_cifar100(CONFIG, out)
        assert len(drawn) == 30
    assert contents(out) == contents(folder)


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    real = tmp_path / "cifar-100-python"
    real.mkdir()
    (real / "train").write_bytes(b"precious")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="not made by this command"):
            synth_cifar100(CONFIG, tmp_path, overwrite)
    (tmp_path / "synth.json").write_text('{"format": "glances-synth stl10", "finished": true, "config": {}}')
    with pytest.raises(UsageError, match="not written by this command"):
        synth_cifar100(CONFIG, tmp_path, True)
    assert (real / "train").read_bytes() == b"precious"


def test_other_pictures_are_replaced_only_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "out"
    synth_cifar100(PatternsConfig(1, 3, 2), out)
    (out / "mine.txt").write_text("stays")
    before = contents(out)
    with pytest.raises(UsageError, match="another set"):
        synth_cifar100(PatternsConfig(1, 4, 2), out)
    assert contents(out) == before
    synth_cifar100(PatternsConfig(1, 4, 2), out, overwrite=True)
    assert sorted(contents(out)) == sorted([*FILES, "mine.txt"])
    assert len(open_source("cifar100", out).records()) == 6


@pytest.mark.parametrize("values", [{"train": 0}, {"test": 0}, {"seed": -1}, {"classes": 101}, {"train": 10**6}])
def test_values_out_of_range(values: dict) -> None:
    with pytest.raises(UsageError, match="out of range"):
        PatternsConfig(**values)


def test_command(tmp_path: Path) -> None:
    words = ["synth", "cifar100", "--out", str(tmp_path / "p"), "--train", "6", "--test", "3", "--classes", "3"]
    done = CliRunner().invoke(cli.seqjepa_data_app, words)
    assert (done.exit_code, done.output) == (
        0,
        f"{tmp_path / 'p'}: 6 training and 3 test pictures of 3 classes, 32×32\n",
    )
    assert sorted(contents(tmp_path / "p")) == FILES
    done = CliRunner().invoke(cli.seqjepa_data_app, [*words[:-1], "101"])
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
