"""Files by which a folder is known as ours, holding anything: a line and exit code 2, and nothing is touched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cli import seqjepa_app, seqjepa_data_app

DEEP: Any = 1
for _ in range(900):
    DEEP = [DEEP]
NASTY = (b"", b"[]", b"null", b'"x"', b"{}", b"NaN", b"\xff", b"[" * 100_000, b'{"a": ' * 100_000, b"9" * 5000)


def nasty(sound: bytes) -> list[bytes]:
    """Also the file itself with one value after another nine hundred lists deep, of a wrong type, or huge."""
    found = [*NASTY, sound[: len(sound) // 2]]
    for name in json.loads(sound):
        for value in (DEEP, None, "x", -1, 10**400, {"seed": "x"}):
            record = json.loads(sound) | {name: value}
            found.append(json.dumps(record).encode())
    return found


def invoke(arguments: list[Any]) -> tuple[int, str]:
    app = seqjepa_app if arguments[0] == "demo" else seqjepa_data_app
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), (arguments, repr(done.exception))
    return done.exit_code, done.stderr


def refused(marker: Path, commands: list[list[Any]], may_pass: tuple[bytes, ...] = ()) -> None:
    sound = marker.read_bytes()
    kept = {path: path.read_bytes() for path in marker.parent.rglob("*") if path.is_file() and path != marker}
    for content in nasty(sound):
        for command in commands:
            marker.write_bytes(content)
            code, said = invoke(command)
            assert code in (1, 2), (command, content[:80], said)
            assert said.startswith("error: "), (command, content[:80], said)
            assert said.count("\n") == 1
            assert marker.read_bytes() == content
    assert {path: path.read_bytes() for path in kept} == kept
    marker.write_bytes(sound)


@pytest.mark.parametrize(
    "which", [pytest.param("3die", marks=pytest.mark.slow), pytest.param("stl10", marks=pytest.mark.slow), "cifar100"]
)
def test_synthetic_sets(tmp_path: Path, which: str) -> None:
    out = tmp_path / "synth"
    sizes = {
        "3die": ["--objects", 2, "--families", 2, "--views", 1, "--size", 16],
        "stl10": ["--train", 2, "--test", 1, "--unlabeled", 1],
        "cifar100": ["--train", 2, "--test", 2, "--classes", 2],
    }
    command = ["synth", which, "--out", out, *sizes[which]]
    assert invoke(command)[0] == 0
    marker = out / "synth.json"
    record = json.loads(marker.read_bytes())
    marker.write_text(json.dumps({name: record[name] for name in ("format", "config")}), encoding="utf-8")
    refused(marker, [[*command, "--seed", 1]])


@pytest.mark.slow
def test_a_build_under_way(tmp_path: Path) -> None:
    for k in range(3):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), k, np.uint8)).save(tmp_path / "pictures" / f"{k}.png")
    out = tmp_path / "set"
    command = ["shard", "folder", "--source", tmp_path / "pictures", "--out", out, "--workers", 1]
    assert invoke(command)[0] == 0
    info = json.loads((out / "_meta" / "dataset.json").read_bytes())
    marker = out / "_meta" / "build.json"
    marker.write_text(json.dumps({"format": "seqjepa-shards build", "identity": info["fingerprint"]}), encoding="utf-8")
    (out / "_meta" / "dataset.json").unlink()
    refused(marker, [command, ["info", out], ["verify", out]])


@pytest.mark.slow
def test_a_demo(tmp_path: Path) -> None:
    marker = tmp_path / "demo.json"
    marker.write_text(json.dumps({"kind": "seqjepa-demo", "settings": {"seed": 7}}), encoding="utf-8")
    refused(marker, [["demo", "--out", tmp_path]])
    shutil.rmtree(tmp_path)
