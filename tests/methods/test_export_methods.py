"""Every method's encoder in every form, and the world model of those that have one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torchvision
from methods_lab import A, noise, shaken, small_config, views_of
from noise_shards import noise_shards
from safetensors import safe_open
from safetensors.torch import load_file

import seqjepa
from seqjepa.config import RunConfig
from seqjepa.data.sequence import normalise
from seqjepa.embedding.feature_sets import encoder_of_config, make_features
from seqjepa.export.run import FORMS, ExportOptions, export_run
from seqjepa.methods import METHODS, build_method
from seqjepa.recipes import load_recipe
from seqjepa.training.checkpoint import save_weights
from seqjepa.training.run import DataInfo, RunPlan, claimed
from seqjepa.training.train import train
from shards.errors import UsageError
from shards.reader import ShardSet

MEAN, STD, SIDE = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), 16
CLOSE: Any = {"rtol": 1e-4, "atol": 1e-4}


def run_of(out: Path, config: RunConfig, size: int = A, **data: Any) -> Path:
    """A run directory whose weights are away from the start, running statistics too."""
    torch.manual_seed(0)
    method = shaken(build_method(config, size))
    method.step(noise(views_of(config.method), dtype=torch.float64))
    info = DataInfo(str(config.data.action), size, MEAN, STD, SIDE, SIDE, **data)
    with claimed(out, RunPlan(config, info, {"name": "noise", "train": "0"})):
        save_weights(method.float(), out / "model.safetensors", 1.0)
    return out


def pictures(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def of_the_file(path: Path, images: torch.Tensor) -> torch.Tensor:
    """z of uint8 images by whoever reads the file."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()(images / 255)
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(None, {"images": (images / 255).numpy()})[0])
    network = torchvision.models.resnet18()
    network.fc = torch.nn.Identity()
    network.load_state_dict(load_file(path))
    return network.eval()(normalise(images, MEAN, STD))


@pytest.mark.slow
@pytest.mark.parametrize("to", FORMS)
@pytest.mark.parametrize("method", METHODS)
def test_the_encoder_of_every_method_in_every_form(tmp_path: Path, method: str, to: Any) -> None:
    config = small_config(method, width=1.0)
    config = config.model_copy(update={"data": config.data.model_copy(update={"action": "rotation"})})
    run = run_of(tmp_path / "run", config)
    told = export_run(run, tmp_path / f"encoder.{to}", ExportOptions(to))
    assert told.about["method"] == method
    with torch.no_grad():
        z = of_the_file(tmp_path / f"encoder.{to}", pictures(5))
    expected = seqjepa.load(run, "cpu").embed(pictures(5))
    assert expected.std() > 0.01
    torch.testing.assert_close(z, expected, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["both", "aggregator", "predictor", "none"])
@pytest.mark.parametrize("fidelity", ["paper", "author"])
def test_a_world_model_takes_steps_in_onnxruntime(tmp_path: Path, condition: str, fidelity: str) -> None:
    """Encoder, aggregator and predictor by onnxruntime alone: a context that grows, from one view on."""
    run = run_of(tmp_path / "run", small_config("seq_jepa", fidelity=fidelity, condition=condition))
    model = seqjepa.load(run, "cpu")
    sessions = {}
    for part in ("encoder", "aggregate", "predict"):
        export_run(run, tmp_path / f"{part}.onnx", ExportOptions("onnx", part))
        sessions[part] = onnxruntime.InferenceSession(str(tmp_path / f"{part}.onnx"))

    def by_onnx(part: str, *inputs: np.ndarray) -> np.ndarray:
        names = [known.name for known in sessions[part].get_inputs()]
        return sessions[part].run(None, dict(zip(names, inputs, strict=False)))[0]

    images, actions = pictures(3), torch.randn(1, 3, A, generator=torch.Generator().manual_seed(1)).numpy()
    z = by_onnx("encoder", (images / 255).numpy())[None]
    for views in (1, 2, 3):
        z_agg = by_onnx("aggregate", z[:, :views], actions[:, : views - 1])
        ahead = by_onnx("predict", z_agg, actions[:, views - 1])
        expected = model.aggregate(images[None, :views], actions[:, : views - 1])
        torch.testing.assert_close(torch.from_numpy(z_agg), expected, **CLOSE)
        expected = model.predict(expected, actions[:, views - 1])
        torch.testing.assert_close(torch.from_numpy(ahead), expected, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["conditional_byol", "conv_jepa", "equimod", "sen", "sie"])
