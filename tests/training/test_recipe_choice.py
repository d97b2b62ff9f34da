"""`seqjepa train --shards DIR` alone: the recipe is the one for such a set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from train_helpers import make_saliency_shards, make_shards
from typer.testing import CliRunner

import cli
from seqjepa.data.actions import AUGMENTATION_FIELDS
from seqjepa.paper.sets import CLASSES_SHA256, classes_sha256
from seqjepa.recipes import load_recipe, read_config
from seqjepa.sequences import open_sequences
from seqjepa.training import recipe_choice as choice
from seqjepa.training.checkpoint import initial_method
from seqjepa.training.data import incompatibilities
from seqjepa.training.recipe_choice import choose_recipe
from shards.errors import ConfigError
from shards.reader import ShardSet
from shards.schema import (
    THREE_DIEBENCH_PARAMS,
    ActionSpec,
    ActionTerm,
    DatasetInfo,
    ImageSpec,
    MapSpec,
    ParamField,
    ViewSpec,
)

OBJECTS = ViewSpec(16, 128, 128, "jpeg", THREE_DIEBENCH_PARAMS)
OWN = 'data.set="" data.normalisation=shards'
POSITIONS = (ParamField("x", "1"), ParamField("y", "1"))


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> DatasetInfo:
    return ShardSet.open(make_shards(tmp_path_factory.mktemp("choice") / "set")).info


OF_SETS = [
    (OBJECTS, "3DIEBench", 41_920, "3die-rot-M3", ""),
    (replace(OBJECTS, height=64, width=64), "3DIEBench", 10_480, "3die-rot-M3", "data.image_size=0"),
    (OBJECTS, "", 41_920, "3die-rot-M3", OWN),
    (replace(OBJECTS, height=48, width=48), "", 1024, "synth-tiny", ""),
    (replace(OBJECTS, views=3), "", 100, "synth-tiny", "data.image_size=0 data.context=2 optim.batch_size=24"),
    (ImageSpec(96, 96, "jpeg", "log8"), "STL-10", 100_000, "stl-pls-M4", ""),
    (ImageSpec(96, 96, "jpeg"), "STL-10", 100_000, "stl-fullsize-M4", ""),
    (ImageSpec(224, 224, "jpeg", "log8"), "", 126_689, "stl-pls-M4", f"{OWN} data.image_size=0"),
    (ImageSpec(96, 96, "raw", "float16"), "", 2000, "saccades-tiny", OWN),
    (ImageSpec(24, 30, "raw", "float16"), "", 2000, "saccades-tiny",
     f"{OWN} data.image_size=0 data.patch=24"),
    (ImageSpec(32, 32, "raw"), "CIFAR100", 50_000, "c100-all-M2", ""),
    (ImageSpec(64, 64, "jpeg"), "TinyImageNet", 100_000, "tiny-all-M2", ""),
    (ImageSpec(32, 32, "raw"), "", 50_000, "c100-all-M2", OWN),
    (ImageSpec(128, 128, "raw"), "", 50_000, "tiny-all-M2", f"{OWN} data.image_size=0"),
    (ImageSpec(32, 32, "raw"), "", 3000, "cifar-tiny", ""),
    (ImageSpec(40, 60, "raw"), "", 3000, "saccades-tiny",
     f"data.fixations=uniform data.inhibition=none {OWN} data.image_size=0"),
    (ViewSpec(40, 32, 32, "raw", POSITIONS, sequence=4), "", 3000, "saccades-tiny",
     f"data.patch=0 {OWN} data.image_size=0"),
    (ViewSpec(6, 48, 48, "raw", (ParamField("tx", "m"),), actions=ActionSpec((ActionTerm("difference", ("tx",)),))),
     "", 1024, "views-tiny", "model.stem=cifar optim.epochs=125"),
    (ViewSpec(6, 224, 224, "jpeg", (ParamField("tx", "m"),), actions=ActionSpec((ActionTerm("difference", ("tx",)),))),
     "", 50_000, "views", ""),
    (ViewSpec(32, 96, 96, "jpeg", (ParamField("u", "1"),), actions=ActionSpec((ActionTerm("command", ("u",)),)),
              ordered=True, chunked=True), "", 4000, "views-tiny", "data.order=window"),
    (ViewSpec(6, 96, 96, "jpeg", (ParamField("tx", "m"),), actions=ActionSpec()), "", 4000, "views-tiny",
     "data.action=none model.condition=none"),
    (ViewSpec(3, 96, 96, "jpeg", ()), "", 4000, "views-tiny",
     "data.action=none model.condition=none data.context=2"),
    (ViewSpec(6, 32, 32, "raw", AUGMENTATION_FIELDS, sequence=2), "", 30, "cifar-tiny",
     f"data.augment=none data.action=augmentation {OWN} optim.batch_size=7"),
]  # fmt: skip


def stub(monkeypatch: pytest.MonkeyPatch, info: DatasetInfo, spec, known: str, samples: int) -> DatasetInfo:
    """A set of that form and size, whose classes are those of `known`."""
    split = replace(info.splits["train"], samples=samples)
    of_form = replace(info, spec=spec, splits={"train": split})
    monkeypatch.setitem(CLASSES_SHA256, classes_sha256(info.classes), known)
    opened = type("Opened", (), {"info": of_form, "splits": {"train": split}, "place": "set"})
    monkeypatch.setattr(choice.ShardSet, "open", lambda path: opened)
    return of_form


@pytest.mark.parametrize(("spec", "known", "samples", "recipe", "settings"), OF_SETS)
def test_the_recipe_of_a_set(monkeypatch, info, spec, known, samples, recipe, settings) -> None:
    of_form = stub(monkeypatch, info, spec, known, samples)
    found = choose_recipe(Path("set"))
    assert (found.recipe, " ".join(found.settings)) == (recipe, settings)
    config = load_recipe(found.recipe, found.settings)
    assert not list(incompatibilities(of_form, config.data, config.method))
    assert (f"{known}'s classes" in str(found)) == bool(known)


@pytest.mark.parametrize(
    "spec",
    [MapSpec("log8"), ViewSpec(4, 32, 32, "raw", (ParamField("temperature", "K"),))],
)
def test_where_nothing_fits_it_is_said_what_does(monkeypatch, info, spec) -> None:
    stub(monkeypatch, info, spec, "", 100)
    said = (
        r"which holds .*\(data\.action\), train without any \(data\.action=none\), or give one of `seqjepa recipes ls`"
    )
    with pytest.raises(ConfigError, match=f"no recipe is for set, {said}"):
        choose_recipe(Path("set"))


DIFFERENCE = 'data.action=[{op = "difference", columns = ["temperature"]}]'


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize(
    ("overrides", "settings"),
    [
        ([DIFFERENCE], ""),
        (["data.action=none"], "model.condition=none"),
        (["method=simclr"], "data.action=none data.context=1"),
        (["method=vicreg_traj"], "data.action=none data.context=2"),
        (["method=simclr", "data.action=none"], "data.context=1"),
        (["method=equimod", DIFFERENCE], "data.context=1"),
    ],
)
def test_an_action_or_method_that_is_given_is_taken(monkeypatch, info, ordered, overrides, settings) -> None:
    """Of views without an action. One that was given was refused (as the message advised it), or, of an ordered set,
    told to nobody: model.condition stayed none. A method that knows no such setting was refused for it."""
    spec = ViewSpec(6, 64, 64, "raw", (ParamField("temperature", "K"),), ordered=ordered)
    of_form = stub(monkeypatch, info, spec, "", 1000)
    found = choose_recipe(Path("set"), overrides).without(overrides)
    of_size = ("optim.epochs", "optim.batch_size", "data.order")
    assert " ".join(text for text in found.settings if text.partition("=")[0] not in of_size) == settings
    config = load_recipe(found.recipe, [*found.settings, *overrides])
    assert not list(incompatibilities(of_form, config.data, config.method))
    initial_method(config, 0 if config.data.action == "none" else 1)


@pytest.mark.parametrize(("known", "method", "context"), [("", "simclr", 1), ("3DIEBench", "vicreg_traj", 2)])
def test_of_any_set_a_method_is_shown_as_many_views_as_it_takes(monkeypatch, info, known, method, context) -> None:
    """Only views of one's own were: others ended in "takes exactly 2 views"."""
    stub(monkeypatch, info, OBJECTS, known, 20_000)
    overrides = [f"method={method}"]
    found = choose_recipe(Path("set"), overrides)
    config = load_recipe(found.recipe, [*found.settings, *overrides])
    assert config.data.context == context
    initial_method(config, 4)


