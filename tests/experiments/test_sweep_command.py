"""`seqjepa sweep` from end to end, on shards of noise."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from noise_shards import noise_shards
from sweep_lab import scale_file, small_scale_file
from typer.testing import CliRunner

import cli
from seqjepa.experiments import run_sweep
from seqjepa.experiments.run_sweep import Resources, command_of
from seqjepa.experiments.sweep import Sweep

ROOT = Path(__file__).resolve().parents[2]
runner = CliRunner()
# Fails at once, as the shards are of 16 pixels.
BAD_SIE = "[method.sie.settings.data]\nimage_size = 99\n"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_shards(tmp_path_factory.mktemp("sweep") / "shards")


def words(shards: Path, scale: Path, out: Path, *more: str, table: str = "table-10") -> list[str]:
    given = ["sweep", table, "--shards", f"3diebench={shards}", "--scale", str(scale), "--out", str(out)]
    return [*given, "--workers", "0", *more]


def sweep(*given: object, **named: str) -> tuple[int, str]:
    result = runner.invoke(cli.seqjepa_app, words(*given, **named))  # type: ignore[arg-type]
    return result.exit_code, result.output


def states(*given: object, **named: str) -> dict[str, str]:
    code, output = sweep(*given, "--json", **named)
    assert code == 0, output
    return {run["recipe"]: run["state"] for run in json.loads(output)["runs"]}


def test_a_sweep_is_listed_run_and_not_run_again(shards: Path, tmp_path: Path) -> None:
    scale, out = small_scale_file(tmp_path), tmp_path / "runs"
    assert states(shards, scale, out, table="table-6") == {"3die-rot-M3": "missing"}
    assert not out.exists()
    code, output = sweep(shards, scale, out, "--run", "--device", "cpu", table="table-6")
    assert code == 0, output
    assert "all 1 runs are trained and evaluated" in output
    assert states(shards, scale, out, table="table-6") == {"3die-rot-M3": "evaluated"}
    code, output = sweep(shards, scale, out, "--run", "--device", "cpu", table="table-6")
    assert code == 0
    assert "train 2 epochs" not in output
    assert "evaluate" not in output.replace("evaluated", "")
    assert states(shards, scale, out)["3die-rot-M3"] == "evaluated"  # another table's, but the same run
    code, text = sweep(shards, scale, out)
    assert "1 evaluated" in text
    assert "3 missing" in text


def test_what_fails_is_told_at_the_end_and_the_rest_is_done(shards: Path, tmp_path: Path) -> None:
    scale, out = small_scale_file(tmp_path, BAD_SIE), tmp_path / "runs"
    code, output = sweep(shards, scale, out, "--run", "--device", "cpu")
    assert code == 1
    assert "error: 1 of 4 runs failed: sie-3die-rot-test-seed42;" in output
    assert "the recipe wants 99×99" in output
    expected = {"sie-3die-rot": "missing", "equimod-3die-rot": "evaluated"}
    assert states(shards, scale, out) == {**expected, "3die-rot-M1": "evaluated", "3die-rot-M3": "evaluated"}


@pytest.mark.slow
def test_side_by_side(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    scale, out = scale_file(tmp_path, BAD_SIE), tmp_path / "runs"
    code, output = sweep(shards, scale, out, "--run", "--devices", "cpu,cpu", table="table-10")
    assert code == 1
    assert "sie-3die-rot-test-seed42: failed, exit code 1" in output
    assert sorted(states(shards, scale, out).values()) == ["evaluated", "evaluated", "evaluated", "missing"]
    assert "the recipe wants 99×99" in (out / "logs" / "sie-3die-rot-test-seed42.log").read_text()


def test_gpus_are_counted_among_those_that_the_process_is_shown(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class Ended:
        returncode = 1

        def __init__(self, *_: object, env: dict[str, str], **__: object) -> None:
            seen.append(env["CUDA_VISIBLE_DEVICES"])

        def poll(self) -> int:
            return self.returncode

    monkeypatch.setattr(run_sweep.subprocess, "Popen", Ended)
    given = shards, small_scale_file(tmp_path), tmp_path / "runs", "--run", "--devices", "0,1"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert sweep(*given, table="table-10")[0] == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-1f2e")
    assert sweep(*given, table="table-10")[0] == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    code, output = sweep(*given, table="table-10")
    assert code == 2
    assert "--devices is '0,1', but CUDA_VISIBLE_DEVICES shows 1, counted from 0" in output
    assert (set(seen[:4]), set(seen[4:])) == ({"0", "1"}, {"4", "GPU-1f2e"})


@pytest.mark.slow
def test_a_signal_reaches_every_child_and_all_is_saved(shards: Path, tmp_path: Path) -> None:
    scale, out = scale_file(tmp_path, "[kind.3diebench.settings]\noptim.epochs = 2000\n"), tmp_path / "runs"
    given = words(shards, scale, out, "--run", "--devices", "cpu,cpu")
    parent = subprocess.Popen([sys.executable, "-m", "cli", *given], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list(out.glob("*/metrics.jsonl"))) < 2 and time.monotonic() < deadline:
        assert parent.poll() is None
        time.sleep(0.05)
    os.kill(parent.pid, signal.SIGTERM)
    errors = parent.communicate(timeout=60)[1]
    assert parent.returncode == 128 + signal.SIGTERM, errors
    assert "the same command goes on from there" in errors
    assert len(list(out.glob("*/state.pt"))) == 2
    said = states(shards, scale, out)
    assert sum(state.startswith("training ") for state in said.values()) == 2, said


@pytest.mark.slow
def test_a_script_for_slurm(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    scale, out, file = scale_file(tmp_path), tmp_path / "runs", tmp_path / "array.sbatch"
    assert sweep(shards, scale, out, "--run", "--device", "cpu", "--task", "2")[0] == 0
    code, output = sweep(shards, scale, out, "--slurm", str(file))
    assert code == 0, output
    assert "#SBATCH --array=0,1,3\n" in file.read_text()
    assert subprocess.run(["bash", "-n", file]).returncode == 0
    # As Slurm would: an array task of its own.
    lines = file.read_text().replace("--run", "--run --device cpu")
    done = subprocess.run(
        ["bash", "-c", lines], env={**os.environ, "SLURM_ARRAY_TASK_ID": "3"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert states(shards, scale, out)["3die-rot-M3"] == "evaluated"
    (tmp_path / "mine.sh").write_text("echo\n")
    code, output = sweep(shards, scale, out, "--slurm", str(tmp_path / "mine.sh"))
    assert code == 2
    assert "choose another name" in output


@pytest.mark.slow
@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_an_array_task_saves_and_is_queued_again_near_its_time_limit_but_not_when_it_is_cancelled(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, requeued: bool
) -> None:
    monkeypatch.chdir(ROOT)
    scale = scale_file(tmp_path, "[kind.3diebench.settings]\noptim.epochs = 2000\n")
    out, file, scontrol = tmp_path / "runs", tmp_path / "array.sbatch", tmp_path / "bin" / "scontrol"
    assert sweep(shards, scale, out, "--slurm", str(file))[0] == 0
    file.write_text(file.read_text().replace("--run", "--run --device cpu"))
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    slurm = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "PATH": f"{scontrol.parent}:{os.environ['PATH']}"}
    task = subprocess.Popen(
        ["bash", file], env={**os.environ, **slurm}, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list(out.glob("*/metrics.jsonl")) and time.monotonic() < deadline:
        assert task.poll() is None
        time.sleep(0.05)
    if number == signal.SIGTERM:
        os.killpg(task.pid, number)  # to every process, as `scancel` does
    else:
        task.send_signal(number)  # to the script alone: --signal=B:USR1
    errors = task.communicate(timeout=60)[1]
    assert task.returncode == 128 + signal.SIGTERM, errors
    assert "stopped and saved at step" in errors
    assert states(shards, scale, out)["3die-rot-M1"].startswith("training ")
    assert (tmp_path / "asked").exists() == requeued
    assert not requeued or (tmp_path / "asked").read_text() == "requeue 7_2\n"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--devices", "0,x", "--run"], "give numbers of GPUs"),
        (["--devices", "0,0", "--run"], "name every GPU once"),
        (["--devices", "0", "--task", "1", "--run"], "give one of them"),
        (["--task", "9"], "0 to 3"),
    ],
)
def test_what_makes_no_sense_is_said_and_writes_nothing(
    shards: Path, tmp_path: Path, more: list[str], said: str
) -> None:
    code, output = sweep(shards, small_scale_file(tmp_path), tmp_path / "runs", *more)
    assert code == 2
    assert said in output
    assert not (tmp_path / "runs").exists()


def test_a_run_that_cannot_be_read_stops_nothing_but_itself(shards: Path, tmp_path: Path) -> None:
    scale, out = small_scale_file(tmp_path), tmp_path / "runs"
    assert sweep(shards, scale, out, "--run", "--device", "cpu", "--task", "2")[0] == 0
    (out / "3die-rot-M1-test-seed42" / "config.toml").write_text("nonsense = 1\n")
    assert states(shards, scale, out)["3die-rot-M1"].startswith("unreadable: ")
    code, output = sweep(shards, scale, out, "--run", "--device", "cpu", table="table-10")
    assert code == 1
    assert "error: 1 of 4 runs failed: 3die-rot-M1-test-seed42;" in output
    done = states(shards, scale, out)
    assert [state for recipe, state in done.items() if recipe != "3die-rot-M1"] == ["evaluated"] * 3


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--run", "--device", "foo"], "there is no device 'foo'"),
        (["--slurm", "."], "is a folder; give the name of a file"),
        (
            ["--slurm", "a\nrm -rf $HOME\n.sbatch"],
            r"--slurm 'a\nrm -rf $HOME\n.sbatch' holds '\n' '$', which an sbatch script",
        ),
        (["--slurm", "a;reboot"], "--slurm 'a;reboot' holds ';', which an sbatch script cannot; choose another name"),
        (["--slurm", "$(id)"], "holds '$' '(' ')', which"),
        (["--slurm", "nowhere/a.sbatch"], "nowhere is not a folder; make it"),
    ],
)
def test_what_cannot_work_at_all_is_one_line(shards: Path, tmp_path: Path, more: list[str], said: str) -> None:
    code, output = sweep(shards, small_scale_file(tmp_path), tmp_path / "runs", *more)
    assert code == 2
    assert said in output
    assert not (tmp_path / "runs").exists()


def test_a_task_runs_our_cli_whatever_lies_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "cli.py").write_text("print('somebody else')\n")
    words = command_of(Sweep("table-10"), tmp_path / "runs", Resources())
    started = words[: words.index("sweep")]
    done = subprocess.run([*started, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert "Train and evaluate seq-JEPA" in done.stdout


def test_the_list_of_all() -> None:
    assert "table-12" in runner.invoke(cli.seqjepa_app, ["sweep", "ls"]).output
    listed = json.loads(runner.invoke(cli.seqjepa_app, ["sweep", "ls", "--json"]).output)
    assert listed[0]["table"] == "table-1"
    missing = runner.invoke(cli.seqjepa_app, ["sweep", "table-3", "--run"])
    assert missing.exit_code == 2
    assert "--shards stl10=DIR" in missing.output
