"""A comparison from shards to table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from compare_lab import tiny_scale
from noise_shards import noise_shards
from safetensors.torch import load_file
from typer.testing import CliRunner

import cli
from seqjepa.experiments.compare import Comparison, compare, compared_methods
from seqjepa.experiments.compare_table import HEADS, comparison_markdown, comparison_table, notes

SOME = ("simclr", "seq_jepa")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_shards(tmp_path_factory.mktemp("compare") / "shards")


@pytest.fixture(scope="module")
def scale(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_scale(tmp_path_factory.mktemp("scale"))


def run(
    shards: Path, scale: str, out: Path, methods: tuple[str, ...] = SOME, steps: int = 12, **changes: Any
) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    comparison = Comparison(shards, methods, steps=steps, scale=scale, **changes)
    return compare(comparison, out, device="cpu", workers=0, progress=False, say=said.append), said


def results_of(run_directory: Path) -> dict[str, Any]:
    return json.loads((run_directory / "results.json").read_text())


def test_rows_say_what_the_runs_say_and_a_second_call_does_nothing(shards: Path, scale: str, tmp_path: Path) -> None:
    compared, said = run(shards, scale, tmp_path)
    simclr, seq_jepa = compared["rows"]
    found = [results_of(tmp_path / f"{name}-seed0")["trained"] for name in SOME]
    assert (simclr["top1"], simclr["top1_of"]) == (found[0]["top1_z"], "z of one view")
    assert (seq_jepa["top1"], seq_jepa["top1_of"]) == (found[1]["top1_agg"]["3"], "z_AGG of 3 views")
    assert seq_jepa["top1_z"] == found[1]["top1_z"]
    for row, result in zip((simclr, seq_jepa), found, strict=True):
        assert (row["r2_rel"], row["r2_indiv"]) == (result["r2_rel_rot_avg"], result["r2_indiv_rot_avg"])
        assert row["seconds"] > 0
        assert row["macs"] > 2 * row["macs_sequence"] > 0
    weights = load_file(tmp_path / "simclr-seed0" / "model.safetensors")
    assert simclr["parameters"] == sum(
        w.numel() for name, w in weights.items() if w.is_floating_point() and "running" not in name
    )
    assert compared["untrained"]["top1"] == results_of(tmp_path / "simclr-seed0")["untrained"]["top1_z"]
    assert sum("train 6 epochs" in line or "train 3 epochs" in line for line in said) == 2
    (warning,) = [line for line in said if line.startswith("warning: ")]
    assert warning.startswith("warning: fewer steps than the 3,600")
    assert ": seq_jepa would" in warning
    assert warning.removeprefix("warning: ") in notes(compared)
    assert compared["settings"]["schedules"] == {"simclr": "constant", "seq_jepa": "cosine"}
    assert json.loads((tmp_path / "comparison.json").read_text()) == compared
    again, said = run(shards, scale, tmp_path)
    assert again == compared
    assert not any("train " in line or "evaluate" in line for line in said)


@pytest.mark.parametrize(
    "methods", [("seq_jepa", "vicreg_traj", "context_ssl"), pytest.param(compared_methods(), marks=pytest.mark.slow)]
)
def test_methods_of_any_kind_in_one_table(shards: Path, scale: str, tmp_path: Path, methods: tuple[str, ...]) -> None:
    compared, _ = run(shards, scale, tmp_path, methods, steps=4)
    assert [row["method"] for row in compared["rows"]] == list(methods)
    for row in compared["rows"]:
        assert all(isinstance(row[key], float) for key in ("top1", "r2_rel", "r2_indiv", "seconds")), row["method"]
        assert row["views"] * row["batch_size"] == 16 if row["views"] != 3 else 18
    context = results_of(tmp_path / "context_ssl-seed0")["trained"]
    row = next(row for row in compared["rows"] if row["method"] == "context_ssl")
    assert row["top1_of"] == "z⁺ after 126 tokens of context"
    assert (row["top1"], row["top1_z"]) == (context["top1_z"], context["in_context"]["encoder"]["top1_z"])
    lines = comparison_table(compared).splitlines()
    of_rows = lines[: len(methods) + 2]
    assert [line.split()[0] for line in of_rows] == ["method", *methods, "(untrained)"]
    assert len({len(line) for line in of_rows}) == 1
    assert any("context_ssl z⁺ after 126 tokens" in note for note in notes(compared))


def test_several_seeds_are_averaged(shards: Path, scale: str, tmp_path: Path) -> None:
    compared, _ = run(shards, scale, tmp_path, ("vicreg",), steps=4, seeds=(1, 2))
    (row,) = compared["rows"]
    one, two = (results_of(tmp_path / f"vicreg-seed{seed}")["trained"]["r2_rel_rot_avg"] for seed in (1, 2))
    assert row["r2_rel"] == pytest.approx((one + two) / 2)
    assert row["std"]["r2_rel"] == pytest.approx(abs(one - two) / 2**0.5)
    assert len(row["runs"]) == 2
    markdown = comparison_markdown(compared).splitlines()
    assert markdown[0] == "| " + " | ".join(HEADS) + " |"
    assert f"{row['r2_rel']:.3f} ± {row['std']['r2_rel']:.3f}" in markdown[2]
    assert sum("seeds 1, 2" in line for line in markdown) == 1
    assert "learning rate of vicreg: constant after the warm-up" in markdown[-1]


def test_the_command_prints_one_object_and_refuses_what_it_does_not_know(
    shards: Path, scale: str, tmp_path: Path
) -> None:
    asked = [
        "compare",
        "--shards",
        str(shards),
        "--steps",
        "12",
        "--scale",
        scale,
        "--device",
        "cpu",
        "--workers",
        "0",
    ]
    done = CliRunner().invoke(cli.seqjepa_app, [*asked, "--methods", "byol", "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed["rows"][0]["method"] == "byol"
    assert printed["settings"]["steps"] == 12
    for wrong, said in (
        (["--methods", "moco"], "'moco' is not a method"),
        (["--scale", "large"], "there is no scale 'large'; there are: medium, paper, paper-small, small"),
        (["--json", "--markdown"], "give one of them"),
    ):
        refused = CliRunner().invoke(cli.seqjepa_app, [*asked, *wrong, "--out", str(tmp_path / "other")])
        assert refused.exit_code == 2
        assert said in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        assert not (tmp_path / "other").exists()
