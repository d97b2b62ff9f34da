"""The first thing a reader sees: where each kind of run stands against the paper, and whether to trust it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from seqjepa.evaluate.results import differently_measured
from seqjepa.paper.metrics import judged
from seqjepa.paper.published import Published, published
from seqjepa.report.cells import Cell, beside_published, measured, of_runs
from seqjepa.report.details import clearly_lost
from seqjepa.report.groups import TABLES_M_VAL, Group, Mean, accuracy, by_data
from seqjepa.report.match import is_on_set_of, is_row_of
from seqjepa.report.measures import REGRESSED, measure_of
from seqjepa.report.render.page import arrow, scrolling
from seqjepa.report.warnings import RunWarning, at_scale, warnings_of

SOURCES = ("Table 1", "Table 11", "Table 7", "Table 8", "Table 4", "Table 2", "Table 3", "Table 12")
SOURCES += ("Figure 8", "Figure 9", "Figure 10", "Figure 11", "Figure 7-left", "Poster STL10", "Poster STL10-ablation")
"""Where a run's headline numbers are looked for, in this order."""
NOTE = (
    "Δ: ours less the paper’s, only where both are on the same data set. [low, high]: 95 % bootstrap interval over "
    "validation samples; ±: sample standard deviation over seeds. (In brackets): the paper’s value on its own data, "
    "which the run did not see. Untrained: the same of the initial weights, where it was measured alike. "
    "Worse than untrained: beyond the interval, where there is one. ↑: more is better. ✓: to be trusted; △: with "
    "limits; ✕: not."
)
SHOWN_WORSE = 3
VERDICTS = {"yes": ("✓", "sound"), "with limits": ("△", "limited"), "no": ("✕", "grave")}
EQUIVARIANCE = ("R2_rel_rot", "R2_position", "R2_crop", "R2_jitter", "R2_blur")


@dataclass(frozen=True)
class Headline:
    """A number of a run with the paper's. comparable: whether it was measured on the paper's own data."""

    cell: Cell
    row: Published
    comparable: bool


def _preference(row: Published) -> tuple[int, int]:
    """Largest M_val, but 5 before all larger ones: what the paper's tables are about."""
    m_val = row.m_val or 0
    return (
        -EQUIVARIANCE.index(row.metric) if row.metric in EQUIVARIANCE else 0,
        m_val if m_val <= TABLES_M_VAL else -m_val,
    )


def headline(group: Group, metrics: Iterable[str]) -> Headline | None:
    """Of the first table that has the run: the value at the largest M_val that was measured; None if there is none."""
    wanted = tuple(metrics)
    run = group.runs[0]
    for source in SOURCES:
        rows = [r for r in published() if r.source == source and r.metric in wanted and is_row_of(run, r)]
        found = [row for row in rows if measured(group, measure_of(row))]
        if found:
            row = max(found, key=_preference)
            comparable = is_on_set_of(run, row)
            runs = measured(group, measure_of(row))
            cell = beside_published(row, group) if comparable else of_runs(runs, measure_of(row), "")
            return Headline(cell, row, comparable)
    return None


def overview_html(groups: Sequence[Group]) -> str:
    """HTML: counts, then a row for each kind of run, by data. Tells by words and signs, not by colour alone."""
    if not groups:
        return "<p class=missing>There are no runs to report; below is what the paper published.</p>"
    numbers = ("top-1, %", "paper", "Δ", "R²", "paper", "Δ")
    heads = "<th scope=col>run</th>" + "".join(
        f"<th scope=col>{head}{arrow('higher') if head in ('top-1, %', 'R²') else ''}</th>" for head in numbers
    )
    heads += "<th scope=col class=words>measured as</th><th scope=col class=words>trust</th>"
    by_home = sorted(by_data(groups).items(), key=lambda item: not item[1][0].home)
    bodies = "\n".join(_rows(data, found) for data, found in by_home)
    table = f"<table class=standing>\n<thead><tr>{heads}</tr></thead>\n{bodies}\n</table>"
    return f"{_counts(groups)}\n{scrolling('Where each run stands', table)}\n<p class=quiet>{NOTE}</p>"


def _counts(groups: Sequence[Group]) -> str:
    runs = [run for group in groups for run in group.runs]
    grave = sum(any(doubt.grave for doubt in warnings_of(group)) for group in groups)
    cards = {
        "runs": len(runs),
        "kinds of run": len(groups),
        "evaluated": sum(bool(run.trained) for run in runs),
        "runs at the paper’s scale": sum(at_scale(run) for run in runs),
        "kinds not to be trusted": grave,
    }
    shown = "".join(f"<div><dt>{name}</dt><dd>{count}</dd></div>\n" for name, count in cards.items())
    return f"<dl class='numbers counts'>\n{shown}</dl>"


def _rows(data: str, groups: Sequence[Group]) -> str:
    """Runs on the same data, under its name."""
    evaluated = [run for group in groups for run in group.runs if run.trained]
    foreign = bool(evaluated) and not any(run.paper_set for run in evaluated)
    foreign = " – not a data set of the paper; no difference is meaningful" if foreign else ""
    head = f"<tr><th colspan=9 scope=rowgroup>{escape(data + foreign)}</th></tr>"
    rows = "\n".join(_row(group) for group in groups)
    return f"<tbody>\n{head}\n{rows}\n</tbody>"


