from __future__ import annotations

import re

import pytest

from seqjepa import recipes
from seqjepa.paper.measures import measure_of
from seqjepa.paper.published import published
from seqjepa.paper.tables import recipe_of

TABLES = [row for row in published() if row.source.startswith(("Table", "Poster"))]


def test_every_value_that_a_run_can_have_is_some_recipes():
    wanted = {recipe_of(row) for row in published() if row.source != "Table 6"}
    assert wanted <= set(recipes.names())
    assert all(recipe_of(row) == "" for row in published() if row.source == "Table 6")


@pytest.mark.parametrize("source", ["Table 1", "Table 2", "Table 4", "Table 7", "Table 8", "Table 11"])
def test_the_recipe_itself_quotes_the_value(source):
    """Recipes say in their comments which numbers they are for: written by other hands, from the paper."""
    for row in TABLES:
        if row.source != source:
            continue
        comment = recipes.find_recipe(recipe_of(row)).about.replace("\n", " ")
        assert source in comment
        quoted = {float(number) for number in re.findall(r"-?\d+\.\d+", comment)}
        assert row.value in quoted or (row.source, row.m_val) == ("Table 1", 3), (row, comment)


def test_figures_that_say_no_m_tr_are_of_the_usual_runs():
    assert {recipe_of(r) for r in published() if r.source == "Figure 6-visual"} == {"stl-pls-M4"}
    assert {recipe_of(r) for r in published() if r.source == "Figure 6-angular"} == {"3die-rot-M3"}


def test_which_number_stands_beside_which():
    found = {(r.source, r.method, r.metric, r.m_tr, r.m_val): measure_of(r) for r in TABLES}
    assert found["Table 1", "BYOL", "top1_acc", None, None].key == "top1_z"
    assert found["Table 1", "seq-JEPA", "top1_acc", 3, 5].key == "top1_agg.5"
    assert found["Table 1", "SIE", "R2_rel_rot", None, None].key == "r2_rel_rot_avg"
    pooled = found["Table 1", "ContextSSL", "R2_rel_rot", None, None]
    assert pooled.key == "in_context.rotation.r2_rel_rot_pool.126"
    assert found["Table 2", "SimCLR", "top1_acc", None, None].key == "top1_z_image"
    assert found["Table 3", "seq-JEPA", "top1_acc", 4, 4].key == "top1_agg.5"
    assert found["Table 3", "seq-JEPA", "top1_acc", 4, 6].key == "top1_agg.6"
    assert found["Poster STL10", "seq-JEPA", "top1_acc_z_agg", 4, 4].key == "top1_agg.4"
    assert found["Table 7", "SEN", "R2_color", None, None].key == "r2_hue_avg"
    assert found["Table 10", "seq-JEPA", "MRR", 1, 1].key == "retrieval.mrr"
    assert found["Table 10", "seq-JEPA", "Hit@5", 3, 3].key == "retrieval_3.h5"
    assert found["Table 6", "seq-JEPA", "post_aggregator_GFLOPs", None, 8].key == "costs.macs_g.8"
    assert found["Table 6", "seq-JEPA", "encoder_only_GFLOPs", None, None].key == "costs.macs_g.1"
    assert all(measure_of(row).percent == (row.unit in ("%", "points")) for row in TABLES)


def test_reading_scales_subtracts_and_refuses_what_is_no_number():
    drop = next(measure_of(r) for r in TABLES if r.metric == "top1_acc_drop_vs_id" and r.m_tr == 3)
    results = {"top1_agg": {"3": 0.75}, "ood": {"top1_agg": {"3": 0.5}}, "intervals": {"top1_agg": {"3": [0.7, 0.8]}}}
    assert drop.read(results) == -25.0
    assert drop.read({"top1_agg": {"3": 0.75}}) is None
    top1 = next(measure_of(r) for r in TABLES if r.source == "Table 1" and r.m_tr == 3)
    assert top1.read(results) == 75.0
    assert top1.interval(results) == pytest.approx((70.0, 80.0))
    assert top1.read({"top1_agg": {"3": float("nan")}}) is None
    assert top1.read({"top1_agg": "damaged"}) is None
    assert top1.interval({"intervals": {"top1_agg": {"3": [0.7]}}}) is None
