"""Importing the authors' checkpoints, from files of their layout that are made here: names and shapes of their classes.

The golden numbers are those of test_author_golden.py: their own outputs, for weights from a formula.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from noise_shards import noise_shards
from test_author_golden import GOLDEN, assert_matches, formula_inputs, formula_weight, run_case
from test_import_weights import Harmful, linear, mlp, norm
from torch import Tensor
from torchvision.models import resnet18
from typer.testing import CliRunner

import seqjepa
from cli import seqjepa_app
from seqjepa.config import ModelConfig
from seqjepa.evaluate.run import evaluate_run
from seqjepa.methods.seq_jepa import SeqJEPA
from seqjepa.models.backbone import build_backbone
from seqjepa.released import seq_jepa as importing
from seqjepa.released.seq_jepa import RECIPES, import_weights
from seqjepa.training.checkpoint import load_run
from shards.errors import FormatError, UsageError

SMALL = ("model.width=0.125", "model.layers=1", "model.ff_mult=1", "model.action_dim=8", "model.predictor_hidden=16")


def released_shapes(action: int, d: int = 512, e: int = 128, hidden: int = 1024, layers: int = 3, ff: int = 4):
    """All entries but the encoders', as SeqJEPA_Transforms and SeqJEPA_PLS list them. action 0: told none."""
    e = e if action else 0
    width = d + e
    shapes: dict[str, tuple[int, ...]] = {"agg_token": (1, 1, width)}
    if action:
        shapes |= {"action_proj.0.weight": (e, action), **statistics("action_proj.1", e)}
    shapes |= {"predictor.0.weight": (hidden, width + e), **norm("predictor.1", hidden)}
    shapes |= {**statistics("predictor.1", hidden), **linear("predictor.3", hidden, d)}
    for i in range(layers):
        layer = f"transformer_encoder.transformer_encoder.layers.{i}"
        shapes[f"{layer}.self_attn.in_proj_weight"] = (3 * width, width)
        shapes[f"{layer}.self_attn.in_proj_bias"] = (3 * width,)
        shapes |= linear(f"{layer}.self_attn.out_proj", width, width)
        shapes |= {**linear(f"{layer}.linear1", width, ff * width), **linear(f"{layer}.linear2", ff * width, width)}
        shapes |= {**norm(f"{layer}.norm1", width), **norm(f"{layer}.norm2", width)}
    return shapes | norm("transformer_encoder.norm", width)


