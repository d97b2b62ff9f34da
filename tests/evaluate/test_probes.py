from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F

from seqjepa.data.draws import permutation
from seqjepa.evaluate.heads import (
    Fit,
    Job,
    StackedLinear,
    Standardise,
    cross_entropy,
    fit,
    fit_together,
    mlp,
    predict,
    squared_error,
)
from seqjepa.evaluate.metrics import r2_avg, top1
from seqjepa.evaluate.probes import in_degrees, regression

CPU = torch.device("cpu")


def fixed(x: torch.Tensor, y: torch.Tensor):
    return lambda epoch: lambda rows: (x[rows], y[rows])


def blobs(overlap: float) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 600)
    x = rng.normal(size=(3, 2))[labels] * 4 + rng.normal(size=(600, 2)) * overlap
    return torch.from_numpy(x).float(), torch.from_numpy(labels)


def test_separable_classes_reach_one():
    x, y = blobs(overlap=0.1)
    head = fit(lambda: nn.Linear(2, 3), fixed(x, y), 600, cross_entropy, Fit(300, seed=0), device=CPU)
    assert top1(predict(head, x), y) == 1.0


def test_linear_probe_ends_where_logistic_regression_does():
    x, y = blobs(overlap=2.5)
    how = Fit(1500, seed=0, batch_size=600, lr=1e-2)  # the whole set at once: no minibatch noise left at the end
    head = fit(lambda: nn.Linear(2, 3), fixed(x, y), 600, cross_entropy, how, device=CPU)
    ours = predict(head, x).softmax(-1)
    oracle = LogisticRegression(C=np.inf).fit(x.numpy(), y.numpy()).predict_proba(x.numpy())
    np.testing.assert_allclose(ours.numpy(), oracle, atol=1e-3)


def test_linear_regressor_recovers_a_linear_map():
    torch.manual_seed(0)
    x, weight = torch.randn(512, 6), torch.randn(6, 2)
    y = x @ weight + 1
    head = fit(lambda: nn.Linear(6, 2), fixed(x, y), 512, F.mse_loss, Fit(400, seed=0, lr=1e-2), device=CPU)
    assert r2_avg(y, predict(head, x)) > 0.9999
    torch.testing.assert_close(head.weight.detach().T, weight, atol=1e-2, rtol=0)


def test_stacked_heads_take_the_steps_of_separate_ones():
    x, y = torch.randn(300, 2, 5), torch.randint(0, 3, (300,))
    how = Fit(5, seed=7)
    stacked = fit(lambda: StackedLinear(2, 5, 3), fixed(x, y), 300, cross_entropy, how, device=CPU)
    assert isinstance(stacked, StackedLinear)
    torch.manual_seed(7)
    for k, start in enumerate([nn.Linear(5, 3), nn.Linear(5, 3)]):
        alone = fit(lambda layer=start: layer, fixed(x[:, k], y), 300, cross_entropy, how, device=CPU)
        torch.testing.assert_close(stacked(x)[:, k], alone(x[:, k]), atol=1e-5, rtol=1e-4)
    said, numbers = torch.randn(300, 2, 3), torch.randn(300, 2, 3)
    classified, regressed = (
        sum(loss(said[:, k], target) for k, target in enumerate(targets))
        for loss, targets in ((F.cross_entropy, (y, y)), (F.mse_loss, numbers.unbind(1)))
    )
    torch.testing.assert_close(cross_entropy(said, y), classified)
    torch.testing.assert_close(squared_error(said, numbers), regressed)


def test_heads_that_learn_together_are_those_that_learn_alone():
    """Of other kinds, widths and lengths, on views that change every epoch; to the bit."""
    x, labels = torch.randn(150, 5), torch.randint(0, 3, (150,))

    def drawn(of: torch.Tensor):
        return lambda epoch: lambda rows: (x[rows] * (1 + epoch), of[rows])

    jobs = [
        Job(lambda: nn.Linear(5, 3), drawn(labels), cross_entropy, 6),
        Job(lambda: mlp(5, 2, hidden=8), drawn(x[:, :2]), squared_error, 4),
        Job(lambda: nn.Linear(5, 5), drawn(x), squared_error, 6),
    ]
    together = fit_together(jobs, 150, Fit(0, seed=3, batch_size=32), device=CPU)
    for head, job in zip(together, jobs, strict=True):
        alone = fit(job.build, job.inputs, 150, job.loss, Fit(job.epochs, seed=3, batch_size=32), device=CPU)
        assert not head.training
        for name, value in alone.state_dict().items():
            assert torch.equal(head.state_dict()[name], value), name


