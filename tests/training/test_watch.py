"""k-NN, RankMe, pictures and lines for people: right, and without a trace in what is learned."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from logger_helpers import epochs_of
from noise_shards import noise_shards
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from tqdm import tqdm
from train_helpers import SACCADES, make_saliency_shards, make_shards, metrics, tiny_config, train_killed_at
from typer.testing import CliRunner

from cli import seqjepa_app
from seqjepa.data.actions import as_spec
from seqjepa.data.sequence import ViewSequence, normalise
from seqjepa.recipes import to_toml
from seqjepa.training import pictures, progress, representation
from seqjepa.training.checkpoint import load_run
from seqjepa.training.data import open_training_data
from seqjepa.training.representation import EncodedSample, RepresentationMonitor
from seqjepa.training.train import train
from shards.errors import UsageError
from shards.preview.rows import words_of_terms
from shards.reader import ShardSet

CPU = torch.device("cpu")
MEASURED = {"z_knn", "agg_knn", "z_rankme", "agg_rankme"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_shards(tmp_path_factory.mktemp("noise") / "set", train=40, val=24)


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three epochs, measured after the second."""
    out = tmp_path_factory.mktemp("runs") / "run"
    train(tiny_config("train.monitor_epochs=2"), shards, out, workers=0, progress=False)
    return out


def monitor_of(shards: Path, *settings: str) -> RepresentationMonitor:
    return RepresentationMonitor(shards, open_training_data(shards, tiny_config(*settings)), CPU)


def test_they_are_measured_every_so_many_epochs_and_change_nothing_else(shards, run, tmp_path):
    assert [MEASURED & line.keys() for line in epochs_of(run)] == [set(), MEASURED, set()]
    train(tiny_config("train.monitor_epochs=0"), shards, tmp_path / "off", workers=0, progress=False)
    without = [{k: v for k, v in line.items() if k not in MEASURED} for line in metrics(run)]
    assert without == metrics(tmp_path / "off")
    assert (run / "model.safetensors").read_bytes() == (tmp_path / "off" / "model.safetensors").read_bytes()


def test_killed_after_measuring_it_ends_with_the_same_numbers(shards, run, tmp_path, monkeypatch):
    train_killed_at(12, tiny_config("train.monitor_epochs=2"), shards, tmp_path, monkeypatch)
    assert metrics(tmp_path) == metrics(run)


def test_scores_are_those_of_sklearn_and_of_singular_values(shards, run):
    """DINO's weighted vote is sklearn's with weights exp(cos / 0.07), where cos = 1 − distance² / 2 of unit vectors."""
    method, monitor = load_run(run).method, monitor_of(shards)
    found, asked = monitor.measure(method)
    with torch.inference_mode():
        known = monitor._encode(method.eval(), monitor._known)
    assert asked is not None
    for name, key in (("z", "z"), ("z_agg", "agg")):
        x, y = (sample.features[name].numpy().astype(np.float64) for sample in (known, asked))
        singular = np.linalg.svd(x, compute_uv=False)
        p = singular / singular.sum() + 1e-7
        assert found[f"{key}_rankme"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)
        x, y = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, y))
        vote = KNeighborsClassifier(20, weights=lambda d: np.exp((1 - d**2 / 2) / 0.07)).fit(x, known.labels.numpy())
        assert found[f"{key}_knn"] == pytest.approx(vote.score(y, asked.labels.numpy()), abs=1e-9)


def test_features_are_those_of_the_stored_views(shards, run):
    """Not shuffled, of the first view that training draws; z_AGG of all M."""
    method, monitor = load_run(run).method, monitor_of(shards)
    _, asked = monitor.measure(method)
    assert asked is not None
    assert asked.features["z"].shape[0] == len(asked.labels) == 24
    stored, data = ShardSet.open(shards).split("val"), monitor.source.data
    for row in (0, 7):
        views = torch.stack([torch.from_numpy(stored.read_view(row, k)).permute(2, 0, 1) for k in range(4)])
        with torch.no_grad():
            z = method.embed(normalise(views, tuple(data.mean), tuple(data.std)))
        nearest = (z - asked.features["z"][row]).abs().amax(dim=1)
        assert nearest.min() < 1e-4
        assert int(asked.labels[row]) == int(stored.labels[row])


