from __future__ import annotations

import json
import logging
import os
import random
import re
import shutil
import signal
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from forked_ranks import RunForked
from safetensors.torch import load_file, save_file
from train_helpers import Killed, killed_at, make_shards, metrics, tiny_config
from typer.testing import CliRunner

from cli import seqjepa_app
from seqjepa.recipes import to_toml
from seqjepa.training import checkpoint, learner
from seqjepa.training import train as train_module
from seqjepa.training.checkpoint import initial_method, load_run
from seqjepa.training.learner import Learner
from seqjepa.training.stopping import Interrupted
from seqjepa.training.train import train
from shards.errors import ConfigError, DamageError, FailureError, FormatError, SeqJepaError, UsageError

pytestmark = pytest.mark.usefixtures("one_thread")

EVERY_STEP = "train.checkpoint_minutes=1e-9"


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return make_shards(tmp_path_factory.mktemp("tiny") / "set")


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(tiny_config(), shards, out, workers=0, progress=False)
    return out


def same(a: Path, b: Path) -> bool:
    weights = (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()
    return weights and metrics(a) == metrics(b)


def test_a_run_leaves_all_that_is_promised(whole: Path):
    assert {p.name for p in whole.iterdir()} == {
        "config.toml", "run.json", "metrics.jsonl", "model.safetensors", "state.pt", "SHA256SUMS",
    }  # fmt: skip
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    wanted = {"loss", "lr", "tau", "views_per_s", "z_std", "z_rank", "agg_std", "agg_rank", "probe_top1", "probe_r2"}
    assert all(wanted <= set(line) for line in lines)
    assert lines[-1]["samples"] == 22
    info = json.loads((whole / "run.json").read_text())
    assert info["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert info["finished_epochs"] == 3


def test_weights_know_their_epochs_and_come_back_from_the_state(whole: Path, shards: Path, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    weights = copy / "model.safetensors"
    before = weights.read_bytes()
    planned = load_run(copy).config.optim.epochs
    assert load_run(copy).epochs == planned
    weights.unlink()
    train(tiny_config(), shards, copy, workers=0, progress=False)
    assert weights.read_bytes() == before


def test_a_finished_run_says_so_and_changes_nothing(whole: Path, shards: Path, caplog):
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in whole.iterdir()}
    summary = train(tiny_config(), shards, whole, workers=0, progress=False)
    assert summary["status"] == "finished already"
    assert "finished already" in caplog.text
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in whole.iterdir()} == before


@pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_every_step_of_a_run_it_ends_with_the_same_bits(whole, shards, tmp_path, monkeypatch, every):
    killed_at(monkeypatch, *range(0, 9, every))
    for workers in (0, 1, 0, 2, 0, 1, 0, 0, 0)[: len(range(0, 9, every))]:
        with pytest.raises(Killed):
            train(tiny_config(EVERY_STEP), shards, tmp_path / "run", workers=workers, progress=False)
    train(tiny_config(), shards, tmp_path / "run", workers=0, progress=False)
    assert same(tmp_path / "run", whole)


def test_killed_between_metrics_and_checkpoint_the_epoch_is_done_again(whole, shards, tmp_path, monkeypatch):
    killed_at(monkeypatch, 4)
    with pytest.raises(Killed):  # no checkpoint was due: epoch 1 is in metrics.jsonl only
        train(tiny_config(), shards, tmp_path / "run", workers=0, progress=False)
    assert len(metrics(tmp_path / "run")) == 1
    train(tiny_config(), shards, tmp_path / "run", workers=0, progress=False)
    assert same(tmp_path / "run", whole)


def hit_process(number: int, at: int, shards: str, out: str) -> None:
    """A run that gets the signal `number` before step `at`, or while it saves after step -`at`."""
    update, save_state = Learner.update, checkpoint.save_state

    def hit(self: Learner, seq, step: int, *rest: float):
        if step == at:
            os.kill(os.getpid(), number)
        return update(self, seq, step, *rest)

    def hit_saving(state: dict, path: Path) -> None:
        if state["step"] == -at:
            os.kill(os.getpid(), number)
        save_state(state, path)

    warnings.simplefilter("error")
    torch.set_num_threads(1)
    Learner.update, checkpoint.save_state = hit, hit_saving
    try:
        train(tiny_config(EVERY_STEP), Path(shards), Path(out), workers=1, progress=False)
    except SeqJepaError as error:
        sys.stdout.write(f"{error}\n")
        sys.exit(error.exit_code)


def kill_and_resume(run_forked: RunForked, shards: Path, out: Path, blows: list[tuple[int, int]]) -> None:
    """blows: signal and step; a negative step means: while its checkpoint is being written."""
    for number, at in blows:
        code, said = run_forked(hit_process, number, at, str(shards), str(out))
        if number == signal.SIGKILL:
            assert code == -signal.SIGKILL, said
        else:
            assert code == 128 + number, said
            assert f"stopped and saved at step {at + 1} of 9" in said
            assert "the same command goes on" in said
    train(tiny_config(), shards, out, workers=0, progress=False)


def test_killed_and_terminated_processes_resume_bit_exactly(run_forked, whole, shards, tmp_path):
    kill_and_resume(run_forked, shards, tmp_path / "run", [(signal.SIGTERM, 2), (signal.SIGKILL, -7)])
    assert same(tmp_path / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_three_blows_at_random_steps(run_forked, whole, shards, tmp_path, seed: int):
    rng = random.Random(seed)
    steps = sorted(rng.sample(range(1, 8), 3))
    kinds = [rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]) for _ in steps]
    kill_and_resume(run_forked, shards, tmp_path / "run", list(zip(kinds, steps, strict=True)))
    assert same(tmp_path / "run", whole)


