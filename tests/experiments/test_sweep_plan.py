from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import cli
from seqjepa.experiments.sweep import Sweep, parse_shards
from shards.errors import ConfigError, UsageError


def test_seeds_and_names() -> None:
    names = [job.name for job in Sweep("table-4").jobs().values()]
    assert len(names) == len(set(names)) == 21
    assert names[:3] == ["3die-noact-M3-seed42", "3die-noact-M3-seed43", "3die-noact-M3-seed44"]
    once = Sweep("table-4", seeds=1, scale="small").jobs().values()
    assert next(job.name for job in once) == "3die-noact-M3-small-seed42"
    assert len(once) == 7
    assert [job.config().seed for job in Sweep("table-6", seeds=2).jobs().values()] == [42, 43]


def test_tables_share_runs_and_their_questions(tmp_path: Path) -> None:
    shards = {"3diebench": tmp_path, "3diebench-ood": tmp_path}
    jobs = [
        {job.recipe: job for job in Sweep(name, shards).jobs().values()} for name in ("table-1", "table-9", "figure-8")
    ]
    assert jobs[0]["3die-rot-M3"] == jobs[1]["3die-rot-M3"] == jobs[2]["3die-rot-M3"]
    assert jobs[0]["3die-rot-M3"].evaluation == {"suite": "3diebench", "ood": tmp_path}


def test_the_suite_is_that_of_the_shards() -> None:
    suites = {job.recipe: job.evaluation["suite"] for job in Sweep("figure-7").jobs().values()}
    assert (suites["c100-all-M2"], suites["stl-pls-M4"], suites["3die-rot-M1"]) == (
        *("augmentations", "stl10", "3diebench"),
    )
    assert all(job.evaluation["path"] for job in Sweep("figure-6").jobs().values())


def test_transfer_is_two_evaluations_of_one_run(tmp_path: Path) -> None:
    (job,) = Sweep("figure-15", {"stl10": tmp_path, "imagenet": tmp_path / "i"}).jobs().values()
    assert [(t["shards"], t["patch"]) for t in job.transfers] == [
        (tmp_path / "i", 32),
        (tmp_path / "i", 84),
    ]


def test_a_scale_may_put_shards_of_one_kind_in_the_place_of_another(tmp_path: Path) -> None:
    assert {job.shards for job in Sweep("table-11", {"3diebench": tmp_path}, scale="small").jobs().values()} == {
        tmp_path
    }
    other = tmp_path / "high"
    both = {"3diebench": tmp_path, "3diebench-256": other}
    assert {job.shards for job in Sweep("table-11", both, scale="small").jobs().values()} == {other}


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
    request = Sweep(table, dict.fromkeys(given, tmp_path))
    with pytest.raises(UsageError) as error:
        request.check(request.jobs().values(), Path("runs"))
    assert [word.removesuffix("=DIR") for word in str(error.value).split() if word.endswith("=DIR")] == missing
    complete = Sweep(table, dict.fromkeys([*given, *missing], tmp_path))
    complete.check(complete.jobs().values(), Path("runs"))


@pytest.mark.parametrize(
    ("text", "said"),
    [("shards", "name what they are"), ("3die=x", "did you mean '3diebench'"), ("stl10=/nowhere", "is not a folder")],
)
def test_shards_that_are_not_given_right(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_shards([text])


def test_a_name_that_is_mistaken_is_named_before_shards_are_asked_for() -> None:
    words = ["sweep", "gird", "--shards", "shards/mine"]
    assert "there is no 'gird' (did you mean 'grid'?)" in CliRunner().invoke(cli.seqjepa_app, words).output


def test_a_task_out_of_range_and_an_unknown_word_of_the_evaluation(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are 4 tasks, 0 to 3"):
        Sweep("table-10").jobs(4)
    scale = tmp_path / "x.toml"
    scale.write_text("evaluation.probe_epoch = 3")
    with pytest.raises(ConfigError, match="did you mean 'probe_epochs'"):
        Sweep("table-10", scale=str(scale)).jobs().values()
