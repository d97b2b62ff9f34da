"""The account that stands beside every number, how it came about; and in what the protocols of two numbers differ.

The one place that says so: for the gain over untrained weights, for demos, comparisons, and reports. Last, what the run
cost: multiply–accumulates of a sample, parameters, hours of training (paper, Tables 5 and 6).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seqjepa.config import EvalConfig
from seqjepa.data.actions import POSITION_TARGET
from seqjepa.data.views import Patches
from seqjepa.evaluate.encode import SplitFeatures
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.metrics import LEVEL, RESAMPLES
from seqjepa.evaluate.studies import Capabilities, EvalContext, Study
from seqjepa.methods.base import Aggregating
from seqjepa.methods.flops import forward_macs
from seqjepa.paper.metrics import declared_metric
from seqjepa.paper.sets import classes_sha256
from seqjepa.precision import FULL, training_precision
from seqjepa.recipes import flatten
from seqjepa.training.checkpoint import LoadedRun
from seqjepa.training.metrics_log import training_time
from seqjepa.training.run_files import METRICS
from shards.reader import ShardSet

R2 = {
    "avg": "mean over dimensions of 1 - SSE/SST (scikit-learn)",
    "pool": "sums over all entries (SIE)",
    "path": "avg",
}


def protocol_of(
    config: EvalConfig,
    loaded: LoadedRun,
    stored: ShardSet,
    splits: SplitFeatures,
    can: Capabilities,
    epochs: Sequence[Mapping[str, object]] = (),
) -> dict[str, Any]:
    """JSON values without nulls. epochs: lines of the run's metrics.jsonl."""
    run, train = loaded.config, splits.train
    return {
        "fidelity": run.fidelity,
        "model_mode": "eval, frozen",
        "method": run.method,
        "m_tr": run.data.context,
        "epochs": run.optim.epochs,
        **({} if loaded.epochs is None else {"trained_epochs": loaded.epochs}),
        "dataset": stored.info.name,
        "classes_sha256": classes_sha256(stored.info.classes),
        "resolution": splits.height,
        "train_samples": len(train),
        "val_samples": len(splits.val),
        "views_per_sample": train.z.shape[1],
        "probe_epochs": _probe_epochs(config, can),
        "probe_optimizer": "Adam, lr 1e-3, batch 256",
        "linear_regressors": "standardised" if config.standardise or can.declared else "plain",
        "reported": "last epoch",
        "r2": R2,
        "train_draws": _train_draws(config, splits),
        "val_draws": config.val_draws,
        "m_val": list(config.m_val),
        "seed": config.seed,
        "suite": config.suite,
        "intervals": f"{LEVEL:.0%} bootstrap, {RESAMPLES} resamples of validation objects",
        "splits": list(splits.names),
        "fingerprints": list(splits.fingerprints),
        "normalisation": splits.normalisation,
        "features": str(train.z.dtype).removeprefix("torch."),
        "precision": {
            "training": training_precision(run.train.precision, [str(line.get("device", "")) for line in epochs]),
            "encoder": FULL,
            "probes": FULL,
        },
        **_seeing(splits, can, run.data.augment),
        **_order(splits),
        **({"targets": can.declared.as_json()} if can.declared else {}),
    }


def _order(splits: SplitFeatures) -> dict[str, Any]:
    """Of sets whose samples join to sequences, or whose views come in windows."""
    train, val = splits.train, splits.val
    if train.sequences is None and val.sequences is None:
        return {}
    windows = {"stride": train.stride} if train.stride else {}
    counted = {f"{name}_sequences": len(np.unique(part.objects)) for name, part in (("train", train), ("val", val))}
    return {"order": "window" if train.stride else "random", **windows, **counted}


def _seeing(splits: SplitFeatures, can: Capabilities, recipe: str) -> dict[str, Any]:
    """How patches were taken, or images augmented; nothing for stored views."""
    if splits.views is None:
        return {"augmenting": {"recipe": "as baked"} | _compared(splits.train, can)} if can.augmented else {}
    if splits.kind == Patches.kind:
        return {"fixating": splits.views.settings() | {"transfer": splits.transfer}}
    patches = {} if splits.patches is None else {"position_patches": splits.patches.as_json()}
    return {"augmenting": {"recipe": recipe} | splits.views.settings() | _compared(splits.train, can), **patches}


