"""Weights that a run kept on the way (train.keep_epochs), each evaluated as the run itself is: scores over steps.

    RUN/model-epoch-000080.safetensors ──► evaluate_run ──► RUN/evaluation/checkpoints/epoch-000080/results.json

The numbers of an epoch are under "trained" there. The run's own results.json stays what it is, of its last weights.

What was measured already is noted in evaluation/asked.json, of runs and of kept weights. An entry holds the keyword
arguments of the evaluation, digests of the sets' dataset.json and of its numbers. Numbers that are gone, that another
command has replaced, that belong to fewer epochs or to a set that was made anew since do not count.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqjepa.config import EvalConfig
from seqjepa.evaluate.results import keyed_rows, read_results, results_file
from seqjepa.evaluate.run import eval_config, evaluate_run
from seqjepa.files import write_file
from seqjepa.paper.metrics import metric_of
from seqjepa.training.metrics_log import read_epochs
from seqjepa.training.run import read_run_json
from seqjepa.training.run_files import METRICS, RUN, kept_epochs, kept_weights
from shards.errors import UsageError
from shards.json_fields import strict_json
from shards.layout import Layout
from shards.machine.files import sha256_of_file

FOLDER = Path("evaluation") / "checkpoints"
SHOWN = 4
"""Numbers in a line."""


@dataclass(frozen=True)
class Checkpoint:
    """Numbers of weights on the way.

    step     optimizer steps that they have behind them; None where metrics.jsonl does not say
    results  as evaluate_run returns them
    """

    epoch: int
    step: int | None
    results: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {"epoch": self.epoch, **({} if self.step is None else {"step": self.step}), **self.results}

    def __str__(self) -> str:
        """ "epoch 80, step 1,200: top-1, z 0.913, R² relative rotation, avg 0.702"."""
        step = "" if self.step is None else f", step {self.step:,}"
        return f"epoch {self.epoch}{step}: {'; '.join(headline(self.results))}"


def evaluate_checkpoints(
    run: Path,
    shards: Path,
    epochs: Iterable[int] | None = None,
    *,
    device: str = "auto",
    progress: bool = True,
    say: Callable[[str], object] | None = None,
    **options: Any,
) -> list[Checkpoint]:
    """Evaluates each of the weights that `run` kept, or those after `epochs`; ascending.

    options: fields of EvalConfig by name, as of evaluate_run. What these weights were asked for in the same words is
    not measured again, so a call that was stopped goes on where it was. say: hears a line as each is there.
    Raises UsageError where such weights were not kept, and whatever evaluate_run raises.
    """
    config, found = eval_config(**options, device=device), []
    if config.untrained:
        raise UsageError(
            "--untrained evaluates the initial weights, --checkpoints those kept on the way; give one of them"
        )
    steps = steps_of(run)
    for epoch in _wanted(run, epochs):
        results = numbers_at(run, shards, epoch, config)
        if results is None:
            folder = run / folder_of(epoch)
            folder.mkdir(parents=True, exist_ok=True)
            results = evaluate_run(run, shards, config, epoch=epoch, out=folder, progress=progress)
            note_evaluation(folder, "trained", _asked(run, shards, epoch, config), results)
        found.append(Checkpoint(epoch, steps.get(epoch), results))
        if say:
            say(str(found[-1]))
    return found


def numbers_at(run: Path, shards: Path, epoch: int, config: EvalConfig) -> dict[str, Any] | None:
    """What was measured of the weights after `epoch` epochs, asked in these words; None where nothing was."""
    if not (run / kept_weights(epoch)).exists():
        return None
    return numbers_of(run / folder_of(epoch), "trained", _asked(run, shards, epoch, config))


def _asked(run: Path, shards: Path, epoch: int, config: EvalConfig) -> dict[str, Any]:
    """What makes an evaluation of kept weights another one."""
    same = config.model_dump(exclude={"device"}, exclude_defaults=True)
    return {**same, "shards": shards, "weights": sha256_of_file(run / kept_weights(epoch))}


def read_checkpoints(run: Path) -> list[Checkpoint]:
    """What evaluate_checkpoints has measured of `run`, ascending. FormatError: such a results.json is not ours."""
    steps = steps_of(run)
    found = {
        int(path.name.removeprefix("epoch-")): read_results(path).get("trained")
        for path in (run / FOLDER).glob("epoch-*")
        if re.fullmatch(r"epoch-\d{6,12}", path.name)
    }
    return [Checkpoint(epoch, steps.get(epoch), there) for epoch, there in sorted(found.items()) if there is not None]


def folder_of(epoch: int) -> Path:
    """Where the numbers of the weights after `epoch` epochs are, below the run."""
    return FOLDER / f"epoch-{epoch:06d}"


def steps_of(run: Path) -> dict[int, int]:
    """Epoch → optimizer steps until its end, as metrics.jsonl has them."""
    lines = read_epochs(run / METRICS)
    steps = ((line["epoch"], line.get("step")) for line in lines)
    return {int(epoch): step for epoch, step in steps if isinstance(epoch, int) and isinstance(step, int)}


def headline(results: dict[str, Any]) -> list[str]:
    """The first numbers of `results` that a report has columns for, each with its label; by size the largest size."""
    found: dict[str, str] = {}
    for key, label, (value, *_) in keyed_rows({"trained": results}):
        metric = metric_of(key)
        if metric and metric.column and not metric.own_table and value is not None:
            found[metric.key] = f"{label} {value:.3f}"
    return list(found.values())[:SHOWN]


def _wanted(run: Path, epochs: Iterable[int] | None) -> Sequence[int]:
    read_run_json(run)
    there = kept_epochs(run)
    if not there:
        raise UsageError(
            f"{run} kept no weights on the way; train with --set train.keep_epochs=[20,80] to keep those after 20 and "
            "80 epochs"
        )
    wanted = there if epochs is None else sorted(set(epochs))
    if missing := [epoch for epoch in wanted if epoch not in there]:
        lacking, known = (", ".join(map(str, some)) for some in (missing, there))
        raise UsageError(f"{run} kept no weights after {lacking} epochs; there are those after {known}")
    return wanted


ASKED = Path("evaluation") / "asked.json"
# More may be measured than is asked for: these may be in an entry and not in the question.
MAY_BE_MORE = ("ood", "path", "unpooled")
KEYS = {"question", "file", "answer"}
SETS = "of_sets"


def numbers_of(
    run: Path, weights: str, evaluation: Mapping[str, Any], shards: Path | None = None
) -> dict[str, Any] | None:
    """What results.json holds of this evaluation, as evaluate_run returned it; None where it is to be done.

    weights: "trained", "untrained" or "transfer". Evaluations differ by their keyword arguments, so transfers by their
    shards and patch. shards: of the others.
    """
    question = _question(run, evaluation, shards)
    for entry in _entries(run).get(weights, []):
        numbers = _numbers(run, weights, entry["file"])
        if _covers(entry["question"], question) and _digest(numbers) == entry["answer"]:
            return numbers
    return None


def note_evaluation(
    run: Path, weights: str, evaluation: Mapping[str, Any], results: Mapping[str, Any], shards: Path | None = None
) -> None:
    """Remember that `results`, as evaluate_run returned them, are the numbers of this evaluation."""
    file = results_file(dict(results["protocol"]))
    entry = {
        "question": _question(run, evaluation, shards),
        "file": file,
        "answer": _digest(_numbers(run, weights, file)),
    }
    noted = _entries(run)
    noted[weights] = [*(other for other in noted.get(weights, []) if other["file"] != file), entry]
    (run / ASKED).parent.mkdir(exist_ok=True)
    write_file(run / ASKED, (json.dumps(noted, indent=2, sort_keys=True) + "\n").encode())


def _covers(there: Mapping[str, Any], question: Mapping[str, Any]) -> bool:
    """Whether the evaluation that was done is the one that is asked for, or more; on the same sets, where both know."""
    of_sets = [one.get(SETS, {}) for one in (there, question)]
    if any(of_sets[0][name] != of_sets[1][name] for name in of_sets[0].keys() & of_sets[1].keys()):
        return False
    extra = {SETS, *(name for name in MAY_BE_MORE if not question.get(name))}
    return {k: v for k, v in there.items() if k not in extra} == {k: v for k, v in question.items() if k not in extra}


def _question(run: Path, evaluation: Mapping[str, Any], shards: Path | None) -> dict[str, Any]:
    """Keyword arguments as JSON gives them back, without those that are None, the epochs that the run has, and what is
    in the sets (those in stores, where nothing is replaced, by their names alone)."""
    given = {name: _plain(value) for name, value in evaluation.items() if value is not None}
    epochs = read_run_json(run).get("finished_epochs") if (run / RUN).exists() else 0
    sets = {"shards": evaluation.get("shards") or shards, "ood": evaluation.get("ood")}
    files = {name: Layout(Path(folder)).info for name, folder in sets.items() if folder}
    content = {name: sha256_of_file(file) for name, file in files.items() if file.is_file()}
    return json.loads(json.dumps({**given, "of_epochs": epochs, SETS: content}))


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.resolve())
    return list(value) if isinstance(value, (range, tuple)) else value


def _numbers(run: Path, weights: str, file: str) -> Any:
    return read_results(run, file).get("trained" if weights == "transfer" else weights)


def _digest(numbers: Any) -> str:
    return hashlib.blake2b(json.dumps(numbers, sort_keys=True).encode(), digest_size=16).hexdigest()


def _entries(run: Path) -> dict[str, list[dict[str, Any]]]:
    """By weights; none where the file is missing or cannot be read, so that evaluations are done again."""
    try:
        noted = strict_json((run / ASKED).read_bytes(), nan=True)
    except (OSError, ValueError):
        return {}
    lists = [(key, found) for key, found in noted.items() if isinstance(found, list)] if isinstance(noted, dict) else []
    return {key: [e for e in found if isinstance(e, dict) and set(e) >= KEYS] for key, found in lists}
