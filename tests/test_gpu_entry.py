"""benchmarks/gpu.sh and gpu_part.py: what they write, that every part ends, and the whole on an emulated card."""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from forked_ranks import Forks
from python_path import ROOT, python_path

ENTRY = ROOT / "benchmarks" / "gpu.sh"
PART = ROOT / "benchmarks" / "gpu_part.py"
PARTS = {
    "check": ["card", "doctor", "tests", "train-short"],
    "train": ["card", "train", "train-small", "stem", "loader"],
    "rest": [
        "card",
        "augment",
        "fixations",
        "saliency-tf32",
        "saliency-fp16",
        "saliency-precision",
        "probes",
        "probes-full-size",
    ],
}
# In place of Python: gpu_part.py notes that it was called, and ends as it is told.
STAND_IN = """#!/bin/bash
if [ "$1" = benchmarks/gpu_part.py ]; then
  echo "$2" >> "$CALLED"
  printf '%s\\n' "$@" > "$CALLED.last"
  case " $FAILS " in *" $2 "*) exit "${CODE:-1}" ;; esac
elif [ "$1" = -c ]; then
  dirname "$CALLED"
fi
"""


def part(tmp_path: Path, limit: str, script: str) -> tuple[list[dict], int]:
    """benchmarks/gpu_part.py in this process, which has imported torch."""
    file, printed = tmp_path / "out" / "results.jsonl", io.StringIO()
    main = runpy.run_path(str(PART))["main"]
    with contextlib.redirect_stdout(printed):
        code = main("one", limit, str(file), sys.executable, "-c", script)
    assert printed.getvalue() == file.read_text()
    return [json.loads(line) for line in printed.getvalue().splitlines()], code


def test_figures_say_where_they_come_from(tmp_path: Path) -> None:
    (line,), code = part(tmp_path, "60", 'print("loading"); print(\'{"name": "x", "ours": 2.5}\')')
    assert code == 0
    assert (line["part"], line["name"], line["ours"], line["exit"]) == ("one", "x", 2.5, 0)
    assert {"card", "torch", "commit", "at", "seconds"} <= line.keys()
    assert "loading" in (tmp_path / "out" / "results.jsonl.log").read_text()


def test_a_part_that_hangs_ends_with_its_processes_and_says_so(tmp_path: Path) -> None:
    script = "import subprocess, time; print('begun', flush=True); subprocess.Popen(['sleep', '100']); time.sleep(100)"
    (line,), code = part(tmp_path, "2", script)
    assert code == line["exit"] == 124
    assert line["said"] == "begun"
    assert line["seconds"] < 30


def test_a_process_that_left_the_part_keeps_nobody(tmp_path: Path) -> None:
    """It holds what the part printed to, as the server of a compiler's workers may."""
    script = "import subprocess; print(subprocess.Popen(['sleep', '100'], start_new_session=True).pid)"
    (line,), code = part(tmp_path, "60", script)
    os.kill(int(line["said"]), signal.SIGKILL)
    assert code == 0
    assert line["seconds"] < 60


def test_a_part_that_fails_keeps_its_last_words(tmp_path: Path) -> None:
    (line,), code = part(tmp_path, "60", "raise SystemExit('no such card')")
    assert code == line["exit"] == 1
    assert line["said"] == "no such card"


@pytest.mark.parametrize("lost", ["git", "the card"])
def test_figures_are_kept_where_their_origin_cannot_be_told(tmp_path: Path, monkeypatch, lost: str) -> None:
    def in_error() -> str:
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA")

    if lost == "git":
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", in_error)
    (line,), _ = part(tmp_path, "60", "print('{\"ours\": 2.5}')")
    assert line["ours"] == 2.5
    told = {"git": ("commit", "unknown"), "the card": ("card", "unknown: CUDA error: unspecified launch failure")}
    assert line[told[lost][0]] == told[lost][1]


def part_alone(*words: str) -> None:
    sys.exit(runpy.run_path(str(PART))["main"](*words))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_part_leaves_no_process_and_keeps_what_it_said(
    forks_of_torch: Forks, tmp_path: Path, number: signal.Signals
) -> None:
    file = tmp_path / "results.jsonl"
    script = "import os, time; print(os.getpid(), flush=True); time.sleep(300)"
    process = forks_of_torch.start(part_alone, "one", "60", str(file), sys.executable, "-c", script)
    log, said = Path(f"{file}.log"), [""]
    while len(said) < 2 and process.poll() is None:
        time.sleep(0.05)
        said = log.read_text().splitlines() if log.exists() else []
    process.kill(number)
    assert process.wait() == 128 + number
    line = json.loads(process.said)
    assert (line["exit"], line["said"]) == (128 + number, said[1])
    with pytest.raises(ProcessLookupError):
        os.kill(int(said[1]), 0)


