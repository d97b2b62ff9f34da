"""Which evaluations a run has the numbers of: evaluation/asked.json beside the arrays of figures.

An entry holds the keyword arguments of the evaluation and a digest of its numbers. Numbers that are gone, that another
command has replaced, or that belong to fewer epochs do not count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqjepa.evaluate.results import read_results, results_file
from seqjepa.files import write_file
from seqjepa.training.run import RUN, read_run_json
from shards.json_fields import strict_json

ASKED = Path("evaluation") / "asked.json"
# More may be measured than is asked for: these may be in an entry and not in the question.
MAY_BE_MORE = ("ood", "path")
KEYS = {"question", "file", "answer"}


def is_evaluated(run: Path, weights: str, evaluation: Mapping[str, Any]) -> bool:
    """Whether the run holds the numbers of `weights` ("trained", "untrained" or "transfer") for this evaluation.

    Evaluations differ by their keyword arguments, so transfers by their shards and patch.
    """
    return numbers_of(run, weights, evaluation) is not None


def numbers_of(run: Path, weights: str, evaluation: Mapping[str, Any]) -> dict[str, Any] | None:
    """What results.json holds of this evaluation, as evaluate_run returned it; None where it is to be done."""
    question = _question(run, evaluation)
    for entry in _entries(run).get(weights, []):
        numbers = _numbers(run, weights, entry["file"])
        if _covers(entry["question"], question) and _digest(numbers) == entry["answer"]:
            return numbers
    return None


def note_evaluation(run: Path, weights: str, evaluation: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Remember that `results`, as evaluate_run returned them, are the numbers of this evaluation."""
    file = results_file(dict(results["protocol"]))
    entry = {"question": _question(run, evaluation), "file": file, "answer": _digest(_numbers(run, weights, file))}
    noted = _entries(run)
    noted[weights] = [*(other for other in noted.get(weights, []) if other["file"] != file), entry]
    (run / ASKED).parent.mkdir(exist_ok=True)
    write_file(run / ASKED, (json.dumps(noted, indent=2, sort_keys=True) + "\n").encode())


def _covers(there: Mapping[str, Any], question: Mapping[str, Any]) -> bool:
    """Whether the evaluation that was done is the one that is asked for, or more."""
    extra = {name for name in MAY_BE_MORE if not question.get(name)}
    return {k: v for k, v in there.items() if k not in extra} == {k: v for k, v in question.items() if k not in extra}


def _question(run: Path, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments as JSON gives them back, without those that are None, and the epochs that the run has."""
    given = {name: _plain(value) for name, value in evaluation.items() if value is not None}
    epochs = read_run_json(run).get("finished_epochs") if (run / RUN).exists() else 0
    return json.loads(json.dumps({**given, "of_epochs": epochs}))


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
