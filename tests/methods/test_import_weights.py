"""Importing the released weights, on state dicts of the released names and shapes that are made here."""

from __future__ import annotations

import json
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from small_context_runs import MODEL, SETTINGS, context_shards
from torch import Tensor
from torchvision.models import resnet18
from typer.testing import CliRunner

from cli import seqjepa_app
from seqjepa.config import RunConfig
from seqjepa.evaluate.run import evaluate_run
from seqjepa.methods import build_method
from seqjepa.methods.context_ssl import ContextSSL
from seqjepa.methods.context_ssl.transformer import pair_mask
from seqjepa.released import context_ssl as importing
from seqjepa.released.context_ssl import author_config, author_key, import_weights, read_released_weights
from seqjepa.training.checkpoint import load_run
from shards.errors import FormatError, UsageError

Shapes = dict[str, tuple[int, ...]]


def mlp(name: str, sizes: tuple[int, ...], step: int = 2) -> Shapes:
    shapes: Shapes = {}
    for k, (before, after) in enumerate(pairwise(sizes)):
        shapes |= {f"{name}.{k * step}.weight": (after, before), f"{name}.{k * step}.bias": (after,)}
    return shapes


def linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def released_shapes(features: int, width: int, layers: int, ff: int) -> Shapes:
    """All but the encoder's entries, as the released model lists them."""
    shapes = {**linear("equiv_linear", features, 6)}
    shapes |= {**linear("predictor._read_in", features + 6, width), **linear("predictor._read_out", width, features)}
    for i in range(layers):
        block = f"predictor.transformer.h.{i}"
        shapes |= {**norm(f"{block}.ln_1", width), **linear(f"{block}.attn.c_attn", width, 3 * width)}
        shapes |= {**linear(f"{block}.attn.c_proj", width, width), **norm(f"{block}.ln_2", width)}
        shapes |= {**linear(f"{block}.mlp.c_fc", width, ff * width), **linear(f"{block}.mlp.c_proj", ff * width, width)}
    shapes |= norm("predictor.transformer.ln_f", width)
    shapes |= mlp("aug_predictor", (features, 1024, 1024, 6)) | mlp("rel_aug_predictor", (2 * features, 1024, 1024, 6))
    return shapes


def full_size() -> dict[str, Tensor]:
    """Every entry of the released file, each backed by a single number, so that the file is small."""
    with torch.device("meta"):
        encoder = resnet18().state_dict()
    state = {f"enc.{name}": one(tuple(t.shape), t.dtype) for name, t in encoder.items() if not name.startswith("fc.")}
    return state | {name: one(shape) for name, shape in released_shapes(512, 2048, 3, 4).items()}