def _compared(features: Features, can: Capabilities) -> dict[str, Any]:
    """Of what pairs of augmented views were made and how parameters were scaled (docs/fidelity.md #20, 22)."""
    both, views, scaling = can.author and isinstance(can.method, Aggregating), features.run_length, features.scaling
    pairs = f"the first two of {views} views" if both else "an observation view and a target view"
    return {
        "z_agg": f"the first M_val of {views} views, the last of which is a target view",
        "r2_pairs": pairs,
        "r2_targets": "z-scores, second view less first" if scaling else "over their norm, second view less first",
        "r2_views": views if both else 2,
        "scaling": scaling.as_json() if scaling else "norm over the views of a draw",
    }


def _probe_epochs(config: EvalConfig, can: Capabilities) -> dict[str, int]:
    deep, flat = config.epochs, config.linear_regressor_epochs
    if can.declared:
        return {"classification": deep}
    if can.augmented:
        parts = {target.key: deep if target.deep else flat for target in can.targets}
        parts |= {"position": flat} if can.patches else {}
    elif can.targets == (POSITION_TARGET,):
        parts = {"position": flat, "path": flat}
    else:
        parts = {"rotation": deep, "hue": flat}
    return {"classification": deep, **parts}


def _train_draws(config: EvalConfig, splits: SplitFeatures) -> dict[str, Any]:
    """How many different draws of views a probe saw while it learned: of single views, and of sequences."""
    if draws := splits.train.different_draws:
        return {"z": draws, "z_agg": min(draws, _aggregated(config)), "views_per_draw": splits.train.run_length}
    if splits.train.independent:
        mixed = f"new each epoch, of {splits.train.runs} runs"
        return {"z": mixed, "z_agg": _aggregated(config), "views_per_draw": splits.train.run_length}
    return {"z": "new each epoch", "z_agg": _aggregated(config)}


def _aggregated(config: EvalConfig) -> int:
    return min(config.aggregate_draws, config.epochs)


OF_WEIGHTS = ("model_sha256", "trained_epochs", "precision.training")
"""What a protocol says of the weights, not of how they were measured."""
OF_RUN = (*OF_WEIGHTS, "method", "m_tr", "epochs", "fidelity", "halves", "augmenting.conditioned_on")
"""What it says of the run."""
CHANGES_NO_NUMBER = ("skipped", "suite", "reported", "model_mode", "intervals")
BEFORE_NOTED = {"linear_regressors": "standardised"}
"""What held before a protocol said it: regressors saw standardised features then."""
LINEARLY_REGRESSED = ("r2_hue", "r2_position", "r2_blur")
Values = Mapping[str, Any]


AFFECTS: Mapping[str, tuple[str, ...]] = {
    # Paths may be of positions (linear) or rotations (an MLP); the key does not tell, so both count.
    "linear_regressors": (*LINEARLY_REGRESSED, "r2_path"),
    "m_val": ("top1_agg", "top1_z_mean", "knn", "r2_path", "retrieval", "rollout", "umap"),
    "train_draws.z_agg": ("top1_agg", "r2_path"),
    "position_patches": ("r2_position",),
    "ood": ("ood",),
    "unpooled": ("unpooled",),
    "probe_epochs.classification": ("top1", "r2_path"),
    "probe_epochs.path": ("r2_path",),
    "probe_epochs.position": ("r2_position",),
    "probe_epochs.rotation": ("r2_rel_rot", "r2_indiv_rot", "rel_rot", "indiv_rot", "r2_path"),
    "probe_epochs.hue": ("r2_hue",),
    "probe_epochs.crop": ("r2_crop",),
    "probe_epochs.jitter": ("r2_jitter",),
    "probe_epochs.blur": ("r2_blur",),
}
"""Parts of a protocol that change some numbers alone: with what a step of these numbers' dotted keys begins."""
AFFECTS_DECLARED = ("train_draws.z_agg", "probe_epochs.classification")
"""Of those the parts that change the numbers of declared actions too: all their heads learn for as long."""


