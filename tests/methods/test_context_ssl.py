"""ContextSSL's step beside a slow reference, and what a step draws."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from seqjepa.config import ContextSSLConfig, DataConfig, ModelConfig, RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.losses import nt_xent
from seqjepa.methods import build_method
from seqjepa.methods.context_ssl import ContextSSL, absolute_parameters
from seqjepa.methods.context_ssl.transformer import pair_mask, random_mask
from seqjepa.methods.flops import count_macs
from seqjepa.models.backbone import build_backbone
from seqjepa.training.learner import seed_step
from shards.errors import ConfigError

MODEL = ModelConfig(width=0.125, layers=2, heads=2, ff_mult=2)
D, PAIRS, WEIGHT, TAU = 64, 3, 5.0, 0.1
ROTATION, COLOUR = (0, 1, 2, 3), (4, 5)


def small(action_size: int = 6, **changes: float) -> ContextSSL:
    torch.manual_seed(0)
    settings = {"width": 32, "pairs": PAIRS, "mask": 0.5, **changes}
    told = DataConfig(action="rotation_colour" if action_size == 6 else "rotation")
    config = RunConfig(data=told, model=MODEL, context_ssl=ContextSSLConfig(**settings))  # type: ignore[arg-type]
    method = ContextSSL(config, action_size)
    for parameter in method.parameters():  # away from the start, where residual branches do nothing
        parameter.data += 0.1 * torch.randn_like(parameter)
    return method


def pairs(batch: int, action_size: int = 6, seed: int = 0) -> ViewSequence:
    generator = torch.Generator().manual_seed(seed)
    params = torch.rand(batch, 2, 7, generator=generator) * 3 - 1.5
    return ViewSequence(
        torch.randn(batch, 2, 3, 16, 16, generator=generator),
        torch.randn(batch, 1, action_size, generator=generator),
        params,
        torch.zeros(batch, dtype=torch.int64),
        [""] * batch,
    )


def double(seq: ViewSequence) -> ViewSequence:
    return ViewSequence(seq.views.double(), seq.actions.double(), seq.params.double(), seq.labels, seq.keys)


def draws(method: ContextSSL) -> tuple[tuple[int, ...], Tensor]:
    """What the next step is going to draw, from the definition: one number for the environment, then the masks'."""
    layers, L = MODEL.layers, 2 * method.context.pairs
    numbers = torch.rand(1 + layers * L * L // 2)
    masks = random_mask(numbers[1:].view(layers, L, L // 2), method.context.mask)
    return (ROTATION if numbers[0] < 0.5 else COLOUR), masks


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b / (a.norm() * b.norm())).clamp(min=1e-7)


def reference_loss(method: ContextSSL, seq: ViewSequence, told: tuple[int, ...], masks: Tensor) -> Tensor:
    """Pair by pair: sequences that are cut out and never padded, 2N softmaxes, squared errors one by one."""
    B, P = len(seq), method.context.pairs
    z = method.encoder(torch.stack([seq.views[b, v] for b in range(B) for v in (0, 1)]))
    action = torch.zeros_like(seq.actions[:, 0])
    action[:, list(told)] = seq.actions[:, 0][:, list(told)]
    tokens = [torch.cat((z[2 * b + v], action[b] * (1 - v))) for b in range(B) for v in (0, 1)]
    y = []
    for start in range(0, 2 * B, 2 * P):
        part = torch.stack(tokens[start : start + 2 * P])
        y += list(method.transformer(part[None], masks[:, : len(part), : len(part)])[0])
    losses, errors = [], []
    for k in range(2 * B):
        others = [cosine(y[k], y[j]) / TAU for j in range(2 * B) if j != k]
        losses.append(torch.stack(others).exp().sum().log() - cosine(y[k], y[k ^ 1]) / TAU)
        said = method.regressor(y[k] / y[k].norm())
        truth = by_scipy(seq.params[k // 2, 1])
        errors += [(said[j] - truth[j]) ** 2 for j in told]
    return torch.stack(losses).mean() + WEIGHT * torch.stack(errors).mean()


def by_scipy(params: Tensor) -> Tensor:
    q = Rotation.from_euler("xyz", params[:3].double().numpy()).as_quat()
    return torch.tensor([*q.tolist(), float(params[3]), float(params[6])], dtype=params.dtype)


@pytest.mark.parametrize("batch", [2, 3, 6, 8])
@pytest.mark.parametrize("seed", [0, 1])
def test_loss_and_gradients_equal_a_slow_reference(batch: int, seed: int):
    """Batches of less than a sequence, of whole sequences, and with a rest; both environments."""
    method, seq = small().double(), double(pairs(batch))
    slow = copy.deepcopy(method)
    torch.manual_seed(seed)
    told, masks = draws(method)
    assert told == (ROTATION, COLOUR)[seed]
    torch.manual_seed(seed)
    loss, expected = method.step(seq).loss, reference_loss(slow, seq, told, masks)
    torch.testing.assert_close(loss, expected, rtol=1e-8, atol=1e-10)
    loss.backward()
    expected.backward()
    for (name, one), two in zip(method.named_parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-6, atol=1e-9, msg=name)


def test_every_parameter_learns_in_either_environment():
    for seed in (0, 1):
        method = small()
        torch.manual_seed(seed)
        method.step(pairs(4)).loss.backward()
        assert all(p.grad is not None and (p.grad != 0).any() for p in method.parameters())


def test_absolute_parameters_are_scipys_quaternion_and_the_two_hues():
    params = pairs(20).params[:, 1].double()
    expected = torch.stack([by_scipy(row) for row in params])
    torch.testing.assert_close(absolute_parameters(params), expected, rtol=1e-12, atol=1e-12)


def test_only_the_environments_part_of_an_action_is_seen():
    method, seq = small(), pairs(4)
    seq.actions.requires_grad_()
    for seed, told in ((0, ROTATION), (1, COLOUR)):
        torch.manual_seed(seed)
        seq.actions.grad = None
        method.step(seq).loss.backward()
        assert seq.actions.grad is not None
        felt = (seq.actions.grad[:, 0] != 0).any(0)
        assert felt.tolist() == [j in told for j in range(6)]
    only_rotation = small(4)
    environments = [only_rotation._draw(torch.device("cpu"))[0].tolist() for _ in range(8)]
    assert environments == [[1, 1, 1, 1]] * 8
    torch.manual_seed(0)
    rotations = np.mean([method._draw(torch.device("cpu"))[0][0].item() for _ in range(3000)])
    assert rotations == pytest.approx(0.5, abs=0.035)  # one environment as often as the other


def test_a_step_is_a_function_of_its_seed():
    losses = []
    for number in (0, 1, 2, 0):
        method = small()
        seed_step(7, number, 0, torch.device("cpu"))
        losses.append(method.step(pairs(7)).loss.item())
    assert losses[0] == losses[3]
    assert len(set(losses)) == 3


def test_filling_up_changes_nothing_for_those_before_it():
    """In eval mode 3 + 2 pairs give what the 3 and the 2 give alone."""
    method, seq = small().eval(), pairs(5)
    z = method.embed(seq.views.flatten(0, 1)).unflatten(0, (5, 2))
    allowed = pair_mask(2 * PAIRS).expand(MODEL.layers, -1, -1)
    whole = method.represent(z, seq.actions[:, 0], allowed)
    parts = [method.represent(z[part], seq.actions[part, 0], allowed) for part in (slice(0, 3), slice(3, 5))]
    torch.testing.assert_close(whole, torch.cat(parts))


def test_a_view_in_context_is_what_it_would_be_in_a_sequence():
    method, seq = small(pairs=4).eval(), pairs(4)
    with torch.no_grad():
        z = method.embed(seq.views.flatten(0, 1)).unflatten(0, (4, 2))
        actions = seq.actions[:, 0].clone()
        actions[-1] = 0  # the view that is looked at comes without action
        sequence = method.represent(z, actions, pair_mask(8).expand(MODEL.layers, -1, -1))
        memory = method.remember(z[:3], actions[:3])
        torch.testing.assert_close(method.in_context(z[3:, 0], memory), sequence[3:, 0], rtol=1e-5, atol=1e-5)
        nothing = method.in_context(z[:, 0], method.remember(z[:0], actions[:0]))
        torch.testing.assert_close(nothing[:1], method.represent(z, actions * 0, pair_mask(8).expand(2, -1, -1))[:1, 0])


def test_bfloat16_keeps_the_loss_in_float32_and_features_are_the_encoders():
    losses = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            torch.manual_seed(1)
            out = small().step(pairs(6))
        assert out.loss.dtype == torch.float32
        assert out.features["z"].shape == (6, 2, D)
        assert not out.features["z"].requires_grad
        losses.append(out.loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    method, seq = small().eval(), pairs(3)
    z = method.step(seq).features["z"]
    torch.testing.assert_close(z[:, 1], method.encoder(seq.views[:, 1]))


def test_it_learns_to_tell_pairs_apart():
    method = small(mask=0.0)
    seq = pairs(6)
    optimizer = torch.optim.Adam(method.parameters(), lr=2e-3)
    losses = []
    for step in range(30):
        seed_step(0, step, 0, torch.device("cpu"))
        out = method.step(seq)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        losses.append(out.logs["contrast"].item())
    assert losses[-1] < 0.5 * math.log(11)
    assert losses[-1] < losses[0]


def test_it_is_built_by_name_and_says_what_does_not_fit():
    config = RunConfig(
        method="context_ssl",
        data=DataConfig(context=1, action="rotation_colour"),
        model=MODEL,
        context_ssl=ContextSSLConfig(width=32),
    )
    method = build_method(config, 6)
    assert isinstance(method, ContextSSL)
    assert method.views_needed == 2
    assert method.regressor[-1].weight.shape == (6, 1024)
    with pytest.raises(ConfigError, match="multiple of model"):
        ContextSSL(RunConfig(model=MODEL, context_ssl=ContextSSLConfig(width=33)), 4)
    three, unknown = DataConfig(action="rotation"), DataConfig(context=1, action="jitter")
    for data, complaint in ((three, "exactly 2 views"), (unknown, "told rotations and hues")):
        with pytest.raises(ConfigError, match=complaint):
            build_method(config.model_copy(update={"data": data}), 4)
    views, few = torch.randn(2, 2, 3, 16, 16), torch.zeros(2, 2, 3)
    with pytest.raises(ConfigError, match="needs views with the parameters rot_x"):
        method.step(ViewSequence(views, torch.zeros(2, 1, 6), few, torch.zeros(2), ["", ""]))


def test_a_floor_under_cosines_makes_opposite_rows_no_worse_than_orthogonal_ones():
    """Four rows at 0°, 60°, 180° and 90°, by hand: cosines of pairs ½ and 0, of all others at most √¾."""
    angles = torch.tensor([0.0, 180.0, 60.0, 90.0]).deg2rad()
    rows = torch.stack((angles.cos(), angles.sin()), dim=1).double()
    a, b = rows[:2], rows[2:]  # partners: 0° with 60°, 180° with 90°
    near, right = math.exp(0.5), math.exp(math.sqrt(0.75))
    sums = [(near, near + 2), (1.0, 3.0), (near, near + 1 + right), (1.0, 2 + right)]
    expected = -sum(math.log(own / total) for own, total in sums) / 4
    assert nt_xent(a, b, 1.0, least=1e-7).item() == pytest.approx(expected, abs=1e-6)
    assert nt_xent(a, b, 1.0).item() != pytest.approx(expected, abs=1e-2)
    assert nt_xent(a, b, 1.0, least=-1.0).item() == pytest.approx(nt_xent(a, b, 1.0).item(), abs=1e-12)


def test_its_macs_are_those_of_its_layers():
    """Beyond the encoder's: read-in, blocks with attention over 4 tokens, read-out and regressor, on 2 pairs."""
    method, encoder_only = small(), build_backbone(MODEL)[0].eval()
    W, L, tokens = 32, 4, 2  # tokens of one pair; a sequence of two pairs has L
    block = 4 * W * W + 4 * W * W + 2 * L * W  # q, k, v and out; ff_mult 2; scores and mixing
    outside = 70 * W + W * D + D * 1024 + 1024 * 1024 + 1024 * 6
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder_only(torch.randn(1, 3, 16, 16))
    encoder = counter.get_total_flops() // 2
    forward = tokens * (encoder + MODEL.layers * block + outside)
    macs = count_macs(method, 6, 16, 1)
    assert macs.forward == encoder
    assert macs.training == pytest.approx(3 * forward, rel=0.05)


@pytest.mark.parametrize(("fidelity", "weight"), [("paper", 0), ("author", 1)])
def test_residual_branches_begin_at_zero_but_for_the_authors(fidelity, weight):
    config = RunConfig(fidelity=fidelity, data=DataConfig(action="rotation"), model=MODEL)
    encoder = ContextSSL(config, 4).encoder
    assert {value for block in encoder.layer1 for value in block.bn2.weight.tolist()} == {weight}