def test_every_module_is_in_the_mode_it_was_in(shards, run):
    method = load_run(run).method.train()
    frozen = next(module for module in method.modules() if isinstance(module, torch.nn.BatchNorm2d)).eval()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    state = torch.get_rng_state()
    monitor_of(shards).measure(method)
    assert method.training
    assert method.encoder.training
    assert not frozen.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_no_more_samples_than_the_bound(shards, run, monkeypatch):
    monkeypatch.setattr(representation, "SAMPLES", 10)
    monitor = monitor_of(shards)
    assert (len(monitor._known), len(monitor._asked)) == (10, 10)
    _, asked = monitor.measure(load_run(run).method)
    assert asked is not None
    assert len(asked.labels) == 10


def test_without_a_validation_split_there_is_rankme_alone(tmp_path):
    shards = make_shards(tmp_path / "set")
    train(tiny_config("optim.epochs=1", "train.monitor_epochs=1"), shards, tmp_path / "run", workers=0, progress=False)
    (line,) = epochs_of(tmp_path / "run")
    assert MEASURED & line.keys() == {"z_rankme", "agg_rankme"}


def test_of_patches_trained_without_labels(tmp_path):
    """As STL-10: trained on "unlabeled", judged on "train" and "test"; of a method without an aggregate z alone."""
    shards = make_saliency_shards(tmp_path / "set", splits=("unlabeled", "train", "test"))
    settings = [*SACCADES, "optim.epochs=1", "train.monitor_epochs=1"]
    settings += ["method=simclr", "data.context=1", "model.projector=[32,16]"]
    train(tiny_config(*settings), shards, tmp_path / "run", workers=0, progress=False)
    (line,) = epochs_of(tmp_path / "run")
    assert MEASURED & line.keys() == {"z_knn", "z_rankme"}
    assert 0 <= line["z_knn"] <= 1
    assert 1 <= line["z_rankme"] <= 22


def test_a_validation_shard_that_is_damaged_is_said_once_and_training_goes_on(tmp_path, caplog):
    shards = noise_shards(tmp_path / "set")
    tar = next(shards.glob("val-*.tar"))
    tar.write_bytes(tar.read_bytes()[:2000])
    train(tiny_config("train.monitor_epochs=1"), shards, tmp_path / "run", workers=0, progress=False)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1
    assert said[0].startswith("k-NN and RankMe: left out from now on: ")
    assert not any(MEASURED & line.keys() for line in epochs_of(tmp_path / "run"))


def test_a_picture_that_cannot_be_drawn_is_said_once(shards, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(pictures, "sequence_sheet", lambda *_: (_ for _ in ()).throw(OSError("no font")))
    config = tiny_config('train.loggers=["csv"]', "train.picture_epochs=1", "optim.epochs=2")
    train(config, shards, tmp_path / "run", workers=0, progress=False)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == ["pictures: left out from now on: OSError: no font"]


def test_the_map_is_by_principal_components():
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, 5, 1, 1, 1, 1, 1, 1])
    places, shares = pictures.principal_components(x)
    expected = PCA(2, svd_solver="full").fit(x.double().numpy())
    np.testing.assert_allclose(shares, expected.explained_variance_ratio_, rtol=1e-9)
    np.testing.assert_allclose(np.abs(places), np.abs(expected.transform(x.double().numpy())), rtol=1e-6, atol=1e-9)
    again, _ = pictures.principal_components(x + 3)
    np.testing.assert_allclose(places, again, atol=1e-4)  # and always with the same sign


def test_maps_and_curves_are_drawn_of_little(shards):
    """One epoch without probes; three samples, none with a label, of one number."""
    line = {"epoch": 1, "loss": 0.5, "z_std": 0.1}
    sample = EncodedSample({"z": torch.ones(3, 1)}, torch.full((3,), -1))
    for png in (pictures.curves([line]), pictures.map_of_features(sample)):
        assert Image.open(io.BytesIO(png)).size[0] >= 400


