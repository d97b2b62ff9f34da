"""A row of the comparison: what runs of one method say, mean over seeds.

The rows of a comparison as a table, for the terminal and as Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from seqjepa.evaluate.protocol import differences
from seqjepa.evaluate.results import read_results
from seqjepa.methods.base import as_module
from seqjepa.methods.flops import count_macs
from seqjepa.training.checkpoint import load_run
from seqjepa.training.loggers import read_epochs
from seqjepa.training.run import METRICS

SCORES = {
    "r2_rel": "r2_rel_rot_avg",
    "r2_indiv": "r2_indiv_rot_avg",
    "r2_rel_pool": "r2_rel_rot_pool",
    "r2_indiv_pool": "r2_indiv_rot_pool",
}
"""By key of a row: the key in results.json. `avg` is scikit-learn's R², `pool` SIE's (docs/fidelity.md #42)."""
COMPARED = ("top1_z", "top1_agg", "r2_rel_rot_avg", "r2_indiv_rot_avg")
AVERAGED = ("top1", "top1_z", *SCORES, "seconds")


def row_of(method: str, runs: Sequence[Path]) -> dict[str, Any]:
    """Keys: method, top1, top1_of (in words), top1_z, r2_rel, r2_indiv, their pooled forms, seconds of training,
    parameters (those that learn), macs (one training step of the whole batch), macs_sequence (context views of one
    sequence, forwards: the paper's Table 6), batch_size, views, lr, std (over seeds, where there are several), runs.

    Accuracies are in 0..1; None where the shards have no labels. The model's own numbers are the first run's.
    """
    each = [{**scores(read_results(run)["trained"]), "seconds": _seconds(run)} for run in runs]
    spread = {"std": over(stdev, each)} if len(each) > 1 else {}
    named = {"method": method, "top1_of": each[0]["top1_of"]}
    return {**named, **over(fmean, each), **spread, **_model(runs[0]), "runs": [str(run) for run in runs]}


def floor_of(runs: Iterable[Path]) -> dict[str, Any]:
    """The scores of the initial encoder, which is the same for all methods, as a row without a method."""
    each = [scores(read_results(run)["untrained"]) for run in runs]
    return {"top1_of": each[0]["top1_of"], **over(fmean, each)}


def scores(results: Mapping[str, Any]) -> dict[str, Any]:
    """What a row takes from one side of results.json. top1 is z_AGG of as many views as were measured, where there is
    an aggregate; ContextSSL's numbers are already those in its longest context."""
    sizes = results.get("top1_agg", {})
    most = max(sizes, key=int, default=None)
    told = results["protocol"].get("context")
    plain = f"z⁺ after {told['tokens']} tokens of context" if told else "z of one view"
    return {
        "top1": results.get("top1_z") if most is None else sizes[most],
        "top1_of": plain if most is None else f"z_AGG of {most} views",
        "top1_z": results.get("in_context", {}).get("encoder", results).get("top1_z"),
        **{key: results.get(name) for key, name in SCORES.items()},
    }


def differing(runs: Iterable[Path]) -> dict[str, list[str]]:
    """Runs whose numbers were measured otherwise than the first one's, by name, and in what: from before an update of
    seqjepa, say. Seeds are meant to differ, and only ContextSSL has a context."""
    first, *others = ((run.name, read_results(run)["trained"]["protocol"]) for run in runs)
    found = {name: _in_what(first[1], protocol) for name, protocol in others}
    return {name: parts for name, parts in found.items() if parts}


def _in_what(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    parts = [part for key in COMPARED for part in differences(one, other, key, across_runs=True)]
    return [part for part in dict.fromkeys(parts) if part not in ("seed", "context")]


def over(statistic: Any, each: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """A statistic of each averaged key; None where a run lacks it."""
    found = {key: [one.get(key) for one in each] for key in AVERAGED if key in each[0]}
    return {key: None if None in values else statistic(values) for key, values in found.items()}


def _seconds(run: Path) -> float:
    return round(sum(float(str(line["seconds"])) for line in read_epochs(run / METRICS)), 1)


def _model(run: Path) -> dict[str, Any]:
    config, method, data, _ = load_run(run)
    macs = count_macs(method, data.action_size, data.height, config.data.context)
    batch = config.optim.batch_size
    return {
        "parameters": sum(p.numel() for p in as_module(method).parameters() if p.requires_grad),
        "macs": macs.training * batch,
        "macs_sequence": macs.forward,
        "views": config.data.context + 1,
        "batch_size": batch,
        "lr": config.optim.lr,
    }


HEADS = ("method", "top-1 %", "top-1 % of z", "R² rel", "R² indiv", "seconds", "parameters, M", "MACs a step, G")
UNTRAINED = "(untrained)"


def format_table(comparison: Mapping[str, Any]) -> str:
    """Columns with aligned digits, and what was compared under them."""
    lines = [HEADS, *cells(comparison)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(HEADS))]
    drawn = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
    return "\n".join([*drawn, "", *notes(comparison)])


def format_markdown(comparison: Mapping[str, Any]) -> str:
    """A GitHub table, its notes as a list."""
    rule = ["---", *["--:"] * (len(HEADS) - 1)]
    rows = ["| " + " | ".join(line) + " |" for line in (HEADS, rule, *cells(comparison))]
    return "\n".join([*rows, "", *(f"* {note}" for note in notes(comparison))])


def cells(comparison: Mapping[str, Any]) -> list[list[str]]:
    """One line a method, then the initial weights."""
    lines = [_cells_of(row["method"], row) for row in comparison["rows"]]
    return [*lines, _cells_of(UNTRAINED, comparison["untrained"])]


def notes(comparison: Mapping[str, Any]) -> list[str]:
    """What holds for all numbers, and what the first column is where that is not one view's z."""
    s = comparison["settings"]
    several = f", mean ± standard deviation of seeds {', '.join(map(str, s['seeds']))}" if len(s["seeds"]) > 1 else ""
    said = [
        f"{s['dataset']} at {s['resolution']} px, {s['train_samples']} training and {s['val_samples']} validation "
        f"samples; {s['steps']} steps of {s['views_per_step']} views, scale {s['scale']}, {s['device']}{several}"
    ]
    said += [
        f"measured otherwise than the first run, so not comparable: {name} ({', '.join(parts)}); evaluate it again"
        for name, parts in s.get("differently_measured", {}).items()
    ]
    rows = [*comparison["rows"], {"method": UNTRAINED, **comparison["untrained"]}]
    others = [f"{row['method']} {row['top1_of']}" for row in rows if row["top1_of"] != "z of one view"]
    return said + ([f"top-1: z of one view, but {', '.join(others)}"] if others else [])


def _cells_of(name: str, row: Mapping[str, Any]) -> list[str]:
    spread = row.get("std", {})
    return [
        name,
        *(_cell(row.get(key), spread.get(key), 100, 1) for key in ("top1", "top1_z")),
        *(_cell(row.get(key), spread.get(key), 1, 3) for key in ("r2_rel", "r2_indiv")),
        _cell(row.get("seconds"), None, 1, 0),
        _cell(row.get("parameters"), None, 1e-6, 2),
        _cell(row.get("macs"), None, 1e-9, 1),
    ]


def _cell(value: float | None, spread: float | None, factor: float, digits: int) -> str:
    if value is None:
        return "–"
    shown = f"{factor * value:.{digits}f}"
    return shown if spread is None else f"{shown} ± {factor * spread:.{digits}f}"


def short(row: Mapping[str, Any]) -> str:
    """A row in one line, for progress."""
    line: Sequence[str] = _cells_of(row["method"], row)
    return f"{line[0]}: top-1 {line[1]} %, R² relative {line[3]}, individual {line[4]}, {line[5]} s of training"
