"""seqjepa.load: a run in use gives what training and evaluation compute, whatever form images come in."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from train_helpers import SACCADES, make_saliency_shards, make_shards, tiny_config

import seqjepa
from seqjepa.data.actions import actions_between
from seqjepa.data.sequence import normalise
from seqjepa.training.checkpoint import load_run
from seqjepa.training.train import train
from shards.errors import UsageError
from shards.reader import ShardSet

SIDE = 32


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    shards = make_shards(folder / "set")
    train(tiny_config("optim.epochs=1"), shards, folder / "run", workers=0, device="cpu")
    return folder / "run", ShardSet.open(shards).split("train")


@pytest.fixture(scope="module")
def model(made):
    return seqjepa.load(made[0], "cpu")


@pytest.fixture(scope="module")
def views(made) -> np.ndarray:
    """uint8 [6, 4, H, W, 3]"""
    index = made[1]
    return np.stack([[index.read_view(row, view) for view in range(4)] for row in range(6)])


def by_hand(run, views: np.ndarray) -> torch.Tensor:
    """z [n, D] of uint8 [n, H, W, 3], straight through the method."""
    loaded = load_run(run)
    pixels = torch.from_numpy(views).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return loaded.method.embed(normalise(pixels, tuple(loaded.data.mean), tuple(loaded.data.std)))


def test_every_form_of_an_image_gives_the_same_features(made, model, views):
    run, _ = made
    batch = views[0]
    expected = by_hand(run, batch)
    channels_first = torch.from_numpy(batch).permute(0, 3, 1, 2)
    forms = {
        "numpy": batch,
        "torch uint8": channels_first,
        "torch float": channels_first / 255,
        "pil": [Image.fromarray(view) for view in batch],
        "list of numpy": list(batch),
    }
    for name, images in forms.items():
        torch.testing.assert_close(model.embed(images), expected, rtol=1e-4, atol=1e-5, msg=name)
    torch.testing.assert_close(model.embed(batch[0]), expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.embed(Image.fromarray(batch[0])), expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.embed(views)[0], expected, rtol=1e-4, atol=1e-5)


def test_images_of_another_size_are_resized_as_shards_are(model):
    large = np.random.default_rng(0).integers(0, 256, (3, 60, 90, 3)).astype(np.uint8)
    pictures = [Image.fromarray(image) for image in large]
    small = np.stack([np.array(p.resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for p in pictures])
    assert torch.equal(model.embed(large), model.embed(small))
    assert torch.equal(model.embed(pictures), model.embed(small))
    as_float = model.embed(torch.from_numpy(large).permute(0, 3, 1, 2) / 255)
    torch.testing.assert_close(as_float, model.embed(small), rtol=0.05, atol=0.05)  # without rounding to 8 bits


def test_grey_and_palette_pictures_are_made_rgb(model):
    grey = Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE))
    assert torch.equal(model.embed(grey), model.embed(grey.convert("RGB")))


@pytest.mark.parametrize("m", [1, 2, 3])
def test_aggregate_predict_and_rollout_are_the_methods_own(made, model, views, m):
    run, index = made
    method = load_run(run).method
    spec = model.action_spec
    assert (spec.size, spec.columns) == (4, ("rot_x", "rot_y", "rot_z"))
    actions = spec.between(index.params[:6, :, :3])
    assert np.array_equal(actions, spec.between(index.params[:6], index.param_names))
    assert np.array_equal(actions, actions_between(index.params[:6], index.param_names, "rotation"))
    z = by_hand(run, views.reshape(-1, SIDE, SIDE, 3)).unflatten(0, (6, 5 - 1))
    told = torch.from_numpy(actions)
    with torch.inference_mode():
        z_agg = method.aggregate(z[:, :m], told[:, : m - 1])
        z_next = method.predict(z_agg, told[:, m - 1])
    close: Any = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(model.aggregate(views[:, :m], actions[:, : m - 1]), z_agg, **close)
    torch.testing.assert_close(model.aggregate(None, actions[:, : m - 1], z=z[:, :m]), z_agg, **close)
    torch.testing.assert_close(model.aggregate(views[2, :m], actions[2, : m - 1]), z_agg[2], **close)
    torch.testing.assert_close(model.predict(z_agg, actions[:, m - 1]), z_next, **close)
    torch.testing.assert_close(model.predict(z_agg[0], actions[0, m - 1]), z_next[0], **close)
    ahead = model.rollout(views[:, :m], actions[:, : m + 1])
    assert ahead.shape == (6, 2, z.shape[-1])
    length = z[:, :m].norm(dim=-1).mean(dim=1, keepdim=True)
    first = torch.nn.functional.normalize(z_next, dim=-1) * length
    torch.testing.assert_close(ahead[:, 0], first, **close)
    with torch.inference_mode():
        after = method.predict(method.aggregate(torch.cat([z[:, :m], first[:, None]], 1), told[:, :m]), told[:, m])
    torch.testing.assert_close(ahead[:, 1], torch.nn.functional.normalize(after, dim=-1) * length, **close)
    torch.testing.assert_close(model.rollout(views[:, :m], actions, steps=1), ahead[:, :1], **close)


def test_a_model_says_what_it_is(model, views):
    z, z_agg = model.embed(views[0, 0]).shape[0], model.aggregate(views[0], np.zeros((3, 4))).shape[0]
    said = f"Model(seq_jepa of {model.config.model.backbone}, 32×32 px, z [{z}], z_AGG [{z_agg}], action [4], cpu)"
    assert repr(model) == said


def test_the_untrained_model_is_another(made, model, views):
    assert not torch.allclose(seqjepa.load(made[0], "cpu", untrained=True).embed(views[0]), model.embed(views[0]))


def test_a_head_learns_from_what_it_gives(model, views):
    z = model.embed(views[0])
    z_agg = model.aggregate(None, np.zeros((3, 4)), z=z)
    for features in (z, z_agg, model.predict(z_agg, np.zeros(4)), model.rollout(None, np.zeros((5, 4)), z=z)):
        head = torch.nn.Linear(features.shape[-1], 2)
        head(features).sum().backward()
        assert head.weight.grad is not None
        assert not features.requires_grad


def test_the_callers_precision_is_not_its_own(made, model, views):
    z = model.embed(views[0])
    z_agg = model.aggregate(None, np.zeros((3, 4)), z=z)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.embed(views[0]), z)
        assert torch.equal(model.aggregate(None, np.zeros((3, 4)), z=z), z_agg)
    torch.set_default_dtype(torch.float64)
    try:
        again = seqjepa.load(made[0], "cpu").embed(views[0])
    finally:
        torch.set_default_dtype(torch.float32)
    assert again.dtype == torch.float32
    assert torch.equal(again, z)


def test_no_sequences_have_no_aggregates(model, views):
    none = model.aggregate(np.zeros((0, 3, SIDE, SIDE, 3), np.uint8), np.zeros((0, 2, 4)))
    assert none.shape == (0, model.aggregate(views[0, :1]).shape[-1])


def test_numbers_of_any_kind_are_taken(model, views):
    actions = model.action_spec.between(torch.zeros(4, 3, dtype=torch.bfloat16, requires_grad=True))
    assert actions.shape == (3, 4)
    assert model.rollout(views[0, :2], actions, steps=np.int64(2)).shape[0] == 2


def test_nothing_learns(model, views):
    assert not model.embed(views[0]).requires_grad
    assert not any(parameter.requires_grad for parameter in model.method.parameters())
    assert not model.method.training


def _closed() -> Image.Image:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "png")
    image = Image.open(file)
    image.load()
    image.close()
    return image


def test_no_images_have_no_features(model):
    for none in (torch.zeros(0, 3, 40, 40), torch.zeros(0, 3, 32, 32), np.zeros((0, 40, 40, 3), np.uint8)):
        assert model.embed(none).shape == (0, 64)


def test_sixteen_bits_are_scaled_as_in_shards(model):
    """PIL's own conversion clips them, so that a picture is white."""
    grey = np.random.default_rng(0).integers(0, 65536, (SIDE, SIDE), dtype=np.uint16)
    eight = ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
    expected = model.embed(np.repeat(eight[..., None], 3, axis=2))
    assert torch.equal(model.embed(Image.fromarray(grey)), expected)
    assert not torch.allclose(model.embed(np.full((SIDE, SIDE, 3), 255, np.uint8)), expected)


