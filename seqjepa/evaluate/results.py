"""results.json of a run, and the same as a table for the terminal."""

from __future__ import annotations

import io
import json
import logging
import re
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from seqjepa.config import LEAST_PROBE_STEPS, enough_probe_epochs
from seqjepa.evaluate.heads import BATCH
from seqjepa.evaluate.metrics import confusion_summary
from seqjepa.evaluate.probes import nested
from seqjepa.evaluate.protocol import BEFORE_NOTED, costs_line, differences, same_measurement
from seqjepa.evaluate.results_schema import why_not_results
from seqjepa.files import TEMPORARY, named_failures, write_file
from seqjepa.paper.measures import value_at
from seqjepa.paper.metrics import METRICS, declared_metric
from seqjepa.recipes import flatten
from shards.errors import FailureError, FormatError, reason_of
from shards.json_fields import strict_json
from shards.machine.environment import pass_environment_on
from shards.machine.lock import FolderLock

logger = logging.getLogger(__name__)

RESULTS_FILE = "results.json"
EARLIER = "earlier"
WEIGHTS = ("trained", "untrained")
NEEDED = ("dataset", "resolution", "train_samples", "val_samples", "fidelity", "m_tr", "epochs", "seed")
"""Of a protocol, in the lines below numbers; "?" where results made elsewhere lack it."""
FEW_OBJECTS = 200
"""Validation objects below which one draw of each makes a number depend on which views it was."""

LONGEST_WAIT = 60.0
"""Seconds, for another evaluation that puts its numbers there."""
LARGEST = 256 * 2**20
CONFUSION = "confusion"
"""Name of the file, for load_arrays."""
MOST_CLASSES = 1000
"""Beyond these only how often each class was hit is kept: a matrix of 20,000 classes takes 3 GB."""
FIRST_OF_PATHS = "r2_path.both"
"""The number before which tables list those of declared actions."""


def results_file(protocol: dict[str, Any]) -> str:
    """The file that numbers belong into: results.json, or one of its own for each transfer (other images, patches)."""
    fixating = protocol.get("fixating", {})
    if not fixating.get("transfer"):
        return RESULTS_FILE
    dataset = re.sub(r"[^A-Za-z0-9._-]+", "-", protocol["dataset"])
    return f"results-{dataset}-{protocol['resolution']}-patch{fixating['patch']}.json"


def read_results(folder: Path, file: str = RESULTS_FILE) -> dict[str, Any]:
    """What results.json in a run directory holds, by "trained" and "untrained"; empty if there is none.

    "earlier" lists the numbers that a later evaluation with other options took the place of, newest first.
    Raises FormatError if the file is not a JSON object of numbers that their metrics can have.
    """
    path = folder / file
    if not path.exists():
        return {}
    try:
        found = strict_json(path.read_bytes(), nan=True)
    except OSError as error:
        pass_environment_on(error)
        raise FormatError(f"{path} cannot be read ({error.strerror}); move it away and evaluate again") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON ({error}); remove it and evaluate again") from None
    if problem := why_not_results(found):
        raise FormatError(f"{path}: {problem}; remove it and evaluate again")
    return found


def merge_results(
    folder: Path, weights: str, results: dict[str, Any], arrays: Mapping[str, Mapping[str, np.ndarray]] = {}
) -> dict[str, Any]:
    """Puts `results` under the key `weights` of its results_file, keeping the rest; returns the whole.

    Numbers that were there and were measured by another protocol become the first of "earlier". Those of the same
    protocol are replaced, there too. Evaluations that end at the same moment (trained and untrained weights, side by
    side) wait for each other, or one would lose the other's.

    arrays: that figures of these numbers are drawn from, by name; those of a transfer have a folder of their own. They
    are written with the numbers, so that both are of one evaluation.
    """
    file = results_file(results["protocol"])
    lock, busy = folder / f"{TEMPORARY}lock-{file}", f"another evaluation writes {folder / file}"
    with named_failures(folder / file), FolderLock(lock, busy, LONGEST_WAIT):
        merged = _merged(read_results(folder, file), weights, results)
        write_file(folder / file, (json.dumps(merged, indent=2) + "\n").encode())
        beside = artefacts_folder(folder, weights + file.removeprefix("results").removesuffix(".json"))
        for name, values in arrays.items():
            save_arrays(beside, name, values)
        return merged


