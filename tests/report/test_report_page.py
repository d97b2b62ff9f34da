from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import pytest

from seqjepa.report.figures.drawing import Line, curve, line_chart
from seqjepa.report.render.html import Page, render_run

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABh6FO1AAAAABJRU5ErkJggg=="
)
PROTOCOL = {
    "dataset": "synth", "resolution": 48, "train_samples": 32, "val_samples": 8, "fidelity": "paper", "m_tr": 3,
    "epochs": 2, "probe_epochs": {"classification": 300, "hue": 50}, "seed": 0,
    "skipped": {"top1_agg.8": "too few views"},
}  # fmt: skip
RESULTS = {
    "trained": {"top1_z": 0.75, "top1_agg": {"1": 0.5, "5": 0.8}, "r2_rel_rot_avg": -0.25, "protocol": PROTOCOL},
    "untrained": {"top1_z": 0.5, "top1_agg": {"1": 0.25, "5": 0.25}, "r2_rel_rot_avg": 0.0, "protocol": PROTOCOL},
}
EPOCHS = [{"epoch": 1, "loss": 0.9, "z_rank": 20.0}, {"epoch": 2, "loss": 0.5, "z_rank": 30.0}]


class Outline(HTMLParser):
    """Every start tag with its attributes, text by tag, and whether tags are balanced."""

    VOID = frozenset({"meta", "img", "link", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open:
            self.text.setdefault(self.open[-1], []).append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def html() -> str:
    return render_run(Page("A <title>", "Lead & more", PNG, "What it shows", EPOCHS, RESULTS, ["a note"]))


@pytest.fixture(scope="module")
def outline(html: str) -> Outline:
    return Outline(html)


def test_nothing_is_fetched(html, outline):
    references = [v for _, attrs in outline.tags for k, v in attrs.items() if k in ("src", "href", "xlink:href")]
    assert references
    assert all(v and v.startswith(("data:", "#")) for v in references)
    assert "url(http" not in html
    assert not {"script", "link", "iframe"} & {tag for tag, _ in outline.tags}


def test_text_is_escaped_and_tags_are_closed(html, outline):
    assert outline.open == []
    assert outline.text["h1"] == ["A <title>"]
    assert "Lead &amp; more" in html


def test_the_picture_is_the_one_given(outline):
    (image,) = outline.all("img")
    assert image["alt"] == "What it shows"
    assert base64.b64decode((image["src"] or "").partition(",")[2]) == PNG


def test_charts_have_names_and_headings_descend(outline):
    charts = outline.all("svg")
    assert len(charts) == 3
    assert "loss from 0.9 to 0.5" in (charts[0]["aria-label"] or "")
    assert "trained 50.0% to 80.0%; untrained 25.0% to 25.0%" in (charts[2]["aria-label"] or "")
    levels = [tag for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == "h1"
    assert set(levels[1:]) == {"h2"}


def test_ids_are_unique(outline):
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_table_holds_the_numbers_with_headers(outline):
    assert [h.get("scope") for h in outline.all("th")].count("col") == 4
    assert outline.text["td"][:6] == ["0.750", "0.500", "+0.250", "0.500", "0.250", "+0.250"]
    assert outline.text["td"][-3:] == ["−0.250", "0.000", "−0.250"]
    assert any("top1_agg.8 – too few views" in line for line in outline.text["li"])


def test_a_run_without_epochs_or_aggregate_still_makes_a_page():
    bare = {"trained": {"top1_z": 0.75, "protocol": PROTOCOL}}
    outline = Outline(render_run(Page("t", "l", PNG, "s", [], bare)))
    assert outline.all("svg") == []
    assert outline.text["td"] == ["0.750", "–", "–"]


SACCADES = {
    "trained": {
        "top1_z_image": 0.625,
        "top1_z_patch": 0.375,
        "top1_z_mean": {"1": 0.375, "4": 0.5},
        "r2_position_avg": 0.75,
        "r2_path": {
            "both": {"1": 1.0, "2": 0.9, "7": 0.8},
            "no_action": {"1": 0.125, "2": 0.0, "7": -0.125},
            "no_vision": {"1": 1.0, "2": 0.85, "7": 0.5},
        },
        "protocol": {**PROTOCOL, "fixating": {"patch": 32, "fixations": "saliency", "inhibition": "disc"}},
    }
}


def test_paths_are_drawn_with_their_ablations_and_stand_in_the_table():
    outline = Outline(render_run(Page("t", "l", PNG, "s", [], SACCADES)))
    over_views, paths = (chart["aria-label"] or "" for chart in outline.all("svg"))
    assert "trained 37.5% to 50.0%" in over_views
    assert "vision and actions 1.00 to 0.80; vision alone 0.12 to -0.12; actions alone 1.00 to 0.50" in paths
    labels = outline.text["th"][4:]
    assert labels[:2] == ["top-1, z of the whole image", "top-1, z of the first patch"]
    assert labels[-1] == "R² path, actions alone, M = 7"
    assert outline.text["td"][-3:] == ["0.500", "–", "–"]
    assert [value for value in outline.text["dd"] if value[0].isdigit()] == ["0.625", "0.750"]
    assert any("patches of 32 px (saliency, inhibition disc)" in line for line in outline.text["li"])


def test_chart_colours_are_the_pages_and_text_is_text():
    svg = line_chart([Line("one", [1, 2], [1, 2])], x_label="an x", y_label="a y", alt='an "alt"')
    assert "var(--series-1)" in svg
    assert "#0102" not in svg
    assert {"an x", "a y", "one"} <= set(Outline(svg).text["text"])
    assert Outline(svg).all("svg")[0]["aria-label"] == 'an "alt"'


def test_same_input_same_bytes(html):
    assert render_run(Page("A <title>", "Lead & more", PNG, "What it shows", EPOCHS, RESULTS, ["a note"])) == html


def test_labels_that_end_together_are_pushed_apart():
    svg = line_chart(
        [Line("a", [0, 1], [0, 1.0]), Line("b", [0, 1], [0, 1.001])], x_label="x", y_label="y", alt="close"
    )
    heights = {name: float(y) for y, name in re.findall(r'<text [^>]*y="([\d.]+)"[^>]*>([ab])</text>', svg)}
    assert abs(heights["a"] - heights["b"]) > 9


def test_curve_leaves_out_what_was_not_logged():
    epochs = [{"epoch": 1, "loss": 1.0}, {"epoch": 2}, {"epoch": 3, "loss": 0.5, "collapse": "z: …"}]
    assert curve(epochs, "loss", "loss") == Line("loss", [1.0, 3.0], [1.0, 0.5])
    assert curve(epochs, "rank", "rank") is None


def test_cards_hold_what_stands_beside_the_trained_number():
    results = {"trained": {"r2_crop_avg": 0.5, "protocol": PROTOCOL}, "untrained": {"r2_crop_avg": 0.125}}
    others = {"without actions": {"r2_crop_avg": 0.25}, "another": {"top1_z": 0.5}}
    outline = Outline(render_run(Page("t", "l", PNG, "s", [], results, others=others)))
    assert outline.text["dd"] == ["0.500", "untrained 0.125", "without actions 0.250"]