def entry(tmp_path: Path, words: list[str], **variables: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """gpu.sh with a stand-in for Python in folders with blanks; which parts it has run."""
    folder = tmp_path / "with blanks"
    folder.mkdir(exist_ok=True)
    python, called = folder / "my python", folder / "called"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    places = {"PYTHON": str(python), "CALLED": str(called), "OUT": str(folder / "out"), "WORK": str(folder / "data")}
    env = os.environ | {"WHEELS": str(folder / "none"), "DEEPGAZE": str(folder / "none")} | places | variables
    done = subprocess.run(["bash", str(ENTRY), *words], capture_output=True, text=True, check=False, env=env, cwd="/")
    return done, called.read_text().split() if called.exists() else []


def test_the_entry_names_what_there_is(tmp_path: Path) -> None:
    done, called = entry(tmp_path, ["everything"])
    assert done.returncode == 2
    assert done.stderr == "found 'everything', allowed are check, train and rest: bash benchmarks/gpu.sh check\n"
    assert not called


@pytest.mark.parametrize("which", sorted(PARTS))
def test_parts_run_one_after_the_other_whatever_one_of_them_does(tmp_path: Path, which: str) -> None:
    failing = PARTS[which][1:3]
    done, called = entry(tmp_path, [which], FAILS=" ".join(failing), CODE="124")
    results = tmp_path / "with blanks" / "out" / "results.jsonl"
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"{name} failed: see {results}.log" for name in failing]
    assert called == PARTS[which]
    done, called = entry(tmp_path, [which])
    assert (done.returncode, done.stderr) == (0, "")
    assert called == 2 * PARTS[which]
    words = (tmp_path / "with blanks" / "called.last").read_text().splitlines()
    assert words[3] == str(results)


def test_without_a_card_nothing_else_is_run(tmp_path: Path) -> None:
    done, called = entry(tmp_path, ["train"], FAILS="card")
    assert done.returncode == 1
    assert done.stderr.endswith("my python finds no GPU that torch can use, so nothing else is run\n")
    assert called == ["card"]


def test_interrupted_in_a_part_the_entry_ends(tmp_path: Path) -> None:
    done, called = entry(tmp_path, ["rest"], FAILS="augment", CODE="130")
    assert done.returncode == 130
    assert called == ["card", "augment"]


def test_a_checkout_of_deepgaze_is_found_without_wheels(tmp_path: Path) -> None:
    done, _ = entry(tmp_path, ["check"], DEEPGAZE=str(tmp_path))
    assert done.returncode == 0
    assert (tmp_path / "with blanks" / "seqjepa-gpu.pth").read_text().splitlines()[1:] == [str(ROOT), str(tmp_path)]


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real GPU")
@pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler")
def test_the_check_as_a_whole_on_an_emulated_card(tmp_path: Path) -> None:
    """Each part in its own process, with a tiny training and a few of the tests (emulated_python.py)."""
    python, out = tmp_path / "python", tmp_path / "out"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / "tests" / "emulated_python.py"}" "$@"\n')
    python.chmod(0o755)
    env = os.environ | {"PYTHONPATH": python_path(ROOT, ROOT / "tests"), "OMP_NUM_THREADS": "1", "OUT": str(out)}
    env |= {"PYTHON": str(python), "WORK": str(tmp_path / "data"), "WHEELS": str(tmp_path / "none")}
    done = subprocess.run(["bash", str(ENTRY), "check"], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [line["part"] for line in lines] == PARTS["check"]
    assert {line["card"] for line in lines} == {"emulated CUDA device"}
    assert "4 passed" in lines[2]["said"]
    assert lines[3]["ours"] > 0
    assert lines[3]["compiled"]


def test_every_script_and_option_of_the_entry_exists() -> None:
    for line in ENTRY.read_text().splitlines():
        words = line.split()
        if words[:1] == ["bench"]:
            source = (ROOT / "benchmarks" / f"{words[1]}.py").read_text()
            assert all(f'"{word}"' in source for word in words[4:] if word.startswith("--")), line
