from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from report_runs import protocol_of, write_run
from test_report_page import Outline

from seqjepa.recipes import load_recipe
from seqjepa.report.figures import build_figures
from seqjepa.report.render.html import render_report
from seqjepa.report.runs import RunRecord, differences_from_defaults, read_records
from seqjepa.report.tables import build_tables

SYNTH = protocol_of("3die-<synth>", resolution=48)


def page_of(records: list[RunRecord]) -> str:
    return render_report(records, build_tables(records), build_figures(records))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    scores = {"top1_z": 0.5, "top1_agg": {"3": 0.75, "5": 0.875}, "r2_rel_rot_avg": 0.5}
    write_run(folder / "home", scores={**scores, "intervals": {"top1_agg": {"5": [0.75, 0.9375]}}})
    for seed in (1, 2):
        settings = [f"seed={seed}", "optim.epochs=2"]
        write_run(folder / f"away{seed}", settings=settings, scores={**scores, "top1_z": seed / 4}, protocol=SYNTH)
    write_run(folder / "unfinished", "simclr-3die", protocol=SYNTH, epochs=3)
    home = json.loads((folder / "home" / "run.json").read_text())
    home["versions"] = {"torch": "9.9.9"}
    (folder / "home" / "run.json").write_text(json.dumps(home))
    return folder


@pytest.fixture(scope="module")
def html(runs) -> str:
    return page_of(read_records([runs]))


@pytest.fixture(scope="module")
def outline(html) -> Outline:
    return Outline(html)


def standing_rows(html: str) -> dict[str, list[str]]:
    """Text of the cells of the first table by the name of the run, tags left out."""
    table = html[html.index("<table class=standing>") : html.index("</table>")]
    rows = re.findall(r"<tr><th scope=row>(.*?)</th>(.*?)</tr>", table, flags=re.DOTALL)
    clean = re.compile(r"<[^>]+>")
    return {
        clean.sub("", name): [clean.sub("", cell) for cell in re.findall("<td.*?</td>", cells)] for name, cells in rows
    }


def test_tables_with_numbers_of_ours_come_first_and_every_link_has_a_name_of_its_own(html):
    tables = html[html.index('<section id="tables">') : html.index('<section id="footnotes">')]
    keys = re.findall(r'<article id="([^"]+)">', tables)
    measured = [key for key in keys if f'href="#{key}-a"' in tables]
    assert keys[: len(measured)] == measured
    assert {"table-1", "table-12"} < set(measured) < set(keys)
    names = re.findall(r'<li><a href="#[^"]+">([^<]+)</a></li>', tables)
    assert len(names) == len(set(names)) == len(keys)
    assert {"Table 1", "Poster: STL-10", "Poster: odd one out"} <= set(names)


def test_nothing_is_fetched_and_nothing_runs(html, outline):
    references = [v for _, attrs in outline.tags for k, v in attrs.items() if k in ("src", "href", "xlink:href")]
    assert references
    assert all(v and v.startswith(("data:", "#")) for v in references)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in outline.tags}
    assert not [k for _, attrs in outline.tags for k in attrs if k.startswith("on")]
    assert "url(http" not in html
    assert "@import" not in html


def test_tags_are_closed_ids_unique_and_links_lead_somewhere(outline):
    assert outline.open == []
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {(attrs["href"] or "")[1:] for attrs in outline.all("a")}
    assert links <= set(ids)
    assert {"main", "standing", "tables", "figures", "training", "provenance"} <= links


class Boxes(HTMLParser):
    """Tables by whether a box around them scrolls; blocks alone, as only they hold tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.around: list[bool] = []
        self.tables: list[bool] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "div":
            self.around.append(dict(attrs).get("class") == "scroll")
        if tag == "table":
            self.tables.append(any(self.around))

    def handle_endtag(self, tag):
        if tag == "div":
            self.around.pop()


def test_a_keyboard_can_reach_and_name_everything_that_scrolls(html, outline):
    assert html.index("class=skip") < html.index("<nav") < html.index("<main")
    boxes = [attrs for attrs in outline.all("div") if attrs.get("class") == "scroll"]
    assert boxes
    assert all(box["tabindex"] == "0" and box["role"] == "region" and box["aria-label"] for box in boxes)


def test_every_table_scrolls_in_its_own_box(html):
    tables = Boxes(html).tables
    assert len(tables) > 20
    assert all(tables)


def test_headings_descend_and_drawings_have_names(outline):
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert all(svg.get("aria-label") for svg in outline.all("svg"))
    assert all(image.get("alt") for image in outline.all("img"))


def test_names_are_escaped(html):
    assert "3die-&lt;synth&gt;" in html
    assert "3die-<synth>" not in html


def test_a_run_on_the_papers_data_stands_beside_its_value(html):
    at_home = standing_rows(html)["✓ seq-JEPA, M_tr 3"]
    assert at_home[:6] == ["87.5[75.0, 93.8]", "87.4", "+0.1", "0.50", "0.71", "−0.21"]
    assert at_home[-1] == "✓ yes"


def test_a_run_on_other_data_has_no_difference(html):
    away = standing_rows(html)["△ seq-JEPA, M_tr 32 seeds"]
    assert away[:6] == ["87.5± 0.0", "(87.4)", "–", "0.50± 0.00", "(0.71)", "–"]
    assert "other data: 48 px, 2 epochs" in away[-1]


def test_a_run_of_no_table_still_shows_its_numbers(tmp_path):
    scores = {"top1_agg": {"4": 0.625}, "r2_position_avg": 0.25}
    write_run(tmp_path / "a", "stl-pls-M3", settings=["data.inhibition=none"], scores=scores, protocol=SYNTH)
    records = read_records([tmp_path])
    (cells,) = standing_rows(render_report(records, build_tables(records), [])).values()
    assert cells[:7] == ["62.5", "–", "–", "0.25", "–", "–", "no row of the paper’s"]


def test_a_run_that_stopped_is_not_trusted(html):
    stopped = standing_rows(html)["✕ SimCLR"]
    assert stopped[:6] == ["–"] * 6
    assert stopped[-1].startswith("✕ notraining stopped at epoch 3 of 1000not evaluated")


def test_provenance_says_where_each_run_comes_from(html, runs):
    block = html[html.index('<section id="provenance">') :]
    assert block.count("<details>") == 4
    for said in (str(runs / "home"), "torch 9.9.9", "optim.epochs=2", "0" * 64, "not recorded", "--recipe"):
        assert said in block


def test_settings_are_named_as_the_command_line_takes_them(runs):
    away = next(record for record in read_records([runs]) if record.name == "away1")
    assert differences_from_defaults(away.config) == [
        "seed=1", "data.set=3diebench", "data.normalisation=3diebench", "data.image_size=128", "optim.epochs=2",
    ]  # fmt: skip
    given = ["train.compile=false", "train.keep_epochs=[2, 4]", "options.depth=3"]
    assert differences_from_defaults(load_recipe("", given)) == given


def test_without_runs_the_paper_alone_is_shown():
    outline = Outline(page_of([]))
    assert any("no runs to report" in text for text in outline.text["p"])
    assert len(outline.all("svg")) > 5
