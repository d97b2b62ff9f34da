"""What is done with a frozen encoder, on an emulated GPU: features, probes, evaluation, embedding, saliency maps."""

from __future__ import annotations

import sys
from collections import Counter, deque
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from noise_shards import noise_shards
from python_path import ROOT

from pipelines.saliency import deepgaze
from pipelines.saliency.batches import AHEAD, gathered, in_order, mapped
from pipelines.saliency.models import ModelChoice
from pipelines.saliency.speed import Metered
from pipelines.sources import ImageRecord
from seqjepa.embedding.run import Asked, embed_run
from seqjepa.evaluate.features import encode_views
from seqjepa.evaluate.heads import Fit, Job, StackedLinear, cross_entropy, fit_together, mlp, squared_error
from seqjepa.evaluate.run import evaluate_run
from seqjepa.recipes import load_recipe
from seqjepa.training.checkpoint import load_run
from seqjepa.training.train import train
from shards.reader import ShardSet
from shards.saliency_map import decode_map
from shards.sample import MapSample

sys.path.append(str(ROOT / "tests" / "pipelines"))
import fake_deepgaze
from deepgaze_slow import small_model

pytestmark = pytest.mark.emulated
TINY = ("model.width=0.125", "model.layers=1", "model.ff_mult=1", "model.action_dim=8", "model.predictor_hidden=16")
SETTINGS = ("data.image_size=0", "optim.epochs=1", "optim.warmup_epochs=0", "optim.batch_size=8", "data.context=2")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return noise_shards(tmp_path_factory.mktemp("frozen") / "set", train=24, val=12)


@pytest.fixture(scope="module")
def run(shards: Path) -> Path:
    out = shards.parent / "run"
    train(load_recipe("3die-rot-M3", [*SETTINGS, *TINY]), shards, out, workers=0, device="cpu", progress=False)
    return out


