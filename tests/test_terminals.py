"""No terminal, locale or standard stream makes a command raise, and file names are the bytes on the disk in UTF-8."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from python_path import python_path
from typer.testing import CliRunner

from cli import seqjepa_app, seqjepa_data_app
from shards.machine.terminal import plain

ROOT = Path(__file__).resolve().parents[1]
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
TERMINALS = {
    "C": C_LOCALE,
    "POSIX": {**C_LOCALE, "LC_ALL": "POSIX"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "ascii strict in UTF-8 mode": {"PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "1"},
    "dumb": {"TERM": "dumb", "LC_ALL": "C"},
}


def command_paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from command_paths(inner, (*path, name))


def start(app: str, *arguments: object, env: dict[str, str], **options: Any) -> subprocess.CompletedProcess[bytes]:
    return python(f"from cli import {app}; {app}(prog_name='x')", *arguments, env=env, **options)


def python(code: str, *arguments: object, env: dict[str, str], **options: Any) -> subprocess.CompletedProcess[bytes]:
    known = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONIO", "PYTHONUTF8"))}
    command = [sys.executable, "-c", code, *map(os.fsencode, map(str, arguments))]
    full = {**known, "PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1", **env}
    return subprocess.run(command, env=full, **{"capture_output": True, "check": False, **options})


def data(*arguments: object, env: dict[str, str], **options: Any) -> subprocess.CompletedProcess[bytes]:
    return start("seqjepa_data_app", *arguments, env=env, **options)


def jepa(*arguments: object, env: dict[str, str], **options: Any) -> subprocess.CompletedProcess[bytes]:
    return start("seqjepa_app", *arguments, env=env, **options)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes, one of them with a name beyond ASCII: 24 pictures of 32×32 each."""
    rng = np.random.default_rng(0)
    for name in ("Tür", "Baum"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for k in range(24):
            coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
            coarse.resize((32, 32)).save(tmp_path / "pictures" / name / f"{k:02d}é.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize("app", [seqjepa_app, seqjepa_data_app])
@pytest.mark.parametrize("charset", ["ascii", pytest.param("latin-1", marks=pytest.mark.slow)])
def test_every_help_is_shown(app: typer.Typer, charset: str) -> None:
    paths = list(command_paths(typer.main.get_command(app)))
    assert len(paths) > 9
    for path in paths:
        shown = CliRunner(charset=charset).invoke(app, [*path, "--help"])
        assert shown.exit_code == 0, (path, shown.output)
        assert "Usage:" in shown.output
        if charset == "ascii":
            in_utf8 = CliRunner().invoke(app, [*path, "--help"]).output
            assert shown.stdout_bytes.isascii()
            assert shown.output == plain(in_utf8)
            assert shown.output.count("?") == in_utf8.count("?"), "a character of ours that PLAIN does not have"


def test_what_cannot_be_shown_is_replaced() -> None:
    assert plain("3×4 → R² ≥ 0.5 – Tür … \udcff") == "3x4 -> R2 >= 0.5 - T?r ... \\xff"


LOOKING = """
import json, sys
from cli import seqjepa_app
for words in json.loads(sys.argv[1]):
    try:
        seqjepa_app(words, prog_name="x")
    except SystemExit as end:
        assert not end.code, words
    print("\\n--next--", flush=True)
"""


@pytest.mark.parametrize("name", ["C", "ascii", "latin-1", "dumb"])
def test_commands_that_only_look(name: str) -> None:
    """One after the other in one process of that terminal."""
    looking = [["recipes", "ls"], ["recipes", "cat", "synth-tiny"], ["sweep", "--help"]]
    done = python(LOOKING, json.dumps(looking), env=TERMINALS[name])
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    *shown, rest = done.stdout.split(b"\n--next--\n")
    assert (len(shown), rest) == (len(looking), b"")
    assert all(len(text) > 100 for text in shown)
    if name not in ("latin-1", "dumb"):  # with a plain LC_ALL=C Python itself takes UTF-8
        assert done.stdout.isascii()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str, tmp_path: Path) -> None:
    code = "from cli import seqjepa_app; seqjepa_app()"
    line = f"'{sys.executable}' -c '{code}' recipes ls {closed}"
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, check=False, env={**os.environ, "PYTHONPATH": python_path()}
    )
    assert done.returncode == 0
    assert not done.stderr
    assert bool(done.stdout) == (">&-" not in closed.split())


@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [(["recipes", "ls"], ""), (["recipes", "ls"], "1"), (["recipes", "ls", "--json"], ""), (["--help"], ""),
     (["--version"], "1")],
)  # fmt: skip
def test_a_full_device_is_one_line(arguments: list[str], unbuffered: str) -> None:
    with open("/dev/full", "wb") as full:
        done = jepa(*arguments, env={"PYTHONUNBUFFERED": unbuffered}, capture_output=False, stdout=full, stderr=-1)
    assert done.returncode == 1
    assert done.stderr.decode().count("\n") == 1
    assert done.stderr.startswith(b"error: cannot write to standard output: No space left on device")


