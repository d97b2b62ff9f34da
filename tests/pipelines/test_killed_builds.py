"""Builds that are killed, interrupted or orphaned: what is finished stays, and the next run ends as if nothing was."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from python_path import python_path
from small_3die import make_tar, make_tree, same_folders, shard_3diebench

SCRIPT = """
import sys
from pathlib import Path
from pipelines.build.views import shard_views
from pipelines.sources.three_diebench import ThreeDIEBenchSource
if __name__ == "__main__":
    source = ThreeDIEBenchSource(sys.argv[1], val_match="o3")
    shard_views(source, Path(sys.argv[2]), size=16, samples_per_shard=2, workers=2, jpeg_quality="444-90")
"""


@dataclass(frozen=True)
class Scene:
    """A source, the finished set it makes, and how long the writing of that takes in seconds: made when first asked."""

    script: Path
    sources: dict[str, Path]
    whole: dict[str, Path]
    seconds: dict[str, float]

    def start(self, kind: str, out: Path) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, str(self.script), str(self.sources[kind]), str(out)],
            env={**os.environ, "PYTHONPATH": python_path()},
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def made(self, kind: str) -> tuple[Path, float]:
        if kind not in self.whole:
            out = self.whole[kind] = self.script.with_name(f"whole-{kind}")
            process = self.start(kind, out)
            wait_until(lambda: out.exists())
            begun = time.monotonic()
            assert process.wait(120) == 0
            process.communicate()
            self.seconds[kind] = time.monotonic() - begun
        return self.whole[kind], self.seconds[kind]

    def run(self, kind: str, out: Path) -> None:
        """The same build in this process: bytes do not depend on workers."""
        options = {"val_match": "o3", "size": 16, "samples_per_shard": 2, "jpeg_quality": "444-90"}
        shard_3diebench(self.sources[kind], out, workers=0, **options)


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    return condition()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    base = tmp_path_factory.mktemp("killed")
    tree = make_tree(base / "tree", synsets=("0001", "0002", "0003"), objects=10, views=3)
    (base / "build.py").write_text(SCRIPT)
    return Scene(base / "build.py", {"tree": tree, "tar": make_tar(tree, base / "t.tar.gz")}, {}, {})


def kill_and_resume(scene: Scene, kind: str, out: Path, rng: random.Random) -> None:
    """SIGKILL for the whole group at a random moment of the writing (sometimes before, sometimes after)."""
    whole, seconds = scene.made(kind)
    process = scene.start(kind, out)
    wait_until(lambda: out.exists() or process.poll() is not None)
    time.sleep(rng.uniform(0, 1.1 * seconds))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    left = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    for path in left:
        assert path.read_bytes() == (whole / path.name).read_bytes()
    scene.run(kind, out)
    assert same_folders(out, whole)
    assert {path: path.stat().st_mtime_ns for path in left} == left
    shutil.rmtree(out)


def test_killed_builds_resume(scene: Scene, tmp_path: Path) -> None:
    kill_and_resume(scene, "tar", tmp_path / "out", random.Random(1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tree", "tar"])
def test_fifty_kills(scene: Scene, tmp_path: Path, kind: str) -> None:
    rng = random.Random(kind)
    for moment in range(50):
        kill_and_resume(scene, kind, tmp_path / f"out-{moment}", rng)


def workers_of(pid: int) -> set[int]:
    """Process ids of its descendants, from /proc."""
    found: set[int] = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if fields[0] != "Z" and int(fields[1]) == pid:
                found |= {int(path.parent.name)} | workers_of(int(path.parent.name))
    return found


def running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize(("number", "group"), [(signal.SIGTERM, False), (signal.SIGINT, True), (signal.SIGKILL, False)])
def test_no_process_stays_behind(scene: Scene, tmp_path: Path, number: signal.Signals, group: bool) -> None:
    """SIGTERM to the command, Ctrl-C (the whole group gets it), and a parent killed alone."""
    whole, _ = scene.made("tar")
    process = scene.start("tar", tmp_path / "out")
    assert wait_until(lambda: (tmp_path / "out").exists())
    assert wait_until(lambda: len(workers_of(process.pid)) >= 2)
    children = workers_of(process.pid)
    (os.killpg if group else os.kill)(process.pid, number)
    error = process.communicate(timeout=60)[1].decode()
    assert wait_until(lambda: not any(running(pid) for pid in children), 20)
    if number != signal.SIGKILL:
        assert error.count("Traceback") == 1, error
        assert error.strip().endswith("KeyboardInterrupt")
    scene.run("tar", tmp_path / "out")
    assert same_folders(tmp_path / "out", whole)
