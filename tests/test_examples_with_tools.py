"""examples/with_*.py and losses_alone.py: our shards, methods and losses in other people's loops."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from noise_shards import noise_shards
from safetensors.torch import load_file

import seqjepa
from seqjepa import losses
from seqjepa.data.sequence import normalise
from seqjepa.recipes import load_recipe
from seqjepa.training.train import train
from shards.reader import ShardSet

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TINY = ("model.width=0.125", "model.layers=1", "data.context=2", "optim.batch_size=4", "optim.epochs=3")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_shards(tmp_path_factory.mktemp("tools") / "shards", size=32)


@pytest.fixture
def solo_learn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import with_solo_learn  # pyright: ignore[reportMissingImports]

    return with_solo_learn


def example(name: str, *arguments: object, cwd: Path | None = None) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_batch_is_as_solo_learn_takes_it(solo_learn, shards: Path) -> None:
    """[indexes, [X1, X2], targets]: what its training_step takes apart, and our own batch in other places."""
    data = solo_learn.Pairs(shards, batch_size=6, workers=0)
    sequences = list(seqjepa.open_sequences(shards, context=1, batch_size=6, workers=0))
    batches, info = list(data), ShardSet.open(shards).info
    assert len(batches) == len(data) == len(sequences)
    keys = ShardSet.open(shards).split("train").keys
    for (indexes, views, targets), seq in zip(batches, sequences, strict=True):
        assert isinstance(views, list)
        assert [keys[row] for row in indexes.tolist()] == seq.keys
        torch.testing.assert_close(torch.stack(views, 1), normalise(seq.views, **info.normalisation), rtol=0, atol=0)
        assert targets.equal(seq.labels)
    assert sorted(torch.cat([indexes for indexes, *_ in batches]).tolist()) == list(range(16))


def test_solo_learn_pairs_go_on_exactly(solo_learn, shards: Path) -> None:
    data = solo_learn.Pairs(shards, batch_size=6, workers=0)
    whole = [batch for _ in range(2) for batch in data]
    first = solo_learn.Pairs(shards, batch_size=6, workers=0)
    some = list(islice((batch for _ in range(2) for batch in first), 4))
    second = solo_learn.Pairs(shards, batch_size=6, workers=0)
    second.load_state_dict(first.state_dict())
    for (indexes, views, _), (wanted, wanted_views, _) in zip([*some, *second], whole, strict=True):
        assert indexes.equal(wanted)
        assert torch.stack(views).equal(torch.stack(wanted_views))


@pytest.mark.parametrize("loss", ["vicreg", "nt_xent"])
def test_losses_alone_lower_what_numpy_computes(
    loss: str, shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first step's loss from the embeddings of the same network, by numpy; the last step's is lower."""
    monkeypatch.syspath_prepend(EXAMPLES)
    import losses_alone  # pyright: ignore[reportMissingImports]

    monkeypatch.setattr(sys, "argv", f"_ {shards} --loss {loss} --steps 20 --batch-size 8".split())
    losses_alone.main()
    said = capsys.readouterr().out
    first, last = (float(value) for value in re.findall(rf"{loss} (\S+)", said))
    assert last < first
    torch.manual_seed(0)
    net, batch = losses_alone.network(), next(iter(seqjepa.webdataset(shards, context=1, batch_size=8)))
    with torch.no_grad():
        a, b = (net(views).double().numpy() for views in (batch["views"] / 255).unbind(1))
    assert first == pytest.approx(vicreg(a, b) if loss == "vicreg" else nt_xent(a, b), rel=1e-4)


def vicreg(a: np.ndarray, b: np.ndarray) -> float:
    """arXiv 2105.04906 with 25, 25, 1; the hinge of both views halved, as released."""
    total = 25 * ((a - b) ** 2).mean()
    for y in (a, b):
        total += 25 * np.maximum(0, 1 - np.sqrt(y.var(0, ddof=1) + 1e-4)).mean() / 2
        covariance = np.cov(y.T)
        total += (covariance[~np.eye(len(covariance), dtype=bool)] ** 2).sum() / y.shape[1]
    return total


