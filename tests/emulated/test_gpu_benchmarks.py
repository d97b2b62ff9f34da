"""Every benchmark of benchmarks/gpu.sh on an emulated card, tiny: it runs to its end and has its figures."""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipelines.saliency import speed

pytestmark = pytest.mark.emulated
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TINY = ("model.width=0.125", "model.layers=1", "model.ff_mult=1", "model.action_dim=8", "model.predictor_hidden=16")
OPTIONS = {
    "train": "--small --rounds 1 --steps 1 --workers 1",
    "stem": "--batch 2 --size 32 --rounds 1",
    "saliency": "--batch 2 --height 64 --width 64 --rounds 1",
    "saliency_precision": "--stand-in --images 2 --height 64 --width 64 --precisions tf32 fp16 bf16",
    "probes": "--objects 16 --views 8 --size 32 --epochs 2 --peer-epochs 1",
    "probes_full_size": "--objects 64 --epochs 2",
}
BY_CONTENDER = {
    "augment": "ours float32 pixels one_thread",
    "fixations": "ours streamed float32 author sampling cutting",
}
Found = list[dict[str, Any]]


class Ended(BaseException):
    """In place of os._exit."""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A benchmark's module; ceilings of the device are of small products and copies."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setitem(speed.SIDE, "cuda", 64)
    return importlib.import_module


@pytest.fixture
def run(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[[ModuleType], Found]:
    """What it prints on the device, of its tiny options."""

    def printed(bench: ModuleType) -> Found:
        words = [bench.__name__, "--device", "cuda", *OPTIONS[bench.__name__].split()]
        monkeypatch.setattr(sys, "argv", words + (["--work", str(tmp_path)] if hasattr(bench, "prepare") else []))
        bench.main()
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return printed


def test_every_benchmark_of_the_entry_is_here() -> None:
    words = [line.split() for line in (BENCHMARKS / "gpu.sh").read_text().splitlines()]
    on_a_card = {line[1] for line in words if line[:1] == ["bench"]} - {"loader"}  # which asks for no device
    assert on_a_card == OPTIONS.keys() | BY_CONTENDER.keys()


def test_a_training_step_has_every_figure(gpu, load, run, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = load("train")
    recipe, timed = bench.load_recipe, bench.seconds_per_step

    def without_capture(steps: Any, count: int, warm_up: int, device: Any) -> float:
        graphs: list[int] = []
        seconds = timed((graphs.append(len(gpu.graphs)) for _ in steps), count, warm_up, device)
        assert graphs[warm_up - 1] == graphs[-1], "what is timed captures a graph"
        return seconds

    monkeypatch.setattr(bench, "seconds_per_step", without_capture)
    monkeypatch.setattr(bench, "load_recipe", lambda name, settings: recipe(name, [*settings, *TINY]))
    monkeypatch.setitem(bench.COPIED, "cuda", 1 << 20)
    (found,) = run(bench)
    assert set(found["step_ms"]) == set(found["share_of_floor"]) == {"released", "limit", "ours", "eager"}
    assert found["compiled"]
    assert found["peers"].keys() == {"released style (fp32, eager, PIL)"}
    single = ("ours", "limit", "model_flops_per_s", "share_of_matmul_rate", "floor_ms", "gpu_hours_1000_epochs")
    assert all(found[name] > 0 for name in single), found
    assert all(value > 0 for value in found["bytes_per_s"].values())
    assert found["bytes_per_s"].keys() == {"ours", "eager", "limit"}


def test_the_stem_of_each_number_of_channels(gpu, load, run) -> None:
    found = run(load("stem"))
    assert [line["channels"] for line in found] == [3, 4, 8]
    assert all(line["ours"] > 0 for line in found)


def test_probes_and_their_peers_have_the_same_scores(gpu, load, run) -> None:
    (found,) = run(load("probes"))
    assert found["device"] == "cuda:0"
    assert found["peers"].keys() == {"as released", "kindest", "each by itself"}
    assert {part["largest_difference"] for part in found["probes"].values()} == {0.0}


def test_probes_of_full_size_learn_all_epochs_on_a_card(gpu, load, run) -> None:
    (found,) = run(load("probes_full_size"))
    assert found["rotation_scaled_by"] == 1
    assert found["ours"] > 0
    assert found["rotation_s"] > 0


def test_precisions_of_saliency_are_beside_float32(gpu, load, run) -> None:
    tf32, *halves = run(load("saliency_precision"))
    assert tf32["ours"] < 1e-5  # emulated products are float32's
    assert [line["name"].split()[-1] for line in halves] == ["fp16", "bf16"]
    assert all(1e-5 < line["ours"] < 1 for line in halves)


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_saliency_has_every_figure(gpu, load, run, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    """With the stand-in twice in place of DeepGaze IIE and the package."""
    bench, network = load("saliency"), load("saliency_precision").network

    def contenders(args: Any) -> dict[str, Callable[[], Any]]:
        images = bench.noise_pictures(args.batch, args.height, args.width, seed=1).to(args.device)
        bias = bench.corner_dark_bias(args.height, args.width).to(args.device).float()
        ours, theirs = network(stand_in=True).to(args.device), network(stand_in=True).to(args.device)
        ours.precision = args.precision
        whole = {"ours": lambda: ours(images, bias), "package": lambda: theirs(images, bias)}
        return whole | {"pooled_96": lambda: ours.pooled(images, bias, (32, 32)), "scripted": whole["package"]}

    monkeypatch.setattr(bench, "contenders", contenders)
    monkeypatch.setitem(OPTIONS, "saliency", f"{OPTIONS['saliency']} --precision {precision}")
    (found,) = run(bench)
    assert found["precision"] == precision
    assert found["gflop_an_image"] > 0
    assert found["ratio_limit"] > 0
    assert (found["max_difference"] < 1e-5) == (precision == "tf32")


@pytest.mark.parametrize(("script", "name"), [(s, n) for s, names in BY_CONTENDER.items() for n in names.split()])
def test_each_contender_of_ours_has_a_rate(
    gpu, load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, script: str, name: str
) -> None:
    """In this process, as its child would: a child sees no emulated card."""

    def ends(code: int) -> None:
        raise Ended(code)

    data = load(f"{script}_data")
    monkeypatch.setattr(data, "IMAGES", 64)
    monkeypatch.setattr(data, "BATCH", 32)
    data.prepare(tmp_path)
    monkeypatch.setattr(os, "_exit", ends)
    words = ["--device", "cuda", "--one", name, "--seconds", "0.01", "--work", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [script, *words])
    with pytest.raises(Ended) as ended:
        runpy.run_path(str(BENCHMARKS / f"{script}.py"), run_name="__main__")
    assert ended.value.args == (0,)
    assert float(capsys.readouterr().out) > 0
