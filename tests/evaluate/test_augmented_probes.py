"""Heads on features that hold the nine parameters, and pairs and targets written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from seqjepa.config import EvalConfig
from seqjepa.data.actions import AUGMENTATION_COLUMNS, PRESETS
from seqjepa.data.augment.parameters import Scaling, constants_for, draw_parameters
from seqjepa.data.augment.recipes import RECIPES
from seqjepa.data.draws import Purpose
from seqjepa.evaluate import inputs
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.probe_training import fit_and_score
from seqjepa.evaluate.probes import Bench
from seqjepa.evaluate.studies import Capabilities
from seqjepa.evaluate.tasks import tasks_for

CPU = torch.device("cpu")
V, K = 4, 6
EQUIMOD = RECIPES["equimod"]
CONSTANTS = constants_for(EQUIMOD, 32, 32)


class Blind(torch.nn.Module):
    """Stands for the method of an aggregating run; never asked for anything here."""

    def aggregate(self, z: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return torch.cat([z[:, 0], actions.flatten(1)], 1)

    def path_features(self, z, actions, *, vision=True, action=True):
        raise AssertionError("augmentations have no path")


def bank_of(samples: int, seed: int, scaling: Scaling | None = CONSTANTS, noise: int = 0) -> Features:
    """K draws of V views; z: the nine parameters as z-scores, followed by `noise` numbers of noise."""
    drawn = [
        draw_parameters(EQUIMOD, range(samples), V, height=32, width=32, seed=seed, epoch=draw).vector()
        for draw in range(K)
    ]
    params = torch.cat(drawn, dim=1)
    extra = torch.from_numpy(np.random.default_rng(seed).normal(size=(samples, K * V, noise)).astype(np.float32))
    mean, std = torch.tensor(CONSTANTS.mean), torch.tensor(CONSTANTS.std)
    z = torch.cat([(params - mean) / std, extra], -1)
    labels = torch.arange(samples) % 2
    n_views = np.full(samples, K * V)
    return Features(z, n_views, params.numpy(), AUGMENTATION_COLUMNS, labels, V, z[:, 0], scaling)


def measured(
    train: Features, val: Features, epochs: int, names: str, standardise: bool = False, constant: tuple[str, ...] = ()
) -> dict[str, float]:
    subject = Capabilities(
        Blind(),
        PRESETS["augmentation"],
        2,
        AUGMENTATION_COLUMNS,
        V,
        labelled=True,
        seen="augmentations",
        constant=constant,
    )
    config = EvalConfig(m_val=(1, 3), probe_epochs=epochs, agg_draws=K, standardise=standardise)
    measures, _ = tasks_for(subject, config)
    bench = Bench(train, val, CPU, seed=0)
    chosen = [measure for measure in measures if measure.name.startswith(names)]
    return {key: value for measure in chosen for key, value in fit_and_score(measure, bench)[0].items()}


@pytest.mark.usefixtures("wide_mlps")
def test_features_that_are_the_parameters_reach_an_r2_of_one():
    train, val = bank_of(500, seed=0), bank_of(200, seed=1)
    scores = measured(train, val, 12, "r2_")
    assert sorted(scores) == sorted(
        f"r2_{part}_{kind}" for part in ("crop", "jitter", "blur") for kind in ("avg", "pool")
    )
    assert min(scores["r2_crop_avg"], scores["r2_jitter_avg"]) > 0.97


def test_blur_is_read_by_the_linear_head_that_fits_best():
    train, val = bank_of(600, seed=0, noise=20), bank_of(400, seed=1, noise=20)
    for bank in (train, val):  # sigma is hidden under noise of its own size, so that R² is far from one
        bank.z[..., 8] += torch.from_numpy(np.random.default_rng(len(bank)).normal(size=bank.z.shape[:2]))

    def rows(bank: Features, draws: int) -> tuple[np.ndarray, np.ndarray]:
        z = bank.z.numpy().reshape(len(bank), K, V, -1)[:, :draws]
        sigma = bank.params.reshape(len(bank), K, V, 9)[:, :draws, :, 8]
        x = np.concatenate([z[:, :, 0], z[:, :, -1]], -1).reshape(len(bank) * draws, -1)
        return x, ((sigma[:, :, -1] - sigma[:, :, 0]) / CONSTANTS.std[8]).reshape(-1, 1)

    best = LinearRegression().fit(*rows(train, K))
    x, y = rows(val, 1)
    expected = r2_score(y, best.predict(x))
    assert 0.3 < expected < 0.9
    found = measured(train, val, 1800, "r2_blur", standardise=True)
    assert found["r2_blur_avg"] == pytest.approx(expected, abs=0.01)


def test_a_pair_is_an_observation_view_and_the_target_view():
    bank = bank_of(20, seed=0)
    slots = bank.draw(0, 2, Purpose.PROBE, V)
    x, y = inputs.augmentation_between("jitter", whole_draw=False)(bank, slots)(torch.arange(20))
    first, last = (bank.params[:, 2 * V + view] for view in (0, V - 1))
    np.testing.assert_allclose(x, torch.cat([bank.z[:, 2 * V], bank.z[:, 3 * V - 1]], 1))
    np.testing.assert_allclose(y, ((last - first) / CONSTANTS.std)[:, 4:8], atol=1e-5)


@pytest.mark.parametrize(("whole_draw", "views"), [(False, (0, 3)), (True, (0, 1, 2, 3))])
def test_released_targets_are_over_their_norm_along_the_views(whole_draw, views):
    bank = bank_of(20, seed=0, scaling=None)
    bank.params[:5, :, 7] = 0  # hue, where no view is jittered
    slots = bank.draw(0, 1, Purpose.PROBE, V)
    x, y = inputs.augmentation_between("augmentation", whole_draw=whole_draw)(bank, slots)(torch.arange(20))
    seen = bank.params[:, [V + view for view in views]].astype(np.float64)
    norm = np.sqrt((seen**2).sum(axis=1))
    expected = (seen[:, 1] - seen[:, 0]) / np.where(norm > 0, norm, 1)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    np.testing.assert_allclose(x[:, 9:], bank.z[:, V + views[1]])


def test_released_actions_are_normalised_over_the_whole_draw_before_prefixes_are_taken():
    bank = bank_of(20, seed=0, scaling=None)
    subject = Capabilities(
        Blind(), PRESETS["blur"], 2, AUGMENTATION_COLUMNS, V, labelled=True, seen="augmentations", author=True
    )
    measure = next(m for m in tasks_for(subject, EvalConfig(m_val=(2,), probe_epochs=1))[0] if m.name == "top1_agg")
    z_agg, _ = measure.inputs(bank, bank.draw(0, 0, Purpose.PROBE, measure.views))(torch.arange(20))
    sigma = bank.params[:, :V, 8]
    expected = (sigma[:, 1] - sigma[:, 0]) / np.sqrt((sigma**2).sum(axis=1))
    np.testing.assert_allclose(z_agg[:, 0, -1], expected, atol=1e-6)


@pytest.mark.parametrize(("method", "second"), [(Blind(), 1), (None, V - 1)])
def test_released_pairs_of_methods_without_z_agg_are_those_of_a_draw_of_two(method, second):
    subject = Capabilities(
        method, PRESETS["blur"], 2, AUGMENTATION_COLUMNS, V, labelled=True, seen="augmentations", author=True
    )
    bank = bank_of(20, seed=0, scaling=None)
    measure = next(m for m in tasks_for(subject, EvalConfig(m_val=(2,), probe_epochs=1))[0] if m.name == "r2_blur")
    x, _ = measure.inputs(bank, bank.draw(0, 0, Purpose.PROBE, measure.views))(torch.arange(20))
    np.testing.assert_array_equal(x, torch.cat([bank.z[:, 0], bank.z[:, second]], 1))


def test_no_view_of_the_target_pipeline_goes_into_z_agg():
    subject = Capabilities(
        Blind(), PRESETS["augmentation"], 2, AUGMENTATION_COLUMNS, V, labelled=True, seen="augmentations"
    )
    measure = next(
        m for m in tasks_for(subject, EvalConfig(m_val=(1, V - 1), probe_epochs=1))[0] if m.name == "top1_agg"
    )
    bank = bank_of(20, seed=0)
    slots = bank.draw(0, 0, Purpose.PROBE, measure.views)
    bank.z[:, V - 1] = float("nan")
    z_agg, _ = inputs.label_of_prefixes(Mean(), "augmentation", [1, V - 1])(bank, slots)(torch.arange(20))
    assert torch.isfinite(z_agg).all()


class Mean(Blind):
    def aggregate(self, z: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        assert actions.shape[1] == z.shape[1] - 1
        return z.mean(1)


def test_parameters_that_never_vary_are_not_measured_and_divide_nothing_by_zero():
    train, val = bank_of(300, seed=0), bank_of(50, seed=1)
    for bank in (train, val):
        bank.params[..., 4:9] = 0
    scores = measured(train, val, 6, "r2_", constant=AUGMENTATION_COLUMNS[4:9])
    assert sorted(scores) == ["r2_crop_avg", "r2_crop_pool"]
    flat = measured(train, val, 6, "r2_")
    assert np.isfinite(list(flat.values())).all()
    for scaling in (CONSTANTS, None):
        y = inputs.augmentation_between("jitter", whole_draw=False)(
            Features(val.z, val.n_views, val.params, val.param_names, val.labels, V, None, scaling),
            val.draw(0, 0, Purpose.PROBE, V),
        )(torch.arange(50))[1]
        assert (y == 0).all()
