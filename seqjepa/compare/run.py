"""The comparison itself: job after job, each picked up where it was, and then all rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from seqjepa.compare.jobs import Comparison
from seqjepa.compare.rows import differing, floor_of, row_of
from seqjepa.compare.table import short
from seqjepa.devices import pick_device
from seqjepa.evaluate.results import read_results
from seqjepa.files import write_atomic
from seqjepa.jobs.job import Job, Say, refuse_other_runs, run_job
from shards.environment import pass_environment_on
from shards.errors import UsageError
from shards.json_fields import strict_json

FILE = "comparison.json"


def compare(
    comparison: Comparison,
    out: Path = Path("runs/compare"),
    *,
    device: str = "auto",
    workers: int | None = None,
    progress: bool = True,
    say: Say | None = None,
) -> dict[str, Any]:
    """Does what is left to do below `out` – a run directory for each method and seed – and returns all rows.

    {"rows": one a method (rows.row_of), "untrained": the scores of the initial encoder, "settings": …}, which
    out/comparison.json holds as well. say hears what is done. Raises what a job raises; what is finished is kept.
    """
    hear, jobs = say or (lambda line: None), comparison.jobs()
    refuse_foreign(out / FILE)
    for job in chain(*jobs.values()):  # every mistake before the first minute
        refuse_other_runs(job, out)
    rows = []
    for number, (method, mine) in enumerate(jobs.items(), start=1):
        hear(f"[{number}/{len(jobs)}] {method}")
        runs = [run_job(job, out, device=device, workers=workers, progress=progress, say=hear) for job in mine]
        rows.append(row_of(method, runs))
        hear(short(rows[-1]))
    first = [Path(run) for run in rows[0]["runs"]]
    settings = _settings(comparison, jobs, first[0], device)
    if otherwise := differing(Path(run) for row in rows for run in row["runs"]):
        settings["differently_measured"] = otherwise
    results = {"rows": rows, "untrained": floor_of(first), "settings": settings}
    write_atomic(out / FILE, (json.dumps(results, indent=2) + "\n").encode())
    return results


def refuse_foreign(file: Path) -> None:
    """UsageError if there is a file of that name that no comparison wrote."""
    if not file.exists():
        return
    try:
        ours = {"rows", "settings"} <= set(strict_json(file.read_bytes(), nan=True))
    except (OSError, ValueError, TypeError) as error:
        pass_environment_on(error)
        ours = False
    if not ours:
        raise UsageError(f"{file} is there and was not written by `seqjepa compare`; move it, or choose another --out")


def _settings(comparison: Comparison, jobs: Mapping[str, list[Job]], run: Path, device: str) -> dict[str, Any]:
    """What was compared and how, for the notes under the table."""
    plan, protocol = comparison.plan(), read_results(run)["trained"]["protocol"]
    known = ("dataset", "resolution", "train_samples", "val_samples", "probe_epochs")
    return {
        **{key: protocol[key] for key in known},
        "shards": str(comparison.shards),
        "scale": comparison.scale,
        "steps_asked": comparison.steps,
        "steps": plan.steps,
        "views_per_step": plan.views_per_step,
        "seeds": list(comparison.seeds),
        "device": str(pick_device(device)),
        "changes": {job.name: list(job.settings) for job in chain(*jobs.values())},
    }
