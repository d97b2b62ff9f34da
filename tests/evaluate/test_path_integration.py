"""Heads on a method that knows where it is, against closed-form least squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from seqjepa.config import EvalConfig, ModelConfig, RunConfig
from seqjepa.data.actions import PRESETS
from seqjepa.data.draws import Purpose
from seqjepa.evaluate import inputs
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.probe_training import fit_and_score
from seqjepa.evaluate.probes import Bench
from seqjepa.evaluate.studies import Capabilities
from seqjepa.evaluate.tasks import tasks_for
from seqjepa.methods.seq_jepa import SeqJEPA

CPU = torch.device("cpu")
V, K = 4, 8


class Navigator(torch.nn.Module):
    """z is the position. z_AGG: the first and the last position; e_M: the last action."""

    def aggregate(self, z: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return torch.cat([z[:, 0], z[:, -1]], 1)

    def path_features(
        self, z: torch.Tensor, actions: torch.Tensor, *, vision: bool = True, action: bool = True
    ) -> torch.Tensor:
        assert actions.shape[1] == z.shape[1]
        seen = self.aggregate(z, actions[:, :-1]) * vision
        return torch.cat([seen, actions[:, -1] * action], 1)


def bank_of(samples: int, seed: int, width: int = 0) -> Features:
    """K runs of V positions, uniform; z is the position, followed by `width` numbers of noise."""
    rng = np.random.default_rng(seed)
    where = rng.uniform(0, 1, (samples, K * V, 2)).astype(np.float32)
    noise = rng.normal(size=(samples, K * V, width)).astype(np.float32)
    z = torch.from_numpy(np.concatenate([where, noise], -1))
    labels = torch.arange(samples) % 2
    return Features(z, np.full(samples, K * V), where, ("x", "y"), labels, V, z[:, 0])


def measured(method: torch.nn.Module, train: Features, val: Features, epochs: int, names: str) -> dict:
    subject = Capabilities(method, PRESETS["position"], 2, ("x", "y"), V, labelled=True, seen="patches")
    measures, skipped = tasks_for(subject, EvalConfig(m_val=(1, 3), probe_epochs=epochs, agg_draws=K, standardise=True))
    assert not skipped
    bench = Bench(train, val, CPU, seed=0)
    chosen = [measure for measure in measures if measure.name.startswith(names)]
    return {key: value for measure in chosen for key, value in fit_and_score(measure, bench)[0].items()}


def least_squares(size: int, shown: str, train: Features, val: Features) -> float:
    """R² of the best linear head on every run, written out by hand."""

    def rows(bank: Features, runs: int) -> tuple[np.ndarray, np.ndarray]:
        p = bank.params.reshape(len(bank), K, V, 2)[:, :runs].reshape(-1, V, 2)
        first, last, after = p[:, 0], p[:, size - 1], p[:, size]
        seen, taken = np.concatenate([first, last], 1), after - last
        x = {"both": np.concatenate([seen, taken], 1), "no_action": seen, "no_vision": taken}[shown]
        return x, after - first

    head = LinearRegression().fit(*rows(train, K))
    x, y = rows(val, 1)
    return r2_score(y, head.predict(x))


def test_who_sees_positions_knows_their_difference():
    scores = measured(Navigator(), bank_of(1500, 0), bank_of(500, 1), 1200, "r2_position")
    assert scores["r2_position_avg"] > 0.9999
    assert scores["r2_position_pool"] > 0.9999


def test_paths_are_as_good_as_least_squares_allows():
    train, val = bank_of(1500, 0), bank_of(500, 1)
    scores = measured(Navigator(), train, val, 1200, "r2_path")
    assert len(scores) == 6
    for shown in ("both", "no_action", "no_vision"):
        for size in (1, 3):
            expected = least_squares(size, shown, train, val)
            assert scores[f"r2_path.{shown}.{size}"] == pytest.approx(expected, abs=0.01), (shown, size)
    assert scores["r2_path.both.3"] > 0.999
    assert scores["r2_path.no_action.1"] < 0.6
    assert scores["r2_path.no_vision.1"] > 0.999
    assert scores["r2_path.no_vision.3"] < 0.6


def test_one_step_is_exact_even_untrained():
    """Paper §B.9: with M = 1 the way is the action, and e_1 is linear in it, in 50 epochs of Adam at the paper's lr."""
    torch.manual_seed(0)
    model = ModelConfig(width=0.0625, layers=1, ff_mult=1, action_dim=16, heads=2, predictor_hidden=16)
    method = SeqJEPA(RunConfig(model=model), action_size=2).eval()
    train, val = bank_of(600, 0, 30), bank_of(300, 1, 30)
    scores = measured(method, train, val, 300, "r2_path")
    assert scores["r2_path.both.1"] > 0.999
    assert scores["r2_path.no_vision.1"] > 0.999
    assert scores["r2_path.no_action.1"] < 0.6


def test_way_and_actions_of_a_run_by_hand():
    bank = bank_of(5, 2)
    slots = bank.draw(0, 2, Purpose.PROBE, 3)

    class Shows:
        def path_features(self, z, actions, *, vision, action):
            return torch.cat([z.flatten(1), actions.flatten(1)], 1) * torch.tensor([vision, action]).all()

    way = inputs.action_of(PRESETS["position"])
    shown = inputs.path_of_prefixes(Shows(), PRESETS["position"], way, [2], vision=True, acting=True)
    x, y = shown(bank, slots)(torch.tensor([4, 1]))
    for row, sample in enumerate((4, 1)):
        p = bank.params[sample, 8:11]
        expected = np.concatenate([p[0], p[1], p[1] - p[0], p[2] - p[1]])
        np.testing.assert_allclose(x[row, 0], expected, atol=1e-6)
        np.testing.assert_allclose(y[row, 0], p[2] - p[0], atol=1e-6)