def statistics(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.running_mean": (width,), f"{name}.running_var": (width,), f"{name}.num_batches_tracked": ()}


def probes(action: int, d: int = 512, width: int = 640, classes: int = 55) -> dict[str, tuple[int, ...]]:
    """What main_transformed_views.py adds to the model before it saves it."""
    return linear("online_linprobe.0", width, classes) | mlp("online_equiprobe", (2 * d, 1024, 1024, action))


def meta_state(action: int, side: int = 7) -> dict[str, Tensor]:
    """Every core entry of a released file in full size, without numbers."""
    with torch.device("meta"):
        encoder = resnet18().state_dict()
        if side == 3:
            encoder["conv1.weight"] = torch.empty(64, 3, 3, 3)
        both = {f"{net}.{k}": v for net in ("encoder", "target_encoder") for k, v in encoder.items() if k[:3] != "fc."}
        others = {k: torch.empty(shape) for k, shape in released_shapes(action).items()}
    counters = {k: v.long() for k, v in others.items() if k.endswith("num_batches_tracked")}
    return both | others | counters


def one(like: Tensor) -> Tensor:
    return torch.ones((), dtype=like.dtype).expand(like.shape)


def small_state(action: int = 4, side: int = 7, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the released names, in the sizes of SMALL, with probes."""
    torch.manual_seed(seed)
    net, d = build_backbone(ModelConfig(width=0.125, stem="cifar" if side == 3 else "standard"))
    state = {f"{name}.{k}": v.clone() for name in ("encoder", "target_encoder") for k, v in net.state_dict().items()}
    shapes = released_shapes(action, d=d, e=8, hidden=16, layers=1, ff=1) | probes(action, d, d + 8)
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        else:
            state[name] = 1 + torch.rand(shape) if name.endswith("running_var") else 0.1 * torch.randn(shape)
    return state


def checkpoint(path: Path, state: dict[str, Tensor], **changes: Any) -> Path:
    """As the released training saves it: the optimizer's state too."""
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([weight])
    weight.grad = torch.ones(3)
    optimizer.step()
    kept = {"model": state, "optimizer": optimizer.state_dict(), "min_loss": 0.25, "epoch": 700, "run_id": "rot"}
    torch.save({**kept, "lr_scheduler": {"T_max": 1000, "_last_lr": [4e-4]}, **changes}, path)
    return path


FAST = ("stl-pls-noact-M4", "3die-rotcolour-M4")  # rotation alone is the golden test's


@pytest.mark.parametrize(
    ("action", "side", "recipe"),
    [pytest.param(a, s, r, marks=() if r in FAST else pytest.mark.slow) for (a, s), r in RECIPES.items()],
)
def test_every_released_entry_has_its_place(tmp_path: Path, action: int, side: int, recipe: str) -> None:
    state = {name: one(like) for name, like in meta_state(action, side).items()}
    core, size = len(state), sum(t.numel() for name, t in state.items() if "running" not in name and "num_" not in name)
    state |= {name: torch.zeros(()).expand(shape) for name, shape in probes(4).items()}
    if recipe == "stl-pls-noact-M4":  # made before it is known that there are no actions
        embedding = {"action_proj.0.weight": (128, 2), **statistics("action_proj.1", 128)}
        state |= {name: torch.zeros(()).expand(shape) for name, shape in embedding.items()}
    assert core == (291 if action else 287)
    prefix = "module." if recipe == FAST[1] else ""
    kept = {prefix + name: tensor for name, tensor in state.items()}
    imported = import_weights(checkpoint(tmp_path / "c.pth", kept), tmp_path / "run")
    assert (imported.recipe, imported.epochs, imported.parameters) == (recipe, 700, size)
    assert set(imported.unused) - {"action_proj"} == {"online_equiprobe", "online_linprobe"}
    model = seqjepa.load(tmp_path / "run", "cpu")
    assert (model.config.fidelity, model.data.patch) == ("author", 32 if side == 3 else 0)
    assert sum(p.numel() for p in model.method.parameters()) == size


@pytest.mark.parametrize("prefix", ["", pytest.param("module.", marks=pytest.mark.slow)])
def test_the_imported_run_gives_the_authors_outputs(tmp_path: Path, prefix: str) -> None:
    state = {prefix + name: formula_weight(name, like).to(like.dtype) for name, like in full_state(4).items()}
    file = tmp_path / "c.pth"
    checkpoint(file, state) if prefix else torch.save(state, file)  # a bare state dict too
    assert import_weights(file, tmp_path / "run").epochs == (700 if prefix else 1000)
    method = load_run(tmp_path / "run").method
    assert isinstance(method, SeqJEPA)
    found, expected = run_case(method, "eval", 3), GOLDEN["eval M=3"]
    for name in ("z", "z_agg", "prediction", "target", "loss"):
        assert_matches(found[name], expected[name], 1e-5, name)
    model = seqjepa.load(tmp_path / "run", "cpu")
    _, actions = formula_inputs(3)
    z_agg = model.aggregate(None, actions[:, :2].float(), z=found["z"])
    assert_matches(z_agg, expected["z_agg"], 1e-5, "z_agg")
    assert_matches(model.predict(z_agg, actions[:, 2].float()), expected["prediction"], 1e-5, "prediction")


def full_state(action: int) -> dict[str, Tensor]:
    return {name: torch.empty(like.shape, dtype=like.dtype) for name, like in meta_state(action).items()}


def small_run(tmp_path: Path, state: dict[str, Tensor], **options: Any) -> importing.ImportedCheckpoint:
    options = {"settings": SMALL, **options}
    return import_weights(checkpoint(tmp_path / "c.pth", state), tmp_path / "run", **options)


def test_an_imported_run_is_evaluated_in_author_mode(tmp_path: Path) -> None:
    shards = noise_shards(tmp_path / "set")
    state = {f"module.{name}": tensor for name, tensor in small_state().items()}
    small_run(tmp_path, state, settings=(*SMALL, "data.image_size=0", "data.normalisation=shards"), shards=shards)
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["shards"]["name"] == "released weights c.pth"
    assert (info["finished_epochs"], info["fidelity"], info["data"]["height"]) == (700, "author", 16)
    results = evaluate_run(tmp_path / "run", shards, device="cpu", probe_epochs=1, progress=False, m_val=[1, 2])
    assert results["protocol"]["fidelity"] == "author"
    assert results["protocol"]["trained_epochs"] == 700


def test_runs_on_patches_are_told_by_their_stem_and_action(tmp_path: Path) -> None:
    imported = small_run(tmp_path, small_state(action=2, side=3))
    assert imported.recipe == "stl-pls-M4"
    model = seqjepa.load(imported.run, "cpu")
    assert model.data.fixating["fidelity"] == "author"
    assert (model.data.height, model.data.image_height, model.data.kind) == (32, 96, "saliency")


def test_what_does_not_fit_is_listed_in_one_line(tmp_path: Path) -> None:
    state = small_state()
    del state["predictor.3.bias"]
    state |= {"extra.weight": torch.zeros(3), "encoder.bn1.bias": torch.zeros(9)}
    state["encoder.bn1.weight"] = state["encoder.bn1.weight"].long()
    with pytest.raises(FormatError) as error:
        small_run(tmp_path, state)
    said = str(error.value)
    assert "\n" not in said
    for part in (
        "weights of a run of 3die-rot-M3-authors: missing predictor.3.bias",
        "unknown extra.weight",
        "of another shape encoder.bn1.bias (9,), not (8,)",
        "of another kind encoder.bn1.weight torch.int64",
    ):
        assert part in said
    assert not (tmp_path / "run").exists()
    with pytest.raises(FormatError, match=r"not finite in agg_token"):
        small_run(tmp_path, small_state() | {"agg_token": torch.full((1, 1, 72), torch.nan)})
    with pytest.raises(FormatError, match=r"with and without 'module\.' before their names: module\.agg_token"):
        small_run(tmp_path, small_state() | {"module.agg_token": torch.zeros(1, 1, 72)})
    with pytest.raises(FormatError, match=r"a run of 3die-rotcolour-M4-authors: of another shape action_proj\.0"):
        small_run(tmp_path, small_state(), recipe="3die-rotcolour-M4")


def test_other_actions_need_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"actions of 8 numbers and filters of 7×7, .* with --recipe"):
        small_run(tmp_path, small_state(action=8))
    with pytest.raises(UsageError, match=r"no \[AGG\] token"):
        small_run(tmp_path, {"encoder.conv1.weight": torch.zeros(64, 3, 7, 7)})
    with pytest.raises(UsageError, match="recipe simclr-3die is of simclr"):
        small_run(tmp_path, small_state(), recipe="simclr-3die")
    with pytest.raises(UsageError, match="say with --shards what it saw"):
        small_run(tmp_path, small_state(), recipe="synth-tiny", settings=(*SMALL, "model.heads=1"))


@pytest.mark.parametrize("kind", ["pickle", "list", "nested", "text", "cut"])
def test_other_files_are_refused(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = checkpoint(tmp_path / "c.pth", small_state(), run_id=Harmful() if kind == "pickle" else "")
    if kind == "cut":
        file.write_bytes(file.read_bytes()[:5000])
    elif kind == "text":
        file.write_text("no weights")
    elif kind != "pickle":
        torch.save({"list": [torch.zeros(1)], "nested": {"state": {}}}[kind], file)
    with pytest.raises(FormatError, match=r"cannot be read as|bare state dict"):
        import_weights(file, tmp_path / "run")
    assert "run by a pickle" not in capsys.readouterr().out


def test_an_occupied_folder_is_refused_and_the_same_import_is_repeatable(tmp_path: Path) -> None:
    for _ in range(2):
        small_run(tmp_path, small_state())
    with pytest.raises(UsageError, match="holds another run"):
        small_run(tmp_path, small_state(seed=1))
    small_run(tmp_path, small_state(seed=1), overwrite=True)


def test_the_command(tmp_path: Path) -> None:
    file = str(checkpoint(tmp_path / "c.pth", small_state(), epoch="many"))
    words = ["import-seq-jepa", file, "--out", str(tmp_path / "run")]
    settings = [word for setting in SMALL for word in ("--set", setting)]
    done = CliRunner().invoke(seqjepa_app, [*words, *settings])
    assert done.exit_code == 0, done.output
    unknown = "1000 epochs (the recipe's; the file says none), settings of 3die-rot-M3"
    assert f"{unknown}; left out: online_equiprobe, online_linprobe" in done.output
    done = CliRunner().invoke(seqjepa_app, [*words, *settings, "--json"])
    assert (json.loads(done.output)["recipe"], json.loads(done.output)["epochs_known"]) == ("3die-rot-M3", False)
    checkpoint(tmp_path / "c.pth", small_state(), epoch=700)
    done = CliRunner().invoke(seqjepa_app, [*words, *settings, "--overwrite"])
    assert "700 epochs, settings of 3die-rot-M3" in done.output
    refused = CliRunner().invoke(seqjepa_app, ["import-seq-jepa", str(tmp_path), "--out", str(tmp_path / "run")])
    assert refused.exit_code == 2