def test_a_predictor_of_embeddings_in_onnxruntime(tmp_path: Path, method: str) -> None:
    """From pixels to what the action makes of a view, by onnxruntime alone; the file holds nothing else."""
    config = small_config(method)
    config = config.model_copy(update={"data": config.data.model_copy(update={"action": "rotation"})})
    run = run_of(tmp_path / "run", config)
    model, inputs, told = seqjepa.load(run, "cpu"), {}, {}
    for part in ("encoder", "project", "predict"):
        told[part] = export_run(run, tmp_path / f"{part}.onnx", ExportOptions("onnx", part))
    for count in (1, 2, 5):
        images, action = pictures(count), torch.randn(count, A, generator=torch.Generator().manual_seed(count))
        inputs = {"images": (images / 255).numpy(), "action": action.numpy()}
        for part in told:
            session = onnxruntime.InferenceSession(str(tmp_path / f"{part}.onnx"))
            given = {known.name: inputs[known.name] for known in session.get_inputs()}
            inputs |= zip(told[part].outputs, session.run(None, given), strict=True)
        with torch.no_grad():
            y = model.method.project(model.embed(images))
            expected = model.method.predict(y, action)
        assert expected.std() > 0.01
        torch.testing.assert_close(torch.from_numpy(inputs["y"]), y, **CLOSE)
        torch.testing.assert_close(torch.from_numpy(inputs["y_next"]), expected, **CLOSE)
    networks = {name: sum(p.numel() for p in net.parameters()) for name, net in model.method.named_children()}
    assert told["predict"].parameters == networks["hypernetwork" if method == "sie" else "predictor"] + (
        networks["action_embedding"] if method == "conv_jepa" else 0
    )


def test_a_part_that_a_method_has_not_is_refused_with_those_that_have_it(tmp_path: Path) -> None:
    for method, part, having in (
        ("simclr", "predict", "conditional_byol, conv_jepa, equimod, sen, seq_jepa, sie"),
        ("context_ssl", "project", "conditional_byol, conv_jepa, equimod, sen, sie"),
        ("seq_jepa", "project", "conditional_byol, conv_jepa, equimod, sen, sie"),
        ("equimod", "aggregate", "seq_jepa"),
    ):
        run = tmp_path / f"{method}-{part}"
        run_of(run, small_config(method))
        said = f"{method} has no {part}, which methods of these names have: {having}$"
        with pytest.raises(UsageError, match=said):
            export_run(run, tmp_path / "other.onnx", ExportOptions("onnx", part))


@pytest.mark.slow
def test_the_moving_average_and_fixed_sizes(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", small_config("seq_jepa"))
    model = seqjepa.load(run, "cpu")
    told = export_run(run, tmp_path / "target.pt2", ExportOptions("pt2", weights="target", batch=3, normalise=False))
    assert (told.inputs, told.outputs) == ({"views": [3, 3, SIDE, SIDE]}, {"z": [3, 64]})
    network, views = torch.export.load(tmp_path / "target.pt2").module(), normalise(pictures(3), MEAN, STD)
    with torch.no_grad():
        torch.testing.assert_close(network(views), model.method.embed_target(views), **CLOSE)
        assert not torch.allclose(network(views), model.method.embed(views), atol=1e-2)
        with pytest.raises(Exception, match=r"shape|size"):
            network(views[:2])
    told = export_run(run, tmp_path / "aggregate.onnx", ExportOptions("onnx", "aggregate", context=2, opset=20))
    assert told.inputs == {"z": ["batch", 2, 64], "actions": ["batch", 1, A]}
    for method in ("simclr", "equimod"):
        other = run_of(tmp_path / method, small_config(method))
        with pytest.raises(UsageError, match="has no moving average of its encoder"):
            export_run(other, tmp_path / "other.pt2", ExportOptions("pt2", weights="target"))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"width": 0.3}, {"stem": "cifar"}, {"backbone": "resnext50_32x4d"}])
