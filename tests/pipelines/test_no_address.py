"""Commands that write files to a folder say so when they are given an address, and make no folder named "s3:"."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer import Typer
from typer.testing import CliRunner

import cli

OF_DATA = [
    "synth stl10 --out s3://bucket/set",
    "synth 3die --out gs://bucket/set --objects 40 --views 2 --size 16",
    "get cifar100 --yes --to s3://bucket/set",
    "pull hf://datasets/user/set --out az://container/set",
]
OF_RUNS = [  # of these, runs in stores are for `train` alone
    "demo --out s3://bucket/demo",
    "sweep table-1 --shards 3diebench=shards --run --out s3://bucket/runs",
    "compare --shards shards --out s3://bucket/runs",
    "embed run --shards shards --out s3://bucket/z.npz",
    "export run --to onnx --out s3://bucket/encoder.onnx",
]


@pytest.mark.parametrize(
    ("app", "command"),
    [*((cli.seqjepa_data_app, command) for command in OF_DATA), *((cli.seqjepa_app, command) for command in OF_RUNS)],
)
def test_an_address_is_refused(app: Typer, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 2
    assert "this command writes to a folder on this machine; give a path" in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["s4://bucket/set", "s3://", "htps://host/set"])
def test_an_address_that_is_mistyped_is_no_folder_to_make(out: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    result = CliRunner().invoke(cli.seqjepa_data_app, ["shard", "folder", "--source", ".", "--out", out])
    assert result.exit_code == 2
    assert "is no address of a folder; known are s3://, gs://" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


@pytest.mark.parametrize("kind", ["folder", "imagenet", "stl10", "cifar100"])
def test_pictures_at_an_address_are_to_be_loaded_first(kind: str, tmp_path: Path, monkeypatch) -> None:
    """A Path had lost a slash of it: s3:/bucket/set is not there."""
    monkeypatch.chdir(tmp_path)
    for address in ("s3://bucket/set", "https://host/set.zip"):
        result = CliRunner().invoke(cli.seqjepa_data_app, ["shard", kind, "--source", address, "--out", "out"])
        assert result.exit_code == 2
        assert f"{address}: {kind} is read from this machine's disks; load it first" in result.output
    assert not list(tmp_path.iterdir())