def one(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones((), dtype=dtype).expand(shape)


def small_config() -> RunConfig:
    config = author_config()
    return config.model_copy(update={"model": MODEL, "context_ssl": SETTINGS})


def small_state(seed: int = 0) -> dict[str, Tensor]:
    """Random values under the released names, in the sizes of small_config."""
    torch.manual_seed(seed)
    encoder = build_method(small_config(), 6).get_submodule("encoder").state_dict()
    state = {f"enc.{name}": t.clone() for name, t in encoder.items()}
    state |= {name: 0.1 * torch.randn(shape) for name, shape in released_shapes(64, 32, 2, 2).items()}
    return state


def saved(path: Path, state: Any) -> Path:
    torch.save(state, path)
    return path


def test_every_released_entry_has_its_place(tmp_path: Path):
    file = saved(tmp_path / "full.pt", full_size())
    assert file.stat().st_size < 2**20
    with torch.device("meta"):
        method = build_method(author_config(), 6)
    assert isinstance(method, ContextSSL)
    assert len({author_key(name) for name in method.state_dict()}) == len(method.state_dict())
    state, unused = read_released_weights(file, method)
    assert {name: t.shape for name, t in state.items()} == {name: t.shape for name, t in method.state_dict().items()}
    assert len(unused) == 8
    assert all(name.startswith(("equiv_linear.", "rel_aug_predictor.")) for name in unused)
    blocks = 3 * (12 * 2048**2 + 13 * 2048)
    around = (518 + 1) * 2048 + 2 * 2048 + (2048 + 1) * 512
    regressor = (512 + 1) * 1024 + (1024 + 1) * 1024 + (1024 + 1) * 6
    assert sum(p.numel() for p in method.parameters()) == 11_176_512 + blocks + around + regressor


def test_the_settings_are_those_of_the_released_weights():
    config = author_config()
    assert (config.context_ssl.width, config.model.layers, config.model.heads, config.model.ff_mult) == (2048, 3, 4, 4)
    assert (config.context_ssl.pairs, config.context_ssl.mask) == (64, 0.9)
    assert (config.context_ssl.temperature, config.context_ssl.regression) == (0.1, 5.0)
    optim = config.optim
    assert (optim.optimizer, optim.lr, optim.weight_decay, optim.warmup_epochs) == ("adam", 1e-4, 1e-3, 10)
    assert (optim.schedule, optim.final_lr, optim.warmup_lr, optim.lr_update) == ("cosine", 0, 0, "step")
    assert (config.fidelity, config.data.normalisation) == ("author", "3diebench")


def test_an_imported_run_computes_what_the_released_layers_compute(tmp_path: Path):
    state = small_state()
    run = tmp_path / "run"
    imported = import_weights(saved(tmp_path / "w.pt", state), run, config=small_config(), resolution=16)
    method = load_run(run).method
    assert isinstance(method, ContextSSL)
    assert imported.unused
    tokens = torch.randn(6, 64 + 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = method.transformer(tokens[None], pair_mask(6).expand(2, -1, -1))[0]
    torch.testing.assert_close(found, released_forward(state, tokens), rtol=1e-4, atol=1e-5)
    said = method.regressor(found)
    hidden = found
    for k in (0, 2, 4):
        hidden = hidden @ state[f"aug_predictor.{k}.weight"].T + state[f"aug_predictor.{k}.bias"]
        hidden = hidden.relu() if k < 4 else hidden
    torch.testing.assert_close(said, hidden, rtol=1e-4, atol=1e-5)


def released_forward(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """One sequence [L, …] from the released names, by matrix products: q, k and v lie after each other, then heads."""

    def apply(name: str, x: Tensor) -> Tensor:
        return x @ state[f"predictor.{name}.weight"].T + state[f"predictor.{name}.bias"]

    def normed(name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        unit = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return unit * state[f"predictor.{name}.weight"] + state[f"predictor.{name}.bias"]

    x = apply("_read_in", x)
    for i in range(MODEL.layers):
        block = f"transformer.h.{i}"
        q, k, v = apply(f"{block}.attn.c_attn", normed(f"{block}.ln_1", x)).split(32, dim=1)
        heads = []
        for part in (slice(0, 16), slice(16, 32)):
            scores = (q[:, part] @ k[:, part].T / 4).masked_fill(~pair_mask(len(x)), -torch.inf)
            heads.append(scores.softmax(-1) @ v[:, part])
        x = x + apply(f"{block}.attn.c_proj", torch.cat(heads, 1))
        inner = torch.nn.functional.gelu(apply(f"{block}.mlp.c_fc", normed(f"{block}.ln_2", x)))
        x = x + apply(f"{block}.mlp.c_proj", inner)
    return apply("_read_out", normed("transformer.ln_f", x))


def test_an_imported_run_is_evaluated_like_any_other(tmp_path: Path):
    shards, run = context_shards(tmp_path / "shards"), tmp_path / "run"
    prefixed = {f"module.{name}": tensor for name, tensor in small_state().items()}
    import_weights(saved(tmp_path / "w.pt", prefixed), run, config=small_config(), resolution=16)
    results = evaluate_run(run, shards, device="cpu", probe_epochs=1, progress=False)
    assert results["protocol"]["context"]["tokens"] == 8
    assert results["protocol"]["fidelity"] == "author"
    info = json.loads((run / "run.json").read_text())
    assert info["shards"]["name"] == "released weights w.pt"
    assert info["finished_epochs"] == 1000


def test_what_does_not_fit_is_listed_in_one_line(tmp_path: Path):
    state = small_state()
    del state["aug_predictor.4.bias"]
    state["fc.weight"] = torch.zeros(3)
    state["predictor._read_in.weight"] = torch.zeros(32, 64)
    state["enc.conv1.weight"] = state["enc.conv1.weight"].long()
    with pytest.raises(FormatError) as error:
        import_weights(saved(tmp_path / "w.pt", state), tmp_path / "run", config=small_config())
    said = str(error.value)
    assert "\n" not in said
    for part in (
        "missing aug_predictor.4.bias",
        "unknown fc.weight",
        "of another shape predictor._read_in.weight (32, 64), not (32, 70)",
        "of another kind enc.conv1.weight torch.int64",
    ):
        assert part in said
    assert not (tmp_path / "run").exists()
    state = small_state()
    state["predictor._read_out.bias"][3] = torch.nan
    with pytest.raises(FormatError, match=r"not finite in predictor\._read_out\.bias"):
        import_weights(saved(tmp_path / "w.pt", state), tmp_path / "run", config=small_config())


class Harmful:
    def __reduce__(self):
        return (print, ("run by a pickle",))


@pytest.mark.parametrize("kind", ["pickle", "list", "nested", "text", "cut"])
def test_other_files_are_refused(tmp_path: Path, kind: str, capsys):
    file = tmp_path / "w.pt"
    values: dict[str, Any] = {"pickle": {"enc": Harmful()}, "list": [torch.zeros(1)], "nested": {"model": {}}}
    if kind == "text":
        file.write_text("no weights")
    elif kind == "cut":
        saved(file, small_state())
        file.write_bytes(file.read_bytes()[:5000])
    else:
        saved(file, values[kind])
    with pytest.raises(FormatError, match=r"cannot be read as|bare state dict"):
        import_weights(file, tmp_path / "run", config=small_config())
    assert "run by a pickle" not in capsys.readouterr().out


def test_files_that_are_missing_or_too_large_are_refused(tmp_path: Path, monkeypatch):
    with pytest.raises(UsageError, match="is not a file"):
        import_weights(tmp_path / "w.pt", tmp_path / "run")
    file = saved(tmp_path / "w.pt", small_state())
    monkeypatch.setattr(importing, "MOST_BYTES", 1000)
    with pytest.raises(UsageError, match="at most 1,000"):
        import_weights(file, tmp_path / "run")


def test_an_occupied_folder_is_refused_and_the_same_import_is_repeatable(tmp_path: Path):
    file, other = saved(tmp_path / "w.pt", small_state()), saved(tmp_path / "other.pt", small_state(1))
    for _ in range(2):
        import_weights(file, tmp_path / "run", config=small_config())
    with pytest.raises(UsageError, match="holds another run"):
        import_weights(other, tmp_path / "run", config=small_config())
    import_weights(other, tmp_path / "run", config=small_config(), overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(UsageError, match="not a run directory"):
        import_weights(file, tmp_path / "mine", config=small_config())


def test_the_command(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(importing, "author_config", small_config)
    file = saved(tmp_path / "w.pt", small_state())
    done = CliRunner().invoke(seqjepa_app, ["import-context-ssl", str(file), "--out", str(tmp_path / "run"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["parameters"] > 0
    assert zipfile.is_zipfile(file)
    refused = CliRunner().invoke(seqjepa_app, ["import-context-ssl", str(tmp_path), "--out", str(tmp_path / "run")])
    assert refused.exit_code == 2
