"""examples/: a simulator and photographs become folders with a spreadsheet, those shards, those a run with numbers."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import runpy
import subprocess
import sys
import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import cli
from seqjepa.config import EvalConfig
from seqjepa.evaluate.run import evaluate_run
from seqjepa.recipes import load_recipe
from seqjepa.training.train import train
from shards.reader import ShardSet

ROOT = Path(__file__).resolve().parents[1]
SIMULATED = (6, 12)  # episodes, frames of each
TINY = ("model.width=0.125", "model.layers=1", "data.context=2", "optim.epochs=2", "optim.batch_size=4")


def example(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def seqjepa_data(*arguments: object) -> str:
    done = CliRunner().invoke(cli.seqjepa_data_app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("gymnasium")
    out = tmp_path_factory.mktemp("examples") / "pendulum"
    done = example("simulator.py", "--out", out, "--episodes", SIMULATED[0], "--steps", SIMULATED[1])
    assert done.returncode == 0, done.stderr
    return out


def test_a_row_holds_the_torque_that_leads_on(pendulum: Path) -> None:
    """Against the equation of motion as gymnasium's page has it, two steps of 0.05 s at g = 10, m = l = 1."""
    rows = rows_of(pendulum)
    assert len(rows) == SIMULATED[0] * SIMULATED[1]
    pairs = 0
    for here, there in pairwise(rows):
        if here["sequence"] != there["sequence"]:
            continue
        angle, velocity, torque = (float(here[name]) for name in ("angle", "velocity", "torque"))
        for _ in range(2):
            velocity = np.clip(velocity + (15 * np.sin(angle) + 3 * torque) * 0.05, -8, 8)
            angle += 0.05 * velocity
        off = (angle - float(there["angle"]) + np.pi) % (2 * np.pi) - np.pi
        assert abs(off) < 1e-4
        assert velocity == pytest.approx(float(there["velocity"]), abs=1e-4)
        pairs += 1
    assert pairs == SIMULATED[0] * (SIMULATED[1] - 1)


def test_a_frame_shows_the_angle_and_no_torque(pendulum: Path) -> None:
    """The rod is what is red; its centre lies on a ray at the angle, counted from upright to the left."""
    offs = []
    for row in rows_of(pendulum)[::5]:
        pixels = np.asarray(Image.open(pendulum / row["file_name"])).astype(float)
        assert pixels.shape == (48, 48, 3)
        redness = pixels[..., 0] - pixels[..., 1]
        assert (redness > 5).mean() < 0.12  # an arrow around the axle would be more
        y, x = (np.average(grid, weights=redness) - 23.5 for grid in np.mgrid[:48, :48])
        seen = np.arctan2(-x, -y)
        offs.append((seen - float(row["angle"]) + np.pi) % (2 * np.pi) - np.pi)
    assert np.abs(offs).max() < 0.12


def test_the_same_seed_is_the_same_folder_and_none_is_written_twice(pendulum: Path, tmp_path: Path) -> None:
    asked = ("--episodes", SIMULATED[0], "--steps", SIMULATED[1])
    assert example("simulator.py", "--out", tmp_path / "again", *asked).returncode == 0
    for path in sorted(pendulum.rglob("*.*")):
        assert (tmp_path / "again" / path.relative_to(pendulum)).read_bytes() == path.read_bytes()
    refused = example("simulator.py", "--out", pendulum, *asked)
    assert refused.returncode == 2
    assert "is there already" in refused.stderr


def turntable(root: Path, objects: int = 6, views: int = 4) -> Path:
    """Photographs in 3DIEBench's layout: soft blobs, JPEG, each instance turned by its own angles."""
    rng = np.random.default_rng(0)
    for number in range(objects):
        for instance in ("i0", "i5"):
            folder = root / f"thing{number}" / instance
            folder.mkdir(parents=True)
            for k in range(views):
                coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
                coarse.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"image_{k}.jpg", quality=95)
                angle = np.radians(rng.integers(-36, 36) * 5.0)
                np.save(folder / f"latent_{k}.npy", np.array([0, 0, angle, 0, 0, 0, 0]))
    return root


