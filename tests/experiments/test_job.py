from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from job_lab import EVALUATION, SETTINGS, small_job
from noise_shards import noise_shards

from seqjepa.evaluate.results import read_results
from seqjepa.experiments.job import Job, run_job, state_of
from seqjepa.training.learner import Learner
from seqjepa.training.stopping import Interrupted
from shards.errors import UsageError


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_shards(tmp_path_factory.mktemp("jobs") / "shards")


def perform(job: Job, out: Path) -> list[str]:
    """What was done, in words."""
    said: list[str] = []
    run = run_job(job, out, device="cpu", workers=0, progress=False, say=said.append)
    assert run == out / job.name
    return [line.removeprefix(f"{job.name}: ") for line in said]


@pytest.fixture(scope="module")
def done(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    out = tmp_path_factory.mktemp("runs")
    return out, perform(small_job(shards), out)


def test_a_job_is_trained_and_evaluated(done: tuple[Path, list[str]]) -> None:
    out, said = done
    assert said == ["train 2 epochs", "evaluate the trained weights"]
    assert read_results(out / "small")["trained"]["top1_agg"].keys() == {"1"}


def test_nothing_is_done_twice(done: tuple[Path, list[str]], shards: Path) -> None:
    out, _ = done
    before = {path: path.stat().st_mtime_ns for path in (out / "small").rglob("*") if path.is_file()}
    assert perform(small_job(shards), out) == []
    as_lists = {"m_val": [1], "probe_epochs": 2, "agg_draws": 2, "seed": None}
    assert perform(small_job(shards, evaluation=as_lists), out) == []
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_questions_and_lost_numbers_are_answered_alone(shards: Path, tmp_path: Path) -> None:
    perform(small_job(shards), tmp_path)
    other = small_job(shards, evaluation={**EVALUATION, "probe_epochs": 1})
    assert perform(other, tmp_path) == ["evaluate the trained weights"]
    floor = small_job(shards, evaluation={**EVALUATION, "probe_epochs": 1}, untrained=True)
    assert perform(floor, tmp_path) == ["evaluate the untrained weights"]
    (tmp_path / "small" / "results.json").unlink()
    assert perform(floor, tmp_path) == ["evaluate the untrained weights", "evaluate the trained weights"]


def test_what_was_measured_beyond_the_question_stays(shards: Path, tmp_path: Path) -> None:
    perform(small_job(shards), tmp_path)
    paths = small_job(shards, evaluation={**EVALUATION, "path": True})
    assert perform(paths, tmp_path) == ["evaluate the trained weights"]
    without = small_job(shards, evaluation={**EVALUATION, "path": False})
    for job in (without, small_job(shards), paths):
        assert perform(job, tmp_path) == []
    assert "r2_path" in read_results(tmp_path / "small")["trained"]


def test_numbers_that_another_command_replaced_are_measured_again(shards: Path, tmp_path: Path) -> None:
    perform(small_job(shards), tmp_path)
    file = tmp_path / "small" / "results.json"
    changed = json.loads(file.read_text())
    changed["trained"]["top1_z"] = 0.123
    file.write_text(json.dumps(changed))
    assert perform(small_job(shards), tmp_path) == ["evaluate the trained weights"]


def test_numbers_of_sets_that_were_made_anew_since_are_measured_again(tmp_path: Path) -> None:
    """The same path, and the same training split: what was cached was of other validation pictures."""
    runs, shards = tmp_path / "runs", tmp_path / "shards"
    job = small_job(noise_shards(shards))
    perform(job, runs)
    shutil.rmtree(shards)
    assert state_of(job, runs).stage == "evaluated"  # as far as can be told
    noise_shards(shards, val=6)
    assert state_of(job, runs).stage == "trained"
    assert perform(job, runs) == ["evaluate the trained weights"]
    assert read_results(runs / "small")["trained"]["protocol"]["val_samples"] == 6
    assert perform(job, runs) == []


def test_another_run_in_the_folder_is_refused(done: tuple[Path, list[str]], shards: Path, tmp_path: Path) -> None:
    out, _ = done
    with pytest.raises(UsageError, match=r"another run: seed 42 there, 7 asked"):
        perform(small_job(shards, settings=(*SETTINGS, "seed=7")), out)
    with pytest.raises(UsageError, match=r"shards\.train"):
        perform(small_job(noise_shards(tmp_path / "others", seed=1)), out)


def test_a_run_from_before_the_key_data_set_is_still_the_same_run(shards: Path, tmp_path: Path) -> None:
    perform(small_job(shards), tmp_path)
    file = tmp_path / "small" / "config.toml"
    assert 'set = "3diebench"\n' in file.read_text()
    file.write_text(file.read_text().replace('set = "3diebench"\n', ""))
    assert state_of(small_job(shards), tmp_path).stage == "evaluated"
    assert perform(small_job(shards), tmp_path) == []


def test_a_signal_leaves_a_run_that_goes_on_and_ends_with_the_same_bits(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, update, steps = small_job(shards, settings=(*SETTINGS, "optim.epochs=4")), Learner.update, []

    def signalled(learner: Learner, *args: Any) -> Any:
        steps.append(learner)
        if len(steps) == 3:  # of two an epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return update(learner, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", signalled)
        with pytest.raises(Interrupted, match="the same command goes on from there"):
            perform(job, tmp_path / "cut")
    assert (len(steps), state_of(job, tmp_path / "cut").stage) == (3, "training")
    assert perform(job, tmp_path / "cut")[0] == "train 4 epochs"
    perform(job, tmp_path / "whole")
    cut, whole = (tmp_path / name / "small" / "model.safetensors" for name in ("cut", "whole"))
    assert cut.read_bytes() == whole.read_bytes()