def _merged(there: dict[str, Any], weights: str, results: dict[str, Any]) -> dict[str, Any]:
    before = [{"weights": weights, **there[weights]}] if weights in there else []
    before += there.pop(EARLIER, [])
    earlier = [
        entry
        for entry in before
        if entry.get("weights") != weights or not same_measurement(entry.get("protocol", {}), results["protocol"])
    ]
    return dict(sorted({**there, weights: results, **({EARLIER: earlier} if earlier else {})}.items()))


def keyed_rows(results: dict[str, Any]) -> list[tuple[str, str, list[float | None]]]:
    """(dotted key in results.json, label, [trained, untrained, gain]) for each number that either has; None where one
    has not. results: {"trained": {…}, "untrained": {…}}, either of which may be missing.
    """
    trained, untrained = (_flat(results.get(key, {})) for key in WEIGHTS)
    rows: list[tuple[str, str, list[float | None]]] = []
    for key in [*trained, *(key for key in untrained if key not in trained)]:
        a, b = trained.get(key), untrained.get(key)
        gain = a - b if a is not None and b is not None and not differently_measured(results, key) else None
        rows.append((key, _label(key, results), [a, b, gain]))
    return rows


def differently_measured(results: dict[str, Any], key: str = "") -> list[str]:
    """In what the protocols of trained and untrained numbers differ, so that a gain would mean nothing.

    key: of one number; "": of any of those that both have.
    """
    if not all(weights in results for weights in WEIGHTS):
        return []
    one, other = (results[weights].get("protocol", {}) for weights in WEIGHTS)
    if key:
        return differences(one, other, key)
    both = _flat(results[WEIGHTS[0]]).keys() & _flat(results[WEIGHTS[1]]).keys()
    return list(dict.fromkeys(part for name in sorted(both) for part in differences(one, other, name)))


def format_table(results: dict[str, Any]) -> str:
    """Lines for the terminal: one per number, then what was measured and what was not.

    Beside a number with an interval stands half the interval's width.
    """
    blind = blind_numbers(results)
    rows = [(key, label, [*cells, blind.get(key)]) for key, label, cells in keyed_rows(results)]
    heads = (*WEIGHTS, "gain", "blind")
    there = {"gain": all(weights in results for weights in WEIGHTS), "blind": bool(blind)}
    shown = [k for k, head in enumerate(heads) if there.get(head, head in results)]
    width = max((len(label) for _, label, _ in rows), default=0)
    lines = [" " * width + "".join(f"{heads[k]:>12}{_either(heads[k], results, '')}" for k in shown)]
    for key, label, cells in rows:
        found = (_cell(heads[k], cells[k]) + _either(heads[k], results, key) for k in shown)
        lines.append(f"{label:<{width}}" + "".join(found))
    return "\n".join([*(line.rstrip() for line in lines), *protocol_lines(results)])


def _either(head: str, results: dict[str, Any], key: str) -> str:
    """ " ± 0.012": half the interval of a number, as wide a blank where it has none, nothing without any intervals."""
    intervals = results.get(head, {}).get("intervals")
    if not intervals:
        return ""
    found = value_at(intervals, key)
    return f"{f' ± {(found[1] - found[0]) / 2:.3f}' if isinstance(found, list) else '':<8}"


def protocol_lines(results: dict[str, Any]) -> list[str]:
    """Which protocol the numbers follow, and which numbers are missing for what reason."""
    protocol = next((results[key].get("protocol") for key in ("trained", "untrained") if key in results), None)
    if not protocol:
        return []
    protocol = {**dict.fromkeys(NEEDED, "?"), "skipped": {}, "probe_epochs": {}, **protocol}
    patches = f", {_seen(protocol['fixating'])}" if "fixating" in protocol else ""
    epochs = {"classification": "?", **protocol["probe_epochs"]}
    shorter = {name: n for name, n in epochs.items() if n != epochs["classification"]}
    others = f" ({', '.join(f'{name} {n}' for name, n in shorter.items())})" if shorter else ""
    own = "targets" in protocol
    fidelity = "" if own and protocol["fidelity"] == "paper" else f"fidelity {protocol['fidelity']}, "
    pooled = "over all numbers together" if own else "SIE's"
    whole = own and any("r2_of" in target for target in protocol["targets"].values())
    over = "numbers, angles and rotations" if whole else "dimensions (scikit-learn)"
    lines = [
        f"{protocol['dataset']} at {protocol['resolution']} px{patches}, {protocol['train_samples']} training and "
        f"{protocol['val_samples']} validation samples; {fidelity}M_tr {protocol['m_tr']}, {_trained(protocol)} epochs",
        f"probes: {epochs['classification']} epochs{others}, last epoch, seed {protocol['seed']}; "
        f"avg: mean over {over}, pooled: {pooled}",
        *_how_exactly(protocol),
    ]
    if differing := differently_measured(results):
        lines.append(
            f"no gain where the untrained weights were measured differently ({', '.join(differing)}); evaluate both "
            "with the same options"
        )
    lines += filter(None, [few_objects(protocol), few_steps(protocol)])
    if EARLIER in results:
        lines.append(f"measured otherwise before: {len(results[EARLIER])}, kept under {EARLIER!r} of results.json")
    if "augmenting" in protocol:
        lines.append(_compared(protocol["augmenting"]))
    costs = next((results[key]["costs"] for key in ("trained", "untrained") if "costs" in results.get(key, {})), None)
    if costs is not None:
        lines.append(costs_line(costs))
    return lines + [f"not measured: {name} – {reason}" for name, reason in protocol["skipped"].items()]


