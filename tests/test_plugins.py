"""Packages of other people's: examples/plugin, built and installed by pip, and one that cannot be imported."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from noise_shards import noise_shards
from PIL import Image
from python_path import python_path
from small_backbone import SMALL
from typer.testing import CliRunner

import cli
from seqjepa import plugins
from seqjepa.experiments.compare import Comparison, compared_recipe, parse_methods
from seqjepa.methods import METHODS, find_method, method_names
from seqjepa.training.checkpoint import load_run
from shards.errors import ConfigError
from shards.reader import ShardSet

ROOT = Path(__file__).resolve().parents[1]
TINY = (SMALL, "model.width=0.125", "data.context=1", "optim.epochs=1", "optim.batch_size=8", "data.image_size=0")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed examples/plugin."""
    folder = tmp_path_factory.mktemp("plugins")
    shutil.copytree(ROOT / "examples" / "plugin", folder / "source")  # setuptools writes beside pyproject.toml
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", folder / "site", folder / "source"], check=True, capture_output=True)
    return folder / "site"


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from on_path(site, monkeypatch)


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that has entry points in every group under the name `broken`, and `simclr`, and no module."""
    info = tmp_path / "site" / "broken-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 0.1\nSummary: No module\n")
    groups = ("methods", "backbones", "sources", "loggers")
    points = [f"[seqjepa.{group}]\nbroken = broken_module:Thing\nsimclr = broken_module:Thing\n" for group in groups]
    (info / "entry_points.txt").write_text("\n".join(points))
    yield from on_path(info.parent, monkeypatch)


def on_path(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", python_path(ROOT, site))  # of processes that are started
    plugins._found.cache_clear()
    yield site
    plugins._found.cache_clear()
    for name in [name for name in sys.modules if name.startswith("seqjepa_weather")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_shards(tmp_path_factory.mktemp("plugin-shards") / "noise")


def call(app: object, *arguments: object) -> tuple[int, str]:
    """Exit code, and standard output and error together."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])  # pyright: ignore
    return done.exit_code, done.output


def train(shards: Path, out: Path, *settings: str) -> tuple[int, str]:
    given = [word for setting in (*TINY, *settings) for word in ("--set", setting)]
    where = ("--shards", shards, "--out", out, "--workers", 0)
    return call(cli.seqjepa_app, "train", "--recipe", "views-tiny", *where, *given)


def pictures(folder: Path, count: int = 16) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        name = f"{('sun', 'rain')[number % 2]}_cam{1 + number // 2 % 2}_{number:04d}.png"
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / name)
    return folder


def test_a_method_and_an_encoder_of_another_package_are_trained_and_reported(
    installed: Path, shards: Path, tmp_path: Path
) -> None:
    assert "barlow_twins" in method_names()
    own = ("method=barlow_twins", "model.backbone=patches", "model.projector=[32]")
    code, output = train(shards, tmp_path / "run", *own)
    assert code == 0, output
    _, method, *_ = load_run(tmp_path / "run")
    assert [p.shape for p in method.encoder.parameters()] == [(8, 3, 8, 8), (8,)]  # an eighth of 64 channels
    code, output = call(cli.seqjepa_app, "report", tmp_path / "run", "--out", tmp_path / "report.html", "--json")
    assert code == 0, output
    assert json.loads(output[output.index("{") :])["runs"][0]["method"] == "barlow_twins"
    assert "Barlow Twins" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (("method=barlow_twins", "options.off=1"), "unknown key options.off"),
        (("method=barlow_twins", "options.off_diagonal=0"), "options.off_diagonal = 0.0 should be greater than 0"),
        (("method=simclr", "options.temperature=1"), "unknown key options.temperature, allowed here: none"),
    ],
)
def test_options_that_a_method_has_not_are_one_line(
    installed: Path, shards: Path, tmp_path: Path, settings: tuple[str, ...], found: str
) -> None:
    code, output = train(shards, tmp_path / "run", *(setting.replace("=0", "=0.0") for setting in settings))
    assert (code, output.count("\n")) == (2, 1)
    assert found in output
    assert not (tmp_path / "run").exists()


def test_options_are_saved_with_the_run_and_change_the_loss(installed: Path, shards: Path, tmp_path: Path) -> None:
    runs = {"light": "0.005", "heavy": "0.5"}
    losses = {}
    for name, weight in runs.items():
        code, output = train(shards, tmp_path / name, "method=barlow_twins", f"options.off_diagonal={weight}")
        assert code == 0, output
        _, method, *_ = load_run(tmp_path / name)
        assert method.options.off_diagonal == float(weight)  # type: ignore[attr-defined]
        losses[name] = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    assert losses["heavy"] > 2 * losses["light"]


def test_a_logger_of_another_package_writes_what_happens(installed: Path, shards: Path, tmp_path: Path) -> None:
    code, output = train(shards, tmp_path / "run", "optim.epochs=2", "train.loggers=['logbook']")
    assert code == 0, output
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    lines = (tmp_path / "run" / "logbook.txt").read_text().splitlines()
    assert lines[0] == "seq_jepa goes on from step 0"
    assert [line for line in lines if "loss" in line] == [
        f"epoch {n}: loss {loss:.4f}" for n, loss in enumerate(losses, 1)
    ]
    assert lines[-1] == "finished"


def test_its_loss_is_barlow_twins(installed: Path) -> None:
    """Against numpy's correlations."""
    import torch
    from seqjepa_weather.networks import barlow_loss  # pyright: ignore[reportMissingImports]

    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 50, 6)).astype(np.float32)
    correlation = np.corrcoef(a.T, b.T)[:6, 6:]
    off = correlation[~np.eye(6, dtype=bool)]
    wanted = ((np.diag(correlation) - 1) ** 2).sum() + 5e-3 * (off**2).sum()
    assert barlow_loss(torch.from_numpy(a), torch.from_numpy(b), 5e-3).item() == pytest.approx(wanted, rel=1e-5)


