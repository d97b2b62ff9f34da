"""HTML pages: many runs beside the paper (overview, tables, figures, training, provenance), and one run, of a demo."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from seqjepa.evaluate.results import WEIGHTS, blind_numbers, keyed_rows, protocol_lines
from seqjepa.paper.measures import value_at
from seqjepa.paper.metrics import PATHS, better, judged
from seqjepa.paper.published import FOOTNOTES
from seqjepa.report.cells import signed
from seqjepa.report.figures.drawing import Figure, Line, curve, ends, line_chart
from seqjepa.report.fill_template import SIGN, fill
from seqjepa.report.groups import Group, groups_of, label
from seqjepa.report.overview import counts, is_first, lost_to_untrained, rows_by_data, standardised
from seqjepa.report.runs import RunRecord, provenance
from seqjepa.report.tables import MARK, NOTHING, Table, legend_of

Chart = tuple[str, str]
"""An <svg> and its caption."""
TITLE = "seq-JEPA: our runs beside the paper"
LEAD = (
    "Published numbers are those of arXiv 2505.03176; ours were measured by seqjepa evaluate. What was not measured is "
    "shown as missing."
)
OWN_TITLE = "seq-JEPA: runs on own data"
OWN_LEAD = "Numbers were measured by seqjepa evaluate on frozen features. What was not measured is shown as missing."
TRAINING = ("checkpoints", "loss", "collapse", "online-probes", "learning-rate")
"""Keys of figures that are about training."""


@dataclass(frozen=True)
class PageSection:
    """A part of a page under its own heading. key: its anchor; empty sections are left out."""

    key: str
    heading: str
    content: Markup


def render_report(records: Sequence[RunRecord], tables: Sequence[Table], figures: Sequence[Figure]) -> str:
    """The whole document as HTML text: one file that needs no network and no script.

    It opens on what is of the runs; what holds nothing of ours is closed behind its title. Without runs all is open.
    """
    groups, fold = groups_of(records), bool(records)
    training = [figure for figure in figures if figure.key in TRAINING]
    others = [figure for figure in figures if figure.key not in TRAINING]
    missing = [figure for figure in figures if figure.missing]
    own = is_of_own_data(records)
    sections = [
        PageSection("standing", "Where each run stands", overview_html(groups)),
        PageSection("numbers", "Every number", every_number(groups)),
        PageSection("tables", "Tables", _tables_html(tables, fold)),
        PageSection("footnotes", "Where the paper contradicts itself", _footnotes_html(tables, fold, own)),
        PageSection("figures", "Figures", _figures_html(others, fold)),
        PageSection("training", "Training", _figures_html(training, fold)),
        PageSection("missing", "Not measured", fill("missing.html", figures=missing) if missing else Markup()),
        PageSection("provenance", "Provenance", _provenance_html(groups)),
    ]
    title = title_of(records)
    header = Markup("<h1>{}</h1>\n<p class=lead>{}</p>").format(title, OWN_LEAD if own else LEAD)
    return page_html(title, header, sections, contents=True, sign=SIGN)


def is_of_own_data(records: Sequence[RunRecord]) -> bool:
    """Whether there are runs, all on data of none of the paper's kinds: then nothing is said of it."""
    return bool(records) and all(record.is_own for record in records)


def title_of(records: Sequence[RunRecord]) -> str:
    """Of the page and of the tables as Markdown."""
    return OWN_TITLE if is_of_own_data(records) else TITLE


def overview_html(groups: Sequence[Group]) -> Markup:
    """Counts, then a row for each kind of run, by data. It tells by words and signs, not by colour alone."""
    own = bool(groups) and all(group.is_own for group in groups)
    return fill("overview.html", counts=counts(groups), data=rows_by_data(groups), own=own)


def table_html(table: Table, *, closed: bool = False) -> Markup:
    """An <article> with the table and its notes; footnotes are links to #footnote-N, which the page has.

    closed: behind its title, for a reader to open.
    """
    rows = [(labels[0], _further_labels(table, labels), cells) for labels, cells in table.rows]
    values = {"notes": table.run_notes, "measured": table.is_measured, "MARK": MARK}
    return fill("table.html", table=table, rows=rows, closed=closed, **values)


def figure_html(figure: Figure, *, closed: bool = False) -> Markup:
    """An <article> with the figure, its caption, and its numbers as a table that can be opened.

    closed: behind its title, for a reader to open; of a figure without panels the title and the reason are all.
    """
    return fill("figure.html", figure=figure, closed=closed)


def every_number(groups: Sequence[Group]) -> Markup:
    """A block for each run that was evaluated, open if it is the only one; it names what training made worse."""
    runs = [_numbers_of_run(group, run) for group in groups for run in group.runs if run.results]
    return fill("numbers.html", runs=runs) if runs else Markup()


def numbers_table(results: Mapping[str, Any]) -> Markup:
    """A row for each number of {"trained": {…}, "untrained": {…}}, a gain in the colour of what is better.

    No gain stands where the two were measured differently.
    """
    return fill("numbers_table.html", rows=_number_rows(results))