def test_nobody_reads_standard_error() -> None:
    with open("/dev/full", "wb") as full:
        done = jepa("recipes", "cat", "nothing", env={}, capture_output=False, stdout=-1, stderr=full)
    assert done.returncode == 2


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_ends_the_command_quietly(unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = jepa("recipes", "ls", env={"PYTHONUNBUFFERED": unbuffered}, capture_output=False, stdout=writing, stderr=-1)
    os.close(writing)
    assert not done.stderr


@pytest.mark.parametrize("app", ["seqjepa_app", "seqjepa_data_app"])
def test_version(app: str) -> None:
    done = start(app, "--version", env={})
    assert done.returncode == 0
    assert done.stdout.decode().startswith("seqjepa 0.1.0 (Python 3.")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_names_are_the_bytes_on_the_disk(pictures: Path, tmp_path: Path) -> None:
    """Of workers too; those of the command in a terminal of UTF-8 are its own process."""
    words = [*map(str, ("shard", "folder", "--source", pictures, "--out"))]
    here = CliRunner().invoke(seqjepa_data_app, [*words, str(tmp_path / "größe-0"), "--workers", "0"])
    assert here.exit_code == 0, here.output
    env = {**C_LOCALE, "PYTHONIOENCODING": "latin-1"}
    done = data(*words, tmp_path / "größe-1", "--workers", 2, env=env)
    assert done.returncode == 0, done.stderr
    utf8, latin = (contents(tmp_path / f"größe-{number}") for number in range(2))
    assert json.loads(utf8["_meta/dataset.json"])["classes"] == ["Baum", "Tür"]
    assert utf8 == latin


TWO = """
import json, os, sys
from cli import seqjepa_data_app
words = json.loads(sys.argv.pop(1))
try:
    seqjepa_data_app(words, prog_name="x")
except SystemExit as end:
    print(end.code, os.path.exists(words[3]), flush=True)
    print("--next--", file=sys.stderr, flush=True)
seqjepa_data_app(prog_name="x")
"""


@pytest.mark.parametrize("env", [{"LC_ALL": "C.UTF-8"}, C_LOCALE])
def test_names_that_are_no_utf8_are_refused_by_name(tmp_path: Path, env: dict[str, str]) -> None:
    for folder in (b"pictures/caf\xe9", b"caf\xe9/cat"):
        place = os.path.join(os.fsencode(tmp_path), folder)
        os.makedirs(place)
        for name in (b"a.png", b"b.png"):
            with open(os.path.join(place, name), "wb") as file:
                Image.new("RGB", (16, 16), (len(folder), 3, 3)).save(file, "PNG")
    words = ["shard", "folder", "--out", str(tmp_path / "out"), "--workers", "0", "--source"]
    source = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9"))
    done = python(TWO, json.dumps([*words, str(tmp_path / "pictures")]), *words, source, env=env)
    refused, _, other = done.stderr.partition(b"--next--\n")
    assert refused.count(b"\n") == 1
    assert b"caf\\udce9" in refused
    assert b"2 False\n" in done.stdout
    assert b"Traceback" not in other
    assert done.returncode in (0, 2)


def on_terminal(run: Any, arguments: list[Any], env: dict[str, str]) -> tuple[int, str]:
    """Exit code, and what a terminal shows that is standard output and error."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    pieces: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # how a terminal says that everybody has closed it
            while piece := os.read(ours, 1 << 16):
                pieces.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    done = run(*arguments, env=env, capture_output=False, stdout=theirs, stderr=theirs)
    os.close(theirs)
    reader.join()
    os.close(ours)
    return done.returncode, b"".join(pieces).decode("latin-1")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["POSIX", "ascii strict in UTF-8 mode", "latin-1"])
def test_a_whole_project(name: str, pictures: Path, tmp_path: Path) -> None:
    """Every step from pictures to a report, with its progress bars."""
    env = TERMINALS[name]
    shards, run = tmp_path / "shards", tmp_path / "run"
    bars = 0
    tiny = ["--set", "optim.batch_size=8", "--device", "cpu", "--workers", 0]
    for app, *arguments in [
        ("data", "shard", "folder", "--source", pictures, "--val-fraction", 0.3, "--out", shards),
        ("data", "info", shards),
        ("data", "verify", shards),
        ("data", "preview", shards, "--out", tmp_path / "sheet.png", "--augment", "simclr"),
        (
            "data",
            "synth",
            "3die",
            "--out",
            tmp_path / "synth",
            "--objects",
            4,
            "--families",
            2,
            "--views",
            2,
            "--size",
            32,
        ),
        ("jepa", "doctor", "--folder", tmp_path),
        ("jepa", "train", "--shards", shards, "--recipe", "cifar-tiny", "--epochs", 1, *tiny, "--out", run),
        (
            "jepa",
            "evaluate",
            run,
            "--shards",
            shards,
            "--probe-epochs",
            1,
            "--train-draws",
            1,
            "--m-val",
            1,
            "--device",
            "cpu",
        ),
        ("jepa", "report", run, "--out", tmp_path / "report.html"),
        ("jepa", "sweep", "table-3", "--shards", f"cifar100={shards}", "--out", tmp_path / "sweep"),
    ]:
        code, said = on_terminal(data if app == "data" else jepa, arguments, env)
        assert "Traceback" not in said, (arguments, said)
        assert "Error" not in said, (arguments, said)
        assert code == 0 or (code == 1 and "doctor" in arguments), (arguments, said)
        bars += said.count("%|")
    assert bars
    assert (run / "results.json").exists()
