"""Processes of their own: one that is killed, and `datasets`, which knows nothing of us."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_server import Act, environment, serving

ADDRESS = "hf://datasets/me/noise"
LARGE = ("train-000000.tar", "val-000000.tar", "_meta/index-train.parquet", "_meta/index-val.parquet")


def data_command(*words: object) -> list[str]:
    code = "from cli import seqjepa_data_app; seqjepa_data_app()"
    return [sys.executable, "-c", code, *map(str, words)]


@pytest.mark.slow
def test_a_push_and_a_pull_that_are_killed_go_on(shards: Path, tmp_path: Path) -> None:
    with serving() as hub:
        env = environment(hub, tmp_path / "hf")
        hub.acts.append(Act("PUT", "lfs/", skip=2, hang=True))
        kill_when(data_command("push", shards, ADDRESS), env, lambda: not hub.acts and len(hub.sent) == 3)
        assert set(hub.files("dataset", "me/noise")) == {".gitattributes"}
        subprocess.run(data_command("push", shards, ADDRESS), env=env, check=True, capture_output=True)
        assert sorted(hub.sent) == sorted((shards / name).stat().st_size for name in LARGE)
        out = tmp_path / "back"
        hub.acts.append(Act("GET", "val-000000.tar", hang=True))
        kill_when(data_command("pull", ADDRESS, "--out", out), env, lambda: not hub.acts)
        assert not (out / "_meta" / "dataset.json").exists()
        subprocess.run(data_command("pull", ADDRESS, "--out", out), env=env, check=True, capture_output=True)
        subprocess.run(data_command("verify", out), check=True, capture_output=True)


def kill_when(command: list[str], env: dict[str, str], ready) -> None:
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.05)
    process.kill()
    process.wait()


@pytest.mark.slow
def test_datasets_opens_what_was_pushed(shards: Path, tmp_path: Path) -> None:
    code = """
import datasets
rows = datasets.load_dataset("me/noise")
print({name: len(split) for name, split in rows.items()}, rows["train"][1]["cls"], rows["train"][1]["json"]["views"])
"""
    with serving() as hub:
        env = environment(hub, tmp_path / "hf")
        subprocess.run(data_command("push", shards, ADDRESS), env=env, check=True, capture_output=True)
        done = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
    assert done.stdout == "{'train': 16, 'val': 8} 1 4\n"