def _number_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """As the macro `numbers` takes them."""
    not_plain, blind = standardised(results.get("trained", {})), blind_numbers(results)
    return [
        {
            "key": key,
            "label": name,
            "better": better(key),
            "verdict": judged(gain, better(key)),
            "standardised": key in not_plain,
            "trained": shown_number(trained),
            "untrained": shown_number(untrained),
            "gain": shown_number(gain, "+"),
            **({"blind": shown_number(blind.get(key))} if blind else {}),
        }
        for key, name, (trained, untrained, gain) in keyed_rows(dict(results))
    ]


def page_html(
    title: str, header: Markup, sections: Sequence[PageSection], *, contents: bool = False, sign: str = ""
) -> str:
    """A whole document: one file that needs no network and no script, readable on a phone, in the dark and on paper.

    header    what stands above the sections: the <h1> and what a reader should see first
    contents  whether to begin with a link past the list of sections, and that list
    sign      a comment at the top, by which we know the file as ours
    """
    shown = [section for section in sections if section.content.strip()]
    return str(fill("page.html", title=title, header=header, sections=shown, contents=contents, sign=sign))


def _further_labels(table: Table, labels: tuple[str, ...]) -> str:
    """All labels but the first, numbers with the names of what they are."""
    pairs = zip(table.heads[1:], labels[1:], strict=True)
    return " · ".join(f"{head}\u00a0{name}" if name.isdecimal() else name for head, name in pairs if name != NOTHING)


def _numbers_of_run(group: Group, run: RunRecord) -> dict[str, Any]:
    rows, worse = _number_rows(run.results), lost_to_untrained(run.results)
    beside = "" if run.untrained else "; no untrained weights beside them (`seqjepa evaluate --untrained`)"
    lost = f"; training made {len(worse)} worse" if worse else ""
    return {
        "name": run.name,
        "label": group.label_of(run),
        "note": f"{run.name}, {group.data}: {len(rows)} numbers{beside}{lost}",
        "first": [row for row in rows if is_first(row["key"])],
        "rest": [row for row in rows if not is_first(row["key"])],
        "protocol": protocol_lines(dict(run.results)),
    }


def shown_number(value: float | None, sign: str = "") -> str:
    """ "−0.250"; a dash for None."""
    return signed(value, 3, sign) or NOTHING


def _tables_html(tables: Sequence[Table], fold: bool) -> Markup:
    """Tables with something of ours first."""
    if not tables:
        return Markup()
    ours = [table for table in tables if table.is_measured]
    alone = [table for table in tables if not table.is_measured]
    values = {"beginnings": _beginnings(tables), "table_html": table_html, "LEGEND": legend_of(tables)}
    return fill("tables.html", ours=ours, alone=alone, fold=fold, **values)


def _figures_html(figures: Sequence[Figure], fold: bool) -> Markup:
    """Those with something of ours first."""
    if not figures:
        return Markup()
    ordered = sorted(figures, key=lambda figure: not figure.of_ours)
    values = {"beginnings": _beginnings(figures), "figure_html": figure_html}
    return fill("figures.html", figures=ordered, fold=fold, **values)


def _beginnings(articles: Sequence[Table] | Sequence[Figure]) -> Counter[str]:
    """How many titles begin with the same words, up to a colon."""
    return Counter(article.title.partition(":")[0] for article in articles)


def _footnotes_html(tables: Sequence[Table], fold: bool, own: bool) -> Markup:
    """Numbered as the tables refer to them; closed where no table with numbers of ours does. None of own data."""
    if own:
        return Markup()
    used = any(table.is_measured and table.footnotes for table in tables)
    return fill("footnotes.html", FOOTNOTES=FOOTNOTES, closed=fold and not used)


def _provenance_html(groups: Sequence[Group]) -> Markup:
    """Each run as a block that opens, in the order of the groups."""
    runs = [
        {
            "name": run.name,
            "note": f"{label(run.config)}, {run.dataset}, seed {run.config.seed}",
            "facts": provenance(run),
        }
        for group in groups
        for run in group.runs
    ]
    return fill("provenance.html", runs=runs) if runs else Markup()


@dataclass(frozen=True)
class Page:
    """What the page of one run shows.

    epochs   the run's metrics.jsonl
    results  {"trained": …, "untrained": …} as in results.json
    sheet    a contact sheet, PNG, and what it shows in words
    notes    short sentences on how it was made (commands, timings)
    others   further results, by what they are, that stand beside these: in the cards, and in the chart of accuracy over
             views
    """

    title: str
    lead: str
    sheet: bytes
    sheet_alt: str
    epochs: Sequence[Mapping[str, object]]
    results: Mapping[str, Any]
    notes: Sequence[str] = field(default_factory=tuple)
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


