"""`seqjepa-data build prepare | work | finish | run`: the set that one command gives, and a line for what is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from small_3die import same_folders
from small_images import make_folder
from typer.testing import CliRunner, Result

from cli import seqjepa_data_app
from pipelines.build.stored_command import NAME, parse_command, stored_command
from shards.layout import Layout

NAMES = [f"{label}/{number}.png" for label in "ab" for number in range(5)]
SHARD = ["shard", "folder", "--source", "photos", "--samples-per-shard", "2", "--workers", "0"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_folder(tmp_path / "photos", NAMES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(seqjepa_data_app, words)
    assert result.exit_code == code, result.output
    return result


def test_three_commands_give_what_one_gives(here: Path) -> None:
    run(*SHARD, "--out", "whole")
    prepared = run("build", "prepare", *SHARD, "--out", "set")
    assert "set: 5 shards to write; go on with `seqjepa-data build work set`" in prepared.output
    assert not list((here / "set").glob("*.tar"))
    os.chdir("/")  # the command means the folder in which it was prepared
    missing = run("build", "finish", str(here / "set"), code=1)
    assert "5 of 5 shards of" in missing.output
    told = run("build", "work", str(here / "set"), "--task-index", "1", "--num-tasks", "2", "--json")
    assert json.loads(told.stdout)["samples"] == 10
    assert same_folders(here / "set", here / "whole")
    for step in ("work", "finish"):
        assert "10 samples" in run("build", step, str(here / "set")).output


def test_run_is_all_three(here: Path) -> None:
    run(*SHARD, "--out", "whole")
    run("build", "run", *SHARD, "--out=set")
    assert same_folders(here / "set", here / "whole")
    run("build", "prepare", *SHARD, "-o", "other")
    (here / "other").rename(here / "moved")  # the folder that is given counts
    run("build", "run", "moved")
    assert same_folders(here / "moved", here / "whole")


def test_overwrite_is_of_prepare_alone(here: Path) -> None:
    run(*SHARD, "--out", "set")
    run("build", "prepare", *SHARD, "--out", "set", "--overwrite", "--size", "16")
    assert "--overwrite" not in (here / "set" / "_meta" / "parts" / NAME).read_text(encoding="utf-8")
    run("build", "work", "set")
    assert "16×16" in run("info", "set").output


def test_other_sources_too(here: Path) -> None:
    synth = ["synth", "3die", "--shards", "--families", "2", "--objects", "8", "--views", "2", "--size", "16"]
    run(*synth, "--out", "whole")
    run("build", "prepare", *synth, "--out", "set")
    run("build", "work", "set")
    assert same_folders(here / "set", here / "whole")


def test_stages_of_sets_too(here: Path) -> None:
    run(
        "synth",
        "3die",
        "--shards",
        "--families",
        "2",
        "--objects",
        "8",
        "--views",
        "4",
        "--size",
        "16",
        "--out",
        "views",
    )
    bake = ["bake", "views", "--sequences", "2", "--views", "3", "--seed", "1"]
    run(*bake, "--out", "whole")
    run("build", "prepare", *bake, "--out", "set")
    run("build", "work", "set")
    assert same_folders(here / "set", here / "whole")


def test_help_of_the_command_itself(here: Path) -> None:
    assert "Any folder of images" in run("build", "prepare", "shard", "folder", "--help").output


def test_a_set_that_is_there_already_is_shown(here: Path) -> None:
    run(*SHARD, "--out", "set")
    assert "10 samples" in run("build", "prepare", *SHARD, "--out", "set").output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prepare", "push", "--out", "x"], "builds no set by many; allowed are shard"),
        (["prepare", "shard", "folder", "--source", "photos", "--out", "hf://datasets/u/x"], "can be read only; what"),
        (["prepare", "shard", "folder", "--source", "photos"], "--out DIR is missing"),
        (["prepare", "shard", "folder", "--source", "nowhere", "--out", "x"], "nowhere is not there"),
        (["prepare", "shard", "folder", "--sauce", "photos", "--out", "x"], "No such option: --sauce"),
        (["work", "photos"], "no build was prepared in photos: run `seqjepa-data build prepare"),
        (["finish", "nowhere"], "no build was prepared in nowhere"),
        (["work", "photos", "--task-index", "1"], "belong together"),
        (["work", "photos", "--task-index", "4", "--num-tasks", "4"], "0 to 3 is allowed"),
        (["run", "--engine", "cloud", "photos"], "--engine is 'cloud'; allowed are"),
        (["run", "--engine", "slurm", "photos"], "needs --num-tasks N and --script FILE"),
        (["run", "--script", "x", "photos"], "are for --engine slurm"),
        (["run", "--address", "auto", *SHARD, "--out", "x"], "--address is for --engine ray"),
    ],
)
def test_bad_input_is_one_line(here: Path, words: list[str], said: str) -> None:
    output = run("build", *words, code=2).output
    assert said in output
    assert "Traceback" not in output
    assert sorted(path.name for path in here.iterdir()) == ["photos"]


def test_a_stored_command_is_checked(here: Path) -> None:
    run("build", "prepare", *SHARD, "--out", "set")
    for words in (["push", "set"], [], "shard", [1], ["--help"]):
        (here / "set" / "_meta" / "parts" / NAME).write_text(json.dumps({"words": words, "folder": "/"}))
        assert "set/_meta/parts/command.json" in run("build", "work", "set", code=2).output


def test_what_is_stored(here: Path) -> None:
    command, out, own = parse_command([*SHARD, "--out", "first", "--overwrite", "--out=last", "--json"])
    assert (out, own) == (Path("last"), ["--overwrite", "--json"])
    assert command.at(Path("/x"), ["--limit", "3"]) == [*SHARD, "--limit", "3", "--out", "/x"]
    run("build", "prepare", *SHARD, "--out", "set")
    stored = stored_command(here / "set")
    assert stored is not None
    assert (list(stored.words), stored.folder) == (SHARD, str(here))


def test_the_script_of_an_array(here: Path) -> None:
    run("build", "prepare", *SHARD, "--out", "set")
    told = run("build", "run", "--engine", "slurm", "--num-tasks", "3", "--script", "b.sbatch", "set")
    assert "b.sbatch: an array of 3 tasks" in told.output
    script = (here / "b.sbatch").read_text(encoding="utf-8")
    assert "#SBATCH --array=0-2\n" in script
    assert f'build work {here}/set --task-index "$SLURM_ARRAY_TASK_ID" --num-tasks 3 & pid=$!' in script
    assert (here / "set.logs").is_dir()
    run("build", "run", "--engine", "slurm", "--num-tasks", "4", "--script", "b.sbatch", "set")  # ours is replaced
    (here / "mine").write_text("#!/bin/sh\n")
    refused = run("build", "run", "--engine", "slurm", "--num-tasks", "3", "--script", "mine", "set", code=2)
    assert "mine is there and was not made by seqjepa-data build" in refused.output
    run("build", "work", "set")
    done = run("build", "run", "--engine", "slurm", "--num-tasks", "3", "--script", "b.sbatch", "set", code=2)
    assert "set is finished" in done.output
    assert Layout(here / "set").info.exists()
