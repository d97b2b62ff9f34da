"""Training and evaluating from an address: the bits of training from the folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from noise_shards import noise_shards
from typer.testing import CliRunner

from cli import seqjepa_app, seqjepa_data_app
from seqjepa import open_sequences
from seqjepa.training.metrics_log import TIMING
from seqjepa.training.recipe_choice import choose_recipe
from shards.errors import ConfigError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shards"))
from folder_server import serving

TINY = ["data.image_size=0", "model.width=0.125", "model.layers=1", "optim.epochs=1", "optim.batch_size=4"]


def run_words(shards: str, out: Path) -> list[str]:
    settings = [word for text in TINY for word in ("--set", text)]
    return ["train", "--shards", shards, "--recipe", "3die-rot-M3", "--out", str(out), "--device", "cpu", *settings]


def epochs(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMING} for line in lines]


def test_a_run_from_an_address_is_the_run_from_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQJEPA_CACHE", str(tmp_path / "cache"))
    folder = noise_shards(tmp_path / "noise")
    with serving(folder) as server:
        for place, name in ((server.url, "there"), (str(folder), "here")):
            done = CliRunner().invoke(seqjepa_app, [*run_words(place, tmp_path / name), "--workers", "0"])
            assert done.exit_code == 0, done.output
        assert epochs(tmp_path / "there") == epochs(tmp_path / "here")
        weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("there", "here")]
        assert weights[0] == weights[1]
        # The same run goes on from the folder: where a set lies is not part of what a run is of.
        again = CliRunner().invoke(seqjepa_app, [*run_words(str(folder), tmp_path / "there"), "--workers", "0"])
        assert again.exit_code == 0, again.output
        how = ["evaluate", str(tmp_path / "there"), "--shards", server.url, "--device", "cpu"]
        done = CliRunner().invoke(seqjepa_app, [*how, "--probe-epochs", "2", "--m-val", "1"])
        assert done.exit_code == 0, done.output
        with_address = open_sequences(server.url, context=1, batch_size=4, workers=0)
        with_folder = open_sequences(folder, context=1, batch_size=4, workers=0)
        for one, other in zip(with_address, with_folder, strict=True):
            assert one.keys == other.keys
            assert (one.views == other.views).all()


def test_messages_name_the_address_and_not_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQJEPA_CACHE", str(tmp_path / "cache"))
    with serving(noise_shards(tmp_path / "noise")) as server:
        with pytest.raises(ConfigError, match=f"^{server.url} has no split 'new'"):
            open_sequences(server.url, split="new")
        with pytest.raises(ConfigError, match=f"^{server.url} holds "):
            open_sequences(server.url, recipe="stl-pls-M4")
        assert f": {server.url} holds " in str(choose_recipe(Path(server.url)))  # a Path has one of the slashes
        checked = CliRunner().invoke(seqjepa_data_app, ["verify", server.url])
        assert checked.stdout.startswith(f"{server.url}: ")