CARDS = {
    "top1_z": "Top-1 from one view",
    "top1_z_image": "Top-1 from the whole image",
    "r2_rel_rot_avg": "R² of the rotation between two views",
    "r2_position_avg": "R² of the way between two patches",
    "r2_crop_avg": "R² of the crop between two views",
    "r2_jitter_avg": "R² of the colour jitter between two views",
    "r2_blur_avg": "R² of the blur between two views",
}
"""Keys of results.json that have a card, and what it is called."""
RANK_CAPTION = "Effective rank of the features; near 1 it would mean collapse"
PATH_CAPTION = (
    "Path integration: the way from the first view to the one after the last, read from z_AGG and e_M. Each head was "
    "trained on what it is shown."
)


def render_run(page: Page) -> str:
    """The page of one run as HTML text, a few hundred kilobytes with its pictures inside."""
    charts = [
        _over_epochs(page.epochs, {"loss": "loss"}, "1 − cos", "Prediction loss, mean over each epoch"),
        _over_epochs(page.epochs, {"z_rank": "z", "agg_rank": "z_AGG"}, "effective rank", RANK_CAPTION),
        _over_views({**{name: page.results.get(name, {}) for name in WEIGHTS}, **page.others}),
        _over_paths(page.results.get("trained", {})),
    ]
    made = [*protocol_lines(dict(page.results)), *page.notes]
    sheet = {"data": base64.b64encode(page.sheet).decode(), "text": page.sheet_alt}
    values = {"sheet": sheet, "charts": [chart for chart in charts if chart], "made": made}
    values |= {"page": page, "cards": _cards(page)}
    sections = [
        PageSection("seen", "What the encoder sees", fill("run.html", part="sheet", **values)),
        PageSection("learning", "Learning, and what more views bring", fill("run.html", part="charts", **values)),
        PageSection("numbers", "Numbers on unseen objects", numbers_table(page.results)),
        PageSection("made", "How it was made", fill("run.html", part="made", **values)),
    ]
    return page_html(page.title, fill("run.html", part="header", **values), sections)


def _cards(page: Page) -> list[tuple[str, str, dict[str, str]]]:
    """Names and numbers of the trained weights, and the same of the untrained and of others beside them."""
    rows = {key: cells for key, _, cells in keyed_rows(dict(page.results))}
    wanted, sizes = dict(CARDS), [int(key.removeprefix("top1_agg.")) for key in rows if key.startswith("top1_agg.")]
    if sizes:
        wanted[f"top1_agg.{max(sizes)}"] = f"Top-1 from {max(sizes)} views (z_AGG)"
    cards = []
    for key, name in wanted.items():
        if key in rows:
            trained, untrained, _ = rows[key]
            beside = {"untrained": untrained} | {other: value_at(scores, key) for other, scores in page.others.items()}
            shown = {other: shown_number(value) for other, value in beside.items() if value is not None}
            cards.append((name, shown_number(trained), shown))
    return cards


def _over_epochs(
    epochs: Sequence[Mapping[str, Any]], columns: Mapping[str, str], y_label: str, caption: str
) -> Chart | None:
    """Columns of metrics.jsonl, by the names that they have in the chart; None if none was logged."""
    lines = [line for key, name in columns.items() if (line := curve(epochs, key, name))]
    if not lines:
        return None
    alt = f"{caption}, over {len(lines[0].x)} epochs: {ends(lines)}."
    return line_chart(lines, x_label="epoch", y_label=y_label, alt=alt), f"{caption}."


def _over_views(results: Mapping[str, Mapping[str, Any]]) -> Chart | None:
    """The accuracy over M_val, on z_AGG or else on mean z, for all by name that have it."""
    key, what = "top1_agg", "z_AGG, the aggregate of M_val views and the actions between them"
    if not any(scores.get(key) for scores in results.values()):
        key, what = "top1_z_mean", "the mean z of M_val views"
    lines = [_by_size(name, scores[key]) for name, scores in results.items() if scores.get(key)]
    if not lines:
        return None
    said = "; ".join(f"{line.name} {line.y[0]:.1%} to {line.y[-1]:.1%}" for line in lines)
    alt = f"Top-1 accuracy from {lines[0].x[0]:.0f} to {lines[0].x[-1]:.0f} views: {said}."
    chart = line_chart(lines, x_label="views seen, M_val", y_label="top-1, %", alt=alt, markers=True, percent=True)
    return chart, f"A linear classifier on {what}."


def _over_paths(trained: Mapping[str, Any]) -> Chart | None:
    """Path integration with both ablations, as the paper's Figure 6."""
    paths = trained.get("r2_path", {})
    lines = [_by_size(shown, paths[name]) for name, shown in PATHS.items() if paths.get(name)]
    if not lines:
        return None
    said = "; ".join(f"{line.name} {line.y[0]:.2f} to {line.y[-1]:.2f}" for line in lines)
    alt = f"R² of the whole way over {lines[0].x[0]:.0f} to {lines[0].x[-1]:.0f} steps: {said}."
    return line_chart(lines, x_label="steps, M", y_label="R²", alt=alt, markers=True), PATH_CAPTION


def _by_size(name: str, scores: Mapping[str, float]) -> Line:
    return Line(name, [float(size) for size in scores], list(scores.values()))