def test_interrupted_has_the_shells_exit_code():
    assert Interrupted("x", signal.SIGINT).exit_code == 130
    assert Interrupted("x", signal.SIGTERM).exit_code == 143


def test_untrained_is_exactly_what_the_run_began_with(whole, shards, tmp_path, monkeypatch):
    begun: dict[str, torch.Tensor] = {}
    make = train_module.initial_method

    def remember(config, action_size, **how):
        method = make(config, action_size, **how)
        begun.update({k: v.clone() for k, v in method.state_dict().items()})
        return method

    monkeypatch.setattr(train_module, "initial_method", remember)
    torch.manual_seed(999)
    train(tiny_config("optim.epochs=1"), shards, tmp_path / "run", workers=0, progress=False)
    torch.manual_seed(5)
    config, method, data, epochs = load_run(whole, untrained=True)
    assert epochs == 0
    state = method.state_dict()
    assert set(state) == set(begun)
    assert all(torch.equal(state[k], begun[k]) for k in begun)
    assert not method.training
    assert (config.name, data.action_size, data.height) == ("tiny", 4, 32)
    trained = load_run(whole).method.state_dict()
    saved = load_file(whole / "model.safetensors")
    assert all(torch.equal(trained[k], saved[k]) for k in saved)
    assert any(not torch.equal(trained[k], begun[k]) for k in begun)


def test_initial_weights_leave_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    initial_method(tiny_config(), 4)
    assert torch.equal(torch.rand(1), expected)


def test_extending_goes_on_from_where_it_is(whole, shards, tmp_path):
    out = tmp_path / "run"
    train(tiny_config(), shards, out, workers=0, progress=False)
    summary = train(tiny_config(), shards, out, workers=0, extend_epochs=4, progress=False)
    assert (summary["epochs"], summary["steps"]) == (4, 12)
    lines = metrics(out)
    assert lines[:3] == metrics(whole)
    assert lines[3]["epoch"] == 4
    assert lines[3]["lr"] < lines[1]["lr"]