def test_a_device_may_be_torchs(made, views):
    model = seqjepa.load(made[0], torch.device("cpu"))
    assert model.embed(views[0]).device.type == "cpu"
    for name in ("tpu", 0):
        with pytest.raises(UsageError, match=f"there is no device '{name}'; use auto, cpu, cuda or cuda:N"):
            seqjepa.load(made[0], name)


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda m, v: m.embed(v.astype(np.float64)), r"ndarray float64 \[6, 4, 32, 32, 3\] is no image"),
        (lambda m, v: m.embed(np.moveaxis(v, -1, -3)), "is no image: give PIL images"),
        (lambda m, v: m.embed(torch.from_numpy(v).permute(0, 1, 4, 2, 3).float()), "float images are within 0"),
        (lambda m, v: m.embed([]), "no image was given"),
        (lambda m, v: m.embed("picture.png"), "str is no image"),
        (lambda m, v: m.aggregate(v[0, 0], None), "a context is several views"),
        (lambda m, v: m.aggregate(v, None), r"actions have the shape \[0\]; 4 views and what follows need \[6, 3, 4\]"),
        (lambda m, v: m.aggregate(v, np.zeros((6, 3, 5))), r"the shape \[6, 3, 5\]; .* need \[6, 3, 4\]"),
        (lambda m, v: m.rollout(v, np.zeros((6, 5, 4)), steps=3), r"the shape \[6, 5, 4\]; .* need \[6, 6, 4\]"),
        (lambda m, v: m.aggregate(None, None), "give either views or z"),
        (
            lambda m, v: m.action_spec.between(np.zeros((4, 7))),
            r"the shape \[4, 7\]; the run takes \[views, 3\]: rot_x",
        ),
        (lambda m, v: m.embed(np.zeros((2, 0, 32, 3), np.uint8)), r"ndarray uint8 \[2, 0, 32, 3\] is no image"),
        (lambda m, v: m.embed(None), "^NoneType is no image"),
        (lambda m, v: m.embed(torch.rand(3, 8, 8).to_sparse()), "is no image"),
        (lambda m, v: m.embed(_closed()), "a PIL image cannot be read: Operation on closed image"),
        (lambda m, v: m.embed(Image.fromarray(np.zeros((8, 8), np.float32))), "its pixels are floats: make them 8"),
        (lambda m, v: m.aggregate(v[:, :0], np.zeros((6, 0, 4))), "a context is several views"),
        (lambda m, v: m.aggregate(v, np.zeros((6, 4, 4))), r"the shape \[6, 4, 4\]; .* need \[6, 3, 4\]"),
        (lambda m, v: m.aggregate(v, np.full((6, 3, 4), np.nan)), "actions hold NaN or infinite numbers"),
        (lambda m, v: m.aggregate(v, "left"), "actions are no numbers"),
        (lambda m, v: m.aggregate(None, np.zeros((3, 4)), z=np.zeros((4, 9))), r"z has the shape \[4, 9\]; this run's"),
        (lambda m, v: m.predict(np.zeros((2, 9)), np.zeros((2, 4))), r"z_AGG has the shape \[2, 9\]; this run's has"),
        (lambda m, v: m.rollout(v, np.zeros((6, 6, 4)), steps=-1), "steps is -1; give a number of views"),
        (lambda m, v: m.rollout(v, np.zeros((6, 6, 4)), steps=2.0), r"steps is 2\.0; give a number of views"),
        (lambda m, v: m.rollout(v, np.zeros((6, 6, 4)), np.zeros((6, 2, 4))), r"steps is array\(.*; give a number"),
        (lambda m, v: m.action_spec.between("turned"), "params are no numbers"),
        (lambda m, v: m.action_spec.between(np.full((4, 3), np.nan)), "params hold NaN or infinite numbers"),
        (lambda m, v: m.action_spec.between(np.zeros((0, 3))), r"the shape \[0, 3\]; the run takes \[views, 3\]"),
        (
            lambda m, v: m.action_spec.between(np.zeros((4, 3)), stride=0),
            "stride is 0; a whole number, 1 or more, is needed",
        ),
        (lambda m, v: m.action_spec.between(np.zeros((4, 4)), ("rot_x", "rot_x", "rot_y", "rot_z")), "named once"),
        (lambda m, v: m.aggregate(v, np.zeros((6, 3, 4), complex)), "actions are no numbers: they are complex"),
        (lambda m, v: m.aggregate(v, torch.zeros(6, 3, 4, dtype=torch.complex64)), "actions are no numbers: they are"),
    ],
)
def test_what_does_not_fit_is_said(model, views, call, found):
    with pytest.raises(UsageError, match=found):
        call(model, views)