def test_a_name_that_nobody_has_is_answered_with_all_there_are(installed: Path, shards: Path, tmp_path: Path) -> None:
    code, output = train(shards, tmp_path / "run", "method=mine")
    assert (code, output.count("\n")) == (2, 1)
    assert "allowed are barlow_twins, byol" in output
    assert not (tmp_path / "run").exists()


def test_comparisons_know_it(installed: Path, shards: Path) -> None:
    assert parse_methods("all")[-1] == "barlow_twins"
    assert set(parse_methods("all")) == {*METHODS, "barlow_twins"}
    assert compared_recipe("barlow_twins") == ("3die-rot-M3", "method=barlow_twins", "data.context=1")
    jobs = Comparison(shards, ("barlow_twins", "simclr")).jobs()
    assert [list(jobs), jobs["barlow_twins"][0].settings[:2]] == [
        ["barlow_twins", "simclr"],
        ("method=barlow_twins", "data.context=1"),
    ]


def test_a_source_is_listed_unread_and_read_when_it_is_called(installed: Path, tmp_path: Path) -> None:
    code, output = call(cli.seqjepa_data_app, "shard", "--help")
    assert code == 0
    assert "weather        Pictures of a weather station (of seqjepa-weather)" in output
    assert "seqjepa_weather" not in sys.modules
    assert "Pixels of a side." in call(cli.seqjepa_data_app, "shard", "weather", "--help")[1]
    source, out = pictures(tmp_path / "weather"), tmp_path / "shards"
    code, output = call(cli.seqjepa_data_app, "shard", "weather", "--source", source, "--out", out, "--workers", 0)
    assert code == 0, output
    info = ShardSet.open(out).info
    assert info.classes == ("rain", "sun")
    assert {name: split.samples for name, split in info.splits.items()} == {"train": 8, "val": 8}
    code, output = call(cli.seqjepa_data_app, "shard", "weather", "--source", tmp_path / "none", "--out", out)
    assert (code, output.count("\n")) == (2, 1), output


def test_a_broken_package_is_one_line_where_it_is_asked_for(broken: Path, shards: Path, tmp_path: Path) -> None:
    said = "(broken's broken_module:Thing) cannot be loaded: ModuleNotFoundError: No module named 'broken_module'"
    code, output = train(shards, tmp_path / "run", "method=broken")
    assert (code, output) == (2, f"error: seqjepa.methods: broken {said}\n")
    code, output = train(shards, tmp_path / "run", "model.backbone=broken")
    assert (code, output) == (2, f"error: seqjepa.backbones: broken {said}\n")
    code, output = call(cli.seqjepa_data_app, "shard", "broken", "--out", tmp_path / "out")
    assert (code, output) == (2, f"error: seqjepa.sources: broken {said}\n")
    assert "broken         No module (of broken)" in call(cli.seqjepa_data_app, "shard", "--help")[1]


def test_what_does_not_need_a_broken_package_works(
    broken: Path, shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`simclr` is ours, whatever the package says; a run of its method is reported by what all methods share."""
    assert find_method("simclr") is METHODS["simclr"]
    code, output = train(shards, tmp_path / "run", "method=simclr", "model.projector=[32]", "train.loggers=['broken']")
    assert code == 0, output
    assert sum("broken" in record.message and "cannot be loaded" in record.message for record in caplog.records) == 1
    caplog.clear()
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace('"simclr"', '"broken"'))
    code, output = call(cli.seqjepa_app, "report", tmp_path / "run", "--out", tmp_path / "report.html")
    assert code == 0, output
    assert sum("broken_module" in record.message for record in caplog.records) == 1
    left_out = Comparison(shards, ("broken", "simclr")).left_out
    assert list(left_out) == ["broken"]
    assert left_out["broken"].startswith("cannot be used: seqjepa.methods: broken (broken's broken_module:Thing)")
    assert list(Comparison(shards, ("broken", "simclr")).jobs()) == ["simclr"]


def test_what_is_no_method_and_no_command_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    def found(group: str) -> dict[str, EntryPoint]:
        return {"odd": EntryPoint("odd", "shards.errors:__name__", group)}

    monkeypatch.setattr(plugins, "_found", found)
    with pytest.raises(ConfigError, match=r"^seqjepa.methods: odd is 'shards.errors'; a subclass of"):
        find_method("odd")
    code, output = call(cli.seqjepa_data_app, "shard", "odd")
    assert (code, output.count("\n")) == (2, 1)
    assert "a function with typer parameters is needed" in output


@pytest.mark.slow
def test_the_commands_of_the_page(site: Path, tmp_path: Path) -> None:
    """From pictures to a report, each command a process of its own that finds the package by PYTHONPATH."""
    environment = {**os.environ, "PYTHONPATH": python_path(ROOT, site)}
    pictures(tmp_path / "weather", 64)
    page = (ROOT / "docs" / "other-tools.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```console\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for line in block.replace("\\\n", "").splitlines()]
    assert lines[0] == ["pip", "install", "./examples/plugin"]  # what the fixture did
    for command, *words in lines[1:]:
        start = f"from seqjepa.__main__ import {command.replace('-', '_')} as run; run()"
        called = [sys.executable, "-c", start, *words]
        done = subprocess.run(called, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
    assert [words[1] for words in lines[1:]] == ["shard", "train", "evaluate", "report"]
    assert "Barlow Twins" in (tmp_path / "report.html").read_text()
    assert "finished" in (tmp_path / "runs" / "weather" / "logbook.txt").read_text()