def probes_jobs(device: str) -> list[Job]:
    """A regressor of numbers, and classifiers of two sizes that rest after four epochs, of 104 rows."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(104, width, generator=generator).to(device) for width in (12, 3))
    sizes, labels = x.view(104, 2, 6), (y[:, 0] > 0).long()

    def inputs(epoch: int) -> Any:
        drawn = x + 0.1 * epoch  # elsewhere in every epoch
        return lambda rows: (drawn[rows], y[rows])

    def shown(epoch: int) -> Any:
        return lambda rows: (sizes[rows], labels[rows])

    return [
        Job(lambda: mlp(12, 3, hidden=16), inputs, squared_error, 6),
        Job(lambda: StackedLinear(2, 6, 2), shown, cross_entropy, 4),
    ]


def test_probes_in_one_graph_learn_what_the_cpus_do(gpu) -> None:
    heads = {
        device: fit_together(probes_jobs(device), 104, Fit(0, 0, 16), device=torch.device(device))
        for device in ("cpu", "cuda")
    }
    for here, there in zip(heads["cpu"], heads["cuda"], strict=True):
        for name, value in there.state_dict().items():
            torch.testing.assert_close(value.cpu(), here.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_a_probes_steps_never_wait(gpu) -> None:
    counts: list[tuple[Counter, Counter]] = []
    regressor, classifier = probes_jobs("cuda")

    def after(epoch: int, head: torch.nn.Module) -> None:
        counts.append((Counter(gpu.syncs), Counter(gpu.launches)))

    def inputs(epoch: int) -> Any:
        gpu.reset()
        return regressor.inputs(epoch)

    jobs = [replace(regressor, inputs=inputs, after_epoch=after), classifier]
    fit_together(jobs, 104, Fit(0, 0, 16), device=torch.device("cuda"))
    assert [syncs for syncs, _ in counts] == [Counter()] * 6
    # Of seven minibatches the first three, while libraries warm up, and the last, which is short, are not the graph's.
    assert [launches["replay"] for _, launches in counts] == [3, 6, 6, 6, 3, 6]
    assert [launches["_fused_adam_"] for _, launches in counts] == [4, 1, 1, 1, 4, 1]


def test_probes_without_a_graph_say_so_and_learn_the_same(gpu, monkeypatch, caplog) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA error: operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "graph", refused)
        plain = fit_together(probes_jobs("cuda"), 104, Fit(0, 0, 16), device=torch.device("cuda"))
    assert "probes learn without a CUDA graph, and slower for it (CUDA error: operation not permitted)" in caplog.text
    graphed = fit_together(probes_jobs("cuda"), 104, Fit(0, 0, 16), device=torch.device("cuda"))
    for one, other in zip(plain, graphed, strict=True):
        for name, value in one.state_dict().items():
            torch.testing.assert_close(value.cpu(), other.state_dict()[name].cpu(), rtol=1e-4, atol=1e-5)


def test_encoding_waits_for_nothing_but_its_end(gpu, run: Path, shards: Path) -> None:
    index, device = ShardSet.open(shards).split("train"), torch.device("cuda", 0)
    stats = ((0.5,) * 3, (0.2,) * 3)
    encoded = {}
    for where in ("cuda", "cpu"):
        method = load_run(run, where).method.eval()
        at = device if where == "cuda" else torch.device("cpu")
        encode_views(method, index, stats, at, batch_size=16)  # what is kept has been made
        gpu.reset()
        encoded[where] = encode_views(method, index, stats, at, batch_size=16)
        once = [place for (what, place), _ in gpu.syncs.items()]
        assert len(once) <= 1, gpu.syncs  # labels
    torch.testing.assert_close(encoded["cuda"].z.cpu(), encoded["cpu"].z, rtol=1e-3, atol=1e-4)


def test_an_evaluation_finds_what_the_cpus_does(run: Path, shards: Path, tmp_path: Path) -> None:
    quick: dict[str, Any] = {"m_val": (1, 2), "probe_epochs": 6, "agg_draws": 2, "progress": False}
    here, there = (evaluate_run(run, shards, **quick, device=device, out=tmp_path) for device in ("cpu", "cuda"))
    numbers = [key for key, value in here.items() if isinstance(value, float) and key != "seconds"]
    assert len(numbers) > 2
    for key in numbers:
        assert there[key] == pytest.approx(here[key], abs=0.1), key


def test_embedding_gives_what_the_cpu_gives(run: Path, shards: Path, tmp_path: Path) -> None:
    tables = []
    for device in ("cpu", "cuda"):
        out = tmp_path / f"{device}.parquet"
        embed_run(run, out, Asked(shards=shards), device=device, overwrite=False, progress=False)
        tables.append(np.stack(pq.read_table(out)["z"].to_pylist()))
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-3, atol=1e-4)


def maps_of(model: Any, pictures: list[np.ndarray], ahead: int) -> list[MapSample]:
    named = ((ImageRecord(f"{n}", -1, "train", f"{n}.jpg", 0), (image, "")) for n, image in enumerate(pictures))
    gathering = gathered(named, deque([len(pictures)]), lambda *_: 4)
    return [result.sample for result in in_order(mapped(gathering, model, "float16", ahead))]


@pytest.mark.parametrize("name", ["deepgaze-iie", "spectral-residual", "centre-bias"])
def test_maps_are_made_without_waiting_and_come_late_unchanged(gpu, name: str, tmp_path: Path, monkeypatch) -> None:
    rng, options = np.random.default_rng(0), {}
    if name == "deepgaze-iie":  # a network of its kind, in float64
        options = fake_deepgaze.write_files(tmp_path, monkeypatch)
        fake_deepgaze.install(monkeypatch)
        network = small_model()
        monkeypatch.setattr(deepgaze, "load_model", lambda package, weights: deepcopy(network))
    first, second = ([rng.integers(0, 256, (*size, 3), np.uint8) for _ in range(18)] for size in ((40, 48), (56, 40)))
    model = Metered(ModelChoice(name, **options).build("cuda"))
    maps_of(model, first[:1], AHEAD)  # what is kept of the weights has been made
    gpu.reset()
    late = maps_of(model, [*first, *second], AHEAD)  # a new size is no reason to wait either
    assert not gpu.syncs
    assert {what for what, _ in gpu.waits} == {"Event.synchronize"}  # by the threads that encode
    assert late == maps_of(model, [*first, *second], 0)
    assert [sample.key for sample in late] == [str(number) for number in range(36)]
    for here, there in zip(maps_of(ModelChoice(name, **options).build("cpu"), [*first, *second], 0), late, strict=True):
        a, b = (decode_map(sample.saliency, "float16") for sample in (here, there))
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-6)
