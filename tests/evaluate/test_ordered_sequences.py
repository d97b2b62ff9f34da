"""Evaluation of ordered sequences that take several samples: windows, commands over a stride, pools, intervals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from noise_shards import noise_shards
from ordered_sets import COMMAND, PARAMS, torque, write_walks
from small_backbone import SMALL

from seqjepa.config import EvalConfig
from seqjepa.data.draws import Purpose
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.metrics import Resampling, averaged_mean, averaged_r2_avg
from seqjepa.evaluate.results import format_table, read_results
from seqjepa.evaluate.rollouts import MOST_CANDIDATES, pool_of
from seqjepa.evaluate.run import evaluate_run
from seqjepa.evaluate.studies import OF_OBJECTS, SUITES, Suite
from seqjepa.recipes import load_recipe
from seqjepa.training.train import train
from shards.errors import ConfigError
from shards.reader import ShardSet, SplitIndex
from shards.schema import ActionSpec, ActionTerm

CPU = torch.device("cpu")
LENGTHS = (14, 9, 11, 23)
NAMES = tuple(field.name for field in PARAMS)
TINY = (SMALL, "data.image_size=0", "model.width=0.0625", "model.layers=1", "model.predictor_hidden=16")
BRIEF = ("optim.epochs=1", "optim.batch_size=8", "train.online_probes=false", "data.action=shards")


@pytest.fixture(scope="module")
def walks(tmp_path_factory) -> Path:
    lengths = {"train": (*LENGTHS, *LENGTHS, 3), "val": LENGTHS}
    return write_walks(tmp_path_factory.mktemp("walks") / "set", lengths).path


@pytest.fixture(scope="module")
def index(walks) -> SplitIndex:
    return ShardSet.open(walks).split("val")


@pytest.fixture
def quick(monkeypatch) -> None:
    """A suite of every study but for maps, which take long."""
    monkeypatch.setitem(SUITES, "quick", Suite(tuple(name for name in OF_OBJECTS if name != "umap"), path=True))


def features_of(index: SplitIndex, stride: int) -> Features:
    """z is the sequence, the step and how far that is from 20."""
    steps = index.view_ids.astype(np.float32)
    z = np.stack([np.broadcast_to(index.sequences.ids[:, None], steps.shape), steps, 20 - steps], axis=-1)
    z[steps < 0] = 0
    labels = torch.from_numpy(np.asarray(index.labels, np.int64))
    counts = index.n_views.astype(np.int64)
    return Features(
        torch.from_numpy(z).float(), counts, index.params, NAMES, labels, sequences=index.sequences, stride=stride
    )


@pytest.mark.parametrize("stride", [1, 3])
def test_a_draw_is_a_window_of_the_samples_sequence_in_its_order(index, stride):
    features = features_of(index, stride)
    assert features.most_views == (min(LENGTHS) - 1) // stride + 1
    seen = set()
    for draw in range(60):
        z = features.z_of(torch.from_numpy(features.draw(0, draw, Purpose.PROBE, 3))).numpy()
        assert (z[..., 0] == index.sequences.ids[:, None]).all()
        assert (np.diff(z[..., 1], axis=1) == stride).all()
        seen |= set(z[z[..., 0] == 3][:, 1].tolist())
    assert seen == set(range(23))  # all of a sequence, not its own chunk alone


@pytest.mark.parametrize("stride", [1, 3])
def test_actions_of_a_window_are_of_all_steps_on_the_way(index, stride):
    features = features_of(index, stride)
    places = features.draw(1, 0, Purpose.PROBE, 3)
    z = features.z_of(torch.from_numpy(places)).numpy().astype(int)
    actions, way = features.actions(places, COMMAND).numpy(), features.actions(places[:, [0, 2]], COMMAND).numpy()
    for row, ((q, first, _), _, _) in enumerate(z):
        told = [sum(torque(q, first + k * stride + s) for s in range(stride)) for k in (0, 1)]
        assert actions[row, :, 0] == pytest.approx(told, abs=1e-5)
        assert actions[row, :, 1] == pytest.approx([stride, stride], abs=1e-5)
        assert way[row, 0] == pytest.approx([sum(told), 2 * stride], abs=1e-5)


def test_commands_of_baked_runs_add_up_along_a_way():
    """Runs of four views: the way from the first to the last is all three commands, not the first alone."""
    params = np.arange(2 * 8 * 3, dtype=np.float32).reshape(2, 8, 3)
    z, labels = torch.zeros(2, 8, 1), torch.zeros(2, dtype=torch.int64)
    runs = Features(z, np.full(2, 8), params, NAMES, labels, run_length=4)
    places = runs.draw(0, 1, Purpose.EVALUATION, 4)
    way = runs.actions(places[:, [0, 3]], COMMAND).numpy()
    np.testing.assert_allclose(way[:, 0, 0], params[:, 4:7, 0].sum(axis=1))
    np.testing.assert_allclose(way[:, 0, 1], params[:, 7, 1] - params[:, 4, 1])
    np.testing.assert_allclose(runs.actions(places, COMMAND).numpy()[..., 0], params[:, 4:7, 0])


def test_random_order_draws_distinct_views_of_the_whole_sequence(index):
    features = features_of(index, 0)
    assert features.most_views == min(LENGTHS)
    z = features.z_of(torch.from_numpy(features.draw(0, 0, Purpose.PROBE, 9))).numpy()
    assert (z[..., 0] == index.sequences.ids[:, None]).all()
    assert all(len(set(steps)) == 9 for steps in z[..., 1].tolist())


def test_a_run_that_skips_steps_counts_the_longest_without_a_gap(index):
    ids = index.view_ids.copy()
    ids[ids >= 6] += 5  # every sequence has a gap between its steps 5 and 11
    assert replace(index, view_ids=ids).sequences.longest_run()[0] == 8  # 11 … 18 of 14 steps
    features = features_of(replace(index, view_ids=ids), 1)
    assert features.most_views == 6
    for draw in range(20):
        places = features.draw(0, draw, Purpose.PROBE, 6)
        assert (np.diff(features.z_of(torch.from_numpy(places))[..., 1].numpy()) == 1).all()


def test_candidates_are_views_of_the_sequence_with_the_way_among_them(index):
    features = features_of(index, 1)
    way = features.draw(0, 0, Purpose.EVALUATION, 5)
    pool = pool_of(features, way, 2, 0, 0)
    assert pool.places.shape[1] == MOST_CANDIDATES
    np.testing.assert_array_equal(pool.count, index.sequences.counts)  # none has more than there may be
    for row in range(len(features)):
        places = pool.places[row, : pool.count[row]]
        assert len(set(places.tolist())) == len(places)
        z = features.z_of(torch.from_numpy(places))
        assert (z[:, 0] == index.sequences.ids[row]).all()
        np.testing.assert_array_equal(places[pool.right[row]], way[row, 3:])
        assert set(way[row].tolist()) <= set(places.tolist())
    other = features.z_of(torch.from_numpy(pool.blind))[..., 0].numpy()
    assert (other == ((index.sequences.ids + 1) % len(LENGTHS))[:, None]).all()


def test_candidates_of_a_long_sequence_are_bounded(tmp_path):
    long = write_walks(tmp_path / "set", {"train": (150, 90)}, per_sample=40).split("train")
    features = features_of(long, 1)
    way = features.draw(0, 0, Purpose.EVALUATION, 9)
    pool = pool_of(features, way, 8, 0, 0)
    assert (pool.count == MOST_CANDIDATES).all()
    assert all(len(set(row)) == MOST_CANDIDATES for row in pool.places.tolist())
    np.testing.assert_array_equal(np.take_along_axis(pool.places, pool.right, 1), way[:, 1:])
    assert (pool.places != pool_of(features, way, 8, 0, 1).places).any()


def test_intervals_resample_sequences_not_their_chunks():
    """Against a bootstrap by a loop over sequences."""
    rng, objects = (
        np.random.default_rng(0),
        np.repeat(np.arange(12), [1, 5, 2, 9, 3, 1, 1, 7, 2, 4, 3, 6]),
    )
    values = rng.normal(objects % 3, 0.2)  # rows of a sequence are alike
    resampling = Resampling.over(objects, 0, CPU)
    assert resampling.counts.shape[1] == 12
    found = resampling.interval(averaged_mean(torch.from_numpy(values)))
    means = []
    for counts in resampling.counts.numpy().astype(int):
        chosen = np.concatenate([np.flatnonzero(objects == q) for q in np.repeat(np.arange(12), counts)])
        means.append(values[chosen].mean())
    assert found == pytest.approx(np.quantile(means, [0.025, 0.975]).tolist())
    low, high = Resampling.of(len(values), 0, CPU).interval(averaged_mean(torch.from_numpy(values)))
    assert found[1] - found[0] > 1.3 * (high - low)
    twice = averaged_mean(torch.from_numpy(np.tile(values, 2)))  # two draws
    assert resampling.interval(twice) == pytest.approx(found)
    y, p = torch.from_numpy(rng.normal(size=(2, len(values), 2)))
    assert all(-2 < end <= 1 for end in resampling.interval(averaged_r2_avg(y, p)))


def test_samples_that_are_whole_objects_are_resampled_as_before():
    one, other = Resampling.over(np.arange(30), 3, CPU), Resampling.of(30, 3, CPU)
    assert one.objects is None
    torch.testing.assert_close(one.counts, other.counts)


def test_a_run_on_windows_with_commands_is_evaluated(walks, tmp_path, quick):
    config = load_recipe("synth-tiny", ("data.context=3", "data.order=window", "data.stride=2", *TINY, *BRIEF))
    train(config, walks, run := tmp_path / "run", device="cpu", workers=0, progress=False)
    options = EvalConfig(probe_epochs=2, m_val=(1, 3, 6), suite="quick", device="cpu")
    for untrained in (False, True):
        found = evaluate_run(run, walks, options.model_copy(update={"untrained": untrained}))
    protocol = found["protocol"]
    assert (protocol["order"], protocol["stride"]) == ("window", 2)
    assert (protocol["train_sequences"], protocol["val_sequences"]) == (8, 4)  # one of three steps is left out
    keys = {"r2_rel_term1_avg", "rel_term1_rmse", "r2_indiv_term1_avg", "indiv_yaw_deg", "top1_z"}
    assert keys <= set(found)
    assert keys <= set(found["blind"])
    assert protocol["skipped"]["r2_rel_term2"].startswith("constant")  # x moves on by one a step
    for key in ("r2_indiv_term1_agg", "r2_indiv_term2_agg", "r2_indiv_yaw_agg", "top1_agg"):
        assert found[key].keys() == {"1", "3"}
    assert protocol["skipped"]["top1_agg.6"] == "needs 6 views, a sample has 5"
    assert found["r2_path"]["both"].keys() == {"1", "3"}
    assert protocol["targets"]["path"]["columns"] == ["torque", "x"]
    assert found["retrieval"]["queries"] == 8 * sum(-(-length // 4) for length in LENGTHS)
    assert {"mrr_blind", "mrr_chance", "h1"} <= set(found["retrieval_3"])
    assert found["rollout"]["mrr"].keys() == {"1", "2"}
    assert found["rollout"]["mrr_chance"] == found["retrieval"]["mrr_chance"]
    assert {"neighbours", "costs"} <= set(found)
    assert {"ood", "odd_one_out"} <= set(protocol["skipped"])
    assert found["intervals"]["retrieval"]["mrr"][0] <= found["retrieval"]["mrr"]
    table = format_table(read_results(run))
    assert "torque [N m] between views, root mean square error, N m" in table
    assert "blind" in table.splitlines()[0]


def test_methods_of_pairs_look_for_the_next_view_too(walks, tmp_path, quick):
    settings = ("method=equimod", "data.context=1", "model.projector=[16,16]", "data.order=window", *TINY, *BRIEF)
    train(load_recipe("synth-tiny", settings), walks, run := tmp_path / "run", device="cpu", workers=0, progress=False)
    found = evaluate_run(run, walks, EvalConfig(probe_epochs=1, m_val=(1,), suite="quick", device="cpu"))
    assert {"mrr", "mrr_blind", "mrr_chance", "queries"} <= set(found["retrieval"])
    assert "rollout" in found["protocol"]["skipped"]


def test_a_run_without_actions_walks_along_windows(walks, tmp_path, quick):
    settings = ("model.condition=none", "data.context=2", "data.order=window", *TINY, *BRIEF)
    train(load_recipe("synth-tiny", settings), walks, run := tmp_path / "run", device="cpu", workers=0, progress=False)
    found = evaluate_run(run, walks, EvalConfig(probe_epochs=1, m_val=(1,), suite="quick", device="cpu"))
    assert found["rollout"]["mrr"].keys() == {str(step) for step in range(1, 8)}  # nine steps, two seen
    assert found["rollout"]["mrr_teacher"]["1"] == found["rollout"]["mrr"]["1"]
    assert found["protocol"]["skipped"]["retrieval"] == "the predictor is not told the action"


def test_views_in_no_order_are_refused_for_a_run_on_windows(walks, tmp_path):
    settings = ("data.context=2", "data.order=window", *TINY, *BRIEF)
    train(load_recipe("synth-tiny", settings), walks, run := tmp_path / "run", device="cpu", workers=0, progress=False)
    other = noise_shards(tmp_path / "noise")
    with pytest.raises(ConfigError, match="holds views in no order, and the run was told commands"):
        evaluate_run(run, other, EvalConfig(probe_epochs=1, device="cpu"))


def test_a_set_in_order_whose_run_took_views_at_random_stays_so(walks, tmp_path, quick):
    spec = ActionSpec((ActionTerm("difference", ("x",)), ActionTerm("angle_difference", ("yaw",))))
    config = load_recipe("synth-tiny", ("data.context=2", *TINY, *BRIEF))
    data = config.data.model_copy(update={"action": spec})
    config = config.model_copy(update={"data": data})
    train(config, walks, run := tmp_path / "run", device="cpu", workers=0, progress=False)
    found = evaluate_run(run, walks, EvalConfig(probe_epochs=1, m_val=(1, 2), suite="quick", device="cpu"))
    assert found["protocol"]["order"] == "random"
    assert {"rel_term1_rmse", "rel_term2_deg", "r2_indiv_torque_avg"} <= set(found)
    assert "r2_indiv_torque_agg" not in found
    assert found["retrieval"]["queries"] > 0
