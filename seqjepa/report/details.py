"""Every number of a run, trained beside untrained, as a table.

Where each run comes from: settings that are not as usual, data, versions, machine, protocol.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from seqjepa.config import RunConfig
from seqjepa.evaluate.protocol import LINEARLY_REGRESSED
from seqjepa.evaluate.results import keyed_rows, protocol_lines, regressors_of
from seqjepa.paper.metrics import better, judged
from seqjepa.recipes import flatten
from seqjepa.report.groups import Group, at, label
from seqjepa.report.render.page import arrow, listing, scrolling
from seqjepa.report.runs import RunRecord
from seqjepa.training.run import CONFIG

HEADS = ("Measure", "trained", "untrained", "gain")
FIRST = ("top1_", "r2_", "rel_rot", "indiv_rot")
"""Beginnings of the keys of what is not folded."""


def numbers_table(results: Mapping[str, Any], label: str = "Table of results", keys: Sequence[str] = ()) -> str:
    """HTML of {"trained": {…}, "untrained": {…}}: a row for each number, a gain in the colour of what is better.

    No gain stands where the two were measured differently. keys: of the numbers wanted, where not all are.
    """
    not_plain = standardised(results.get("trained", {}))
    found = [row for row in keyed_rows(dict(results)) if not keys or row[0] in keys]
    rows = "".join(_number_row(key, name, values, key in not_plain) for key, name, values in found)
    heads = "".join(f"<th scope=col>{head}</th>" for head in HEADS)
    return scrolling(label, f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>")


def _number_row(key: str, name: str, values: Sequence[float | None], not_plain: bool) -> str:
    trained, untrained, gain = values
    style = f"gain {judged(gain, better(key))}".rstrip()
    cells = f"<td>{shown(trained)}</td><td>{shown(untrained)}</td><td class='{style}'>{shown(gain, '+')}</td>"
    tag = " <small>standardised regressor</small>" if not_plain else ""
    return f"<tr><th scope=row>{escape(name)}{arrow(better(key))}{tag}</th>{cells}</tr>\n"


def every_number(groups: Sequence[Group]) -> str:
    """HTML: a block for each run that was evaluated, open if it is the only one; what training made worse is named."""
    runs = [(group, run) for group in groups for run in group.runs if run.results]
    return "\n".join(_numbers_block(group, run, alone=len(runs) == 1) for group, run in runs)


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


def _numbers_block(group: Group, run: RunRecord, *, alone: bool) -> str:
    rows, worse = keyed_rows(dict(run.results)), lost_to_untrained(run.results)
    name = group.label if len(group.runs) == 1 else f"{group.label}, seed {run.config.seed}"
    beside = "" if run.untrained else "; no untrained weights beside them (`seqjepa evaluate --untrained`)"
    said = f"{len(rows)} numbers{beside}" + (f"; training made {len(worse)} worse" if worse else "")
    summary = f"<summary>{escape(name)} <small>{escape(f'{run.name}, {group.data}: {said}')}</small></summary>"
    notes = listing(protocol_lines(dict(run.results)))
    return f"<details{' open' if alone else ''}>\n{summary}\n{_first_and_further(run, rows)}\n{notes}\n</details>"


def _first_and_further(run: RunRecord, rows: Sequence[tuple[str, str, list[float | None]]]) -> str:
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


DEFAULTS = "the defaults, which are the paper’s for 3DIEBench"


def provenance(groups: Sequence[Group]) -> str:
    """HTML: each run as a block that opens, in the order of the groups."""
    return "\n".join(_provenance_block(run) for group in groups for run in group.runs)


def differences_from_defaults(config: RunConfig) -> list[str]:
    """Settings as `--set` takes them, without the run's name."""
    usual = flatten(RunConfig().model_dump())
    return [f"{k}={v}" for k, v in flatten(config.model_dump()).items() if v != usual[k] and k != "name"]


def _provenance_block(record: RunRecord) -> str:
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>\n" for name, value in _facts(record) if value)
    what = f"{label(record.config)}, {record.dataset}, seed {record.config.seed}"
    summary = f"<summary>{escape(record.name)} <small>{escape(what)}</small></summary>"
    return f"<details>\n{summary}\n<dl class=facts>\n{facts}</dl>\n</details>"


def _facts(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Names and HTML."""
    identity = record.identity
    changed = differences_from_defaults(record.config)
    yield "Folder", f"<code>{escape(str(record.path))}</code>"
    yield "Recipe", escape(record.config.name)
    yield "Differs from the defaults in", " ".join(f"<code>{escape(c)}</code>" for c in changed) or DEFAULTS
    yield "Command", f"<code>{escape(_command(record))}</code>"
    yield "Epochs", f"{len(record.epochs)} of {record.config.optim.epochs} logged"
    shards = identity.get("shards", {})
    yield "Shards", escape(", ".join(f"{k} {v}" for k, v in shards.items()))
    yield "Versions", escape(", ".join(f"{k} {v}" for k, v in identity.get("versions", {}).items()))
    yield "Hardware", escape(_hardware(record))
    if extended := identity.get("extended"):
        yield "Extended", escape("; ".join(f"from {e['from']} to {e['to']} epochs" for e in extended))
    yield "Protocol", "<br>".join(escape(line) for line in protocol_lines(dict(record.results)))
    yield "Weights evaluated", f"<code>{escape(str(record.protocol.get('model_sha256', '')))}</code>"


def _command(record: RunRecord) -> str:
    """As noted, else what trains the same again; of the shards no folder is known, but their fingerprint."""
    noted = record.identity.get("command")
    again = f"seqjepa train --shards SHARDS --recipe {shlex.quote(str(record.path / CONFIG))} --out ANOTHER_FOLDER"
    return noted if isinstance(noted, str) else again


def _hardware(record: RunRecord) -> str:
    devices = dict.fromkeys(
        f"{line.get('devices', 1)} × {line['device']}" for line in record.epochs if line.get("device")
    )
    seconds = sum(float(line.get("seconds", 0)) for line in record.epochs)
    took = f", {seconds / 3600:.2f} h of training" if seconds else ""
    return f"{', '.join(devices) or 'not recorded'}{took}"