def test_a_run_is_not_begun_anew_by_a_command_that_also_extends_it(whole, shards, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    before = {file: file.read_bytes() for file in run.iterdir()}
    with pytest.raises(UsageError, match="--overwrite begins a run anew, --extend-epochs goes on"):
        train(tiny_config(), shards, run, workers=0, extend_epochs=9, overwrite=True, progress=False)
    assert {file: file.read_bytes() for file in run.iterdir()} == before


@pytest.mark.parametrize(
    ("option", "settings"),
    [
        (["--epochs", "2"], "optim.epochs=3"),
        (["--seed", "1"], "seed = 2"),
        (["--fidelity", "author"], "fidelity=paper"),
        (["--logger", "csv"], 'train.loggers=["tensorboard"]'),
    ],
)
def test_an_option_and_set_that_contradict_each_other_are_refused(shards, tmp_path, option, settings):
    words = ["train", "--shards", str(shards), "--out", str(tmp_path / "run"), *option, "--set", settings]
    refused = CliRunner().invoke(seqjepa_app, words)
    assert refused.exit_code == 2, refused.output
    assert f"{option[0]} says" in refused.output
    assert f"--set says {settings}" in refused.output
    assert not (tmp_path / "run").exists()


def test_settings_that_change_nothing_of_the_run_are_said(shards, tmp_path, caplog):
    (tmp_path / "mine.toml").write_text(to_toml(tiny_config("optim.epochs=1")))
    given = ["data.inhibition=none", "context_ssl.pairs=8", "optim.final_lr=1e-6", "data.context=2", "model.layers=1"]
    words = ["train", "--shards", str(shards), "--recipe", str(tmp_path / "mine.toml"), "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(seqjepa_app, [*words, *(word for text in given for word in ("--set", text))])
    assert done.exit_code == 0, done.output
    said = [record.getMessage() for record in caplog.records if "nothing in such a run" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("--set data.inhibition, context_ssl.pairs: ")


def test_a_disk_that_cannot_take_the_run_is_said_before_it_is_trained(shards, tmp_path, caplog, monkeypatch):
    config, run = tiny_config("train.keep_epochs=[1,2]"), tmp_path / "run"
    train(config, shards, run, workers=0, progress=False)
    assert not [record for record in caplog.records if "is free there" in record.getMessage()]
    written = sum(path.stat().st_size for path in run.glob("*.safetensors"))
    shutil.rmtree(run)
    for free, said in ((written, 1), (20 * written, 0)):
        monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        caplog.clear()
        train(config, shards, run, workers=0, progress=False, overwrite=True)
        lines = [record.getMessage() for record in caplog.records if "is free there" in record.getMessage()]
        assert len(lines) == said
        assert all(f"{run}: its states and weights will take at least" in line for line in lines)


def test_extending_beyond_the_schedule_is_refused_and_the_run_stays_readable(shards, tmp_path):
    config = tiny_config("optim.epochs=1", "optim.schedule_epochs=2")
    train(config, shards, tmp_path / "run", workers=0, progress=False)
    with pytest.raises(ConfigError, match=r"optim\.schedule_epochs = 2 is less than optim\.epochs = 3"):
        train(config, shards, tmp_path / "run", workers=0, extend_epochs=3, progress=False)
    assert load_run(tmp_path / "run").config.optim.epochs == 1
    assert train(config, shards, tmp_path / "run", workers=0, extend_epochs=2, progress=False)["epochs"] == 2


def test_probes_do_not_change_what_is_learned(whole, shards, tmp_path):
    train(tiny_config("train.online_probes=false"), shards, tmp_path / "run", workers=0, progress=False)
    assert (tmp_path / "run/model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert "probe_top1" not in metrics(tmp_path / "run")[0]


def test_author_fidelity_and_bf16_run(shards, tmp_path):
    config = tiny_config("fidelity=author", "train.precision=bf16", "optim.epochs=1", "data.action=rotation_colour")
    summary = train(config, shards, tmp_path / "run", workers=0, progress=False)
    assert summary["fidelity"] == "author"
    assert 0 < summary["loss"] < 2
    assert 'optimizer = "adam"' in (tmp_path / "run/config.toml").read_text()


@pytest.mark.parametrize(
    ("overrides", "options", "error", "match"),
    [
        (["data.context=5"], {}, ConfigError, "6 views"),
        (["data.image_size=128"], {}, ConfigError, "32×32 views, the recipe wants 128×128.*image_size=32"),
        (["method=nope"], {}, ConfigError, "seq_jepa"),
        (["model.backbone=resnet5"], {}, ConfigError, "resnet18"),
        ([], {"device": "cuda"}, UsageError, "no CUDA GPU"),
        ([], {"device": "tpu9"}, UsageError, "auto, cpu, cuda"),
        ([], {"extend_epochs": 9}, UsageError, "no run"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(shards, tmp_path, monkeypatch, overrides, options, error, match):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(error, match=match) as caught:
        train(tiny_config(*overrides), shards, tmp_path / "run", workers=0, progress=False, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_missing_shards_and_too_few_samples(tmp_path):
    with pytest.raises(FormatError):
        train(tiny_config(), tmp_path / "none", tmp_path / "run")
    one = make_shards(tmp_path / "one", objects=1)
    with pytest.raises(ConfigError, match="1 training samples; a batch takes 2 or more: shard more"):
        train(tiny_config(), one, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_last_batch_of_one_is_dropped(tmp_path):
    summary = train(
        tiny_config("optim.epochs=1"),
        make_shards(tmp_path / "s", objects=17),
        tmp_path / "r",
        workers=0,
        progress=False,
    )
    assert (summary["steps"], summary["samples"]) == (2, 16)


def test_a_batch_larger_than_the_set_is_said(shards, tmp_path, caplog):
    once = ("optim.epochs=1", "optim.warmup_epochs=0")
    summary = train(tiny_config(*once, "optim.batch_size=512"), shards, tmp_path / "r", workers=0, progress=False)
    assert (summary["steps"], summary["samples"]) == (1, 22)
    line = "optim.batch_size is 512, but there are 22 samples to train on: every step takes all 22; set at most 22"
    assert caplog.messages == [line]
    caplog.clear()
    train(tiny_config(*once, "optim.batch_size=22"), shards, tmp_path / "s", workers=0, progress=False)
    assert caplog.messages == []


def test_other_shards_are_refused_on_resume(whole, tmp_path):
    with pytest.raises(UsageError, match=r"shards\.train"):
        train(tiny_config(), make_shards(tmp_path / "other", seed=1), whole, workers=0, progress=False)


@pytest.mark.parametrize("kind", ["parameters", "buffers"])
def test_a_run_that_diverges_keeps_its_last_good_checkpoint(shards, tmp_path, monkeypatch, kind):
    out = tmp_path / "run"
    killed_at(monkeypatch, 2)
    with pytest.raises(Killed):
        train(tiny_config(EVERY_STEP), shards, out, workers=0, progress=False)
    good = (out / "state.pt").read_bytes()
    update = Learner.update

    def poisoned(self: Learner, seq, step: int, *rest: float):
        output = update(self, seq, step, *rest)
        with torch.no_grad():
            next(getattr(self.method, kind)()).fill_(float("nan"))
        return output

    monkeypatch.setattr(learner.Learner, "update", poisoned)
    with pytest.raises(FailureError, match="not finite"):
        train(tiny_config(EVERY_STEP), shards, out, workers=0, progress=False)
    assert (out / "state.pt").read_bytes() == good
    weights = load_file(out / "model.safetensors")
    next(value for name, value in weights.items() if "running_var" in name).fill_(float("inf"))
    save_file(weights, out / "model.safetensors")
    (out / "SHA256SUMS").unlink()  # as of a run of somebody else's
    (out / "state.pt").unlink()
    with pytest.raises(DamageError, match="a number is not finite"):
        load_run(out)


def test_a_learning_rate_below_its_end_is_said_where_a_run_begins(shards, tmp_path, caplog):
    config = tiny_config("optim.epochs=2", "optim.lr=5e-6", "optim.warmup_epochs=0")
    train(config, shards, tmp_path / "run", workers=0, progress=False)
    assert caplog.messages == ["optim.lr = 5e-06 is below optim.final_lr = 1e-05: it rises to the end; set that lower"]


def test_other_threads_than_before_are_said(shards, tmp_path, monkeypatch, caplog):
    """One epoch's sums are rounded otherwise by other threads: the end is not that of a run left alone."""
    config = tiny_config("optim.epochs=2", "train.checkpoint_minutes=1e-9")
    killed_at(monkeypatch, 4)
    with pytest.raises(Killed):
        train(config, shards, tmp_path / "same", workers=0, progress=False)
    train(config, shards, tmp_path / "same", workers=0, progress=False)
    assert caplog.messages == []
    killed_at(monkeypatch, 4)
    with pytest.raises(Killed):
        train(config, shards, tmp_path / "run", workers=0, progress=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    train(config, shards, tmp_path / "run", workers=0, progress=False)
    (line,) = caplog.messages
    assert re.search(r"/run: on 1 × cpu \(.*\d threads\) until now, on .* \(.*, 77 threads\) from here", line)


def test_a_collapse_is_said_aloud(shards, tmp_path, monkeypatch, caplog):
    step = type(initial_method(tiny_config(), 4)).step

    def collapsed(self, seq):
        output = step(self, seq)
        output.features["z"] = torch.ones_like(output.features["z"])
        return output

    monkeypatch.setattr(type(initial_method(tiny_config(), 4)), "step", collapsed)
    with caplog.at_level(logging.WARNING):
        train(tiny_config("optim.epochs=1"), shards, tmp_path / "run", workers=0, progress=False)
    assert "z: complete collapse" in caplog.text
    assert "complete collapse" in str(metrics(tmp_path / "run")[0]["collapse"])