def test_a_method_without_an_aggregate_says_so(made, tmp_path, views):
    _, index = made
    config = tiny_config("optim.epochs=1", "method=simclr", "data.context=1", "model.projector=[32,16]")
    train(config, index.shard_paths[0].parent, tmp_path / "run", workers=0, device="cpu")
    simclr = seqjepa.load(tmp_path / "run", "cpu")
    assert simclr.embed(views[0]).shape == (4, 64)
    with pytest.raises(UsageError, match="simclr has no aggregate: it makes features of single views"):
        simclr.aggregate(views)
    with pytest.raises(UsageError, match="simclr has no rollout"):
        simclr.rollout(views, [])


def test_runs_on_patches_take_patches_and_whole_images(tmp_path):
    shards = make_saliency_shards(tmp_path / "set")
    config = tiny_config("optim.epochs=1", *SACCADES)
    train(config, shards, tmp_path / "run", workers=0, device="cpu")
    model, rng = seqjepa.load(tmp_path / "run", "cpu"), np.random.default_rng(0)
    patch, image, other = (rng.integers(0, 256, (s, s, 3)).astype(np.uint8) for s in (8, 24, 40))
    squashed = np.array(Image.fromarray(other).resize((24, 24), Image.Resampling.BILINEAR))
    for given, seen in ((patch, patch), (image, image), (other, squashed)):
        expected = by_hand(tmp_path / "run", seen[None])[0]
        torch.testing.assert_close(model.embed(given), expected, rtol=1e-4, atol=1e-5)


def test_embed_follows_weights_that_were_changed(made, views):
    """The encoder that embed reads with is a copy, which must not outlive what it is a copy of."""
    model, other = (seqjepa.load(made[0], "cpu") for _ in range(2))
    before = model.embed(views)
    with torch.no_grad():
        for one in (model, other):
            for values in one.method.encoder.parameters():
                values.mul_(0.5)
    assert not torch.equal(model.embed(views), before)
    assert torch.equal(model.embed(views), other.embed(views))
    assert model.method.state_dict().keys() == load_run(made[0]).method.state_dict().keys()


@pytest.mark.parametrize("run", [None, b"runs/a", 5])
def test_what_is_no_run_is_refused_in_a_line(run):
    with pytest.raises(UsageError, match=f"run is {run!r}; give a run directory or an address"):
        seqjepa.load(run, "cpu")