def _row(group: Group) -> str:
    top1 = headline(group, ("top1_acc", "top1_acc_z_agg"))
    r2 = headline(group, EQUIVARIANCE)
    seeds = f"<small>{group.seeds} seeds</small>" if group.seeds > 1 else ""
    found = warnings_of(group)
    sign, style = VERDICTS[_verdict(found)]
    name = f"<span class={style} aria-hidden=true>{sign}</span> {escape(group.label)}{seeds}"
    cells = "".join([*_cells(top1, *_own_top1(group), 1), *_cells(r2, *_own_r2(group), 2)])
    return f"<tr><th scope=row>{name}</th>{cells}<td class=words>{_measured(group, top1, r2)}</td>{_trust(found)}</tr>"


def _own_top1(group: Group) -> tuple[Mean | None, Mean | None]:
    """Of a group that is in no table, trained and untrained, percent."""
    found, before = accuracy(group), accuracy(group, "untrained")
    key = f"top1_agg.{found[0]}" if found and found[0] is not None else "top1_z"
    alike = found and before and found[0] == before[0] and not _measured_otherwise(group, key)
    return found[1].times(100) if found else None, before[1].times(100) if before and alike else None


def _own_r2(group: Group) -> tuple[Mean | None, Mean | None]:
    """Of what the run's kind of data is about, trained and untrained."""
    for key in (f"{REGRESSED[metric]}_avg" for metric in EQUIVARIANCE):
        if found := group.mean(lambda scores, key=key: scores.get(key)):
            otherwise = _measured_otherwise(group, key)
            return found, None if otherwise else group.mean(lambda scores, key=key: scores.get(key), "untrained")
    return None, None


def _measured_otherwise(group: Group, key: str) -> bool:
    return any(differently_measured(dict(run.results), key) for run in group.runs)


def _cells(found: Headline | None, own: Mean | None, before: Mean | None, digits: int) -> Iterator[str]:
    """Ours above the untrained, the paper's, the difference; `own` and `before` where the paper has no such value."""
    if found is None:
        spread = f"<small>± {own.std:.{digits}f}</small>" if own is not None and own.std is not None else ""
        floor = _floor(before.value if before else None, digits)
        alone = "–" if own is None else f"<b>{_signed(own.value, digits, plus=False)}</b>{spread}{floor}"
        yield from (f"<td>{alone}</td>", "<td>–</td>", "<td>–</td>")
        return
    cell, paper = found.cell, f"{found.row.value:.{digits}f}".replace("-", "−")
    yield f"<td><b>{_signed(cell.ours, digits, plus=False)}</b>{_spread(cell, digits)}{_floor(cell.floor, digits)}</td>"
    yield f"<td>{paper}</td>" if found.comparable else f"<td class=quiet>({paper})</td>"
    verdict = judged(cell.difference, measure_of(found.row).better)
    yield f"<td{f' class={verdict}' if verdict else ''}>{_signed(cell.difference, digits, plus=True)}</td>"


def _floor(value: float | None, digits: int) -> str:
    return "" if value is None else f"<small>untrained {_signed(value, digits, plus=False)}</small>"


def _signed(value: float | None, digits: int, *, plus: bool) -> str:
    return "–" if value is None else f"{value:{'+' if plus else ''}.{digits}f}".replace("-", "−")


def _spread(cell: Cell, digits: int) -> str:
    if cell.std is not None:
        return f"<small>± {cell.std:.{digits}f}</small>"
    if cell.low is not None and cell.high is not None:
        return f"<small>[{_signed(cell.low, digits, plus=False)}, {_signed(cell.high, digits, plus=False)}]</small>"
    return ""


def _measured(group: Group, *found: Headline | None) -> str:
    """Which value of the paper, and features: the whole protocol is in the tables."""
    if not any(run.trained for run in group.runs):
        return "<small>not measured yet</small>"
    shown = [f"{measure_of(h.row).what} ({h.row.source})" for h in found if h]
    said = "<br>".join(f"<small>{escape(line)}</small>" for line in shown) or "<small>no row of the paper’s</small>"
    worse = list(dict.fromkeys(name for run in group.runs for name in clearly_lost(run.results)))
    if not worse:
        return said
    more = f" and {len(worse) - SHOWN_WORSE} more" if len(worse) > SHOWN_WORSE else ""
    names = f"worse than untrained: {'; '.join(worse[:SHOWN_WORSE])}{more}"
    return f"{said}<br><small class=worse>{escape(names)}</small>"


def _verdict(found: Sequence[RunWarning]) -> str:
    """A key of VERDICTS."""
    if any(doubt.grave for doubt in found):
        return "no"
    return "with limits" if found else "yes"


def _trust(found: Sequence[RunWarning]) -> str:
    """A cell: the verdict in words with its sign, then what speaks against the numbers."""
    verdict = _verdict(found)
    sign, style = VERDICTS[verdict]
    graves = "".join(f"<div>{escape(doubt.text)}</div>" for doubt in found if doubt.grave)
    limits = "; ".join(escape(doubt.text) for doubt in found if not doubt.grave)
    limits = f"<div><small>{limits}</small></div>" if limits else ""
    return f"<td class=words><strong class={style}>{sign} {verdict}</strong>{graves}{limits}</td>"