def nt_xent(a: np.ndarray, b: np.ndarray) -> float:
    """arXiv 2002.05709, temperature 0.5: a row at a time."""
    rows = np.concatenate([a, b])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = []
    for i, row in enumerate(rows):
        scores = np.exp(rows @ row / 0.5)
        partner = scores[(i + len(a)) % len(rows)]
        found.append(-np.log(partner / (scores.sum() - scores[i])))
    return float(np.mean(found))


def test_the_pages_numbers_of_losses() -> None:
    """By hand: right angles; e among itself and four others at 0; √(1/3) of spread, and −1/6 of covariance."""
    e, (left, up, right) = torch.eye(3), torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[-1.0, 0.0]]])
    vic = losses.vicreg_loss(e, e, losses.VicWeights(invariance=25, variance=25, covariance=1))
    assert losses.cosine_loss(e, e.roll(1, 0)).item() == pytest.approx(1)
    assert losses.nt_xent(e, e, temperature=1.0).item() == pytest.approx(np.log(1 + 4 / np.e))
    assert vic.item() == pytest.approx(25 * (1 - np.sqrt(1 / 3 + 1e-4)) + 1 / 9)
    assert losses.trajectory_loss(left, up, right).item() == pytest.approx(-1)
    page = (EXAMPLES.parent / "docs" / "other-tools.md").read_text(encoding="utf-8")
    assert f"log(1 + 4 / e) = {np.log(1 + 4 / np.e):.4f}" in page
    assert f"# {vic.item():.4f}: variance" in page


@pytest.mark.tools
def test_lightning_trains_to_the_weights_of_our_trainer_resumed_or_not(shards: Path, tmp_path: Path) -> None:
    settings = [word for setting in TINY for word in ("--set", setting)]
    common = ("--recipe", "views-tiny", "--save-every", 1, *settings)
    example("with_lightning.py", shards, tmp_path / "whole", *common)
    example("with_lightning.py", shards, tmp_path / "begun", *common, "--steps", 6)
    example("with_lightning.py", shards, tmp_path / "ended", *common, "--resume", tmp_path / "begun" / "last.ckpt")
    train(load_recipe("views-tiny", TINY), shards, tmp_path / "run", workers=0)
    ours = load_file(tmp_path / "run" / "model.safetensors")
    for name, steps in (("whole", 12), ("begun", 6), ("ended", 12)):
        checkpoint = torch.load(tmp_path / name / "last.ckpt", weights_only=True)
        assert checkpoint["global_step"] == steps
        weights = {key.removeprefix("method."): value for key, value in checkpoint["state_dict"].items()}
        assert weights.keys() == ours.keys()
        assert all(weights[key].equal(ours[key]) for key in ours) == (steps == 12)


@pytest.mark.tools
@pytest.mark.parametrize("pairs", ["stored", "lightly"])
def test_lightlys_simclr_learns_on_our_shards(pairs: str, shards: Path) -> None:
    said = example("with_lightly.py", shards, "--pairs", pairs, "--steps", 4, "--batch-size", 8)
    accuracies = [float(value) for value in re.findall(r"20-NN top-1 .*: (\S+)", said)]
    assert len(accuracies) == 2
    assert all(0 <= value <= 1 and value * 8 == pytest.approx(round(value * 8), abs=0.01) for value in accuracies)
    assert float(re.findall(r"step 4: loss (\S+)", said)[0]) > 0


@pytest.mark.tools
def test_lightlys_loss_is_ours() -> None:
    from lightly.loss import NTXentLoss

    a, b = torch.randn(2, 12, 7, generator=torch.Generator().manual_seed(0))
    assert losses.nt_xent(a, b, 0.5).item() == pytest.approx(NTXentLoss(temperature=0.5)(a, b).item(), rel=1e-5)