def regressors_of(protocol: Mapping[str, Any]) -> str:
    """ "plain" or "standardised": what linear regressors were shown. Before it was noted they were standardised."""
    return str(protocol.get("linear_regressors", BEFORE_NOTED["linear_regressors"]))


def few_objects(protocol: Mapping[str, Any]) -> str:
    """What to know of numbers from a small validation split; empty for others."""
    objects, draws = protocol.get("val_samples"), protocol.get("val_draws")
    if not isinstance(objects, int) or objects >= FEW_OBJECTS or not isinstance(draws, int):
        return ""
    times = "one draw" if draws == 1 else f"{draws} draws"
    advice = "; --val-draws 16 sees each under more views" if draws == 1 else ""
    return f"few: numbers and their intervals come from {times} of {objects} validation objects{advice}"


def few_steps(protocol: Mapping[str, Any]) -> str:
    """What to know of heads that learned in few steps, as on a small training split; empty for others.

    Epochs are the paper's, whose splits have 40,000 samples and more: heads that read rotations and angles learn there
    in 49,000 steps, and on 500 samples in 600 of them, after which they may know nothing yet (docs/own-data.md).
    """
    rows = protocol.get("train_samples")
    epochs = max((n for n in protocol.get("probe_epochs", {}).values() if type(n) is int), default=0)
    if type(rows) is not int or rows < 1 or epochs < 1:
        return ""
    enough = enough_probe_epochs(rows, BATCH)
    if epochs >= enough:
        return ""
    steps = epochs * ceil(rows / BATCH)
    return (
        f"few: heads learned in {steps:,} steps ({epochs} epochs of {rows:,} samples), too few for R² by MLPs; "
        f"--probe-epochs {enough} makes {LEAST_PROBE_STEPS:,}"
    )


def precision_of(protocol: Mapping[str, Any]) -> str:
    """ "training in bf16 autocast, TF32, encoder and probes in fp32", "all in fp32"; "" where it was not noted."""
    noted = protocol.get("precision")
    if not isinstance(noted, dict):
        return ""
    by_precision: dict[str, list[str]] = {}
    for part in ("training", "encoder", "probes"):
        if part in noted:
            by_precision.setdefault(str(noted[part]), []).append(part)
    if len(by_precision) == 1:
        return f"all in {next(iter(by_precision))}"
    return ", ".join(f"{' and '.join(parts)} in {precision}" for precision, parts in by_precision.items())


def _how_exactly(protocol: Mapping[str, Any]) -> list[str]:
    """Of results that note it: what linear regressors see, and in which precision numbers came about."""
    not_papers = "" if "targets" in protocol else " (not the paper's)"
    seen = {"plain": "see features as they are", "standardised": f"see standardised features{not_papers}"}
    said = [f"linear regressors {seen[regressors_of(protocol)]}"] if regressors_of(protocol) in seen else []
    said += [precision_of(protocol)] if precision_of(protocol) else []
    return ["; ".join(said)] if said else []


def _trained(protocol: dict[str, Any]) -> str:
    """ "1000", or "2 of 1000" for weights on the way."""
    planned, done = protocol["epochs"], protocol.get("trained_epochs", protocol["epochs"])
    return f"{planned}" if done in (0, planned) else f"{done:g} of {planned}"


def _seen(fixating: dict[str, Any]) -> str:
    uniform = fixating["fixations"] == "uniform"
    where = "uniform fixations" if uniform else f"saliency, inhibition {fixating['inhibition']}"
    return f"patches of {fixating['patch']} px ({where})"


def _compared(augmenting: dict[str, Any]) -> str:
    """Which views R² compares, and in what scale."""
    pairs, views, targets = (augmenting[f"r2_{name}"] for name in ("pairs", "views", "targets"))
    return f"augmentations: {augmenting['recipe']}; R² of {pairs} (V = {views}), {targets}"


