"""How long a list of jobs still takes, against rates that are written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from job_lab import small_job
from noise_shards import noise_shards

from seqjepa.experiments.job import Job, run_job
from seqjepa.experiments.time_left import Pace, in_words, time_left

VIEWS = 2 * 16 * 2
"""Of small_job: two epochs of 16 samples, two views each."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_shards(tmp_path_factory.mktemp("hours") / "shards")


def named(shards: Path, name: str, *settings: str, **changes: object) -> Job:
    job = small_job(shards, name=name, **changes)
    return small_job(shards, name=name, settings=(*job.settings, *settings), **changes)


def log_epochs(out: Path, name: str, epochs: int, views_per_s: float, seconds: float) -> None:
    (out / name).mkdir(parents=True)
    lines = [{"epoch": k + 1, "views_per_s": views_per_s, "seconds": seconds} for k in range(epochs)]
    (out / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_before_anything_is_measured_the_scale_says_how_fast(shards: Path, tmp_path: Path) -> None:
    jobs = [named(shards, name, untrained=name == "a") for name in ("a", "b")]
    pace = Pace(views_per_s=VIEWS / 3600, evaluation_s=1800)  # an hour a run, half an hour an evaluation
    assert time_left(jobs, tmp_path, 1, assumed=pace) == "about 3.5 hours to go (0 views/s assumed)"
    assert time_left(jobs, tmp_path, 2, assumed=pace).startswith("about 1.8 hours to go")
    assert time_left(jobs, tmp_path, 2, assumed=pace).endswith(", 2 runs at a time)")
    assert time_left(jobs, tmp_path, 1) == ""


def test_runs_under_way_say_how_fast_their_kind_is(shards: Path, tmp_path: Path) -> None:
    """A run of another width is as slow as all together, until one of it has begun."""
    jobs = [named(shards, "a"), named(shards, "b"), named(shards, "wide", "model.width=0.25")]
    log_epochs(tmp_path, "a", 1, views_per_s=VIEWS / 7200, seconds=3600)  # two hours a run; half of one is done
    slow = Pace(1e-9, 0)
    assert time_left(jobs, tmp_path, 1, assumed=slow).startswith("about 5.0 hours to go (0 views/s measured")
    log_epochs(tmp_path, "wide", 1, views_per_s=VIEWS / 36000, seconds=18000)  # ten hours; five of them left
    assert time_left(jobs, tmp_path, 1, assumed=slow).startswith("about 8.0 hours to go")


def test_what_is_done_takes_no_time_but_says_how_long_an_evaluation_takes(shards: Path, tmp_path: Path) -> None:
    done = named(shards, "done")
    run_job(done, tmp_path, device="cpu", workers=0, progress=False)
    assert time_left([done], tmp_path, 1, assumed=Pace(1.0, 1.0)) == ""
    results = tmp_path / "done" / "results.json"
    found = json.loads(results.read_text())
    found["trained"]["seconds"] = 7200
    results.write_text(json.dumps(found))  # and is no longer the answer that asked.json knows of
    assert time_left([done], tmp_path, 1).startswith("about 2.0 hours to go")


def test_a_run_that_cannot_be_read_counts_for_nothing(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "metrics.jsonl").write_text("nonsense\n")
    assert time_left([named(shards, "broken")], tmp_path, 1, assumed=Pace(1.0, 1.0)) == ""


def test_times_in_words() -> None:
    assert [in_words(s) for s in (5, 1800, 3600, 5.25 * 3600, 31.4 * 3600)] == [
        *("1 minute", "30 minutes", "1.0 hours", "5.2 hours", "31 hours"),
    ]
