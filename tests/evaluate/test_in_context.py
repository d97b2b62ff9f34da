"""Probing ContextSSL after a context: what z⁺ is, where the context comes from, what results.json says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_context_runs import MODEL, PAIRS, context_run, context_shards

from seqjepa.commands.evaluate import parse_sizes
from seqjepa.config import RunConfig
from seqjepa.data.actions import actions_between
from seqjepa.evaluate import probe_training
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.probe_training import context_lengths, draw_context, put_in_context
from seqjepa.evaluate.results import format_table, read_results
from seqjepa.evaluate.run import evaluate_run
from seqjepa.methods.context_ssl import PARAMS, ContextSSL
from seqjepa.methods.context_ssl.transformer import pair_mask
from seqjepa.methods.simclr import SimCLR
from seqjepa.training.checkpoint import load_run
from shards.errors import ConfigError, UsageError

CPU = torch.device("cpu")
QUICK = {"device": "cpu", "probe_epochs": 2, "progress": False}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return context_shards(tmp_path_factory.mktemp("context") / "shards")


@pytest.fixture(scope="module")
def method(tmp_path_factory: pytest.TempPathFactory) -> ContextSSL:
    found = load_run(context_run(tmp_path_factory.mktemp("context") / "run")).method
    assert isinstance(found, ContextSSL)
    return found


def bank(samples: int = 5, views: int = 4) -> Features:
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(size=(samples, views, 64)).astype(np.float32))
    n_views = np.array([views - s % 2 for s in range(samples)])
    params = rng.uniform(-1, 1, (samples, views, 7)).astype(np.float32)
    return Features(z, n_views, params, PARAMS, torch.zeros(samples, dtype=torch.int64))


def test_a_context_holds_pairs_of_different_views_of_one_object_and_their_actions():
    drawn = draw_context(source := bank(), "rotation_colour", 8, 3, CPU)
    flat = source.z.flatten(0, 1)
    for pair, action in zip(drawn.z, drawn.actions, strict=True):
        at = [int((flat == view).all(1).nonzero()) for view in pair]
        samples, slots = zip(*(divmod(k, 4) for k in at), strict=True)
        assert samples[0] == samples[1]
        assert slots[0] != slots[1]
        assert max(slots) < source.n_views[samples[0]]
        params = source.params[[samples[0]], [slots]]
        expected = actions_between(params, PARAMS, "rotation_colour")[0, 0]
        np.testing.assert_array_equal(action.numpy(), expected)
    shorter, other = (draw_context(source, "rotation_colour", 8, seed, CPU) for seed in (3, 4))
    assert torch.equal(shorter.z, drawn.z)
    assert not torch.equal(other.z, drawn.z)
    assert torch.equal(draw_context(source, "rotation_colour", 4, 3, CPU).z, drawn.z[:4])


def test_views_in_context_are_the_last_tokens_of_full_sequences(method: ContextSSL):
    source = bank()
    context = draw_context(source, "rotation_colour", PAIRS, 0, CPU)
    for environment, told in (("rotation", slice(0, 4)), ("colour", slice(4, 6))):
        with torch.no_grad():
            found = put_in_context(method, source, context.memory(method, environment, 6), CPU)
            actions = torch.zeros(4, 6)
            actions[:3, told] = context.actions[:3, told]
            for sample, view in ((0, 0), (3, 2)):
                single = source.z[sample, view].expand(1, 2, -1)
                z = torch.cat((context.z[:3], single))
                whole = method.represent(z, actions, pair_mask(8).expand(len(method.transformer.blocks), -1, -1))
                torch.testing.assert_close(found.z[sample, view], whole[3, 0], rtol=1e-5, atol=1e-5)
    assert (found.z[1, 3] == 0).all()  # padding
    assert found.params is source.params


def test_lengths_leave_room_for_a_view_and_are_even(method: ContextSSL):
    assert context_lengths(method, None, CPU) == [2 * PAIRS - 2]
    assert context_lengths(method, None, torch.device("cuda")) == [0, 2 * PAIRS - 2]
    assert context_lengths(method, [4, 0, 4], CPU) == [0, 4]
    for wrong in ([3], [2 * PAIRS], [-2], []):
        with pytest.raises(ConfigError, match=f"even numbers of tokens from 0 to {2 * PAIRS - 2}"):
            context_lengths(method, wrong, CPU)


def test_the_option_for_lengths():
    assert parse_sizes("0,2,14", "--contexts", 0, 8190) == [0, 2, 14]
    with pytest.raises(UsageError, match="--contexts is 'all'"):
        parse_sizes("all", "--contexts", 0, 8190)
    with pytest.raises(UsageError, match="0 to 8190"):
        parse_sizes("9000", "--contexts", 0, 8190)


def test_other_methods_take_no_context():
    other = SimCLR(RunConfig(model=MODEL), 4)
    assert context_lengths(other, None, CPU) == []
    with pytest.raises(ConfigError, match="contexts are for context_ssl"):
        context_lengths(other, [0], CPU)


def test_results_hold_every_context_and_the_headline(tmp_path: Path, shards: Path):
    run = context_run(tmp_path / "run")
    results = evaluate_run(run, shards, contexts=(0, 2 * PAIRS - 2), **QUICK)
    names = ["top1_z", *(f"r2_{w}_{k}" for w in ("rel_rot", "indiv_rot", "hue") for k in ("avg", "pool"))]
    inside = results["in_context"]
    assert set(inside) == {"encoder", "rotation", "colour"}
    for name in names:
        assert results[name] == inside["rotation"][name][str(2 * PAIRS - 2)]
        assert inside["rotation"][name]["0"] == inside["colour"][name]["0"]
        assert name in inside["encoder"]
    rel = {str(v["r2_rel_rot_avg"]) for v in inside.values()}
    assert len(rel) == 3
    context = results["protocol"]["context"]
    assert (context["environment"], context["tokens"]) == ("rotation", 2 * PAIRS - 2)
    assert context["lengths"] == [0, 2 * PAIRS - 2]
    assert json.loads((run / "results.json").read_text()) == {"trained": results}
    table = format_table(read_results(run))
    assert f"R² relative rotation, pooled, context of colour, {2 * PAIRS - 2} tokens" in table
    assert "top-1, z, without the transformer" in table


def test_classes_are_read_from_z_as_it_is_and_all_else_from_length_1(tmp_path: Path, shards: Path, monkeypatch):
    lengths: dict[bool, set[bool]] = {True: set(), False: set()}
    learn = probe_training.score_tasks

    def watched(tasks, bench, *rest, **more):
        for task in tasks:
            norms = bench.train.z.norm(dim=-1)
            lengths[bool(task.classes)].add(bool(torch.isclose(norms, torch.ones(())).all()))
        return learn(tasks, bench, *rest, **more)

    run = context_run(tmp_path / "run")
    monkeypatch.setattr(probe_training, "score_tasks", watched)
    evaluate_run(run, shards, **QUICK)
    assert lengths == {True: {False}, False: {True, False}}  # False: without the transformer


def test_without_hues_in_the_action_there_is_one_environment(tmp_path: Path, shards: Path):
    run = context_run(tmp_path / "run", action="rotation")
    results = evaluate_run(run, shards, **QUICK)
    assert set(results["in_context"]) == {"encoder", "rotation"}
    assert results["protocol"]["context"]["environments"] == ["rotation"]


def test_a_wrong_length_is_said_before_anything_is_encoded(tmp_path: Path, shards: Path, monkeypatch):
    run = context_run(tmp_path / "run")
    monkeypatch.setattr(ContextSSL, "embed", lambda *_: pytest.fail("encoded"))
    with pytest.raises(ConfigError, match="even numbers"):
        evaluate_run(run, shards, contexts=(3,), **QUICK)
