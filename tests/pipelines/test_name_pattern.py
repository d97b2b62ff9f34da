"""Values in file names: which groups there are, what they mean, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.archives import LeftOut
from pipelines.sources.layouts.pattern import PatternRows, compile_pattern, read_names
from pipelines.sources.mistakes import Mistakes
from shards.errors import UsageError
from shards.schema import ActionSpec, ActionTerm


def read(pattern: str, names: list[str]) -> tuple[PatternRows, list[str], LeftOut]:
    mistakes, others = Mistakes(), LeftOut()
    return read_names(compile_pattern(pattern), sorted(names), others, mistakes), mistakes.first, others


def test_angles_and_numbers_in_names() -> None:
    names = [f"cup/view_{a}_{e}.png" for a in (0, 45, 170) for e in ("-1.5", "10")] + ["bowl/view_+30_0.png"]
    rows, mistakes, others = read("{object}/{name}_{azimuth:deg}_{height:float}.png", names)
    assert (mistakes, others.total) == ([], 0)
    assert rows.sequences == ["bowl", "cup"]
    assert rows.of.tolist() == [0, 1, 1, 1, 1, 1, 1]
    expected = [(30, 0), *((a, e) for a in (0, 45, 170) for e in (-1.5, 10))]  # by the numbers, not as texts
    np.testing.assert_allclose(rows.params, np.array(expected) * [np.pi / 180, 1])
    assert rows.steps.tolist() == [0, 0, 1, 2, 3, 4, 5]
    assert [sorted(names)[i] for i in rows.entries][:3] == [
        "bowl/view_+30_0.png",
        "cup/view_0_-1.5.png",
        "cup/view_0_10.png",
    ]
    assert rows.splits == rows.labels == [None, None]


def test_what_the_units_imply() -> None:
    pattern = compile_pattern("{object}_{yaw:rad}_{x:float}_{pitch:deg}_{k:int}.png")
    assert [(field.name, field.unit) for field in pattern.fields] == [
        ("yaw", "rad"),
        ("x", "1"),
        ("pitch", "rad"),
        ("k", "1"),
    ]
    assert pattern.actions == ActionSpec(
        (ActionTerm("angle_difference", ("yaw", "pitch")), ActionTerm("difference", ("x", "k")))
    )
    assert compile_pattern("{object}/{name}.png").actions == ActionSpec()


def test_steps_labels_and_splits() -> None:
    names = [f"{split}/{label}/o{k}_{10 * step:03}.jpg" for split, label, k in
             (("Train", "cat", 1), ("train", "dog", 1), ("valid", "cat", 2)) for step in (2, 0, 1)]  # fmt: skip
    rows, mistakes, _ = read("{split}/{label}/{object}_{step}.jpg", names)
    assert mistakes == []
    assert rows.sequences == ["cat/o1", "cat/o2", "dog/o1"]  # objects of two classes are two
    assert (rows.labels, rows.splits) == (["cat", "cat", "dog"], ["train", "val", "train"])
    assert rows.steps.tolist() == [0, 10, 20] * 3
    assert rows.params.shape == (9, 0)


def test_a_group_that_recurs_has_one_text() -> None:
    rows, _, others = read("{object}/{object}_{a:deg}.png", ["x/x_1.png", "x/x_2.png", "x/y_3.png"])
    assert len(rows.entries) == 2
    assert "x/y_3.png" in str(others)


def test_what_does_not_match_is_named() -> None:
    _, _, others = read("{object}/{a:int}.png", ["cup/1.png", "cup/1.5.png", "cup/x.png", "readme.png", "a/b/2.png"])
    assert str(others) == (
        "4 files were left out: 4 pictures whose names do not match the pattern (a/b/2.png, cup/1.5.png, cup/x.png, …)"
    )
    with pytest.raises(UsageError, match=r"matches none of 2 pictures \(a\.png, b\.png, …\)"):
        read("{object}/{a:int}.png", ["a.png", "b.png"])


def test_mistakes_are_named_with_their_file() -> None:
    _, mistakes, _ = read(
        "{split}/{object}_{step}_{x}.png",
        ["train/a_1_p.png", "train/a_01_q.png", "test/a_2_p.png", "tset/b_1_p.png", "val/c_99999999999999_p.png"],
    )
    assert mistakes == [
        "train/a_01_q.png: 'a' is in train and in test; it must be in one",
        "train/a_1_p.png: 'a' is in train and in test; it must be in one",
        "tset/b_1_p.png: 'tset' is no split; splits are train, val, test",
        "val/c_99999999999999_p.png: step 99999999999999 is not between 0 and 2147483647",
        "train/a_1_p.png: step 1 of 'a' is train/a_01_q.png already",
    ]


def test_numbers_that_no_float_holds() -> None:
    _, mistakes, _ = read("{object}_{x:float}.png", ["a_1e999.png", "a_-1e31.png", "a_1e-999.png"])
    assert mistakes == ["a_-1e31.png: x -1e31 is too large", "a_1e999.png: x 1e999 is too large"]


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", "characters are needed"),
        ("{name}_{a:deg}.png", "needs {object} or {sequence}"),
        ("{object}_{a:grad}.png", "has no unit of deg, rad, float, int"),
        ("{object:int}_{a:deg}.png", "{object:int} takes no unit"),
        ("{object}_{step:deg}.png", "{step:deg} takes no unit"),
        ("{object}_{a:deg.png", "its braces do not fit"),
        ("{object}_{2a:deg}.png", "is not {name} or {name:unit}"),
        ("{object}_{}.png", "is not {name} or {name:unit}"),
        ("{object}_{a:deg}_{a:rad}.png", "occurs twice, with different units"),
        ("{object}" + "".join(f"_{{a{i}:int}}" for i in range(65)), "at most 64 parameters"),
    ],
)
def test_patterns_that_are_none_are_one_line(pattern: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        compile_pattern(pattern)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_what_is_no_group_is_literal() -> None:
    rows, _, others = read("./{object}(1)+.{a:int}.png", ["x(1)+.3.png", "x11.3.png"])
    assert rows.params.tolist() == [[3]]
    assert others.total == 1
