"""Rotations read from the feature map before it is pooled: beside the paper's numbers, which stay as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import RESNET, run_directory
from torchvision.models.resnet import ResNet
from typer.testing import CliRunner

import cli
from seqjepa.config import ModelConfig, RunConfig
from seqjepa.evaluate import heads
from seqjepa.evaluate.ood import MapOfPlaces
from seqjepa.evaluate.results import format_table, keyed_rows, read_results
from seqjepa.evaluate.run import evaluate_run
from seqjepa.models.backbone import build_backbone
from seqjepa.paper.metrics import METRICS
from seqjepa.report.runs import read_records
from seqjepa.report.tables import build_tables
from seqjepa.training.checkpoint import initial_method, save_weights
from seqjepa.training.run import DataInfo
from shards.sample import ViewSample, encode_raw
from shards.schema import THREE_DIEBENCH_PARAMS, ViewSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

SIDE, VIEWS, EDGE = 64, 5, 24
"""EDGE: so far left of the middle that each place of a 2 × 2 map sees one of the halves alone."""
QUICK = {"device": "cpu", "m_val": (1,), "probe_epochs": 40, "progress": False}


def halves(angle: float) -> np.ndarray:
    """One half is as much brighter than grey as the other is darker: which of them says the sign of the angle."""
    pixels, contrast = np.full((SIDE, SIDE, 3), 128.0), round(100 * np.sin(angle))
    pixels[:, :EDGE] += contrast
    pixels[:, EDGE:] -= contrast
    return pixels.astype(np.uint8)


def written(out: Path, side: int = SIDE, objects: int = 16) -> Path:
    """Objects that turn about one axis alone, by −80° to 80°."""
    rng, spec = np.random.default_rng(0), ViewSpec(VIEWS, side, side, "raw", THREE_DIEBENCH_PARAMS)
    with SetBuilder(out, name="halves", spec=spec, classes=("a", "b"), fingerprint={"by": "test"}) as builder:
        for split, count in (("train", objects), ("val", objects // 4)):
            with builder.open_shard(split, 0) as writer:
                for number in range(count):
                    params = np.zeros((VIEWS, 7), np.float32)
                    params[:, 2] = np.radians(rng.uniform(-80, 80, VIEWS))
                    pixels = np.stack([halves(angle)[:side, :side] for angle in params[:, 2]])
                    views = [encode_raw(view) for view in pixels]
                    sample = ViewSample(f"o{number:03d}", views, range(VIEWS), params, number % 2)
                    writer.add(sample, PixelStats.of(pixels))
        builder.finish({"command": "test"})
    return out


@pytest.fixture(scope="module")
def turned(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("halves") / "set", objects=48)


def run_on(out: Path, side: int = SIDE, model: ModelConfig = RESNET) -> Path:
    """At its initial weights, where residual branches do nothing, and with a first convolution of one pixel: so each
    place sees no other, and the mean over places is the same to the bit whichever half is the bright one."""
    data, config = DataInfo("rotation", 4, (0.5,) * 3, (0.25,) * 3, side, side), RunConfig(name="tiny", model=model)
    run, method = run_directory(out, config, data), initial_method(config, 4)
    if isinstance(method.encoder, ResNet):
        centre = torch.zeros(7, 7)
        centre[3, 3] = 7
        method.encoder.conv1.weight.data.mul_(centre)
    save_weights(method, run / "model.safetensors")
    return run


@pytest.fixture(scope="module")
def found(turned, narrow_mlps: int, tmp_path_factory) -> tuple[Path, dict, dict]:
    """By MLPs that are not narrow, which learn the angle."""
    run, other = (run_on(tmp_path_factory.mktemp("run") / name) for name in ("with", "without"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "HIDDEN", narrow_mlps)
        return run, evaluate_run(run, turned, unpooled=True, **QUICK), evaluate_run(other, turned, **QUICK)


@pytest.mark.parametrize("side", [64, 96, 128])
def test_the_map_is_what_is_pooled(side):
    """z is the mean over all places; over the four of a grid too, where the map divides into it."""
    torch.manual_seed(0)
    encoder, width = build_backbone(RESNET)
    assert isinstance(encoder, ResNet)
    encoder = encoder.double().eval()
    views = torch.randn(3, 3, side, side, dtype=torch.float64)
    with torch.no_grad():
        z, seen = encoder(views), MapOfPlaces(encoder)
        places, whole = seen.embed(views), seen.map_of(views)
    assert places.shape == (3, 4 * width)
    torch.testing.assert_close(whole.mean(dim=(2, 3)), z)
    if side % 64 == 0:
        torch.testing.assert_close(places.unflatten(1, (width, 4)).mean(dim=2), z)
        half = whole.shape[-1] // 2
        quadrant = whole[:, :, :half, half:].mean(dim=(2, 3))
        torch.testing.assert_close(places.unflatten(1, (width, 2, 2))[:, :, 0, 1], quadrant)


def test_what_pooling_hides_is_read_from_the_map(found):
    """Of the angle z has no more than how large it is; a head that says 0 is off by 40° on average."""
    _, results, _ = found
    assert results["indiv_rot_deg"] > 25
    assert results["unpooled"]["indiv_rot_deg"] < 10
    assert results["rel_rot_deg"] > 2 * results["unpooled"]["rel_rot_deg"]


def test_nothing_else_changes(found):
    _, results, without = found
    rest = {key: value for key, value in results.items() if key not in ("unpooled", "seconds", "protocol", "intervals")}
    assert rest == {key: value for key, value in without.items() if key not in ("seconds", "protocol", "intervals")}
    assert {key: value for key, value in results["intervals"].items() if key != "unpooled"} == without["intervals"]
    said = {key: value for key, value in results["protocol"].items() if key != "unpooled"}
    assert said == without["protocol"]
    assert results["protocol"]["unpooled"] == "feature map averaged to 2 × 2 places, flattened"
    assert "unpooled" not in without


def test_every_number_has_a_label_an_interval_and_a_column(found):
    run, results, _ = found
    names = {f"unpooled.{key}" for key in results["unpooled"]}
    assert names == {key for key in METRICS if key.startswith("unpooled.")}
    assert len(names) == 8
    low, high = results["intervals"]["unpooled"]["r2_indiv_rot_avg"]
    assert low <= results["unpooled"]["r2_indiv_rot_avg"] <= high
    labels = [label for _, label, _ in keyed_rows(read_results(run))]
    assert "R² relative rotation, avg, 2 × 2 map before pooling" in labels
    assert "R² individual rotation, avg, 2 × 2 map before pooling" in format_table(read_results(run))


def test_a_report_has_a_column_for_it(turned, tmp_path):
    run = run_on(tmp_path / "run")
    results = evaluate_run(run, turned, unpooled=True, **{**QUICK, "probe_epochs": 2})
    tables = build_tables(read_records([run]))
    (column,) = {c for table in tables for c in table.columns if "relative rotation, map" in str(c)}
    assert column
    assert results["unpooled"]["r2_rel_rot_avg"] <= 1


def test_it_is_asked_for_by_an_option_or_by_all_studies(turned, tmp_path):
    run = run_on(tmp_path / "run")
    command = ["evaluate", str(run), "--shards", str(turned), "--probe-epochs", "1", "--m-val", "1", "--device", "cpu"]
    result = CliRunner().invoke(cli.seqjepa_app, [*command, "--unpooled"])
    assert result.exit_code == 0, result.output
    assert "2 × 2 map before pooling" in result.output


@pytest.mark.parametrize(
    ("side", "model", "reason"),
    [
        (32, RESNET, "the map has 1 × 1 places before it is pooled"),
        (64, ModelConfig(backbone="timm:test_resnet", layers=1), "the encoder is no ResNet of torchvision"),
    ],
)
def test_where_there_is_no_map_the_reason_is_said(tmp_path, side, model, reason):
    shards = written(tmp_path / "set", side)
    results = evaluate_run(run_on(tmp_path / "run", side, model), shards, unpooled=True, **{**QUICK, "probe_epochs": 1})
    assert results["protocol"]["skipped"]["unpooled"] == reason
    assert "unpooled" not in results
