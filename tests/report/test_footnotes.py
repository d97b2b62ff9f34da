from __future__ import annotations

from itertools import product

import pytest

from seqjepa.paper.published import FOOTNOTES, Footnote, numbers_for, of_source, published
from seqjepa.report.tables import build_tables


def test_there_are_the_twelve():
    assert [note.number for note in FOOTNOTES] == list(range(1, 13))


@pytest.mark.parametrize("note", FOOTNOTES, ids=lambda note: str(note.number))
def test_each_is_on_values_that_it_quotes_and_on_every_place_it_names(note: Footnote):
    about = [row for row in published() if note.is_about(row)]
    assert len(about) >= 2
    for row in about:
        assert f"{row.value:g}" in note.text, row
        assert row.source.partition("-")[0] in note.text, row
    for where in note.concerns:
        lists = {k: v if isinstance(v, list) else [v] for k, v in where.items()}
        for values in product(*lists.values()):
            named = dict(zip(lists, values, strict=True))
            assert any(all(getattr(row, k) == v for k, v in named.items()) for row in about), named


def test_each_is_on_a_cell_of_a_table_and_on_no_value_of_ours():
    cells = [cell for table in build_tables([]) for cell in table.cells]
    assert {n for cell in cells for n in cell.footnotes} == set(range(1, 13))
    assert all(cell.published is not None for cell in cells if cell.footnotes)


def test_neighbours_of_such_values_have_none():
    by_lengths = {
        (r.m_tr, r.m_val, r.conditioning): numbers_for(r) for r in of_source("Table 1") if r.metric == "top1_acc"
    }
    assert by_lengths[3, 3, "rotation"] == (1,)
    assert by_lengths[1, 3, "rotation"] == (3,)
    assert by_lengths[3, 3, ""] == (12,)
    assert by_lengths[3, 5, "rotation"] == by_lengths[1, 1, "rotation"] == ()
    assert not any(numbers_for(r) for r in of_source("Table 1") if r.metric != "top1_acc")