def test_the_sheet_shows_what_the_method_sees(shards):
    source = open_training_data(shards, tiny_config())
    mean, std = (tuple(values) for values in (source.data.mean, source.data.std))
    pixels = torch.randint(0, 256, (2, 3, 3, 128, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    turn = torch.tensor([0.0, 0.0, np.sin(np.pi / 6), np.cos(np.pi / 6)]).repeat(2, 2, 1)
    seq = ViewSequence(normalise(pixels, mean, std), turn, torch.zeros(2, 3, 0), torch.tensor([1, -1]), ["a", "b"])
    drawn = np.asarray(Image.open(io.BytesIO(pictures.sequence_sheet(seq, source.data, "rotation", "tiny"))))
    tile = pixels[1, 2].permute(1, 2, 0).numpy()
    corners = np.argwhere((drawn == tile[0, 0]).all(axis=2))
    assert any(np.array_equal(drawn[y : y + 128, x : x + 128], tile) for y, x in corners)
    assert words_of_terms(as_spec("rotation").terms, turn[0].numpy()) == [["60.0°"], ["60.0°"]]
    blank = replace(seq, actions=torch.zeros(2, 2, 0))
    assert words_of_terms((), blank.actions[0].numpy()) == [[], []]
    assert pictures.sequence_sheet(blank, source.data, "none", "tiny").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (356400, "4 d 03 h")],
)
def test_durations(seconds: float, said: str):
    assert progress.duration(seconds) == said


def test_what_is_said_on_the_way(shards, tmp_path):
    said: list[str] = []
    config = tiny_config("train.monitor_epochs=2", "optim.epochs=3")
    train(config, shards, tmp_path / "run", workers=0, progress=False, say=said.append)
    assert said[0] == "data     noise, split train: 40 samples, 2 classes, 16×16; M = 2, action rotation (4)"
    method = load_run(tmp_path / "run").method
    all_of_them = sum(p.numel() for p in method.parameters())
    learned = sum(p.numel() for p in method.parameters() if p.requires_grad)
    assert f"{learned / 1e6:.3g} M parameters learn, {all_of_them / 1e6:.3g} M in all; " in said[1]
    assert said[2] == "training 3 epochs of 5 steps, batch 8: 15 steps on cpu (fp32)"
    assert said[3] == f"run      {tmp_path / 'run'}"
    assert said[4].strip().startswith("about ")
    assert " for the 10 steps to go (" in said[4]
    lines = epochs_of(tmp_path / "run")
    assert len(said) == 8
    for line, shown in zip(lines, said[5:], strict=True):
        assert shown.startswith(
            f"epoch {line['epoch']}/3  loss {line['loss']:.4f}  top-1 {line['probe_top1']:.3f}  R² "
        )
        assert ("k-NN" in shown) == ("z_knn" in line)
    knn = f"k-NN {lines[1]['z_knn']:.3f} / {lines[1]['agg_knn']:.3f}  RankMe {lines[1]['z_rankme']:.3g} / "
    assert knn in said[6]
    assert said[6].endswith(" left")
    assert said[7].endswith(" views/s")


def test_a_line_stands_above_the_bar(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    with tqdm(total=3, file=screen, desc="tiny", ncols=40, mininterval=0) as bar:
        bar.update()
        before = screen.tell()
        progress.say_beside_bars("epoch 1/3")
    screen.seek(before)
    wiped, _, after = screen.read().partition("epoch 1/3\n")
    assert wiped.strip() == ""  # the bar is gone before the line, and drawn again below it
    assert wiped.startswith("\r")
    assert after.lstrip("\r").startswith("tiny:")


def test_on_the_command_line_it_is_on_standard_error_and_quiet_with_json(shards, tmp_path):
    settings = tiny_config("optim.epochs=1")
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(to_toml(settings))
    words = ["train", "--shards", str(shards), "--recipe", str(recipe), "--workers", "0", "--logger", "csv"]
    plain = CliRunner().invoke(seqjepa_app, [*words, "--out", str(tmp_path / "a")])
    assert plain.exit_code == 0, plain.output
    assert plain.stdout.count("\n") == 1
    assert [line.split()[0] for line in plain.stderr.splitlines()] == [
        "data",
        "method",
        "training",
        "run",
        "csv:",
        "epoch",
    ]
    assert (tmp_path / "a" / "loggers" / "metrics.csv").exists()
    quiet = CliRunner().invoke(seqjepa_app, [*words, "--out", str(tmp_path / "b"), "--json"])
    assert quiet.stderr == ""
    assert json.loads(quiet.stdout)["epochs"] == 1


def test_runs_may_change_their_loggers_but_not_what_is_measured(shards, run, tmp_path):
    said = tiny_config("train.monitor_epochs=2", 'train.loggers=["csv"]', "train.picture_epochs=3")
    assert train(said, shards, run, workers=0, progress=False)["status"] == "finished already"
    with pytest.raises(UsageError, match=r"train\.monitor_epochs 2 there, 5 asked"):
        train(tiny_config("train.monitor_epochs=5"), shards, run, workers=0, progress=False)