def test_one_view_a_sample_is_told_as_such(monkeypatch, info) -> None:
    stub(monkeypatch, info, replace(OBJECTS, views=1), "", 100)
    with pytest.raises(ConfigError, match=r"one view of each sample, .*: put several into one sequence, or write"):
        choose_recipe(Path("set"))


def test_the_split_that_is_asked_for_is_the_one_that_is_counted(tmp_path: Path) -> None:
    """Also where the set has none that is trained on by default."""
    folder = make_shards(tmp_path / "set", split="val")
    with pytest.raises(ConfigError, match=r"no split 'train' to train on; set data\.split to one of val"):
        choose_recipe(folder)
    found = choose_recipe(folder, ["optim.lr=1", "data.split = val"])
    assert found.recipe == "synth-tiny"
    assert len(open_sequences(folder, split="val", workers=0)) == 1
    done = CliRunner().invoke(
        cli.seqjepa_app, ["train", "--shards", str(folder), "--set", "data.split=nope", "--out", str(tmp_path / "run")]
    )
    assert (done.exit_code, "no split 'nope' to train on" in done.output) == (2, True)


def test_a_run_does_not_go_into_the_set(tmp_path: Path) -> None:
    """Whose folder holds nothing but shards, or other readers fail."""
    folder = make_shards(tmp_path / "set")
    there = sorted(folder.rglob("*"))
    words = ["train", "--shards", str(folder), "--epochs", "1", "--device", "cpu", "--out", str(folder / "run")]
    done = CliRunner().invoke(cli.seqjepa_app, words)
    assert done.exit_code == 2
    assert f"lies within the shard set {folder}; choose another --out, as runs/run" in done.output
    assert sorted(folder.rglob("*")) == there


