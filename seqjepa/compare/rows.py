"""A row of the comparison: what runs of one method say, mean over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from seqjepa.evaluate.protocol import differences
from seqjepa.evaluate.results import read_results
from seqjepa.methods.base import as_module
from seqjepa.models.flops import count_macs
from seqjepa.training.checkpoint import METRICS, load_run
from seqjepa.training.runlog import read_epochs

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
