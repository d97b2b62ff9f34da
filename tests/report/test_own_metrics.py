from __future__ import annotations

from dataclasses import replace

from report_runs import protocol_of, write_run

from seqjepa.paper import metrics
from seqjepa.paper.metrics import METRICS, Metric, Scale, better, judged, metric_of, range_of
from seqjepa.report.groups import groups_of
from seqjepa.report.render import text as forms
from seqjepa.report.render.html import every_number, table_html
from seqjepa.report.runs import read_records
from seqjepa.report.tables import build_tables


def test_keys_are_the_registrys_with_sizes_and_without():
    assert metric_of("ood.top1_agg.5") is metric_of(("ood", "top1_agg")) is METRICS["ood.top1_agg"]
    assert metric_of("costs.macs_g.3") is METRICS["costs.macs_g"]
    assert metric_of("nothing.of.ours") is None
    assert (better("nothing.of.ours"), range_of("nothing.of.ours")) == ("", None)
    assert range_of("r2_path.both.3") == (-float("inf"), 1.0)
    assert (judged(0.5, "higher"), judged(0.5, "lower"), judged(0.5, ""), judged(0.0, "higher")) == (
        "better", "worse", "", "",
    )  # fmt: skip


def test_every_metric_says_what_its_sizes_are_wherever_it_has_a_place():
    for metric in METRICS.values():
        texts = (metric.label, metric.column, metric.features if metric.column else "")
        assert len({"{}" in text for text in texts if text}) <= 1, metric.key
    assert len({metric.paper for metric in METRICS.values() if metric.paper}) == sum(
        bool(metric.paper) for metric in METRICS.values()
    )


def test_one_entry_gives_a_metric_its_cells(tmp_path, monkeypatch):
    """In the table of metrics that the paper does not have, for a run that is a row of the paper, too."""
    spread = Scale("directions", "higher", 1.0, float("inf"))
    entry = Metric("spread_z", "spread of z", spread, "z of all views", "Spread of z", own_table=True)
    sized = replace(entry, key="spread_agg", label="spread, M = {}", features="M {}", column="Spread, M {}")
    for metric in (entry, sized):
        monkeypatch.setitem(metrics.METRICS, metric.key, metric)
        monkeypatch.setitem(metrics.ROWS, metric.key, metric.label)
    scores = {"top1_agg": {"5": 0.87}, "spread_z": 40.0, "spread_agg": {"3": 20.5, "2": 7.0}}
    scores["intervals"] = {"spread_z": [39.0, 41.5]}
    write_run(tmp_path / "one", scores=scores, protocol=protocol_of())
    records = read_records([tmp_path])
    (table,) = [table for table in build_tables(records) if table.key.endswith("-more")]
    assert table.title == "Metrics that the paper does not have, on 3DIEBench, 128 px"
    assert [column.marked_heading for column in table.columns] == [
        "Spread of z (directions) ↑", "Spread, M 3 (directions) ↑",
    ]  # fmt: skip
    ((_, cells),) = table.rows
    assert [cell.ours for cell in cells] == [40.0, 20.5]
    assert (cells[0].low, cells[0].features, cells[1].features) == (39.0, "z of all views", "M 3")
    assert "**40.000** (a) \\[39.000, 41.500\\] | **20.500**" in forms.markdown(table)
    assert "40.000<sup>" in table_html(table)
    assert "spread of z <abbr" in every_number(groups_of(records))


def test_without_such_metrics_there_is_no_such_table(tmp_path):
    write_run(tmp_path / "one", scores={"top1_agg": {"5": 0.87}})
    assert not [table for table in build_tables(read_records([tmp_path])) if table.key.endswith("-more")]
