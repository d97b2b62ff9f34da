"""Ctrl-C and kills at random moments of whole commands: nothing stays behind, and the same command ends as if nothing
had been."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from python_path import python_path

ROOT = Path(__file__).resolve().parents[1]
# A /dev/shm of the command's own, so that what other processes of the machine have there does not count.
OWN_MEMORY = 'mount --bind "$0" /dev/shm && exec "$@"'
START = "import sys; from seqjepa.__main__ import seqjepa, seqjepa_data; sys.exit({}())"


def command(app: str, *arguments: Any) -> list[str]:
    return [sys.executable, "-c", START.format(app), *map(str, arguments)]


@functools.cache
def may_mount() -> bool:
    trial = ["unshare", "--mount", "sh", "-c", OWN_MEMORY, "/tmp", "true"]
    return shutil.which("unshare") is not None and subprocess.run(trial, capture_output=True).returncode == 0


def start(line: list[str], memory: Path | None = None) -> subprocess.Popen[str]:
    """In a group of its own, as a shell starts a command that a terminal's Ctrl-C is for. memory: its /dev/shm."""
    if memory is not None and may_mount():
        line = ["unshare", "--mount", "sh", "-c", OWN_MEMORY, str(memory), *line]
    env = {**os.environ, "PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(line, env=env, **pipes, text=True, encoding="utf-8", process_group=0)  # type: ignore[call-overload]


def run(line: list[str]) -> None:
    process = start(line)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said


def processes_of(marker: str) -> set[int]:
    """Those that live and were started for the folder `marker`: it is in the environment that they inherit."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if marker.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.add(int(path.parent.name))
    return found


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        # without what holds durations, and its checksums
        if path.is_file() and path.name not in ("metrics.jsonl", "state.pt", "state-previous.pt", "SHA256SUMS")
    }


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("interrupted"), np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / "pictures" / name).mkdir(parents=True)
        for k in range(60):
            coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
            coarse.resize((64, 64)).save(folder / "pictures" / name / f"{k:03d}.png")
    run([*shard(folder), "--out", str(folder / "set")])
    return folder


def shard(base: Path) -> list[str]:
    options = ["--val-fraction", 0.3, "--size", 32, "--samples-per-shard", 10, "--workers", 2]
    return command("seqjepa_data", "shard", "folder", "--source", base / "pictures", *options)


def bake(base: Path) -> list[str]:
    options = ["--augment", "equimod", "--sequences", 6, "--views", 4, "--workers", 2]
    return command("seqjepa_data", "bake", base / "set", *options)


def saliency(base: Path) -> list[str]:
    options = ["--model", "spectral-residual", "--device", "cpu", "--workers", 2, "--samples-per-shard", 10]
    return command("seqjepa_data", "build-saliency", "folder", "--source", base / "pictures", *options)


def train(base: Path) -> list[str]:
    options = [
        "--recipe",
        "cifar-tiny",
        "--epochs",
        4,
        "--set",
        "optim.batch_size=8",
        "--device",
        "cpu",
        "--workers",
        2,
    ]
    return command("seqjepa", "train", "--shards", base / "set", *options)


COMMANDS = {"shard": shard, "bake": bake, "build-saliency": saliency, "train": train}


def whole(base: Path, name: str) -> tuple[dict[str, bytes], float]:
    """What the command makes undisturbed, and the seconds that it takes."""
    out, began = base / f"whole-{name}", time.monotonic()
    run([*COMMANDS[name](base), "--out", str(out)])
    return contents(out), time.monotonic() - began


def stop(base: Path, name: str, out: Path, number: signal.Signals, after: float) -> int:
    """The command's exit code, from a signal to its group; nothing of it is left."""
    marker = f"STOPPED_{random.randrange(10**12)}"
    (memory := base / "shm").mkdir(exist_ok=True)
    os.environ["MARKER"] = marker
    process = start([*COMMANDS[name](base), "--out", str(out)], memory)
    del os.environ["MARKER"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    said = process.communicate(timeout=60)[1]
    assert eventually(lambda: not processes_of(marker)), "a process stays behind"
    if number == signal.SIGINT:  # a kill of the whole group also ends multiprocessing's tracker, which would clear it
        assert eventually(lambda: not os.listdir(memory)), f"shared memory stays behind: {os.listdir(memory)}"
    shutil.rmtree(memory)
    if number == signal.SIGINT and process.returncode:
        assert process.returncode in (130, -signal.SIGINT), said
        assert "Traceback" not in said or process.returncode < 0 or "<frozen" in said, said
    return process.returncode


STOPS = {
    **{f"SIGINT {name}": (name, signal.SIGINT, 5) for name in COMMANDS},
    # shard and train have tests of their own (test_killed_builds.py, test_train.py)
    **{f"SIGKILL {name}": (name, signal.SIGKILL, 10) for name in ("bake", "build-saliency")},
}


@pytest.mark.slow
@pytest.mark.parametrize("which", STOPS)
def test_stopped_at_random_moments(base: Path, tmp_path: Path, which: str) -> None:
    """As often as STOPS says: it goes on from what was finished, and begins anew once it is."""
    name, number, times = STOPS[which]
    expected, seconds = whole(base, name)
    shutil.rmtree(base / f"whole-{name}")
    rng, out, stopped = random.Random(which), tmp_path / "out", 0
    while stopped < times:
        code = stop(base, name, out, number, rng.uniform(0.3, 0.9 * seconds))
        stopped += code != 0
        if code == 0 or stopped == times:
            run([*COMMANDS[name](base), "--out", str(out)])
            assert contents(out) == expected
            shutil.rmtree(out)


AT_AN_IMPORT = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
sys.argv.append("--help")
from seqjepa.__main__ import seqjepa
seqjepa()
"""


@pytest.mark.parametrize("module", ["seqjepa.shadowing", "cli", "typer", "shards.console", "inspect"])
def test_interrupted_while_it_starts(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_AN_IMPORT, module],
        env={**os.environ, "PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


IN_AN_IMPORT = """
import sys, time
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "wave":
            os.kill(os.getpid(), signal.SIGINT)
            print("the import goes on")
def command():
    import wave
    time.sleep(60)
import cli, os, signal
sys.meta_path.insert(0, Interrupting())
cli.seqjepa_app = command
from seqjepa.__main__ import seqjepa
seqjepa()
"""


def test_interrupted_while_a_command_imports() -> None:
    """torch's extension ends the process where an exception comes in the midst of it."""
    done = subprocess.run(
        [sys.executable, "-c", IN_AN_IMPORT],
        env={**os.environ, "PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "the import goes on\n", "")
