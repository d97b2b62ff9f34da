"""examples/: a simulator and photographs become folders with a spreadsheet, those shards, those a run with numbers."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SIMULATED = (6, 12)  # episodes, frames of each


def example(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


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
    for here, there in zip(rows, rows[1:], strict=False):
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
