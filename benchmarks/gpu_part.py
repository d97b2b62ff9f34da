"""One part of benchmarks/gpu.sh: a command within a time limit, its figures as JSON lines that say whence they are.

    python benchmarks/gpu_part.py NAME SECONDS FILE COMMAND…

Each JSON object that the command prints on a line of its own, or else one that has its last line of output, is printed
and added to FILE with `part`, `card`, `commit`, `torch`, `seconds` and `exit` (124: it ran past its limit). All else
goes to FILE.log. The exit code is the command's.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LATE = 124


def run(command: list[str], limit: float) -> tuple[str, int]:
    """Its standard output and error together, and its exit code. What it has started ends with it."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True
    )
    try:
        said, code = process.communicate(timeout=limit)[0], process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, code = process.communicate()[0], LATE
    return said, code


def figures(said: str) -> list[dict[str, Any]]:
    """The JSON objects among the lines; without any, the last line that says something."""
    found = [parsed for line in said.splitlines() if isinstance(parsed := _json(line), dict)]
    spoken = [line.strip() for line in said.splitlines() if line.strip()]
    return found or [{"said": spoken[-1] if spoken else ""}]


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def origin() -> dict[str, str]:
    """Card, versions and commit, as far as they can be told. SEQJEPA_COMMIT says it where there is no repository."""
    import torch

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    asked = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    commit = asked.stdout.strip() or os.environ.get("SEQJEPA_COMMIT", "unknown")
    return {"card": card, "torch": torch.__version__, "commit": commit}


def main(name: str, limit: str, file: str, *command: str) -> int:
    began = time.monotonic()
    said, code = run(list(command), float(limit))
    about = {"part": name, **origin(), "seconds": round(time.monotonic() - began, 1), "exit": code}
    lines = [json.dumps({**about, **found}) for found in figures(said)]
    out = Path(file)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as results:
        results.writelines(f"{line}\n" for line in lines)
    with out.with_suffix(out.suffix + ".log").open("a", encoding="utf-8") as log:
        log.write(f"== {name}: {' '.join(command)}\n{said}\n")
    print("\n".join(lines), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
