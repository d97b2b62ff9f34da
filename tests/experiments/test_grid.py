"""`seqjepa sweep grid`: combinations of settings on a set of somebody's own, with windows and declared actions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ordered_sets import write_walks
from small_backbone import SMALL
from typer.testing import CliRunner

from cli import seqjepa_app
from seqjepa.experiments.grid import Grid
from seqjepa.experiments.run_sweep import Resources, command_of
from shards.errors import ConfigError, UsageError

TINY = (SMALL, "model.layers=1", "model.predictor_hidden=16", "optim.epochs=1", "optim.batch_size=8")
SCALE = "[evaluation]\nm_val = [1, 2]\nprobe_epochs = 1\nagg_draws = 1\n"


@pytest.fixture(scope="module")
def walks(tmp_path_factory) -> Path:
    lengths = (14, 9, 11, 23)
    return write_walks(tmp_path_factory.mktemp("grid") / "set", {"train": (*lengths, *lengths), "val": lengths}).path


def test_every_combination_is_a_run_with_every_seed(walks):
    grid = Grid(walks, ("data.context=1,3", "method=seq_jepa,simclr"), settings=("optim.lr=1e-3",), seeds=2)
    jobs = grid.jobs()
    assert [job.name for job in jobs.values()] == [
        f"{point}-seed{seed}"
        for point in ("context=1-seq_jepa", "context=1-simclr", "context=3-seq_jepa")
        for seed in (42, 43)
    ]
    assert grid.note == "left out, as they take another number of views: simclr with data.context=3"
    configs = [job.config() for job in jobs.values()]
    expected = [(3, "seq_jepa", 42), (3, "seq_jepa", 43)]
    assert [(c.data.context, c.method, c.seed) for c in configs][4:] == expected
    assert {(c.optim.lr, c.data.order, c.data.action) for c in configs} == {(1e-3, "window", "shards")}
    assert list(grid.jobs(5)) == [5]
    assert grid.title == f"data.context × method on {walks}"


def test_a_method_gets_as_many_views_as_it_takes(walks):
    jobs = Grid(walks, ("method=seq_jepa,simclr",)).jobs().values()
    assert [job.config().data.context for job in jobs] == [3, 1]
    with pytest.raises(UsageError, match=r"leaves no runs: left out, .* simclr with data.context=2"):
        Grid(walks, ("method=simclr", "data.context=2")).points()


@pytest.mark.parametrize(
    ("vary", "names"),
    [
        (["model.projector=[8, 8],[16]", "method=simclr"], ["projector=_8_8-simclr", "projector=_16-simclr"]),
        (["optim.lr=1e-3,3e-4"], ["lr=0.001", "lr=0.0003"]),
        (["train.online_probes=true,false"], ["online_probes=true", "online_probes=false"]),
        (["model.condition=none,both"], ["condition=none", "condition=both"]),
        (  # last words would not tell them apart
            ["model.width=0.5,1", "context_ssl.width=1,0.5"],
            ["model.width=0.5-context_ssl.width=1", "model.width=0.5-context_ssl.width=0.5"],
        ),
    ],
)
def test_folders_are_named_by_what_varies(walks, vary, names):
    assert list(Grid(walks, tuple(vary)).points())[:2] == names


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        ("data.context", "write a setting and its values, as data.context=1,2,3"),
        ("data.context=", "write a setting and its values"),
        ("=1,2", "write a setting and its values"),
        ("data.context=1,1", "a value is given twice"),
        ("seed=1,2", "--seeds N says how many"),
        ("data.stride=" + ",".join(map(str, range(1, 10_003))), "10002 runs; a grid has at most 10000"),
        ("data.contexts=1,2", "unknown key data.contexts (did you mean 'context'?)"),
        ("data.context=1,x", "data.context = 'x' should be a valid integer"),
        ("data.inhibition=disc,none", "nothing in these runs looks at data.inhibition"),
    ],
)
def test_what_cannot_be_varied(walks, vary, said):
    with pytest.raises((UsageError, ConfigError)) as caught:
        Grid(walks, (vary,)).jobs()
    assert said in str(caught.value)


def test_the_words_of_a_grid_ask_for_the_same_grid(walks, tmp_path):
    grid = Grid(walks, ("data.context=1,3",), "views-tiny", TINY, 2, None, True)
    words = command_of(grid, tmp_path, Resources(workers=0))
    asked = CliRunner().invoke(seqjepa_app, [word for word in words[words.index("sweep") :] if word != "--run"])
    assert asked.exit_code == 0, asked.output
    for job in grid.jobs().values():
        assert job.name in asked.output
    assert "4 missing" in asked.output


def test_a_grid_is_run_and_its_scores_are_listed(walks, tmp_path):
    (tmp_path / "tiny.toml").write_text(SCALE)
    words = ["sweep", "grid", "--shards", str(walks), "--out", str(tmp_path / "runs"), "--workers", "0"]
    words += ["--scale", str(tmp_path / "tiny.toml"), "--vary", "data.context=1,2", "--seeds", "2"]
    words += [word for text in TINY for word in ("--set", text)]
    done = CliRunner().invoke(seqjepa_app, [*words, "--run", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "all 4 runs are trained and evaluated" in done.output
    assert "R² rel: torque [N m]" in done.output
    listed = json.loads(CliRunner().invoke(seqjepa_app, [*words, "--json"]).stdout)
    assert [run["state"] for run in listed["runs"]] == ["evaluated"] * 4
    first, second = listed["results"]
    assert first["varied"] == {"data.context": 1}
    assert second["varied"] == {"data.context": 2}
    scores = [
        json.loads((Path(run) / "results.json").read_text())["trained"]["r2_rel_term1_avg"] for run in second["runs"]
    ]
    assert second["r2_rel"] == pytest.approx(sum(scores) / 2)
    assert second["std"]["r2_rel"] == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5)


def test_methods_and_orders_that_the_set_cannot_have_are_refused_before_the_first_run(walks, tmp_path):
    for vary, said in (
        ("method=seq_jepa,context_ssl", "rot_x"),
        ("data.order=window,random", "order"),
        ("data.context=1,40", "41 consecutive steps"),
        ("optim.accumulate=1,64", "optim.accumulate = 64"),
    ):
        words = ["sweep", "grid", "--shards", str(walks), "--out", str(tmp_path / "runs"), "--vary", vary, "--run"]
        refused = CliRunner().invoke(seqjepa_app, [*words, "--device", "cpu"])
        assert refused.exit_code == 2, refused.output
        assert said in refused.output
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("setting", "said"), [("seed=3", "--seeds N says"), ("data.context=2", "--vary data.context=1,3 says it already")]
)
def test_a_setting_of_all_runs_that_is_varied_too_is_refused(walks, setting, said):
    with pytest.raises(UsageError, match=f"--set {setting}: {said}"):
        Grid(walks, ("data.context=1,3",), settings=(setting,)).jobs()


def test_a_table_of_the_paper_takes_no_options_of_grids(walks):
    refused = CliRunner().invoke(seqjepa_app, ["sweep", "table-1", "--vary", "data.context=1,2"])
    assert refused.exit_code == 2
    assert "--vary: the settings of a table's runs are fixed" in refused.output
    refused = CliRunner().invoke(seqjepa_app, ["sweep", "grid", "--shards", f"3diebench={walks}"])
    assert refused.exit_code == 2
    assert "a grid needs the folder of one shard set" in refused.output
