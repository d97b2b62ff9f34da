from __future__ import annotations

import re
from itertools import pairwise

import pytest

from seqjepa.report.figures.drawing import PUBLISHED, SERIES, Line, draw, line_chart, spread_apart


@pytest.mark.parametrize(
    ("wanted", "placed"),
    [
        ([1.0, 5.0], [1.0, 5.0]),
        ([5.0, 1.0], [5.0, 1.0]),
        ([3.0, 3.0, 3.0], [3.0, 4.0, 5.0]),
        ([10.0, 10.0], [9.0, 10.0]),
        ([9.5, 9.8, 2.0], [9.0, 10.0, 2.0]),
        ([], []),
    ],
)
def test_labels_keep_their_order_a_gap_and_stay_below_the_top(wanted, placed):
    assert spread_apart(wanted, gap=1.0, high=10.0) == placed


def test_labels_of_two_lines_keep_twice_the_room():
    assert spread_apart([5.0, 5.0, 1.0], gap=1.0, high=10.0, lines=[2, 1, 1]) == [5.0, 6.5, 1.0]
    assert spread_apart([10.0, 10.0], gap=1.0, high=10.0, lines=[2, 2]) == [8.0, 10.0]


def test_too_many_labels_still_keep_their_gap():
    heights = sorted(spread_apart([5.0] * 20, gap=1.0, high=10.0))
    assert [b - a for a, b in pairwise(heights)] == [1.0] * 19


def test_a_drawing_has_its_name_and_the_pages_colours():
    svg = draw(lambda axes: axes.plot([0, 1], [0, 1], color=PUBLISHED), 'a "name" & more')
    assert svg.startswith('<svg role="img" aria-label="a &quot;name&quot; &amp; more"')
    assert "var(--published)" in svg
    assert not re.search("#0102", svg)


def test_same_drawing_same_bytes_and_other_names_other_ids():
    def ids(alt: str) -> list[str]:
        return re.findall(r' id="([^"]+)"', draw(lambda axes: axes.plot([0, 1], [0, 1], marker="o"), alt))

    assert ids("one") == ids("one")
    assert ids("one")
    assert not set(ids("one")) & set(ids("two"))


def test_the_papers_curves_are_grey_and_use_up_no_colour():
    lines = [Line("paper", [1, 2], [1, 2], published=True), Line("ours", [1, 2], [2, 1], spread=[0.1, 0.2])]
    svg = line_chart(lines, x_label="x", y_label="y", alt="both", markers=True)
    assert "var(--published)" in svg
    assert "var(--series-1)" in svg
    assert "var(--series-2)" not in svg


def test_six_curves_have_six_colours():
    lines = [Line(str(k), [0, 1], [k, k]) for k in range(6)]
    svg = line_chart(lines, x_label="x", y_label="y", alt="six")
    assert {f"var(--series-{k})" for k in range(1, 1 + len(SERIES))} <= set(re.findall(r"var\(--series-\d\)", svg))