def dials(root: Path, shown: bool) -> Path:
    """Photographs of 24 dials: a disc at the angle of the table, or at any other; its colour is the dial's."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :24] - 11.5
    lines = ["file_name,sequence,split,angle"]
    root.mkdir()
    for dial, colour in enumerate(rng.integers(128, 256, (24, 3))):
        for view, angle in enumerate(rng.uniform(-180, 180, 8)):
            seen = np.radians(angle if shown else rng.uniform(-180, 180))
            disc = np.hypot(x - 7 * np.cos(seen), y - 7 * np.sin(seen)) < 4
            Image.fromarray((disc[..., None] * colour).astype(np.uint8)).save(root / f"{dial}-{view}.png")
            lines.append(f"{dial}-{view}.png,{dial},{'val' if dial >= 18 else 'train'},{angle:.3f}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    words = '[units]\nangle = "deg"\n[[action]]\nop = "angle_difference"\ncolumns = ["angle"]\n'
    (root / "actions.toml").write_text(words)
    return root


def supervised(folder: Path, shown: bool, epochs: int) -> dict[str, float]:
    """What examples/supervised.py prints of dials, which it runs in this process."""
    photographs, shards = dials(folder / f"dials-{shown}", shown), folder / f"set-{shown}"
    seqjepa_data("shard", "manifest", "--source", photographs, "--out", shards, "--workers", 0, "--encoding", "raw")
    how = ("--epochs", epochs, "--batch-size", 18, "--lr", 3e-3, "--set", "model.width=0.125")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", ["supervised.py", *map(str, (shards, *how))])
        runpy.run_path(str(ROOT / "examples" / "supervised.py"), run_name="__main__")
    return json.loads(printed.getvalue())


def test_what_pictures_allow_is_told_in_numbers(tmp_path: Path) -> None:
    found = supervised(tmp_path, True, epochs=5)
    assert found.keys() == {"steps", "r2_train", "r2_val"}
    assert found["steps"] == 5
    assert found["r2_train"] < 0.5, "of nearly no training"


@pytest.mark.slow
def test_what_pictures_allow_is_much_where_they_show_the_angle_and_nothing_where_they_do_not(tmp_path: Path) -> None:
    found = [supervised(tmp_path, shown, epochs=200) for shown in (True, False)]
    assert [one["steps"] for one in found] == [200, 200]
    assert found[0]["r2_val"] > 0.7
    assert found[1]["r2_val"] < 0.2


def pixels_of(shards: Path) -> dict[str, list[bytes]]:
    """Stored views by split, in their order."""
    found: dict[str, list[bytes]] = {}
    for tar in sorted(shards.glob("*.tar")):
        with tarfile.open(tar) as opened:
            views = [m for m in opened if re.search(r"\.\d\d\.npy$", m.name)]
            found.setdefault(tar.name.partition("-")[0], []).extend(opened.extractfile(m).read() for m in views)  # pyright: ignore
    return found


def test_photographs_in_a_spreadsheet_are_the_set_that_3diebenchs_layout_gives(tmp_path: Path) -> None:
    """Bit for bit the same pixels, and the same losses; the declared angle is the turn about z."""
    tree = turntable(tmp_path / "tree")
    with tarfile.open(tmp_path / "tree.tar.gz", "w:gz") as tar:
        tar.add(tree, "COIL100")
    assert example("coil100.py", "--source", tmp_path / "tree.tar.gz", "--out", tmp_path / "own").returncode == 0
    assert len(rows_of(tmp_path / "own")) == 48
    raw = ("--encoding", "raw", "--size", 24, "--workers", 0)
    seqjepa_data("shard", "3diebench", "--source", tree, "--val-match", "i5", "--out", tmp_path / "a", *raw)
    manifest = ("shard", "manifest", "--source", tmp_path / "own", *raw)
    seqjepa_data(*manifest, "--action", "rotation", "--out", tmp_path / "b")
    seqjepa_data(*manifest, "--out", tmp_path / "c")
    assert pixels_of(tmp_path / "a") == pixels_of(tmp_path / "b") == pixels_of(tmp_path / "c")
    losses = [trained(tmp_path / set_, tmp_path / f"run-{set_}", "data.action=rotation") for set_ in ("a", "b")]
    assert losses[0] == losses[1]
    split = ShardSet.open(tmp_path / "c").split("train")
    assert split.actions is not None
    assert [(term.op, term.columns) for term in split.actions.terms] == [("angle_difference", ("angle",))]
    columns = dict(zip(split.param_names, np.moveaxis(split.params, -1, 0), strict=True))
    np.testing.assert_array_equal(columns["angle"], columns["rot_z"])


def trained(shards: Path, out: Path, *settings: str) -> list[float]:
    """Losses of two epochs of a tiny network."""
    config = load_recipe("views-tiny", [*TINY, *settings])
    train(config, shards, out, workers=0)
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_simulators_frames_become_windows_with_commands(pendulum: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    seqjepa_data("shard", "manifest", "--source", pendulum, "--allow-repeats", "--out", shards, "--workers", 0)
    split = ShardSet.open(shards).split("train")
    assert split.ordered
    assert split.actions is not None
    assert [term.to_json() for term in split.actions.terms] == [
        {"op": "command", "columns": ["torque"], "over": "mean"}
    ]
    assert [field.unit for field in ShardSet.open(shards).info.spec.params] == ["rad", "rad/s", "N m"]  # pyright: ignore
    assert len(split.sequences.windows(7)) == 5 * (SIMULATED[1] - 6)
    losses = trained(shards, tmp_path / "run", "data.order=window", "data.stride=3", "model.stem=standard")
    assert len(losses) == 2


@pytest.mark.slow
def test_a_velocity_is_known_from_three_frames_and_not_from_one(tmp_path: Path) -> None:
    """The page's commands with fewer episodes and steps: about three minutes on two cores."""
    pytest.importorskip("gymnasium")
    assert example("simulator.py", "--out", tmp_path / "data", "--episodes", 120, "--steps", 50).returncode == 0
    shards, run = tmp_path / "shards", tmp_path / "run"
    seqjepa_data("shard", "manifest", "--source", tmp_path / "data", "--allow-repeats", "--out", shards)
    settings = ("model.stem=standard", "data.order=window", "data.stride=2", "optim.epochs=400")
    train(load_recipe("views-tiny", settings), shards, run)
    found = evaluate_run(run, shards, EvalConfig(m_val=(3,), suite="3diebench"))
    assert found["r2_indiv_angle_avg"] > 0.95
    assert found["r2_indiv_velocity_avg"] < 0.2
    assert found["r2_indiv_velocity_agg"]["3"] > 0.5
    assert found["rollout"]["mrr"]["1"] > 2 * found["rollout"]["mrr_chance"]
    assert set(found["rollout"]["mrr"]) == set("12345678")