def test_state_dicts_of_other_resnets_say_how_to_build_them(tmp_path: Path, settings: dict[str, Any]) -> None:
    """The check of export_run builds the network from the file alone; here, that the file says what it needs."""
    run = run_of(tmp_path / "run", small_config("simclr", **{"width": 1.0, **settings}))
    about = export_run(run, tmp_path / "encoder.safetensors", ExportOptions("safetensors")).about
    assert about["backbone"] == settings.get("backbone", "resnet18")
    assert about["stem"] == settings.get("stem", "standard")
    assert json.loads(about["width"]) == settings.get("width", 1.0)


@pytest.mark.slow
def test_a_run_on_patches_says_so(tmp_path: Path) -> None:
    config = small_config("seq_jepa")
    run = run_of(tmp_path / "run", config, kind="saliency", fixating={"patch": SIDE}, image_height=64, image_width=64)
    told = export_run(run, tmp_path / "encoder.onnx", ExportOptions("onnx"))
    assert json.loads(told.about["patch"]) == SIDE
    assert told.inputs == {"images": ["batch", 3, SIDE, SIDE]}


TIMM = [
    ("vit_tiny_patch16_224", {"patch_size": 8, "pool": "avg"}),
    ("vit_tiny_patch16_224", {"input_size": 32}),
    ("swin_tiny_patch4_window7_224", {"input_size": 56}),
    ("convnext_atto", {"input_size": 64}),
    ("resnet26d", {}),
    ("efficientnet_b0", {"freeze": True}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), TIMM, ids=str)
def test_encoders_of_timm(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    """In every form; the state dict by timm alone, as the file tells."""
    import timm

    own = {"view_size": (SIDE, SIDE), "backbone": f"timm:{name}", "heads": 4, **settings}
    run = run_of(tmp_path / "run", small_config("seq_jepa", **{"width": 1.0, **own}))
    expected = seqjepa.load(run, "cpu").embed(pictures(5))
    assert expected.std() > 0.01
    for to in FORMS:
        export_run(run, tmp_path / f"encoder.{to}", ExportOptions(to))
        if to != "safetensors":
            with torch.no_grad():
                torch.testing.assert_close(of_the_file(tmp_path / f"encoder.{to}", pictures(5)), expected, **CLOSE)
    with safe_open(tmp_path / "encoder.safetensors", "pt") as file:
        about = file.metadata()
    network = timm.create_model(**json.loads(about["timm"]))
    if about["pool"]:
        network.reset_classifier(0, about["pool"])
    network.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    views, side = normalise(pictures(5), MEAN, STD), json.loads(about["input_size"])
    if side:
        views = torch.nn.functional.interpolate(views, (side, side), mode="bilinear", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(views), expected, **CLOSE)


@pytest.mark.slow
def test_a_run_on_features_has_its_encoder(tmp_path: Path) -> None:
    shards = ShardSet.open(noise_shards(tmp_path / "set"))
    size = ["data.image_size=0", "data.context=2", "optim.epochs=1", "optim.batch_size=4", "model.layers=1"]
    config = load_recipe("", ["model.width=0.125", *size])
    make_features(shards, tmp_path / "features", encoder_of_config(config, shards))
    train(config, tmp_path / "features", tmp_path / "run", workers=0, progress=False)
    told = export_run(tmp_path / "run", tmp_path / "encoder.pt2", ExportOptions("pt2"))
    assert told.inputs == {"images": ["batch", 3, SIDE, SIDE]}
    z = torch.export.load(tmp_path / "encoder.pt2").module()(pictures(3) / 255)
    torch.testing.assert_close(z, seqjepa.load(tmp_path / "run", "cpu").embed(pictures(3)), **CLOSE)
    with pytest.raises(UsageError, match="has no moving average"):
        export_run(tmp_path / "run", tmp_path / "target.pt2", ExportOptions("pt2", weights="target"))
