"""Every number of a run, trained beside untrained, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from seqjepa.evaluate.direction import better, judged
from seqjepa.evaluate.protocol import LINEARLY_REGRESSED
from seqjepa.evaluate.results import keyed_rows, protocol_lines, regressors_of
from seqjepa.report.arrows import arrow
from seqjepa.report.page import listing, scrolling
from seqjepa.report.records import RunRecord
from seqjepa.report.run_groups import Group, at

HEADS = ("Measure", "trained", "untrained", "gain")
FIRST = ("top1_", "r2_", "rel_rot", "indiv_rot")
"""Beginnings of the keys of what is not folded."""


def numbers_table(results: Mapping[str, Any], label: str = "Table of results", keys: Sequence[str] = ()) -> str:
    """HTML of {"trained": {…}, "untrained": {…}}: a row for each number, a gain in the colour of what is better.

    No gain stands where the two were measured differently. keys: of the numbers wanted, where not all are.
    """
    not_plain = standardised(results.get("trained", {}))
    found = [row for row in keyed_rows(dict(results)) if not keys or row[0] in keys]
    rows = "".join(_row(key, name, values, key in not_plain) for key, name, values in found)
    heads = "".join(f"<th scope=col>{head}</th>" for head in HEADS)
    return scrolling(label, f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>")


def _row(key: str, name: str, values: Sequence[float | None], not_plain: bool) -> str:
    trained, untrained, gain = values
    style = f"gain {judged(gain, better(key))}".rstrip()
    cells = f"<td>{shown(trained)}</td><td>{shown(untrained)}</td><td class='{style}'>{shown(gain, '+')}</td>"
    tag = " <small>standardised regressor</small>" if not_plain else ""
    return f"<tr><th scope=row>{escape(name)}{arrow(better(key))}{tag}</th>{cells}</tr>\n"


def every_number(groups: Sequence[Group]) -> str:
    """HTML: a block for each run that was evaluated, open if it is the only one; what training made worse is named."""
    runs = [(group, run) for group in groups for run in group.runs if run.results]
    return "\n".join(_block(group, run, alone=len(runs) == 1) for group, run in runs)


def standardised(scores: Mapping[str, Any]) -> list[str]:
    """Keys of the numbers of one side of results.json that linear regressors on standardised features gave: of
    positions also those of paths. The paper's regressors see features as they are (§A.2)."""
    protocol = scores.get("protocol", {})
    if regressors_of(protocol) == "plain":
        return []
    names = (*LINEARLY_REGRESSED, *(("r2_path",) if "position" in protocol.get("probe_epochs", {}) else ()))
    keys = (key for key, _, _ in keyed_rows({"trained": scores}))
    return [key for key in keys if any(part.startswith(names) for part in key.split("."))]


def lost_to_untrained(results: Mapping[str, Any]) -> dict[str, str]:
    """Keys and labels of the numbers that were better before training, where both were measured alike."""
    rows = keyed_rows(dict(results))
    return {key: name for key, name, (_, _, gain) in rows if judged(gain, better(key)) == "worse"}


def clearly_lost(results: Mapping[str, Any]) -> list[str]:
    """Labels of those of `FIRST` whose interval, where they have one, does not hold the untrained number."""
    intervals, untrained = at(results, "trained", "intervals"), results.get("untrained", {})
    found = {key: name for key, name in lost_to_untrained(results).items() if _is_first(key)}
    return [
        name
        for key, name in found.items()
        if not _holds(at(intervals, *key.split(".")), at(untrained, *key.split(".")))
    ]


def _holds(interval: Any, value: float) -> bool:
    return isinstance(interval, list) and len(interval) == 2 and interval[0] <= value <= interval[1]


def _is_first(key: str) -> bool:
    return key.startswith(FIRST) and not key.startswith("r2_path")


def _block(group: Group, run: RunRecord, *, alone: bool) -> str:
    rows, worse = keyed_rows(dict(run.results)), lost_to_untrained(run.results)
    name = group.label if len(group.runs) == 1 else f"{group.label}, seed {run.config.seed}"
    beside = "" if run.untrained else "; no untrained weights beside them (`seqjepa evaluate --untrained`)"
    said = f"{len(rows)} numbers{beside}" + (f"; training made {len(worse)} worse" if worse else "")
    summary = f"<summary>{escape(name)} <small>{escape(f'{run.name}, {group.data}: {said}')}</small></summary>"
    notes = listing(protocol_lines(dict(run.results)))
    return f"<details{' open' if alone else ''}>\n{summary}\n{_tables(run, rows)}\n{notes}\n</details>"


def _tables(run: RunRecord, rows: Sequence[tuple[str, str, list[float | None]]]) -> str:
    """What single views, aggregates and pairs tell; behind a line the many numbers of paths and studies."""
    first = [key for key, _, _ in rows if _is_first(key)]
    rest = [key for key, _, _ in rows if key not in first]
    table = numbers_table(run.results, f"Numbers of {run.name}", first) if first else ""
    if not rest:
        return table
    more = numbers_table(run.results, f"Further numbers of {run.name}", rest)
    said = f"<summary>{len(rest)} more: paths, retrieval, rollouts and other studies</summary>"
    return f"{table}\n<details>\n{said}\n{more}\n</details>"


def shown(value: float | None, sign: str = "") -> str:
    """ "−0.250"; a dash for None."""
    return "–" if value is None else f"{value:{sign}.3f}".replace("-", "−")
