"""benchmarks/gpu.sh and gpu_part.py: what they write, and that every part ends."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENTRY = ROOT / "benchmarks" / "gpu.sh"


def part(tmp_path: Path, limit: str, script: str) -> tuple[list[dict], int]:
    """benchmarks/gpu_part.py in this process, which has imported torch."""
    file, printed = tmp_path / "out" / "results.jsonl", io.StringIO()
    main = runpy.run_path(str(ROOT / "benchmarks" / "gpu_part.py"))["main"]
    with contextlib.redirect_stdout(printed):
        code = main("one", limit, str(file), sys.executable, "-c", script)
    assert printed.getvalue() == file.read_text()
    return [json.loads(line) for line in printed.getvalue().splitlines()], code


def test_figures_say_where_they_come_from(tmp_path: Path) -> None:
    (line,), code = part(tmp_path, "60", 'print("loading"); print(\'{"name": "x", "ours": 2.5}\')')
    assert code == 0
    assert (line["part"], line["name"], line["ours"], line["exit"]) == ("one", "x", 2.5, 0)
    assert {"card", "torch", "commit", "seconds"} <= line.keys()
    assert "loading" in (tmp_path / "out" / "results.jsonl.log").read_text()


def test_a_part_that_hangs_ends_with_its_processes_and_says_so(tmp_path: Path) -> None:
    script = "import subprocess, time; print('begun', flush=True); subprocess.Popen(['sleep', '100']); time.sleep(100)"
    (line,), code = part(tmp_path, "2", script)
    assert code == line["exit"] == 124
    assert line["said"] == "begun"
    assert line["seconds"] < 30


def test_a_part_that_fails_keeps_its_last_words(tmp_path: Path) -> None:
    (line,), code = part(tmp_path, "60", "raise SystemExit('no such card')")
    assert code == line["exit"] == 1
    assert line["said"] == "no such card"


def test_the_entry_names_what_there_is() -> None:
    done = subprocess.run(["bash", str(ENTRY), "everything"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == "found 'everything', allowed are check, train and rest: bash benchmarks/gpu.sh check\n"


def test_every_script_and_option_of_the_entry_exists() -> None:
    for line in ENTRY.read_text().splitlines():
        words = line.split()
        if words[:1] == ["bench"]:
            source = (ROOT / "benchmarks" / f"{words[1]}.py").read_text()
            assert all(f'"{word}"' in source for word in words[4:] if word.startswith("--")), line