def test_same_seed_same_head_and_global_randomness_untouched():
    x, y = blobs(overlap=1.0)
    before = torch.get_rng_state()
    one, two, other = (
        fit(lambda: mlp(2, 3, hidden=8), fixed(x, y), 600, cross_entropy, Fit(3, seed=s), device=CPU) for s in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(predict(one, x), predict(two, x))
    assert not torch.equal(predict(one, x), predict(other, x))


def test_every_row_is_seen_once_an_epoch_and_every_epoch_is_drawn_once():
    seen: dict[int, list[int]] = {}

    def inputs(epoch: int):
        rows_seen = seen.setdefault(epoch, [])

        def gather(rows: torch.Tensor):
            rows_seen.extend(rows.tolist())
            return torch.randn(len(rows), 2), torch.zeros(len(rows), dtype=torch.long)

        return gather

    fit(lambda: nn.Linear(2, 2), inputs, 70, cross_entropy, Fit(3, seed=0, batch_size=32), device=CPU)
    assert [sorted(rows) for rows in seen.values()] == [list(range(70))] * 3
    assert seen[0] != seen[1]


@pytest.mark.usefixtures("wide_mlps")
def test_mlp_has_two_hidden_layers_of_1024():
    assert [tuple(p.shape) for p in mlp(1024, 4).parameters()] == [
        (1024, 1024),
        (1024,),
        (1024, 1024),
        (1024,),
        (4, 1024),
        (4,),
    ]


@pytest.mark.parametrize("rows", [1, 5000])
def test_predict_in_chunks_is_the_whole(rows):
    head, x = nn.Linear(3, 2), torch.randn(rows, 3)
    torch.testing.assert_close(predict(head, x), head(x).detach())


def test_a_plain_regressor_is_pytorchs_linear_layer_on_features_as_they_are():
    """Paper, §A.2: linear, Adam with defaults at 1e-3, batch 256. By a loop of its own."""
    x, y = torch.randn(512, 6) * 3 + 5, torch.randn(512, 2)
    measure = regression("r2_position", lambda bank, slots: lambda rows: (x[rows], y[rows]), 1, 2, 4, deep=False)
    head = fit(lambda: measure.head(x, y), fixed(x, y), 512, measure.loss, Fit(4, seed=3), device=CPU)
    torch.manual_seed(3)
    alone = nn.Linear(6, 2)
    optimizer = torch.optim.Adam(alone.parameters(), lr=1e-3)
    for epoch in range(4):
        for rows in torch.from_numpy(permutation(3, epoch, 512)).split(256):
            optimizer.zero_grad()
            F.mse_loss(alone(x[rows]), y[rows]).backward()
            optimizer.step()
    assert isinstance(head, nn.Linear)
    torch.testing.assert_close(head.weight, alone.weight, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(head.bias, alone.bias, atol=1e-6, rtol=1e-5)


def test_a_standardised_one_begins_at_the_mean_of_its_targets():
    x, y = torch.randn(512, 6) * 3 + 5, torch.randn(512, 2) + 7
    inputs = lambda bank, slots: lambda rows: (x[rows], y[rows])  # noqa: E731
    head = regression("r2_hue", inputs, 1, 2, 4, deep=False, standardise=True).head(x, y)
    torch.testing.assert_close(head(x), y.mean(0).expand(512, 2))


def test_a_feature_that_varies_by_rounding_alone_is_centred_and_not_blown_up():
    noise = torch.randn(512, generator=torch.Generator().manual_seed(0))
    examples = torch.stack([100 + 5e-6 * noise, 0.01 * noise, 3e-5 * noise], dim=1)
    seen = Standardise(examples)(examples)
    torch.testing.assert_close(seen.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    assert seen[:, 0].abs().max() < 1e-3
    torch.testing.assert_close(seen[:, 1:].std(0), torch.ones(2))


def test_a_median_error_is_that_of_the_rows():
    mean, median = in_degrees(lambda p, y: (p - y).abs()[:, 0].double())
    predicted, target = torch.tensor([[1.0], [2.0], [9.0]]), torch.zeros(3, 1)
    assert (mean.value(predicted, target), median.value(predicted, target)) == (4, 2)
