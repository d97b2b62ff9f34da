"""What every demo has to keep to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

MADE = (".tar", ".jpg", ".safetensors")


def assert_again_changes_nothing(run: Callable[[list[str]], dict], out: Path, results: dict, done: int) -> None:
    """A second call gives the same results, writes no file anew, and says of `done` parts that they are done."""
    said: list[str] = []
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.suffix in MADE}
    assert run(said) == results
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sum("done before" in line for line in said) == done
