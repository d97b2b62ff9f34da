"""What `seqjepa sweep` prints without --run: as text, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqjepa.sweep.plan import Request, Task
from seqjepa.sweep.tables import SHEETS


def sheets_as_text() -> str:
    """A line for each table and figure: its name, how many runs it needs, what it is."""
    return "\n".join(f"{name:20}{_count(sheet):>9}  {sheet.title}" for name, sheet in SHEETS.items())


def sheets_as_json() -> list[dict[str, Any]]:
    return [
        {"table": name, "title": sheet.title, "recipes": list(sheet.recipes), "seeds": sheet.seeds, "note": sheet.note}
        for name, sheet in SHEETS.items()
    ]


def _count(sheet: Any) -> str:
    runs = len(sheet.recipes) * sheet.seeds
    return f"{runs} run{'s' if runs > 1 else ''}"


def tasks_as_text(request: Request, tasks: Sequence[Task], out: Path) -> str:
    """A line for each run: its number, folder, shards and how far it has got; then a sum."""
    sheet = SHEETS[request.table]
    states = [task.state(out) for task in tasks]
    width = max(len(task.job.name) for task in tasks)
    lines = [f"{request.table}: {sheet.title}; scale {request.scale or sheet.scale}"]
    lines += [f"({sheet.note})"] if sheet.note else []
    lines.append(f"{'task':>4}  {'run, in ' + str(out):{width}}  {'shards':14} state")
    lines += [
        f"{task.number:>4}  {task.job.name:{width}}  {task.kind:14} {state}"
        for task, state in zip(tasks, states, strict=True)
    ]
    counted = Counter(state.stage for state in states)
    lines.append(", ".join(f"{count} {stage}" for stage, count in counted.items()))
    return "\n".join(lines)


def tasks_as_json(request: Request, tasks: Sequence[Task], out: Path) -> dict[str, Any]:
    sheet = SHEETS[request.table]
    return {
        "table": request.table,
        "title": sheet.title,
        "note": sheet.note,
        "scale": request.scale or sheet.scale,
        "runs": [task.as_json(out) for task in tasks],
    }