def test_what_the_user_sets_is_not_said_to_be_chosen() -> None:
    chosen = choice.Choice("synth-tiny", ("data.context=2", "optim.batch_size=24"), "why")
    assert chosen.without(["optim.batch_size = 8"]).settings == ("data.context=2",)
    assert chosen.without([]) == chosen


@pytest.mark.parametrize("kind", ["views", "saliency", "image"])
def test_shards_alone_are_enough_to_train(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if kind == "views":
        make_shards(tmp_path / "set")
    else:
        make_saliency_shards(tmp_path / "set", splits=("train",), maps=kind == "saliency")
    words = ["train", "--shards", "set", "--epochs", "1", "--device", "cpu", "--workers", "0"]
    words += ["--set", "optim.warmup_epochs=0", "--set", "model.width=0.0625"]
    recipe = {"views": "synth-tiny", "saliency": "saccades-tiny", "image": "cifar-tiny"}[kind]
    for _ in range(2):  # the same command goes on
        done = CliRunner().invoke(cli.seqjepa_app, words)
        assert done.exit_code == 0, done.output
        assert f"recipe {recipe}, with data." in done.stderr
        assert "optim.batch_size=5: set holds " in done.stderr
    assert read_config(tmp_path / "runs" / recipe / "config.toml").optim.batch_size == 5
