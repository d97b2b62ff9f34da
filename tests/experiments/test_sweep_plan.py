from __future__ import annotations

from pathlib import Path

import pytest

from seqjepa.experiments.sweep import SweepRequest, parse_shards, pick, require_shards, tasks_of
from shards.errors import ConfigError, UsageError


def test_seeds_and_names() -> None:
    names = [task.job.name for task in tasks_of(SweepRequest("table-4"))]
    assert len(names) == len(set(names)) == 21
    assert names[:3] == ["3die-noact-M3-seed42", "3die-noact-M3-seed43", "3die-noact-M3-seed44"]
    once = tasks_of(SweepRequest("table-4", seeds=1, scale="small"))
    assert next(task.job.name for task in once) == "3die-noact-M3-small-seed42"
    assert len(once) == 7
    assert [task.job.config().seed for task in tasks_of(SweepRequest("table-6", seeds=2))] == [42, 43]


def test_tables_share_runs_and_their_questions(tmp_path: Path) -> None:
    shards = {"3diebench": tmp_path, "3diebench-ood": tmp_path}
    jobs = [
        {t.recipe: t.job for t in tasks_of(SweepRequest(name, shards))} for name in ("table-1", "table-9", "figure-8")
    ]
    assert jobs[0]["3die-rot-M3"] == jobs[1]["3die-rot-M3"] == jobs[2]["3die-rot-M3"]
    assert jobs[0]["3die-rot-M3"].evaluation == {"suite": "3diebench", "ood": tmp_path}


def test_the_suite_is_that_of_the_shards() -> None:
    suites = {t.recipe: t.job.evaluation["suite"] for t in tasks_of(SweepRequest("figure-7"))}
    assert (suites["c100-all-M2"], suites["stl-pls-M4"], suites["3die-rot-M1"]) == (
        *("augmentations", "stl10", "3diebench"),
    )
    assert all(task.job.evaluation["path"] for task in tasks_of(SweepRequest("figure-6")))


def test_transfer_is_two_evaluations_of_one_run(tmp_path: Path) -> None:
    (task,) = tasks_of(SweepRequest("figure-15", {"stl10": tmp_path, "imagenet": tmp_path / "i"}))
    assert [(t.shards, t.evaluation["patch"]) for t in task.job.transfers] == [
        (tmp_path / "i", 32),
        (tmp_path / "i", 84),
    ]


def test_a_scale_may_put_shards_of_one_kind_in_the_place_of_another(tmp_path: Path) -> None:
    assert {t.job.shards for t in tasks_of(SweepRequest("table-11", {"3diebench": tmp_path}, scale="small"))} == {
        tmp_path
    }
    other = tmp_path / "high"
    both = {"3diebench": tmp_path, "3diebench-256": other}
    assert {t.job.shards for t in tasks_of(SweepRequest("table-11", both, scale="small"))} == {other}


@pytest.mark.parametrize(
    ("table", "given", "missing"),
    [
        ("table-1", [], ["3diebench"]),
        ("table-9", ["3diebench"], ["3diebench-ood"]),
        ("figure-7", ["stl10"], ["3diebench", "cifar100", "tiny-imagenet"]),
        ("figure-15", ["stl10"], ["imagenet"]),
        ("table-11", ["3diebench"], ["3diebench-256"]),
    ],
)
def test_missing_shards_are_named_all_at_once(tmp_path: Path, table: str, given: list[str], missing: list[str]) -> None:
    request = SweepRequest(table, dict.fromkeys(given, tmp_path))
    with pytest.raises(UsageError) as error:
        require_shards(request, tasks_of(request))
    assert [word.removesuffix("=DIR") for word in str(error.value).split() if word.endswith("=DIR")] == missing
    complete = SweepRequest(table, dict.fromkeys([*given, *missing], tmp_path))
    require_shards(complete, tasks_of(complete))


@pytest.mark.parametrize(
    ("text", "said"),
    [("shards", "name what they are"), ("3die=x", "did you mean '3diebench'"), ("stl10=/nowhere", "is not a folder")],
)
def test_shards_that_are_not_given_right(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_shards([text])


def test_a_task_out_of_range_and_an_unknown_word_of_the_evaluation(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are 4 tasks, 0 to 3"):
        pick(tasks_of(SweepRequest("table-10")), 4)
    scale = tmp_path / "x.toml"
    scale.write_text("evaluation.probe_epoch = 3")
    with pytest.raises(ConfigError, match="did you mean 'probe_epochs'"):
        tasks_of(SweepRequest("table-10", scale=str(scale)))