def differences(one: Values, other: Values, key: str = "", *, across_runs: bool = False) -> list[str]:
    """In what two protocols of results.json differ so that their numbers must not be subtracted; empty: comparable.

    Names parts of a protocol, each once ("val_draws", "train_draws"). A part that only one of both has counts, since
    what the other did is not known.

    key          of one number ("r2_position_avg", "top1_agg.5"): only what changes it. "": any number
    across_runs  of different runs, which may differ in method, M_tr and fidelity; epochs of training are no part of how
                 weights are measured, and one run may be extended between two measurements
    """
    left_out = (*CHANGES_NO_NUMBER, *(OF_RUN if across_runs else (*OF_WEIGHTS, "epochs")))
    a, b = (_flat({**BEFORE_NOTED, **protocol}) for protocol in (one, other))
    found = [
        part
        for part in dict.fromkeys([*a, *b])
        if a.get(part) != b.get(part) and not _within(part, left_out) and _changes(part, key)
    ]
    return list(dict.fromkeys(part.partition(".")[0] for part in found))


def same_measurement(one: Values, other: Values) -> bool:
    """Whether results measured by `other` are a repetition of those by `one`: the same options on the same data, be
    the weights what they are."""
    a, b = (_flat(protocol) for protocol in (one, other))
    return all(a.get(part) == b.get(part) or _within(part, OF_WEIGHTS) for part in {*a, *b})


def measured_as(protocol: Values) -> str:
    """A text that is the same for runs whose numbers may be averaged over seeds: all that changes a number, but for
    the seed of the probes and what changes some numbers alone by being measured too."""
    left_out = (*CHANGES_NO_NUMBER, *OF_RUN, "seed", "m_val", "ood", "unpooled", "position_patches")
    parts = _flat({**BEFORE_NOTED, **protocol})
    return json.dumps({part: parts[part] for part in sorted(parts) if not _within(part, left_out)})


def _changes(part: str, key: str) -> bool:
    name = next((name for name in AFFECTS if _within(part, (name,))), None)
    if not key or name is None or any(step.startswith(AFFECTS[name]) for step in key.split(".")):
        return True
    return name in AFFECTS_DECLARED and declared_metric(key) is not None


def _within(part: str, names: tuple[str, ...]) -> bool:
    return any(part == name or part.startswith(f"{name}.") for name in names)


def _flat(protocol: Values) -> dict[str, str]:
    """Leaves of nested objects as JSON text, by dotted key."""
    return {key: json.dumps(value) for key, value in flatten(protocol).items()}


def macs_by_size(ctx: EvalContext) -> dict[str, float]:
    """10⁹ multiply–accumulates of one sample by M: M views through the encoder, then the aggregator.

    Methods without an aggregate read one view: M = 1 alone.
    """
    method, action_size = ctx.loaded.method, ctx.loaded.data.action_size
    sizes = ctx.config.m_val if isinstance(method, Aggregating) else (1,)
    views, data = ctx.splits.views, ctx.loaded.data
    shape = (data.height, data.width) if views is None else (views.side, views.side)
    config = ctx.loaded.config.model_dump(exclude={"name", "seed", "optim", "train"})
    key = (type(method), repr(config), action_size, shape, tuple(sizes))
    if key not in _COUNTED:
        _COUNTED[key] = forward_macs(method, action_size, shape, sizes)
    return {str(m): macs / 1e9 for m, macs in zip(sizes, _COUNTED[key], strict=True)}


_COUNTED: dict[tuple[object, ...], list[int]] = {}
"""MACs by what they depend on: other weights and seeds have the same."""


def _costs(ctx: EvalContext) -> dict[str, Any]:
    parameters = sum(p.numel() for p in ctx.loaded.method.parameters())
    took = training_time(ctx.run / METRICS) if ctx.run is not None and not ctx.config.untrained else {}
    return {"costs": {"parameters": parameters, "macs_g": macs_by_size(ctx), **took}}


def costs_line(costs: Mapping[str, Any]) -> str:
    """What `costs` in results.json says, in one line: it is the same for trained and untrained weights."""
    parts = [f"{costs['parameters'] / 1e6:.2f} M parameters, averages included"] if "parameters" in costs else []
    if macs := costs.get("macs_g"):
        least, most = min(macs, key=int), max(macs, key=int)
        spread = f"{macs[least]:.3g}" if least == most else f"{macs[least]:.3g} to {macs[most]:.3g}"
        parts.append(f"{spread} GMAC a sample ({f'M = {least}' if least == most else f'M = {least} to {most}'})")
    if "hours" in costs:
        parts.append(f"{costs['hours']:.3g} h of training" + (f" ({costs['device']})" if "device" in costs else ""))
    return f"costs: {'; '.join(parts)}"


COSTS = Study("costs", lambda ctx: "", _costs)
