"""seqjepa export: files that others run – onnxruntime, torch.export.load, torchvision – give the run's own numbers."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file
from test_docs_python import views_set
from typer.testing import CliRunner

import cli
import seqjepa
from seqjepa.export import run as export_module
from seqjepa.recipes import load_recipe
from seqjepa.training.train import train

SIDE = 16
CLOSE: Any = {"rtol": 1e-4, "atol": 1e-4}
TINY = ["data.context=2", "model.width=0.125", "model.layers=1", "model.heads=4", "model.action_dim=16"]
ONCE = ["optim.epochs=1", "optim.batch_size=4", "data.image_size=0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    views_set(folder / "set", SIDE)
    train(load_recipe("", [*TINY, *ONCE]), folder / "set", folder / "run", workers=0, progress=False)
    return folder / "run"


@pytest.fixture(scope="module")
def model(run: Path) -> seqjepa.model.Model:
    return seqjepa.load(run, "cpu")


def export(run: Path | str, out: Path, *options: str) -> dict[str, Any]:
    words = ["export", str(run), "--to", out.suffix[1:], "-o", str(out), *options, "--json"]
    result = CliRunner().invoke(cli.seqjepa_app, words)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert out.stat().st_size == told["bytes"]
    assert told["difference"] <= 1e-4
    assert not list(out.parent.glob(".tmp-*"))
    return told


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def test_onnxruntime_gives_the_features_of_any_batch(run, model, tmp_path):
    told = export(run, tmp_path / "encoder.onnx")
    assert told["inputs"] == {"images": ["batch", 3, SIDE, SIDE]}
    assert told["outputs"] == {"z": ["batch", 64]}
    written = onnx.load(tmp_path / "encoder.onnx")
    onnx.checker.check_model(written, full_check=True)
    about = {prop.key: prop.value for prop in written.metadata_props}
    assert about == told["about"]
    assert (about["method"], about["run"], about["backbone"]) == ("seq_jepa", "run", "resnet18")
    assert json.loads(about["mean"]) == pytest.approx(list(model.data.mean))
    assert json.loads(about["view_size"]) == [SIDE, SIDE]
    assert json.loads(about["action_columns"]) == ["rot_x", "rot_y", "rot_z"]
    known = session(tmp_path / "encoder.onnx")
    assert known.get_inputs()[0].shape == ["batch", 3, SIDE, SIDE]
    for count in (1, 2, 7):
        images = pictures(count)
        z = known.run(["z"], {"images": images.transpose(0, 3, 1, 2).astype(np.float32) / 255})[0]
        torch.testing.assert_close(torch.from_numpy(z), model.embed(images), **CLOSE)
    assert str(Path.cwd()).encode() not in (tmp_path / "encoder.onnx").read_bytes()


STRANGER = """
import importlib.util, sys
import numpy as np
import torch
assert importlib.util.find_spec("seqjepa") is None or not importlib.util.find_spec("seqjepa").origin
network = torch.export.load(sys.argv[1]).module()
given = np.load(sys.argv[2])
np.save(sys.argv[3], network(*(torch.from_numpy(given[name]) for name in given.files)).detach().numpy())
assert not [name for name in sys.modules if name.startswith("seqjepa")]
"""


def by_a_stranger(path: Path, tmp_path: Path, **inputs: np.ndarray) -> torch.Tensor:
    """What a Python finds that has torch and no seqjepa: no site-packages' .pth files, no PYTHONPATH."""
    np.savez(tmp_path / "given.npz", **inputs)
    folders = [str(Path(package.__file__).parents[1]) for package in (torch, np)]
    start = f"import sys; sys.path += {folders}\n"
    words = [sys.executable, "-I", "-S", "-c", start + STRANGER, path, tmp_path / "given.npz", tmp_path / "z.npy"]
    done = subprocess.run(list(map(str, words)), cwd=tmp_path, env={}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.from_numpy(np.load(tmp_path / "z.npy"))


def test_a_pt2_gives_the_features_and_says_whose_they_are(run, model, tmp_path):
    told = export(run, tmp_path / "encoder.pt2")
    images, extra = pictures(3), {"seqjepa.json": ""}
    network = torch.export.load(tmp_path / "encoder.pt2", extra_files=extra).module()
    found = network(torch.from_numpy(images.transpose(0, 3, 1, 2).astype("f4") / 255))
    torch.testing.assert_close(found, model.embed(images), **CLOSE)
    assert json.loads(extra["seqjepa.json"]) == told["about"]
    assert str(Path.cwd()).encode() not in (tmp_path / "encoder.pt2").read_bytes()


@pytest.mark.slow
def test_a_stranger_without_seqjepa_loads_a_pt2(run, model, tmp_path):
    export(run, tmp_path / "encoder.pt2")
    images = pictures(3)
    given = by_a_stranger(tmp_path / "encoder.pt2", tmp_path, images=images.transpose(0, 3, 1, 2).astype("f4") / 255)
    torch.testing.assert_close(given, model.embed(images), **CLOSE)


@pytest.mark.slow
def test_a_pt2_of_the_aggregator_takes_any_number_of_views_and_holds_nothing_else(run, model, tmp_path):
    told = export(run, tmp_path / "aggregate.pt2", "--part", "aggregate")
    assert told["inputs"] == {"z": ["batch", "views", 64], "actions": ["batch", "views - 1", 4]}
    assert told["parameters"] == sum(
        p.numel() for name in ("aggregator", "action_embedding") for p in getattr(model.method, name).parameters()
    )
    network = torch.export.load(tmp_path / "aggregate.pt2").module()
    rng = np.random.default_rng(0)
    for batch, views in ((1, 1), (3, 1), (1, 2), (4, 6)):
        z = rng.normal(size=(batch, views, 64)).astype(np.float32)
        actions = rng.normal(size=(batch, views - 1, 4)).astype(np.float32)
        expected = model.aggregate(None, actions, z=torch.from_numpy(z))
        torch.testing.assert_close(network(torch.from_numpy(z), torch.from_numpy(actions)), expected, **CLOSE)
    given = by_a_stranger(tmp_path / "aggregate.pt2", tmp_path, z=z, actions=actions)
    torch.testing.assert_close(given, expected, **CLOSE)


def test_a_state_dict_of_another_width_fits_torchvision_by_its_shapes(run, model, tmp_path):
    told = export(run, tmp_path / "encoder.safetensors")
    with safe_open(tmp_path / "encoder.safetensors", "pt") as file:
        assert file.metadata() == told["about"]
    state = load_file(tmp_path / "encoder.safetensors")
    assert {*state, "fc.weight", "fc.bias"} == set(torchvision.models.resnet18().state_dict())
    assert told["inputs"] == {"views": ["batch", 3, SIDE, SIDE]}
    for name, value in model.method.encoder.state_dict().items():
        assert torch.equal(state[name], value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "torchscript"], "--to is 'torchscript'; allowed are pt2, onnx, safetensors"),
        (
            ["--to", "pt2", "--part", "decoder"],
            "--part is 'decoder'; allowed are encoder, aggregate, project",
        ),
        (["--to", "pt2", "--weights", "ema"], "--weights is 'ema'; allowed are online, target"),
        (["--to", "pt2", "--opset", "18"], "--opset is for --to onnx; leave it out"),
        (["--to", "onnx", "--opset", "7"], "--opset is 7; this onnx and torch write 18 to "),
        (["--to", "safetensors", "--part", "predict"], "--to safetensors is of the encoder"),
        (["--to", "safetensors", "--no-normalise"], "--normalise is of an encoder in --to pt2 or onnx; leave it out"),
        (["--to", "pt2", "--context", "3"], "--context is for --part aggregate; leave it out"),
        (["--to", "pt2", "--batch", "some"], "--batch is 'some'; give dynamic or a number from 1"),
        (["--to", "pt2", "--part", "aggregate", "--context", "0"], "--context is '0'; give dynamic or a number"),
    ],
)
def test_options_that_do_not_fit_are_one_line(run, tmp_path, words, said):
    out = tmp_path / "file"
    result = CliRunner().invoke(cli.seqjepa_app, ["export", str(run), *words, "-o", str(out)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {said}")
    assert result.stderr.count("\n") == 1
    assert not out.exists()


def test_a_file_of_one_form_is_not_called_by_another(run, tmp_path):
    out = tmp_path / "encoder.pt2"
    result = CliRunner().invoke(cli.seqjepa_app, ["export", str(run), "--to", "onnx", "-o", str(out)])
    assert result.exit_code == 2
    assert result.stderr == f"error: {out} ends as --to pt2 does, and --to is onnx; give another name\n"
    assert not out.exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_a_package_one_line_says_what_to_install(run, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    result = CliRunner().invoke(cli.seqjepa_app, ["export", str(run), "--to", "onnx", "-o", str(tmp_path / "e.onnx")])
    assert result.exit_code == 2
    line = f"error: --to onnx needs {package}, which is not installed: pip install 'seqjepa[export]'\n"
    assert result.stderr == line


def test_a_file_that_is_there_is_replaced_if_it_is_ours_and_asked_for(run, tmp_path):
    out = tmp_path / "encoder.safetensors"
    words = ["export", str(run), "--to", "safetensors", "-o", str(out)]
    out.write_bytes(b"somebody's")
    for more, said in (([], "is there; give another name"), (["--overwrite"], "was not made by `seqjepa export`")):
        result = CliRunner().invoke(cli.seqjepa_app, [*words, *more])
        assert result.exit_code == 2
        assert said in result.stderr
        assert out.read_bytes() == b"somebody's"
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a" * 50, b"somebody's")
    cut = out.read_bytes().replace(b"PK\x01\x02", b"....")  # its end is there, its list of files is not
    out.write_bytes(cut)
    result = CliRunner().invoke(cli.seqjepa_app, [*words, "--overwrite"])
    assert (result.exit_code, out.read_bytes()) == (2, cut)
    out.unlink()
    export(run, out)
    before = out.read_bytes()
    assert CliRunner().invoke(cli.seqjepa_app, words).exit_code == 2
    export(run, out, "--overwrite")
    assert out.read_bytes() == before


def test_a_file_that_is_not_the_runs_equal_is_not_kept(run, tmp_path, monkeypatch):
    def other(path: Path) -> torch.nn.Module:
        network = torchvision.models.resnet18()
        network.fc = torch.nn.Linear(512, 64)
        return network.eval()

    monkeypatch.setattr(export_module, "open_state", other)
    out = tmp_path / "encoder.safetensors"
    result = CliRunner().invoke(cli.seqjepa_app, ["export", str(run), "--to", "safetensors", "-o", str(out)])
    assert result.exit_code == 1
    assert "is not written: its numbers are" in result.stderr
    assert not list(tmp_path.iterdir())
