"""Whether two numbers were measured by the same protocol, and in what their protocols differ.

The one place that says so: for the gain over untrained weights, for demos, comparisons, and reports.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

OF_WEIGHTS = ("model_sha256", "trained_epochs", "precision.training")
"""What a protocol says of the weights, not of how they were measured."""
OF_RUN = (*OF_WEIGHTS, "method", "m_tr", "epochs", "fidelity", "halves", "augmenting.conditioned_on")
"""What it says of the run."""
CHANGES_NO_NUMBER = ("skipped", "suite", "reported", "model_mode", "intervals")
BEFORE_NOTED = {"linear_regressors": "standardised"}
"""What held before a protocol said it: regressors saw standardised features then."""
LINEARLY_REGRESSED = ("r2_hue", "r2_position", "r2_blur")
Values = Mapping[str, Any]


def _last(key: str, *names: str) -> bool:
    return any(part.startswith(names) for part in key.split("."))


def _is_linearly_regressed(key: str) -> bool:
    """Paths may be of positions (linear) or rotations (an MLP); the key does not tell, so both count."""
    return _last(key, *LINEARLY_REGRESSED, "r2_path")


AFFECTS: Mapping[str, Callable[[str], bool]] = {
    "linear_regressors": _is_linearly_regressed,
    "m_val": lambda key: _last(key, "top1_agg", "top1_z_mean", "r2_path", "retrieval", "rollout", "umap"),
    "train_draws.z_agg": lambda key: _last(key, "top1_agg", "r2_path"),
    "position_patches": lambda key: _last(key, "r2_position"),
    "ood": lambda key: key.startswith("ood."),
    "probe_epochs.classification": lambda key: _last(key, "top1"),
    "probe_epochs.path": lambda key: _last(key, "r2_path"),
    "probe_epochs.position": lambda key: _last(key, "r2_position"),
    "probe_epochs.rotation": lambda key: _last(key, "r2_rel_rot", "r2_indiv_rot", "rel_rot", "indiv_rot", "r2_path"),
    "probe_epochs.hue": lambda key: _last(key, "r2_hue"),
    "probe_epochs.crop": lambda key: _last(key, "r2_crop"),
    "probe_epochs.jitter": lambda key: _last(key, "r2_jitter"),
    "probe_epochs.blur": lambda key: _last(key, "r2_blur"),
}
"""Parts of a protocol that change some numbers alone: whether they change the one of a dotted key."""


def differences(one: Values, other: Values, key: str = "", *, across_runs: bool = False) -> list[str]:
    """In what two protocols of results.json differ so that their numbers must not be subtracted; empty: comparable.

    Names parts of a protocol, each once ("val_draws", "train_draws"). A part that only one of both has counts, since
    what the other did is not known.

    key          of one number ("r2_position_avg", "top1_agg.5"): only what changes it. "": any number
    across_runs  of different runs, which may differ in method, M_tr, epochs of training and fidelity
    """
    left_out = (*CHANGES_NO_NUMBER, *(OF_RUN if across_runs else OF_WEIGHTS))
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
    left_out = (*CHANGES_NO_NUMBER, *OF_RUN, "seed", "m_val", "ood", "position_patches")
    parts = _flat({**BEFORE_NOTED, **protocol})
    return json.dumps({part: parts[part] for part in sorted(parts) if not _within(part, left_out)})


def _changes(part: str, key: str) -> bool:
    affected = next((check for name, check in AFFECTS.items() if _within(part, (name,))), None)
    return not key or affected is None or affected(key)


def _within(part: str, names: tuple[str, ...]) -> bool:
    return any(part == name or part.startswith(f"{name}.") for name in names)


def _flat(protocol: Values, prefix: str = "") -> dict[str, str]:
    """Leaves of nested objects as JSON text, by dotted key."""
    flat: dict[str, str] = {}
    for name, value in protocol.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = json.dumps(value)
    return flat
