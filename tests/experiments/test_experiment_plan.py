"""Which runs an experiment has, in which order, and what is the same for all."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiment_lab import experiment_scale
from noise_shards import noise_shards

from seqjepa.experiments.experiment import METHODS, Experiment, experiment_named
from seqjepa.experiments.paper_runs import Variant, paper_experiments
from shards.errors import ConfigError, UsageError

NAME = "paper-small"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_shards(tmp_path_factory.mktemp("experiment") / "shards", train=96)


def plan(shards: Path, **changes: object) -> Experiment:
    return Experiment(NAME, shards, **changes)  # type: ignore[arg-type]


def test_a_seed_of_all_methods_comes_before_its_changes_and_the_next_seed(shards: Path) -> None:
    runs = [run for run, _ in plan(shards).listed.values()]
    of_seed = len(runs) // 3
    assert [run.seed for run in runs] == [42] * of_seed + [43] * of_seed + [44] * of_seed
    parts = [run.part for run in runs[:of_seed]]
    assert parts == sorted(parts, key=[METHODS, *paper_experiments()[NAME].changes].index)
    assert len({job.name for job in plan(shards).jobs().values()}) == len(runs)


def test_one_run_with_a_constant_learning_rate_serves_all_lengths(shards: Path) -> None:
    listed = [pair for pair in plan(shards, seeds=1).listed.values() if pair[0].part == METHODS]
    lengths = {
        name: [run.length for run, _ in listed if run.name == name] for name in paper_experiments()[NAME].methods
    }
    assert lengths.pop("seq_jepa") == [1, 4, 16]
    assert set(map(tuple, lengths.values())) == {(16,)}
    for run, job in listed:
        config = job.config()
        assert run.schedule == config.optim.schedule == ("cosine" if run.name == "seq_jepa" else "constant")
        assert config.train.keep_epochs == job.checkpoints
        assert [epoch / config.optim.epochs for epoch in job.checkpoints] == [look / run.length for look in run.looks]
        assert run.looks == tuple(look for look in (1, 2, 4, 8) if look < run.length)


def test_steps_and_views_are_the_same_for_all_methods(shards: Path) -> None:
    experiment = plan(shards, seeds=1)
    usual, found = experiment.schedule_of(Variant(), 4).views_per_step, set()
    for run, job in experiment.listed.values():
        optim, views = job.config().optim, job.config().data.context + 1
        steps = optim.epochs * -(-96 // optim.batch_size)
        assert steps == experiment.steps_of(run, run.length)
        if run.part == METHODS:
            found |= {(steps / run.length, abs(optim.batch_size * views - usual) <= views)}
    assert found == {(1200.0, True)}


def test_warm_up_is_a_part_of_training_or_of_the_shortest_look_at_a_constant_rate(shards: Path) -> None:
    """3 of 80 epochs in the recipe of seq-JEPA; baselines have none."""
    for run, job in plan(shards, seeds=1).listed.values():
        optim = job.config().optim
        if run.name.startswith("seq_jepa"):
            whole = optim.epochs if run.schedule == "cosine" else optim.epochs / 16
            assert optim.warmup_epochs == pytest.approx(whole * 3 / 80, abs=1e-5)
        elif run.part == METHODS:
            assert optim.warmup_epochs == 0


def test_a_change_changes_nothing_else(shards: Path) -> None:
    listed = {(run.name, run.length): job for run, job in plan(shards, seeds=1).listed.values()}
    base = listed["seq_jepa", 4].config().model_dump()
    for part in paper_experiments()[NAME].changes.values():
        for name, variant in part.items():
            if name == "author":
                continue
            config = listed[name, 4].config().model_dump()
            different = {
                f"{section}.{key}"
                for section in ("data", "model", "optim", "train")
                for key, value in config[section].items()
                if value != base[section][key]
            }
            asked = {f"{section}.{key}" for section, inner in variant.settings.items() for key in inner}
            # Batches and epochs follow from the steps and views that are to be the same, or from other views a step.
            free = {"train.keep_epochs"}
            if name.startswith(("M", "batch")):
                free |= {"optim.batch_size", "optim.epochs", "optim.warmup_epochs"}
            assert different - free == asked, name


def test_more_views_a_step_are_a_larger_batch_and_as_many_steps(shards: Path) -> None:
    experiment = plan(shards, seeds=1)
    jobs = {run.name: (run, job) for run, job in experiment.listed.values() if run.part == "causes"}
    assert [jobs[f"batch-{size}"][1].config().optim.batch_size for size in (128, 256)] == [96, 96]  # all that there are
    assert jobs["M5"][1].config().optim.batch_size == pytest.approx(96 / 6, abs=1)
    assert {experiment.steps_of(run, 4) for run, _ in jobs.values()} == {4800}


@pytest.mark.parametrize(
    ("only", "names"),
    [
        (["name=sie,simclr", "seed=43"], ["simclr-x16-seed43", "sie-x16-seed43"]),
        (["name=seq_jepa", "length=1", "seed=42"], ["seq_jepa-x1-seed42"]),
        (["name=simclr", "length=1", "seed=42"], ["simclr-x16-seed42"]),  # serves that length too
        (["name=no-action", "seed=44"], ["seq_jepa-x4-seed44", "no-action-x4-seed44"]),  # and what it changes
    ],
)
def test_a_part_of_the_runs(shards: Path, only: list[str], names: list[str]) -> None:
    part = plan(shards, only=tuple(only))
    assert [job.name for job in part.jobs().values()] == names
    every = plan(shards).jobs()
    assert all(every[number] == job for number, job in part.jobs().items())  # numbers of tasks stay
    number = next(iter(part.jobs()))
    assert list(part.jobs(number)) == [number]


@pytest.mark.parametrize(
    ("only", "names"),
    [
        ("seed=44", ["seq_jepa-x1", "seq_jepa-x4", "no-action-x1", "no-action-x4"]),
        ("length=4", ["seq_jepa-x4", "no-action-x4"]),
    ],
)
def test_changes_at_several_lengths_each_with_what_it_changes(
    shards: Path, tmp_path: Path, only: str, names: list[str]
) -> None:
    scale = tmp_path / f"{NAME}.toml"
    scale.write_text(f'extends = "{NAME}"\n[experiment]\nchanged_at = [4, 1]\n')
    part = plan(shards, scale=str(scale), only=("name=no-action", "seed=44", only))
    assert [job.name for job in part.jobs().values()] == [f"{name}-seed44" for name in names]


@pytest.mark.parametrize(
    ("only", "said"),
    [
        ("simclr", "write part=A,B, name=A,B, length=A,B, seed=A,B"),
        ("name=", "write part=A,B"),
        ("method=simclr", "write part=A,B"),
        ("name=simcrl", "no run has it (did you mean 'simclr'?)"),
        ("length=3", "no run has it; there are: 1, 4, 16"),
        ("seed=7", "there are: 42, 43, 44"),
    ],
)
def test_a_part_that_is_none(shards: Path, only: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan(shards, only=(only,)).jobs()
    assert said in str(caught.value)


def test_another_scale_is_in_the_names(shards: Path, tmp_path: Path) -> None:
    experiment = plan(shards, scale=str(experiment_scale(tmp_path)), seeds=1)
    assert {job.name.split("-seed")[0] for _, job in experiment.listed.values()} >= {"seq_jepa-test-x1", "sie-test-x2"}
    assert experiment.lengths == (1, 2)


def test_a_set_is_rendered_where_none_is_given_and_planned_before(shards: Path, tmp_path: Path) -> None:
    more = '[experiment.set]\npreset = "plain"\nfamilies = 2\nobjects = 100\nsize = 16\nviews = 3\n'
    scale = str(experiment_scale(tmp_path, more))
    experiment = experiment_named(NAME, {}, tmp_path, 1, scale, False, ())
    assert experiment.shards == tmp_path / "3die-plain-100x3-16px"
    assert experiment.to_render is not None
    assert (experiment.to_render.objects, experiment.to_render.size) == (100, 16)
    assert not experiment.shards.exists()
    from seqjepa.experiments.demos import render_set

    planned = {job.name: job.settings for job in experiment.jobs().values()}
    said: list[str] = []
    render_set(experiment.to_render.model_dump(), experiment.shards, said.append)
    assert "100 objects, 3 views each at 16 px: about" in said[0]
    there = experiment_named(NAME, {}, tmp_path, 1, scale, False, ())
    assert there.to_render is None
    assert {job.name: job.settings for job in there.jobs().values()} == planned
    assert experiment_named(NAME, {"3diebench": shards}, tmp_path, 1, scale, False, ()).shards == shards
    with pytest.raises(UsageError, match=r"paper-small takes 3diebench=DIR, or renders"):
        experiment_named(NAME, {"stl10": shards}, tmp_path, 1, scale, False, ())


def test_a_scale_that_extends_another(tmp_path: Path) -> None:
    from seqjepa.experiments.scale import load_scale

    (tmp_path / "mine.toml").write_text('extends = "small"\n[settings.model]\nwidth = 0.5\n')
    small, mine = load_scale("small"), load_scale(str(tmp_path / "mine.toml"))
    assert (mine.name, mine.settings["model"]["width"], small.settings["model"]["width"]) == ("mine", 0.5, 0.25)
    assert mine.settings["optim"] == small.settings["optim"]
    assert mine.method == small.method
    (tmp_path / "more.toml").write_text('extends = "mine.toml"\n[settings.model]\nwidth = 1.0\n')
    assert load_scale(str(tmp_path / "more.toml")).defaults == small.defaults
    for text, said in (('extends = "mine.toml"', "name of another scale"), ("extends = 3", "extends = 3"),
                       ("[experiment]\nstep = 3", "unknown key experiment.step")):  # fmt: skip
        (tmp_path / "mine.toml").write_text(text + "\n")
        with pytest.raises(ConfigError, match=said):
            load_scale(str(tmp_path / "mine.toml"))
