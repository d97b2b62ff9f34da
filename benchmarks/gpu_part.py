"""One part of benchmarks/gpu.sh: a command within a time limit, its figures as JSON lines that say whence they are.

    python benchmarks/gpu_part.py NAME SECONDS FILE COMMAND…

Each JSON object that the command prints on a line of its own, or else one that has its last line of output, is printed
and added to FILE with `part`, `card`, `commit`, `torch`, `at` (UTC, when it began), `seconds` and `exit` (124: it ran
past its limit; 129, 130, 143: it was interrupted). All that it says goes to FILE.log as it is said. The exit code is
the command's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).resolve().parents[1]
LATE = 124
INTERRUPTS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """By the signal of this number."""


def run(command: list[str], limit: float, log: BinaryIO) -> int:
    """Its exit code; output and errors go to `log`. What it has started ends with it, and where we are interrupted."""
    heard = [number for number in INTERRUPTS if signal.getsignal(number) != signal.SIG_IGN]  # nohup ignores one
    before = {number: signal.signal(number, _interrupted) for number in heard}
    process = None
    try:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        return process.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        return LATE
    except Interrupted as error:
        return 128 + error.args[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _interrupted(number: int, _: object) -> None:
    raise Interrupted(number)


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
    about = {"card": "none", "torch": "none", "commit": os.environ.get("SEQJEPA_COMMIT", "unknown")}
    with contextlib.suppress(OSError, subprocess.CalledProcessError):  # no git, no repository
        asked = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
        about["commit"] = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    with contextlib.suppress(ImportError):
        import torch

        about["torch"] = torch.__version__
        try:
            about["card"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
        except RuntimeError as error:  # a card that the command has left in an error
            about["card"] = f"unknown: {str(error).partition(chr(10))[0]}"
    return about


def main(name: str, limit: str, file: str, *command: str) -> int:
    began, at = time.monotonic(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    out = Path(file)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.with_suffix(out.suffix + ".log").open("a+b") as log:
        log.write(f"== {name}, {at}: {' '.join(command)}\n".encode())
        log.flush()
        start = log.seek(0, os.SEEK_END)
        code = run(list(command), float(limit), log)
        log.seek(start)
        said = log.read().decode(errors="replace")
    about = {"part": name, **origin(), "at": at, "seconds": round(time.monotonic() - began, 1), "exit": code}
    lines = [json.dumps({**about, **found}) for found in figures(said)]
    with out.open("a", encoding="utf-8") as results:
        results.writelines(f"{line}\n" for line in lines)
    print("\n".join(lines), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
