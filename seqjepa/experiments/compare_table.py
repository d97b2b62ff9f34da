"""The rows of a comparison – what the runs of one method score, mean over seeds – and the table of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from seqjepa.evaluate.protocol import differences
from seqjepa.evaluate.results import read_results
from seqjepa.methods.flops import count_macs
from seqjepa.paper.metrics import columns_text
from seqjepa.training.checkpoint import load_run
from seqjepa.training.metrics_log import read_epochs
from seqjepa.training.run_files import METRICS

SCORES = {
    "r2_rel": "r2_rel_rot_avg",
    "r2_indiv": "r2_indiv_rot_avg",
    "r2_rel_pool": "r2_rel_rot_pool",
    "r2_indiv_pool": "r2_indiv_rot_pool",
}
"""By key of a row: the key in results.json. `avg` is scikit-learn's R², `pool` SIE's (docs/fidelity.md #42)."""
COMPARED = ("top1_z", "top1_agg", "r2_rel_rot_avg", "r2_indiv_rot_avg")
AVERAGED = ("top1", "top1_z", *SCORES, "seconds")
COLUMNS = {
    "top-1 %": ("top1", 100, 1),
    "top-1 % of z": ("top1_z", 100, 1),
    "R² rel": ("r2_rel", 1, 3),
    "R² indiv": ("r2_indiv", 1, 3),
    "seconds": ("seconds", 1, 0),
    "parameters, M": ("parameters", 1e-6, 2),
    "MACs a step, G": ("macs", 1e-9, 1),
}
"""Heads of the table → key of a row, factor, digits."""
HEADS = ("method", *COLUMNS)
UNTRAINED = "(untrained)"
ONE_VIEW = "z of one view"
NO_NUMBER = "–"


def method_row(method: str, runs: Sequence[Path]) -> dict[str, Any]:
    """Keys: method, top1, top1_of (in words), top1_z, r2_rel, r2_indiv, their pooled forms, seconds of training,
    parameters (those that learn), macs (one training step of the whole batch), macs_sequence (context views of one
    sequence, forwards: the paper's Table 6), batch_size, views, lr, std (over seeds, where there are several), runs.

    Accuracies are in 0..1; None where the shards have no labels. The model's own numbers are the first run's.
    """
    each = [{**_scores(read_results(run)["trained"]), "seconds": _training_seconds(run)} for run in runs]
    spread = {"std": _over_runs(stdev, each)} if len(each) > 1 else {}
    named = {"method": method, "top1_of": each[0]["top1_of"]}
    return {**named, **_over_runs(fmean, each), **spread, **_model_numbers(runs[0]), "runs": [str(run) for run in runs]}


def untrained_row(runs: Iterable[Path]) -> dict[str, Any]:
    """The scores of the initial encoder, which is the same for all methods, as a row without a method."""
    each = [_scores(read_results(run)["untrained"]) for run in runs]
    return {"top1_of": each[0]["top1_of"], **_over_runs(fmean, each)}


def _scores(results: Mapping[str, Any]) -> dict[str, Any]:
    """What a row takes from one side of results.json. top1 is z_AGG of as many views as were measured, where there is
    an aggregate; ContextSSL's numbers are already those in its longest context."""
    sizes = results.get("top1_agg", {})
    most = max(sizes, key=int, default=None)
    context = results["protocol"].get("context")
    plain = f"z⁺ after {context['tokens']} tokens of context" if context else ONE_VIEW
    return {
        "top1": results.get("top1_z") if most is None else sizes[most],
        "top1_of": plain if most is None else f"z_AGG of {most} views",
        "top1_z": results.get("in_context", {}).get("encoder", results).get("top1_z"),
        **{key: results.get(name) for key, name in _keys_of_r2(results["protocol"].get("targets", {})).items()},
    }


def _keys_of_r2(targets: Mapping[str, Any]) -> Mapping[str, str]:
    """SCORES, or the same of own data: of the first term between views and of the first target of one view."""
    if not targets:
        return SCORES
    first = {of: next((key for key in targets if key.startswith(f"{of}_")), of) for of in ("rel", "indiv")}
    return {key: name.replace(f"{of}_rot", first[of]) for of in first for key, name in SCORES.items() if of in name}


def _over_runs(statistic: Callable[[list[Any]], float], each: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """A statistic of each averaged key; None where a run lacks it."""
    found = {key: [one.get(key) for one in each] for key in AVERAGED if key in each[0]}
    return {key: None if None in values else statistic(values) for key, values in found.items()}


def _training_seconds(run: Path) -> float:
    return round(sum(float(str(line["seconds"])) for line in read_epochs(run / METRICS)), 1)


def _model_numbers(run: Path) -> dict[str, Any]:
    config, method, data, _ = load_run(run)
    macs = count_macs(method, data.action_size, data.height, config.data.context)
    batch = config.optim.batch_size
    return {
        "parameters": sum(p.numel() for p in method.parameters() if p.requires_grad),
        "macs": macs.training * batch,
        "macs_sequence": macs.forward,
        "views": config.data.context + 1,
        "batch_size": batch,
        "lr": config.optim.lr,
    }


def different_protocols(runs: Iterable[Path]) -> dict[str, list[str]]:
    """Name of a run → in what its protocol differs from the first run's: it is from before an update of seqjepa, say.

    Runs that do not differ are left out. Seeds are meant to differ, and only ContextSSL has a context.
    """
    (_, first), *others = ((run.name, read_results(run)["trained"]["protocol"]) for run in runs)
    found = {}
    for name, protocol in others:
        parts = [part for key in COMPARED for part in differences(first, protocol, key, across_runs=True)]
        found[name] = [part for part in dict.fromkeys(parts) if part not in ("seed", "context")]
    return {name: parts for name, parts in found.items() if parts}


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """Columns with aligned digits, and what was compared under them."""
    return "\n".join([*aligned([HEADS, *_lines(comparison)]), "", *notes(comparison)])


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells, the first column to the left and the others to the right."""
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]


def comparison_markdown(comparison: Mapping[str, Any]) -> str:
    """A GitHub table, its notes as a list."""
    return "\n".join([as_markdown([HEADS, *_lines(comparison)]), "", *(f"* {note}" for note in notes(comparison))])


def as_markdown(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells, heads first, as a GitHub table: the first column to the left and the others to the right."""
    heads, *others = lines
    rule = ["---", *["--:"] * (len(heads) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, rule, *others))


def notes(comparison: Mapping[str, Any]) -> list[str]:
    """What holds for all numbers, and what the first column is where that is not one view's z."""
    s = comparison["settings"]
    several = f", mean ± standard deviation of seeds {', '.join(map(str, s['seeds']))}" if len(s["seeds"]) > 1 else ""
    found = [
        f"{s['dataset']} at {s['resolution']} px, {s['train_samples']} training and {s['val_samples']} validation "
        f"samples; {s['steps']} steps of {s['views_per_step']} views, scale {s['scale']}, {s['device']}{several}"
    ]
    found += schedule_notes(s.get("schedules", {}))
    if s.get("unfinished"):
        found.append(unfinished_note(s["unfinished"], s["converged_steps"]))
    found += [
        f"measured otherwise than the first run, so not comparable: {name} ({', '.join(parts)}); evaluate it again"
        for name, parts in s.get("differently_measured", {}).items()
    ]
    found += target_notes(s.get("targets", {}))
    return found + top1_notes(_all_rows(comparison))


def schedule_notes(schedules: Mapping[str, str]) -> list[str]:
    """What each method's learning rate does, and what that means for its length. schedules: "cosine" or "constant" by
    method."""
    says = {
        "cosine": "a cosine to the last step, so that a run is finished at its own length alone",
        "constant": "constant after the warm-up, so that a run is finished at any length (but for τ of moving "
        "averages, which rises to 1 at the last step)",
    }
    named = {kind: [name for name, schedule in schedules.items() if schedule == kind] for kind in says}
    return [f"learning rate of {', '.join(names)}: {says[kind]}" for kind, names in named.items() if names]


def unfinished_note(methods: Sequence[str], steps: int) -> str:
    """That so few steps say little of some methods, in one line."""
    return (
        f"fewer steps than the {steps:,} after which methods with a moving average stopped rising on 3DIE-Synth: "
        f"{', '.join(methods)} would score higher with --steps {steps}"
    )


def top1_notes(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """What top-1 is measured on, where that is not one view's z in all rows."""
    others = [f"{row['method']} {row['top1_of']}" for row in rows if row["top1_of"] != ONE_VIEW]
    return [f"top-1: {ONE_VIEW}, but {', '.join(others)}"] if others else []


def target_notes(targets: Mapping[str, Any]) -> list[str]:
    """Which columns the R² of own data are of, where there are such targets in a protocol."""
    first = {of: next((t for key, t in targets.items() if key.startswith(f"{of}_")), None) for of in ("rel", "indiv")}
    return [f"R² {of}: {columns_text(target)}" for of, target in first.items() if target]


def progress_line(row: Mapping[str, Any]) -> str:
    """A row in one line."""
    name, top1, _, relative, individual, seconds, *_ = cells_of(row)
    return f"{name}: top-1 {top1} %, R² relative {relative}, individual {individual}, {seconds} s of training"


def _all_rows(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*comparison["rows"], {"method": UNTRAINED, **comparison["untrained"]}]


def _lines(comparison: Mapping[str, Any]) -> list[list[str]]:
    return [cells_of(row) for row in _all_rows(comparison)]


def cells_of(row: Mapping[str, Any]) -> list[str]:
    """A row's cells as text."""
    spread = {name: value for name, value in row.get("std", {}).items() if name != "seconds"}
    cells = [number_cell(row.get(key), spread.get(key), factor, digits) for key, factor, digits in COLUMNS.values()]
    return [row["method"], *cells]


def number_cell(value: float | None, spread: float | None, factor: float, digits: int, sign: str = "") -> str:
    """ "0.710 ± 0.020"."""
    if value is None:
        return NO_NUMBER
    shown = f"{factor * value:{sign}.{digits}f}"
    return shown if spread is None else f"{shown} ± {factor * spread:.{digits}f}"