def blind_numbers(results: Mapping[str, Any]) -> dict[str, float]:
    """What heads that are shown no view reach, by dotted key; of the trained weights' evaluation, or the other's."""
    return next((_flat(results[weights]["blind"]) for weights in WEIGHTS if results.get(weights, {}).get("blind")), {})


def _label(key: str, results: Mapping[str, Any]) -> str:
    """ "r2_path.both.3" → the label of r2_path.both with 3 in it. Declared targets are named by their columns."""
    if key in METRICS:
        return METRICS[key].label
    name, _, size = key.rpartition(".")
    if name in METRICS:
        return METRICS[name].label.format(size)
    protocols = (results.get(weights, {}).get("protocol", {}) for weights in WEIGHTS)
    targets = next((protocol["targets"] for protocol in protocols if protocol.get("targets")), None)
    declared = declared_metric(key, targets if isinstance(targets, dict) else None)
    return declared.label if declared else key


def _flat(results: dict[str, Any]) -> dict[str, float]:
    """Numbers of `results` by dotted key, in the order of METRICS; those of declared targets after the accuracies."""
    flat: dict[str, float] = {}
    declared: dict[str, Any] = {key: value for key, value in flatten(results).items() if declared_metric(key)}
    for row in (key for key, metric in METRICS.items() if metric.label):
        if row == FIRST_OF_PATHS:
            flat |= {key: value for key, value in declared.items() if key not in flat}
        value = value_at(results, row)
        if isinstance(value, dict):
            flat |= {f"{row}.{size}": score for size, score in value.items()}
        elif value is not None:
            flat[row] = value
    return flat


def _cell(head: str, value: float | None) -> str:
    if value is None:
        return f"{'–':>12}"
    return f"{rounded(value, '+' if head == 'gain' else ''):>12}"


def rounded(value: float, sign: str = "") -> str:
    """ "0.815", "+0.012"; "125,000" of what has no decimals to show."""
    return f"{value:{sign}.3f}" if abs(value) < 1e5 else f"{value:{sign},.0f}"


def artefacts_folder(run: Path, weights: str) -> Path:
    return run / "evaluation" / weights


def save_arrays(folder: Path, name: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes `folder`/NAME.npz at once or not at all. No object arrays. A disk that does not take them costs a warning
    and those of an earlier evaluation, not the numbers. Nothing is kept of empty `arrays`."""
    path, buffer = folder / f"{name}.npz", io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    try:
        with named_failures(path):
            if arrays:
                folder.mkdir(parents=True, exist_ok=True)
                write_file(path, buffer.getvalue())
                return
    except FailureError as error:
        logger.warning("%s; reports go without %s", error, path.name)
    with suppress(OSError):
        path.unlink()


def load_arrays(folder: Path, name: str) -> dict[str, np.ndarray]:
    """What `save_arrays` wrote; {} if there is none. FormatError: not such a file, objects in it, more than 256 MiB."""
    path = folder / f"{name}.npz"
    if not path.exists():
        return {}
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > LARGEST:
            raise FormatError(f"{path} unpacks to {size} bytes, more than {LARGEST}; remove it and evaluate again")
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        pass_environment_on(error)
        raise FormatError(
            f"{path} does not hold plain arrays ({reason_of(error)}); remove it and evaluate again"
        ) from None


def confusion_arrays(
    confusions: Mapping[str, np.ndarray], names: Sequence[str]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What confusion.npz holds, and {"per_class": …} for results.json; nothing without any top-1.

    confusion.npz has class_names U [C]; and for each top-1, under the name of the number ("top1_z", "top1_agg.5"),
    int32 [C, C]: true classes by predicted ones, over all validation samples and draws. With more than 1,000 classes
    int32 [2, C]: samples of each class, and those that were hit.
    """
    if not confusions:
        return {}, {}
    classes = len(next(iter(confusions.values())))
    shown = [names[c] if c < len(names) else str(c) for c in range(classes)]
    kept = {name: _kept(counts) for name, counts in confusions.items()}
    per_class = {name: confusion_summary(counts, shown) for name, counts in confusions.items()}
    return {"class_names": np.array(shown), **kept}, {"per_class": nested(per_class)}


def _kept(counts: np.ndarray) -> np.ndarray:
    if len(counts) > MOST_CLASSES:
        counts = np.stack([counts.sum(axis=1), counts.diagonal()])
    return counts.astype(np.int32)
