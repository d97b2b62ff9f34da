"""What is the same for all methods of a comparison and what is not; what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from compare_lab import image_shards
from noise_shards import noise_shards

from seqjepa.data.actions import as_spec
from seqjepa.experiments.compare import (
    CONVERGED_STEPS,
    FILE,
    RECIPES,
    Comparison,
    compare,
    compared_methods,
    parse_methods,
    unfinished_methods,
)
from seqjepa.experiments.compare_table import schedule_notes, unfinished_note
from seqjepa.methods import METHODS as KNOWN
from seqjepa.recipes import load_recipe
from seqjepa.training.checkpoint import initial_method
from shards.errors import ConfigError, UsageError

NAMES = "seq_jepa simclr byol vicreg vicreg_traj sen equimod sie conditional_byol context_ssl conv_jepa"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_shards(tmp_path_factory.mktemp("compare") / "shards")


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_all_methods_share_encoder_data_seed_and_probes(shards: Path, scale: str) -> None:
    by_method = Comparison(shards, seeds=(3,), scale=scale).jobs()
    jobs = [job for mine in by_method.values() for job in mine]
    assert list(by_method) == NAMES.split()
    configs = [job.config() for job in jobs]
    assert [config.method for config in configs] == NAMES.split()
    assert set(NAMES.split()) == set(RECIPES)
    assert set(compared_methods()) == set(KNOWN)
    shared = [(c.model.backbone, c.model.width, c.model.stem, c.data.normalisation, c.seed) for c in configs]
    assert set(shared) == {shared[0]}
    assert all(job.evaluation == jobs[0].evaluation and job.evaluation["seed"] == 3 for job in jobs)
    assert {c.data.action for c in configs if c.method != "context_ssl"} == {"rotation"}
    assert [job.untrained for job in jobs] == [True, *[False] * 10]


def test_the_warm_up_takes_its_part_of_training(shards: Path) -> None:
    """3 of 80 epochs in the recipe."""
    (job,) = Comparison(shards, ("seq_jepa",), steps=1200).jobs()["seq_jepa"]
    optim = job.config().optim
    assert optim.epochs == 300
    assert optim.warmup_epochs == pytest.approx(300 * 3 / 80)


def test_methods_with_a_moving_average_need_more_steps_and_that_is_said(shards: Path) -> None:
    """Which they are is read from the classes: the paper's four."""
    jobs = Comparison(shards).jobs()
    averaged = ["seq_jepa", "byol", "conditional_byol", "conv_jepa"]
    assert unfinished_methods(jobs, CONVERGED_STEPS - 1) == averaged
    assert unfinished_methods(jobs, CONVERGED_STEPS) == []
    assert unfinished_methods(["simclr", "sie"], 1) == []
    assert "\n" not in unfinished_note(averaged, CONVERGED_STEPS)


def test_notes_say_what_each_learning_rate_does() -> None:
    cosine, constant = schedule_notes({"seq_jepa": "cosine", "simclr": "constant", "sie": "constant"})
    assert cosine.startswith("learning rate of seq_jepa: a cosine to the last step")
    assert constant.startswith("learning rate of simclr, sie: constant after the warm-up")
    assert schedule_notes({}) == []


def test_methods_are_named_with_commas_or_all_together() -> None:
    assert parse_methods("all") == compared_methods() == tuple(NAMES.split())
    assert parse_methods("sie, simclr,sie") == ("sie", "simclr")
    for wrong in ("simclrr", "simclr,", ""):
        with pytest.raises(UsageError, match=r"not a method.* choose all, or from seq_jepa, simclr, .*conv_jepa$"):
            parse_methods(wrong)


def test_a_method_that_has_no_recipe_of_its_own_takes_seq_jepas(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN, "mine", KNOWN["vicreg_traj"])
    assert parse_methods("mine,sie") == ("mine", "sie")
    (job,) = Comparison(shards, ("mine",)).jobs()["mine"]
    config, theirs = job.config(), load_recipe("3die-rot-M3")
    assert (config.method, config.data.context, config.data.action) == ("mine", 2, "rotation")
    assert config.optim.optimizer == theirs.optim.optimizer
    monkeypatch.setattr(KNOWN["vicreg_traj"], "views_needed", 7)
    with pytest.raises(ConfigError, match="mine takes 7 views a sequence; methods are compared on 2 to 4"):
        Comparison(shards, ("mine",)).jobs()


def test_what_is_not_ours_is_refused_before_the_first_minute(shards: Path, tmp_path: Path) -> None:
    comparison = Comparison(shards, ("byol", "simclr"), steps=20)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / FILE).write_text("my own notes")
    with pytest.raises(UsageError, match="was not made by seqjepa compare; remove it or choose another name"):
        compare(comparison, tmp_path / "notes", device="cpu")
    assert (tmp_path / "notes" / FILE).read_text() == "my own notes"
    (tmp_path / "runs" / "simclr-seed0").mkdir(parents=True)
    (tmp_path / "runs" / "simclr-seed0" / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match="simclr-seed0 is there and is not a run directory"):
        compare(comparison, tmp_path / "runs", device="cpu")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["simclr-seed0"]


def test_shards_without_rotations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no views with rot_x, rot_y, rot_z"):
        Comparison(image_shards(tmp_path / "images")).jobs()


def test_all_encoders_begin_with_the_same_weights(shards: Path) -> None:
    """Which is why one line says what untrained weights score."""
    encoders = []
    for (job,) in Comparison(shards, seeds=(5,)).jobs().values():
        config = job.config()
        encoders.append(initial_method(config, as_spec(config.data.action).size).get_submodule("encoder"))
    first = encoders[0].state_dict()
    for encoder in encoders[1:]:
        assert all(torch.equal(value, first[name]) for name, value in encoder.state_dict().items())
